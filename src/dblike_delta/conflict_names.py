"""The names of conflict copies: `report (conflicted copy from laptop 2026-11-23 03.12.07).txt`.

A name follows from what it is the copy of, so that every site gives the same one.  Whatever is a
name to the file system is handled: no UTF-8, 255 bytes, dots everywhere, a copy of a copy.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from dblike_delta import paths
from dblike_delta.errors import PathError

_MAX_EXTENSION: Final = 32
"""Bytes, dot included.  What is longer is part of a sentence, no extension."""
_MAX_AUTHOR: Final = 64
"""Bytes; a name of 64 characters may have 256, and would leave nothing of the file's own."""
_UNKNOWN: Final = "unknown"
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LAST_MS: Final = 253_402_300_799_000
"""The end of the year 9999, where dates end."""

# Parentheses and slashes are kept out of the author, so that a name can be read in one way only.
_UNFIT_FOR_AUTHOR = re.compile(r"[()/\s]+")
_COPY = re.compile(
    rb"(?P<stem>.+) \(conflicted copy from [^()/]+ "
    rb"\d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d(?: [0-9a-f]{8})?\)(?P<extension>\.[^.]*)?",
    re.DOTALL,
)


def conflict_path(path: bytes, *, author: str, time: int, tag: str) -> bytes:
    """The path beside `path` for the copy of what `author` wrote at `time` (epoch ms).

    `tag` (8 hex digits) tells copies apart where the name alone may not: in the copy of a copy, and
    where the name had to be cut.  Where the directory's own path leaves no room for such a name,
    the copy goes further up.
    """
    directory, name = paths.parent(path), paths.name(path)
    parsed = _COPY.fullmatch(name)
    stem, extension = _parts_of_copy(parsed) if parsed else _split(name)
    said = f" (conflicted copy from {_author(author)} {_date(time)}".encode()
    plain = stem + said + b")" + extension
    room = _room(directory)
    if not parsed and len(plain) <= room:
        return paths.join(directory, plain)
    end = said + b" " + tag.encode() + b")" + extension
    while len(end) >= room:
        directory = paths.parent(directory)
        room = _room(directory)
    return paths.join(directory, paths.cut_name(stem, room - len(end)) + end)


def is_conflict_copy(path: bytes) -> bool:
    """Whether the path is named as a conflict copy is."""
    return original_path(path) is not None


def original_path(path: bytes) -> bytes | None:
    """The path that this is a conflict copy of, by its name; None for a name that is none.

    Where the name had to be cut, so is this one.
    """
    parsed = _COPY.fullmatch(paths.name(path))
    if not parsed:
        return None
    original = paths.join(paths.parent(path), parsed["stem"] + (parsed["extension"] or b""))
    try:
        return paths.check_path(original)
    except PathError:
        return None


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Name and last extension; a name that begins with its only dot has none."""
    at = max(name.rfind(b"."), 0)
    if not name[:at].strip(b".") or len(name) - at > _MAX_EXTENSION:
        return name, b""
    return name[:at], name[at:]


def _parts_of_copy(parsed: re.Match[bytes]) -> tuple[bytes, bytes]:
    """The same of a copy's name: without the limit no directory may have room for the suffix."""
    stem, extension = parsed["stem"], parsed["extension"] or b""
    return (stem, extension) if len(extension) <= _MAX_EXTENSION else (stem + extension, b"")


def _author(author: str) -> str:
    printable = "".join(filter(str.isprintable, _UNFIT_FOR_AUTHOR.sub(" ", author)))
    cut = paths.cut_name(printable.encode(), _MAX_AUTHOR).decode()
    return cut.strip() or _UNKNOWN


def _date(time: int) -> str:
    moment = _EPOCH + dt.timedelta(milliseconds=min(max(time, 0), _LAST_MS))
    return f"{moment:%Y-%m-%d %H.%M.%S}"


def _room(directory: bytes) -> int:
    """Bytes that a name in this directory may have."""
    above = len(directory) + 1 if directory else 0
    return min(paths.MAX_PART, paths.MAX_PATH - above)
