"""Versions as people and scripts are shown them."""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal

from dblike_delta.messages import VersionView
from dblike_delta.paths import display
from dblike_delta.versions import Dot, Kind, Version
from dblike_srv.errors import Invalid

_KINDS: Final[dict[int, Literal["file", "directory", "symlink", "deleted"]]] = {
    Kind.FILE: "file",
    Kind.DIRECTORY: "directory",
    Kind.SYMLINK: "symlink",
    Kind.DELETED: "deleted",
}


def version_name(dot: Dot) -> str:
    """What `?version=` takes, and what an ETag says."""
    return f"{dot.device.hex()}.{dot.counter}"


def dot_of(name: str) -> Dot:
    """The dot that a version's name stands for.  Raises Invalid."""
    device, _, counter = name.partition(".")
    try:
        dot = Dot(binascii.unhexlify(device), int(counter))
    except ValueError:
        dot = Dot(b"", 0)
    if len(dot.device) != 16 or not 0 < dot.counter < 2**63:
        raise Invalid("a version is 32 hex digits, a dot and a number", field="version")
    return dot


def view_version(version: Version, *, current: bool = False) -> VersionView:
    """A version for people."""
    text = display(version.path)
    exact = text.encode("utf-8", "surrogateescape") == version.path
    return VersionView(
        path=text,
        version=version_name(version.dot),
        kind=_KINDS[version.kind],
        time=version.time,
        device=version.author,
        size=version.size,
        hash=version.hash.hex(),
        mode=version.mode,
        mtime_ns=version.mtime_ns,
        target=display(version.target),
        path_b64="" if exact else base64.b64encode(version.path).decode(),
        current=current,
    )
