"""Versions as the site shows them, for commands that list them."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from dblike_cli.errors import NotFound, Usage
from dblike_cli.output import escape, path_fields, size, when
from dblike_delta.messages import VersionView

_VERSION = re.compile(r"[0-9a-f]{32}\.[1-9][0-9]{0,18}")
_AGO = re.compile(r"(\d{1,6})\s*(s|m|min|h|d|w)(?:\s+ago)?")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604_800}


def path_of(view: VersionView) -> bytes:
    """The exact path."""
    return base64.b64decode(view.path_b64) if view.path_b64 else view.path.encode()


def view_document(view: VersionView) -> dict[str, Any]:
    """A version as JSON shows it."""
    fields: dict[str, Any] = msgspec.to_builtins(view)
    for name in ("path", "path_b64"):
        fields.pop(name, None)
    return {**path_fields(path_of(view)), **fields}


def view_line(view: VersionView) -> str:
    """A version of a history for a person: version, when, which device, what, size, path."""
    amount = size(view.size) if view.kind == "file" else "-"
    return (
        f"{short(view.version)}  {moment_of(view)}  {escape(view.device):12}  "
        f"{view.kind:9} {amount:>9}  {escape(view.path)}"
    )


def moment_of(view: VersionView) -> str:
    """When a version was made, in the width of a moment.  What follows from what else there is,
    as a directory because a file in it came, has no time of its own."""
    return f"{when(view.time) if view.time else '-':19}"


def short(version: str) -> str:
    """A version's name, as short as it is still likely to be unique; `--version` takes it."""
    device, _, counter = version.partition(".")
    return f"{device[:8]}.{counter}"


def check_version(text: str | None) -> None:
    """Refuse a --version that is empty, as a script's variable may be; raises Usage."""
    if text == "":
        raise Usage("--version: the version is empty; `dblike log PATH` lists them")


def version_of(text: str, versions: list[VersionView]) -> str:
    """The full name of the version that was meant; raises NotFound where there is none, and Usage
    where there are several."""
    if _VERSION.fullmatch(text):
        return text
    device, dot, counter = text.partition(".")
    found = {
        view.version
        for view in versions
        if dot and view.version.startswith(device) and view.version.endswith(f".{counter}")
    }
    if not found:
        raise NotFound(f"no version of this path: {text!r}; `dblike log PATH` lists them")
    if len(found) > 1:
        raise Usage(f"several versions of this path: {text!r}; `dblike log PATH` lists them")
    return found.pop()


def moment(text: str, now_ms: int) -> int:
    """Epoch milliseconds of what a person calls a time: `2026-11-23 14:00`, `2h`, `3 d ago`,
    `@1700000000`.  Raises Usage."""
    text = text.strip()
    ago = _AGO.fullmatch(text)
    if ago:
        return now_ms - int(ago[1]) * _SECONDS[ago[2]] * 1000
    try:
        if text.startswith("@"):
            return int(float(text[1:]) * 1000)
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise Usage(
            f"{text!r} is not a time such as '2026-11-23 14:00', '2h' or '3d ago'"
        ) from None


def url_path(path: bytes) -> str:
    """A path in a URL, byte for byte."""
    return quote(path, safe="/")
