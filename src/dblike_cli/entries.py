"""Between the three forms of what is at a path: lstat, a tree's Entry, a Record of the protocol.

A *stamp* is what lstat said when a content was known: as long as it says the same the content is
taken to be the same.  ctime and inode are in it, so a file whose times were set back is looked at.
"""

from __future__ import annotations

import stat
import struct
from typing import Final

from dblike_cli.fs import Stat
from dblike_delta.messages import Record, said_ns
from dblike_delta.plan import Entry, Remote, Synced
from dblike_delta.versions import Dot, Kind

UNTRUSTED: Final = b""
"""The stamp of a content that may have changed since in the same tick: look at it again."""

PERMISSIONS: Final = 0o777
_COARSE: Final = 2_000_000_000
"""The longest tick of a disk, in nanoseconds."""
_STAMP: Final = struct.Struct("<qqqqQQ")
_pack = _STAMP.pack
_KINDS: Final = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
}


def stamp_of(st: Stat) -> bytes:
    """The stamp for what lstat says; a directory's times speak of what is in it, and stay out."""
    mode = st.st_mode
    if mode & 0o170000 == stat.S_IFDIR:
        return _pack(mode, 0, 0, 0, 0, st.st_dev)
    try:
        return _pack(mode, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino, st.st_dev)
    except struct.error:  # to look for such times first would cost every look at every file
        times = said_ns(st.st_mtime_ns), said_ns(st.st_ctime_ns)
        return _pack(mode, st.st_size, *times, st.st_ino, st.st_dev)


def moved_mark(stamp: bytes) -> tuple[int, ...]:
    """What a file keeps when it is only moved: disk, inode, size and time; empty for no stamp.

    The inode alone would not do: a disk gives that of a deleted file to the next new one.
    """
    if len(stamp) != _STAMP.size:
        return ()
    _, size, mtime_ns, _, inode, disk = _STAMP.unpack(stamp)
    return disk, inode, size, mtime_ns


def kind_of(st: Stat) -> Kind | None:
    """What can be synced, or None."""
    return _KINDS.get(stat.S_IFMT(st.st_mode))


def special(st: Stat) -> str:
    """Why what can't be synced is not."""
    mode = st.st_mode
    if stat.S_ISFIFO(mode):
        return "a FIFO is not synced"
    return "a socket is not synced" if stat.S_ISSOCK(mode) else "a device is not synced"


def file_entry(st: Stat, digest: bytes) -> Entry:
    """A file of that content; an empty `digest` says that nobody looked yet."""
    return Entry(Kind.FILE, digest, st.st_size, st.st_mode & PERMISSIONS, said_ns(st.st_mtime_ns))


def directory_entry(st: Stat) -> Entry:
    """A directory: nothing but its permissions."""
    return Entry(Kind.DIRECTORY, mode=st.st_mode & PERMISSIONS)


def symlink_entry(target: bytes) -> Entry:
    """A symlink: nothing but where it points."""
    return Entry(Kind.SYMLINK, target=target)


def is_racy(st: Stat, tick: int) -> bool:
    """Whether a change after `tick` (the disk's own time, before the content was read) could hide.

    ctime says so; the second look at mtime is for disks that keep no ctime, in whole seconds.
    """
    return st.st_ctime_ns >= tick or 0 <= st.st_mtime_ns - tick <= _COARSE


def trust(stamp: bytes, tick: int) -> bytes:
    """The stamp to remember for what lstat said so after `tick`, before the content was read."""
    if len(stamp) != _STAMP.size:
        return UNTRUSTED  # a mark that stands for one, and that nothing looks like
    _, _, mtime_ns, ctime_ns, _, _ = _STAMP.unpack(stamp)
    racy = ctime_ns >= tick or 0 <= mtime_ns - tick <= _COARSE
    return UNTRUSTED if racy else stamp


def trusted_stamp(st: Stat, tick: int) -> bytes:
    """The stamp to remember for a content that was read after `tick`."""
    return UNTRUSTED if is_racy(st, tick) else stamp_of(st)


def entry_of(record: Record) -> Entry | None:
    """What a record says a path is (None: deleted), without what is not synced of its kind."""
    match record.kind:
        case Kind.FILE:
            mode = record.mode & PERMISSIONS
            return Entry(Kind.FILE, record.hash, record.size, mode, record.mtime_ns)
        case Kind.DIRECTORY:
            return Entry(Kind.DIRECTORY, mode=record.mode & PERMISSIONS)
        case Kind.SYMLINK:
            return symlink_entry(record.target)
        case _:
            return None


def remote_of(record: Record) -> Remote:
    """The present state at the site that a record stands for."""
    dot = Dot(record.device, record.counter)
    return Remote(entry_of(record), dot, record.context, _buried(record))


def _buried(record: Record) -> Entry | None:
    """What a record of a delete says was there before."""
    if record.kind != Kind.DELETED:
        return None
    if record.hash:
        return Entry(Kind.FILE, record.hash, record.size)
    return Entry(Kind.DIRECTORY, mode=record.mode) if record.mode else None


def synced_of(remote: Remote) -> Synced:
    """What is agreed on once the site's state is here."""
    return Synced(remote.entry, remote.context, remote.dot)
