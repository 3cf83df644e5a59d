"""Reading a file so that what was read is one state that it had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blake3 import blake3

from dblike_cli.entries import stamp_of
from dblike_cli.fs import OWN, File, FileSystem, Stat

TEMPORARY: Final = OWN + b"/tmp"
_TICK: Final = TEMPORARY + b"/tick"


class StillWriting(Exception):
    """The file changed while it was read."""


def disk_time(fs: FileSystem) -> int:
    """The present time of the folder's disk, in its own ticks: what a write now would be stamped."""
    try:
        file = fs.create(_TICK)
    except FileExistsError:
        fs.unlink(_TICK)
        file = fs.create(_TICK)
    try:
        return max(file.stat().st_mtime_ns, file.stat().st_ctime_ns)
    finally:
        file.close()
        fs.unlink(_TICK)


def read_whole(fs: FileSystem, path: bytes) -> tuple[bytes, Stat]:
    """All bytes of a small file, and the lstat that belongs to them."""
    file = fs.open_read(path)
    try:
        before = file.stat()
        data = file.read(before.st_size + 1)
        check_same(file, before, len(data))
    finally:
        file.close()
    return data, before


def hash_file(
    fs: FileSystem, path: bytes, piece: int, seen: Callable[[bytes], None] = lambda _: None
) -> tuple[bytes, Stat]:
    """The content hash of a file, and the lstat that belongs to it; `seen` gets every piece."""
    file = fs.open_read(path)
    try:
        before = file.stat()
        hasher, size = blake3(), 0
        while data := file.read(piece):
            hasher.update(data)
            seen(data)
            size += len(data)
        check_same(file, before, size)
    finally:
        file.close()
    return hasher.digest(), before


def check_same(file: File, before: Stat, size: int) -> None:
    """Raise StillWriting unless the file is as it was before it was read, and `size` bytes long."""
    if size != before.st_size or stamp_of(file.stat()) != stamp_of(before):
        raise StillWriting
