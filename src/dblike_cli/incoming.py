"""One file on its way down: pieces of its delta in, a verified temporary file out."""

from __future__ import annotations

import contextlib
from typing import Final

import msgspec
from blake3 import blake3

from dblike_cli.context import Context
from dblike_cli.entries import PERMISSIONS
from dblike_cli.fs import OWN, File, Rename, Stat
from dblike_cli.hashing import read_whole
from dblike_cli.noting import Noting
from dblike_cli.place import discard, temporary
from dblike_cli.signatures import load_signature, new_builder, save_signature
from dblike_delta.beside import Beside
from dblike_delta.commands import Copy, Data, Literal
from dblike_delta.errors import IntegrityError
from dblike_delta.formats import DeltaDecoder, whole_literal
from dblike_delta.plan import Entry

STAGING: Final = OWN + b"/staging"


class Made(msgspec.Struct, frozen=True):
    """A finished temporary file: where it is, and what it is as a file."""

    place: bytes
    stat: Stat


def finish_file(file: File, entry: Entry) -> Stat:
    """Make a file what it is but for its bytes; what fstat says then."""
    file.utime(entry.mtime_ns)
    st = file.stat()
    if st.st_mode & PERMISSIONS == entry.mode:
        return st
    file.chmod(entry.mode)
    return file.stat()


class SmallFile:
    """A file that fits in memory; `base` is the path that copies are taken from, or empty."""

    def __init__(self, context: Context, entry: Entry, base: bytes = b"") -> None:
        self._context = context
        self._entry = entry
        self._base_path = base
        self._base: bytes | None = None
        self._decoder: DeltaDecoder | None = None
        self._parts: list[Data] = []

    def take(self, data: memoryview) -> None:
        """A piece of the body; raises DeltaError, OSError or StillWriting."""
        if self._decoder is None:
            whole = whole_literal(data)
            if whole is not None and not self._parts:
                self._parts.append(whole)
                return
            base_size = len(self._read_base()) if self._base_path else 0
            self._decoder = DeltaDecoder(base_size=base_size, max_size=self._entry.size)
        for event in self._decoder.feed(data):
            if isinstance(event, Literal):
                self._parts.append(event.data)
            elif isinstance(event, Copy):
                self._parts.append(self._read_base()[event.offset : event.offset + event.length])

    def copy_base(self) -> None:
        """The file is the base itself."""
        self._parts = [self._read_base()]

    def content(self) -> Data:
        """The body is whole: what it makes.  Raises DeltaError."""
        if self._decoder is not None:
            self._decoder.finish()
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def drop(self) -> None:
        """It will not be finished now."""
        self._parts = []

    def spoil(self) -> None:
        """What came is no good."""
        self.drop()

    def _read_base(self) -> bytes:
        if self._base is None:
            limit = 2 * self._context.config.whole_below
            self._base = read_whole(self._context.fs, self._base_path, limit)[0]
        return self._base


def check_content(entry: Entry, data: Data) -> None:
    """Raise IntegrityError where a small file's bytes are not its content."""
    if blake3(data).digest() != entry.hash:
        raise IntegrityError("the content that came is not what its hash says")


def write_small(context: Context, entry: Entry, data: Data) -> Made:
    """A temporary file of these bytes, which were checked."""
    place = temporary(context)
    file = context.fs.create(place, entry.mode | 0o200)
    try:
        if data:
            file.write(data)
        st = finish_file(file, entry)
    except OSError:
        discard(context.fs, place)
        raise
    finally:
        file.close()
    sign_small(context, entry, data)
    return Made(place, st)


def sign_small(context: Context, entry: Entry, data: Data) -> None:
    """Keep the signature of a small file that is worth one."""
    builder = new_builder(context, len(data))
    if builder is not None:
        builder.update(data)
        save_signature(context, entry.hash, builder)


class LargeFile:
    """A file that is written as it comes, from its base and the literals.

    Its bytes are written, hashed and signed while the next ones come.  It lies in `.dblike/staging`
    under its hash until it is whole, so an interrupted download goes on where it stopped: `start`
    is how much was there when this began.
    """

    def __init__(
        self, context: Context, entry: Entry, base: bytes, start: int, base_hash: bytes = b""
    ) -> None:
        """`base` is the path of the file that copies are taken from, or empty."""
        self._context, self._entry = context, entry
        known = load_signature(context.fs, base_hash) if base_hash else None
        self._noting = Noting(context, entry.size, known)
        self._writing = Beside(context.executor)
        self._base: File | None = None
        self._whole = False
        self._file = open_part(context, entry)
        try:
            self._size = self._read_start(start)
            if base:
                self._base = context.fs.open_read(base)
        except BaseException:
            self._file.close()
            raise
        base_size = self._base.stat().st_size if self._base is not None else 0
        self._decoder = DeltaDecoder(base_size=base_size, max_size=entry.size - start)

    def take(self, data: memoryview) -> None:
        """A piece of the body; raises DeltaError or OSError."""
        for event in self._decoder.feed(data):
            if isinstance(event, Literal):
                self._put(event.data)
            elif isinstance(event, Copy):
                self._copy(event)

    def copy_base(self) -> None:
        """The file is the base itself."""
        assert self._base is not None
        self._copy(Copy(0, self._base.stat().st_size))
        self._whole = True

    def finish(self) -> Made:
        """The body is whole: the temporary file.  Raises IntegrityError or OSError."""
        entry = self._entry
        if not self._whole:
            self._decoder.finish()
        self._writing.settle()
        if self._size != entry.size or self._noting.digest() != entry.hash:
            raise IntegrityError("the content that came is not what its hash says")
        st = finish_file(self._file, entry)
        self._close()
        self._noting.keep(entry.hash)
        # Another path may wait for the same content, with a time of its own.
        place = temporary(self._context)
        self._context.fs.rename(part_of(entry.hash), place, Rename.KEEP)
        return Made(place, st)

    def drop(self) -> None:
        """It will not be finished now; what there is of it stays."""
        self._close()

    def spoil(self) -> None:
        """What is there is not worth keeping."""
        self._close()
        discard(self._context.fs, part_of(self._entry.hash))

    def _read_start(self, start: int) -> int:
        """Take in what is there already."""
        at = 0
        while at < start:
            data = self._file.read(min(start - at, self._context.config.read_size))
            if not data:
                raise IntegrityError("the part that was there became shorter")
            self._noting.update(data)
            at += len(data)
        self._file.truncate(start)
        return start

    def _put(self, data: Data, at: int | None = None) -> None:
        """The next bytes; those of a copy are `at` this place of the base."""
        self._writing.do(lambda: self._file.write(data))
        self._noting.update(data, at)
        self._size += len(data)

    def _copy(self, copy: Copy) -> None:
        assert self._base is not None
        at, end = copy.offset, copy.offset + copy.length
        while at < end:
            data = self._base.pread(min(end - at, self._context.config.read_size), at)
            if not data:
                raise IntegrityError("the base became shorter while it was read")
            self._put(data, at)
            at += len(data)

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._writing.settle()
        self._file.close()
        if self._base is not None:
            self._base.close()


def part_of(digest: bytes) -> bytes:
    """Where an unfinished download of a content lies."""
    return b"%s/%s.part" % (STAGING, digest.hex().encode())


def part_size(context: Context, entry: Entry) -> int:
    """How much of a file's content is there from an interrupted download."""
    if entry.size < context.config.whole_below:
        return 0
    try:
        return min(context.fs.lstat(part_of(entry.hash)).st_size, entry.size)
    except OSError:
        return 0


def open_part(context: Context, entry: Entry) -> File:
    """The unfinished download, or a new one."""
    fs, place = context.fs, part_of(entry.hash)
    try:
        return fs.create(place)
    except FileExistsError:
        with contextlib.suppress(PermissionError):
            return fs.open_update(place)
    # It was whole, and had the mode of its version by then: one that nobody may write to, say.
    fs.chmod(place, 0o600)
    return fs.open_update(place)
