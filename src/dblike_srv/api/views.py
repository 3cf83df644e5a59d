"""Versions as people and scripts are shown them."""

from __future__ import annotations

import base64
from typing import Literal

from dblike_delta.messages import Record, VersionView
from dblike_delta.paths import display
from dblike_delta.versions import Kind

KINDS: dict[int, Literal["file", "directory", "symlink", "deleted"]] = {
    Kind.FILE: "file",
    Kind.DIRECTORY: "directory",
    Kind.SYMLINK: "symlink",
    Kind.DELETED: "deleted",
}


def view_record(record: Record) -> VersionView:
    """A path's present state."""
    text = display(record.path)
    exact = text.encode("utf-8", "surrogateescape") == record.path
    return VersionView(
        path=text,
        version=f"{record.device.hex()}.{record.counter}",
        kind=KINDS[record.kind],
        time=record.time,
        device=record.author,
        size=record.size,
        hash=record.hash.hex(),
        mode=record.mode,
        mtime_ns=record.mtime_ns,
        target=display(record.target),
        path_b64="" if exact else base64.b64encode(record.path).decode(),
        current=True,
    )
