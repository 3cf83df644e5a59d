"""Paths of a folder: relative POSIX paths, exactly the bytes that the user's system gave.

A path is checked once, where it comes in; whatever is handed on after that is one.  The root of a
folder is b"", which is no path of its own.
"""

from __future__ import annotations

import re
from typing import Final

from dblike_delta.errors import PathError

MAX_PATH: Final = 4096
"""Bytes of a path: PATH_MAX of Linux."""
MAX_PART: Final = 255
"""Bytes of one part: NAME_MAX of every common file system."""
RESERVED: Final = b".dblike"
"""The first part that is the client's own."""
FOLDER_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}(?!\n)$"
"""What a folder may be called."""

# One pass in C finds whatever is wrong with the shape: an empty part, `.`, `..` or a NUL.
_BAD_SHAPE = re.compile(rb"(?:\A|/)\.{0,2}(?:/|\Z)|\0")
# Unicode's Default_Ignorable_Code_Point.
_IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_LONG_PART = re.compile(rb"[^/]{%d}" % (MAX_PART + 1))


def check_path(raw: bytes) -> bytes:
    """`raw` itself where it is a path; else PathError, which says what is wrong with it."""
    if len(raw) > MAX_PATH:
        raise PathError(f"the path has {len(raw)} bytes; the limit is {MAX_PATH}", path=raw)
    if _BAD_SHAPE.search(raw):
        raise PathError(_shape_fault(raw), path=raw)
    if len(raw) > MAX_PART and _LONG_PART.search(raw):
        raise PathError(f"a part of the path is longer than {MAX_PART} bytes", path=raw)
    if is_reserved(raw):
        raise PathError(f"{display(RESERVED)} is the client's own directory", path=raw)
    return raw


def is_reserved(path: bytes) -> bool:
    """Whether the path is the client's own directory or lies in it.

    So is any name that some disk takes for that one: those that fold names fold U+212A to k, and
    pass over what can't be seen.
    """
    first = path[:1]
    if first != RESERVED[:1] and first < b"\x80":
        return False
    part = path.partition(b"/")[0]
    return part.lower() == RESERVED or (not part.isascii() and _folded(part) == RESERVED)


def _folded(part: bytes) -> bytes:
    """As a disk may compare it."""
    text = part.decode("utf-8", "replace")
    return _IGNORED.sub("", text).casefold().encode("utf-8", "replace")


def parent(path: bytes) -> bytes:
    """The directory that holds `path`; b"" at the top."""
    return path.rpartition(b"/")[0]


def name(path: bytes) -> bytes:
    """The last part."""
    return path.rpartition(b"/")[2]


def join(directory: bytes, part: bytes) -> bytes:
    """`part` in `directory`, which may be the root."""
    return directory + b"/" + part if directory else part


def ancestors(path: bytes) -> tuple[bytes, ...]:
    """The directories above `path`, the topmost first, without the root.

    >>> ancestors(b"a/b/c")
    (b'a', b'a/b')
    """
    cuts = []
    at = path.find(b"/")
    while at >= 0:
        cuts.append(path[:at])
        at = path.find(b"/", at + 1)
    return tuple(cuts)


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether `path` lies in `directory` or deeper; everything lies below the root."""
    return not directory or path.startswith(directory + b"/")


def cut_name(name: bytes, size: int) -> bytes:
    """At most `size` bytes, and not half a UTF-8 character, if it is UTF-8 there."""
    if len(name) <= size:
        return name
    at = size
    while at > size - 3 and at > 1 and name[at] & 0xC0 == 0x80:
        at -= 1
    return name[:at] if name[at] & 0xC0 != 0x80 else name[:size]


def display(path: bytes) -> str:
    r"""The path for people: what is no UTF-8 or can't be seen is escaped.

    >>> display(b"caf\xc3\xa9/a\xff\n")
    'café/a\\xff\\n'
    """
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _shape_fault(raw: bytes) -> str:
    if not raw:
        return "the path is empty"
    if b"\0" in raw:
        return "the path holds a NUL byte"
    if raw.startswith(b"/"):
        return "the path begins with a slash"
    if raw.endswith(b"/"):
        return "the path ends with a slash"
    if b"//" in raw:
        return "the path has an empty part"
    return "the path has a part '.' or '..'"
