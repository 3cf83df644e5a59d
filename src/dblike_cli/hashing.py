"""Reading a file so that what was read is one state that it had."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from blake3 import blake3

from dblike_cli.context import Context
from dblike_cli.durable import Flush
from dblike_cli.entries import kind_of, stamp_of
from dblike_cli.fs import OWN, File, FileSystem, Stat
from dblike_delta.plan import Entry
from dblike_delta.versions import Kind

TEMPORARY: Final = OWN + b"/tmp"


class StillWriting(Exception):
    """The file changed while it was read."""


def disk_time(context: Context) -> int:
    """The present time of the folder's disk, in its own ticks: the stamp of a write now."""
    place = b"%s/tick-%s" % (TEMPORARY, context.random.bytes(8).hex().encode())
    file = context.fs.create(place)
    try:
        st = file.stat()
        return max(st.st_mtime_ns, st.st_ctime_ns)
    finally:
        file.close()
        # Another process that starts now may have cleared it away.
        with contextlib.suppress(FileNotFoundError):
            context.fs.unlink(place)


def read_whole(fs: FileSystem, path: bytes, limit: int) -> tuple[bytes, Stat, bytes]:
    """All bytes of a small file, the lstat that belongs to them, and the stamp of that.

    Raises StillWriting for a file that grew over `limit` since it was found to be small.
    """
    data, before, after = fs.read_small(path, limit)
    stamp = stamp_of(after)
    if len(data) != before.st_size or stamp != stamp_of(before):
        raise StillWriting
    return data, before, stamp


def hash_file(
    fs: FileSystem,
    path: bytes,
    piece: int,
    seen: Callable[[bytes], None] = lambda _: None,
    flush: Callable[[File], None] = lambda _: None,
) -> tuple[bytes, Stat]:
    """The content hash of a file, and the lstat that belongs to it; `seen` gets every piece.

    `flush` makes the file durable, where what lstat says is to stand for the content.
    """
    file = fs.open_read(path)
    try:
        before = file.stat()
        flush(file)
        hasher, size = blake3(), 0
        for data in read_pieces(file, before.st_size, piece):
            hasher.update(data)
            seen(data)
            size += len(data)
        check_same(file, before, size)
    finally:
        file.close()
    return hasher.digest(), before


def seen_as(context: Context, path: bytes, entry: Entry | None) -> Stat | None:
    """The lstat of what is at a path, if that is the entry, by its bytes."""
    st = context.fs.lstat(path)
    if entry is None or kind_of(st) is not entry.kind:
        return None
    match entry.kind:
        case Kind.FILE:
            try:
                size, flush = context.config.read_size, Flush(context)
                digest, st = hash_file(context.fs, path, size, flush=flush)
            except StillWriting:
                return None
            return st if digest == entry.hash else None
        case Kind.SYMLINK:
            return st if context.fs.readlink(path) == entry.target else None
        case _:
            return st


def read_pieces(file: File, size: int, piece: int) -> Iterator[bytes]:
    """The file to its end; StillWriting beyond `size`, or one that grows would never end."""
    while data := file.read(piece):
        size -= len(data)
        if size < 0:
            raise StillWriting
        yield data


def check_same(file: File, before: Stat, size: int) -> None:
    """Raise StillWriting unless the file is as it was before it was read, and `size` bytes long."""
    if size != before.st_size or stamp_of(file.stat()) != stamp_of(before):
        raise StillWriting
