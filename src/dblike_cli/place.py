"""Atomic steps on the user's files, each of which looks again at the last moment.

What is replaced or deleted is first brought out of the way, into `.dblike/tmp`, and looked at:
if it is not what was expected it goes back, and nothing has happened.  Names in `.dblike/tmp` say
what a crash left behind:

    new-…            a file that was being made
    swap-NEW-OLD-…   one of the two sides of an exchange, by the beginnings of their hashes
    old-OLD-…        a file that was being deleted
    move-OLD-…       a file that was on its way to another path
"""

from __future__ import annotations

import errno
from typing import Final

import msgspec
from blake3 import blake3

from dblike_cli.context import Context
from dblike_cli.entries import PERMISSIONS, kind_of, stamp_of
from dblike_cli.fs import FileSystem, Rename, Stat
from dblike_cli.hashing import TEMPORARY, StillWriting, hash_file
from dblike_cli.report import Code
from dblike_delta.paths import MAX_PART, cut_name, display, join, name, parent
from dblike_delta.plan import Entry
from dblike_delta.versions import Kind

_CTIME: Final = slice(24, 32)
"""Where a stamp has the ctime, which a rename changes."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Trouble(Exception):
    """A step that was not taken; the path is as it was."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class DiskFull(Exception):
    """There is no room: further steps that need some are not worth trying."""


class Expected(msgspec.Struct, frozen=True):
    """What must be at a path for a step to be taken; `entry` None is nothing.

    `doubtful` says that lstat alone can't tell, so that the content has to be read once more.
    """

    entry: Entry | None
    stamp: bytes = b""
    doubtful: bool = False


class Displaced(msgspec.Struct, frozen=True):
    """What was brought out of the way: where it was, where it is, and as what."""

    path: bytes
    place: bytes
    stamp: bytes


def trouble_of(error: OSError) -> Trouble:
    """An error of the disk as trouble of one path; raises DiskFull."""
    if error.errno in _FULL:
        raise DiskFull from error
    return Trouble(Code.DISK, f"the disk says: {error.strerror or error}")


def temporary(context: Context, kind: bytes = b"new") -> bytes:
    """A new name in `.dblike/tmp`, which nobody can guess."""
    return b"%s/%s-%s" % (TEMPORARY, kind, context.random.bytes(8).hex().encode())


def temporary_names(context: Context, count: int) -> list[bytes]:
    """The names alone of so many that are to be made; one call for all of their randomness."""
    drawn = context.random.bytes(8 * count).hex().encode()
    return [b"new-" + drawn[at : at + 16] for at in range(0, 16 * count, 16)]


def put_file(
    context: Context, source: bytes, path: bytes, entry: Entry, expected: Expected
) -> Displaced | None:
    """Give a temporary file or symlink its place; what was there before, if anything."""
    fs = context.fs
    if expected.entry is None:
        _move_in(fs, source, path)
        return None
    if expected.entry.kind is Kind.DIRECTORY:
        take_directory(context, path)
        _move_in(fs, source, path)
        return None
    _look(fs, path, expected)
    kind = b"swap-%s-%s" % (_mark(entry), _mark(expected.entry))
    place = temporary(context, kind)
    fs.rename(source, place, Rename.KEEP)
    try:
        exchanged = _exchange(fs, place, path, expected)
    except (Trouble, OSError):
        discard(fs, place)
        raise
    if not exchanged:
        return None
    if _what_came_out(fs, place, expected) is None:
        _return(context, place, path, entry)
        raise Trouble(Code.CHANGED, "it was edited at this very moment")
    return Displaced(path, place, _as_expected(expected))


def _return(context: Context, place: bytes, path: bytes, entry: Entry) -> None:
    """What came out is an edit: bring it back to its path, and `entry`, which was there, away."""
    fs = context.fs
    try:
        fs.rename(place, path, Rename.EXCHANGE)
    except FileNotFoundError:  # that is gone again
        put_back(context, Displaced(path, place, b""))
        return
    if content_mark(fs, place) == _mark(entry):
        discard(fs, place)
    else:  # it was edited once more, while the new one had its name
        put_back(context, Displaced(path, place, b""))


def _exchange(fs: FileSystem, place: bytes, path: bytes, expected: Expected) -> bool:
    """Put a file in the place of another; whether that one has its name now."""
    try:
        fs.rename(place, path, Rename.EXCHANGE)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        # A disk that can't exchange: the look before is all that there is.
        assert expected.entry is not None
        if expected.doubtful and content_mark(fs, path) != _mark(expected.entry):
            raise Trouble(Code.CHANGED, "it was edited meanwhile") from None
        fs.rename(place, path, Rename.REPLACE)
        return False
    return True


def take_file(context: Context, path: bytes, expected: Expected) -> Displaced | None:
    """Bring a file or symlink that is to be deleted out of the way; None where it is gone."""
    assert expected.entry is not None
    place = temporary(context, b"old-" + _mark(expected.entry))
    try:
        _bring_out(context, path, place, expected)
    except FileNotFoundError:
        return None
    return Displaced(path, place, _as_expected(expected))


def move_file(context: Context, source: bytes, path: bytes, expected: Expected) -> Stat:
    """Give a file of the folder another path, where nothing is; what lstat said of it on the way.

    It is looked at aside, where nobody saves: on some disks a rename to a free name is two steps.
    """
    assert expected.entry is not None
    place = temporary(context, b"move-" + _mark(expected.entry))
    st = _bring_out(context, source, place, expected)
    try:
        _move_in(context.fs, place, path)
    except (Trouble, OSError):
        put_back(context, Displaced(source, place, b""))
        raise
    return st


def _bring_out(context: Context, path: bytes, place: bytes, expected: Expected) -> Stat:
    """Move what is at a path aside; it is back where it is not what was expected."""
    fs = context.fs
    _look(fs, path, expected)
    fs.rename(path, place, Rename.REPLACE)  # nobody knows the name, so nothing is there
    st = _what_came_out(fs, place, expected)
    if st is None:
        put_back(context, Displaced(path, place, b""))
        raise Trouble(Code.CHANGED, "it was edited at this very moment")
    return st


def take_directory(context: Context, path: bytes) -> None:
    """Remove a directory, which must be empty."""
    try:
        context.fs.rmdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise Trouble(Code.CHANGED, "it is no directory any more") from None
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise Trouble(Code.KEPT, "it holds files that are not synced, and stays") from None


def is_closed(entry: Entry) -> bool:
    """Whether it is a directory in which its owner may not do everything."""
    return entry.kind is Kind.DIRECTORY and entry.mode & 0o700 != 0o700


def put_directory(
    context: Context, path: bytes, entry: Entry, expected: Expected
) -> Displaced | None:
    """Make a directory, in which the client can write for the time being."""
    fs, old, displaced = context.fs, expected.entry, None
    if old is not None and old.kind is not Kind.DIRECTORY:
        displaced = take_file(context, path, expected)
    if old is None or old.kind is not Kind.DIRECTORY:
        try:
            fs.mkdir(path, entry.mode | 0o700)
        except FileExistsError:
            st = fs.lstat(path)
            if kind_of(st) is not Kind.DIRECTORY or not has_name(fs, path):
                raise _occupied(fs, path) from None
        except OSError:
            if displaced is not None:
                put_back(context, displaced)
            raise
    if fs.lstat(path).st_mode & PERMISSIONS != entry.mode | 0o700:
        fs.chmod(path, entry.mode | 0o700)
    return displaced


def put_back(context: Context, displaced: Displaced) -> bytes:
    """Return a file to its path, or beside it where that is taken, or to the next directory above
    where its own is gone; where it is now."""
    path, number = displaced.path, 0
    while True:
        target = numbered(path, b" (recovered %d)" % number) if number else path
        try:
            context.fs.rename(displaced.place, target, Rename.KEEP)
            return target
        except FileExistsError:
            number += 1
        except OSError:
            above = parent(path)
            if not above:
                raise
            path, number = join(parent(above), name(path)), 0


def numbered(path: bytes, end: bytes, extension: bytes = b"") -> bytes:
    """A path beside another one: with this end before the extension, and cut to what a name may
    have."""
    stem = name(path).removesuffix(extension)
    room = MAX_PART - len(end + extension)
    return join(parent(path), cut_name(stem, room) + end + extension)


def drop_displaced(context: Context, displaced: Displaced) -> bytes | None:
    """Delete what was replaced; where it is now, if somebody still wrote to it."""
    fs = context.fs
    try:
        if _without_ctime(fs.lstat(displaced.place)) == displaced.stamp:
            fs.unlink(displaced.place)
            return None
    except FileNotFoundError:
        return None
    return put_back(context, displaced)


def discard(fs: FileSystem, path: bytes) -> None:
    """Delete a temporary file of ours, if it is there."""
    try:
        fs.unlink(path)
    except FileNotFoundError:
        return


def _move_in(fs: FileSystem, source: bytes, path: bytes) -> None:
    try:
        fs.rename(source, path, Rename.KEEP)
    except FileExistsError:
        raise _occupied(fs, path) from None


def _look(fs: FileSystem, path: bytes, expected: Expected) -> None:
    """The last look before a step: it must be what was expected, to the last bit of lstat."""
    st = fs.lstat(path)
    same_kind = expected.entry is None or kind_of(st) is expected.entry.kind
    if not same_kind or stamp_of(st) != expected.stamp:
        raise Trouble(Code.CHANGED, "it was edited meanwhile")


def _what_came_out(fs: FileSystem, place: bytes, expected: Expected) -> Stat | None:
    """What lstat says of what came out; None where it is not what was expected to be there."""
    assert expected.entry is not None
    st = fs.lstat(place)
    if _without_ctime(st) != _as_expected(expected):
        return None
    if expected.doubtful and content_mark(fs, place) != _mark(expected.entry):
        return None
    return st


def _without_ctime(st: Stat) -> bytes:
    return _cut(stamp_of(st))


def _as_expected(expected: Expected) -> bytes:
    return _cut(expected.stamp)


def _cut(stamp: bytes) -> bytes:
    return stamp[: _CTIME.start] + stamp[_CTIME.stop :]


def _mark(entry: Entry) -> bytes:
    """The beginning of the content's hash, in hex."""
    digest = entry.hash if entry.kind is Kind.FILE else blake3(entry.target).digest()
    return digest[:16].hex().encode()


def content_mark(fs: FileSystem, place: bytes) -> bytes:
    """The same for what lies at a place; empty where it can't be read in one state."""
    try:
        if kind_of(fs.lstat(place)) is Kind.SYMLINK:
            return _mark(Entry(Kind.SYMLINK, target=fs.readlink(place)))
        digest, _ = hash_file(fs, place, 1 << 20)
    except (OSError, StillWriting):
        return b""
    return digest[:16].hex().encode()


def has_name(fs: FileSystem, path: bytes) -> bool:
    """Whether the directory lists this very name, not one that the disk takes for it."""
    wanted = name(path)
    return any(found == wanted for found, _ in fs.scandir(parent(path)))


def _occupied(fs: FileSystem, path: bytes) -> Trouble:
    """Why nothing can be made at a path: something is there, or the disk folds names."""
    if has_name(fs, path):
        return Trouble(Code.OCCUPIED, "something that is not synced lies in its way")
    there = fs.lstat(path)
    twin = [
        found
        for found, st in fs.scandir(parent(path))
        if st is not None and (st.st_ino, st.st_dev) == (there.st_ino, there.st_dev)
    ]
    other = display(join(parent(path), twin[0])) if twin else "another name"
    return Trouble(Code.HELD, f"this disk takes its name for {other}")
