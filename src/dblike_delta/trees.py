"""A whole directory at once: its signature, and the changeset that makes another one of it.

The three steps of a file, done for a tree: `sign_tree` where the old one is, `delta_tree` where the
new one is, `patch_tree` where the old one is.  Files, directories and symlinks; permission bits,
and files' modification times.  A file that only moved travels as its hash.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

import msgspec
import xxhash
from blake3 import blake3

from dblike_delta.changeset import Encoder, Part
from dblike_delta.commands import Data
from dblike_delta.decoding import unpack
from dblike_delta.delta import delta
from dblike_delta.errors import DeltaError, FormatError, IntegrityError, LimitError
from dblike_delta.formats import DELTA_MAGIC, END, encode_literal_header
from dblike_delta.limits import DEFAULT_LIMITS, Limits
from dblike_delta.messages import Record, Trailer, said_ns
from dblike_delta.paths import check_path, display, is_reserved, join
from dblike_delta.plan import Entry
from dblike_delta.signature import Signature, signature
from dblike_delta.streams import Progress, Writable, read_pieces, write_all
from dblike_delta.versions import Kind

_MAGIC: Final = b"DBLT\x01"
_CHECK: Final = 8
NOBODY: Final = bytes(16)
"""The device of records that are no versions: a tree's changeset has no history."""


class TreeSignature(msgspec.Struct, frozen=True):
    """What is at each path of a tree, and the packed signature of each file."""

    entries: dict[bytes, Entry]
    signatures: dict[bytes, bytes]

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        body = _MAGIC + msgspec.msgpack.encode(self)
        return body + xxhash.xxh3_64_digest(body)

    @classmethod
    def unpack(cls, data: Data, limits: Limits = DEFAULT_LIMITS) -> TreeSignature:
        """The signature in `data`; FormatError, LimitError, IntegrityError or PathError."""
        view = memoryview(data)
        if len(view) > limits.max_signature:
            raise LimitError(f"a tree's signature of {len(view)} bytes", wanted=len(view))
        if bytes(view[: len(_MAGIC)]) != _MAGIC:
            raise FormatError("not a signature of a tree", offset=0)
        body, check = view[:-_CHECK], view[-_CHECK:]
        if xxhash.xxh3_64_digest(body) != bytes(check):
            raise IntegrityError("the tree's signature does not match its own sum")
        try:
            found = unpack(body[len(_MAGIC) :], cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"a tree's signature: {error}", offset=len(_MAGIC)) from None
        for path in found.entries:
            check_path(path)
        return found

    def of(self, path: bytes) -> Signature | None:
        """The signature of a file; None where there is none."""
        packed = self.signatures.get(path)
        return None if packed is None else Signature.unpack(packed)


class TreeResult(msgspec.Struct, frozen=True):
    """What a changeset of a tree holds, or what was done with it: paths, and bytes of contents."""

    changed: int = 0
    deleted: int = 0
    literal: int = 0
    copied: int = 0


def sign_tree(root: Path, *, progress: Progress | None = None) -> TreeSignature:
    """The signature of a directory.  What is no file, directory or symlink is passed over.

    So is `.dblike`, which is the client's own.  It is kept in memory, signatures and all.
    `progress`: is told the bytes read of all files; what it raises ends the work.
    """
    done = 0
    entries: dict[bytes, Entry] = {}
    signatures: dict[bytes, bytes] = {}
    for path, found in walk(root):
        if not stat.S_ISREG(found.st_mode):
            entries[path] = entry_of(root, path, found)
            continue
        with open_file(root, path) as file:
            signed = signature(file, hash=True, progress=onward(progress, done))
        done += signed.size or 0
        entries[path] = entry_of(root, path, found, signed.hash, signed.size or 0)
        signatures[path] = signed.pack()
    return TreeSignature(entries, signatures)


def delta_tree(
    old: TreeSignature, root: Path, out: Writable, *, progress: Progress | None = None
) -> TreeResult:
    """Write the changeset that makes the directory `root` of the one that was signed.

    IntegrityError for a file that changes while it is read; what was written is then of no use.
    `progress`: is told the bytes read of all files; what it raises ends the work.
    """
    writer = _TreeWriter(old, root, out, progress)
    present = set()
    for path, found in walk(root):
        writer.add(path, found)
        present.add(path)
    return writer.finish(sorted(old.entries.keys() - present))


def onward(progress: Progress | None, done: int) -> Progress | None:
    """The same for a part of the work, before which so many bytes were done."""
    return None if progress is None else lambda part: progress(done + part)


def whole_body(encoder: Encoder, file: IO[bytes], size: int, digest: bytes) -> Iterator[Part]:
    """Parts of a stream: a file of `size` bytes as a delta against nothing, and its trailer.

    IntegrityError at the end, and no trailer, where the file is not what was said.
    """
    hasher = blake3()
    yield from encoder.data(DELTA_MAGIC + (encode_literal_header(size) if size else b""))
    for piece in read_pieces(file):
        hasher.update(piece)
        yield from encoder.data(bytes(piece))
    if hasher.digest() != digest:
        raise IntegrityError("the file changed while it was read")
    yield from encoder.data(END)
    yield from encoder.trailer(Trailer(digest, size))


class _TreeWriter:
    """Writes records and bodies, and counts."""

    def __init__(
        self, old: TreeSignature, root: Path, out: Writable, progress: Progress | None
    ) -> None:
        self._old, self._root, self._out, self._progress = old, root, out, progress
        self._encoder = Encoder()
        self._known = {entry.hash for entry in old.entries.values() if entry.hash}
        self._changed = self._literal = self._copied = self._done = 0

    def add(self, path: bytes, found: os.stat_result) -> None:
        """What is at a path now."""
        was = self._old.entries.get(path)
        if not stat.S_ISREG(found.st_mode):
            entry = entry_of(self._root, path, found)
            if entry != was:
                self._put(record_of(path, entry))
            return
        base = self._old.of(path)
        if base is None:
            self._add_new(path, found)
        else:
            self._add_known(path, found, base)

    def _add_known(self, path: bytes, found: os.stat_result, base: Signature) -> None:
        progress = onward(self._progress, self._done)
        with (
            open_file(self._root, path) as file,
            delta(base, file, progress=progress) as change,
        ):
            self._done += change.size
            entry = entry_of(self._root, path, found, change.hash, change.size)
            if entry.hash == base.hash:
                if entry != self._old.entries.get(path):
                    self._put(record_of(path, entry))
                return
            self._put(record_of(path, entry, base=base.hash, body=True))
            for piece in change.pieces():
                self._send(self._encoder.data(bytes(piece)))
        self._send(self._encoder.trailer(Trailer(entry.hash, entry.size)))
        self._literal += change.literal
        self._copied += change.copied

    def _add_new(self, path: bytes, found: os.stat_result) -> None:
        with open_file(self._root, path) as file:
            digest, size = hashed(file, onward(self._progress, self._done))
            self._done += size
            entry = entry_of(self._root, path, found, digest, size)
            body = digest not in self._known
            self._put(record_of(path, entry, body=body))
            if body:
                file.seek(0)
                self._send(whole_body(self._encoder, file, size, digest))
                self._literal += size

    def finish(self, gone: list[bytes]) -> TreeResult:
        for path in gone:
            self._put(Record(path, NOBODY, 1, 0, Kind.DELETED))
        self._send(self._encoder.finish())
        changed = self._changed - len(gone)
        return TreeResult(changed, len(gone), self._literal, self._copied)

    def _put(self, record: Record) -> None:
        self._changed += 1
        self._send(self._encoder.record(record))

    def _send(self, parts: Iterator[Part] | list[Part]) -> None:
        for part in parts:
            write_all(self._out, part)


def record_of(path: bytes, entry: Entry, *, base: bytes = b"", body: bool = False) -> Record:
    """What is at a path, as a record that is no version."""
    return Record(
        path,
        NOBODY,
        1,
        0,
        int(entry.kind),
        entry.hash,
        entry.size,
        entry.mode,
        entry.mtime_ns,
        entry.target,
        base=base,
        body=body,
    )


def walk(root: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    """All paths below a directory with their lstat, parents first; symlinks are not followed."""
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(os.path.join(os.fsencode(root), directory)) as found:
            names = sorted((each.name, each.stat(follow_symlinks=False)) for each in found)
        for name, status in names:
            path, mode = join(directory, name), status.st_mode
            if is_reserved(path) or stat.S_IFMT(mode) not in _KINDS:
                continue
            yield path, status
            if stat.S_ISDIR(mode):
                waiting.append(path)


_KINDS: Final = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
}


def entry_of(
    root: Path, path: bytes, found: os.stat_result, digest: bytes = b"", size: int = 0
) -> Entry:
    """What is at a path, by its lstat; of a file also what was read of it."""
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    mode = found.st_mode & 0o777
    if kind is Kind.FILE:
        return Entry(kind, digest, size, mode, said_ns(found.st_mtime_ns))
    if kind is Kind.DIRECTORY:
        return Entry(kind, mode=mode)
    return Entry(kind, target=os.readlink(os.path.join(os.fsencode(root), path)))


@contextmanager
def open_file(root: Path, path: bytes) -> Iterator[IO[bytes]]:
    """A regular file of the tree, for reading; a symlink is not followed."""
    full = os.path.join(os.fsencode(root), path)
    handle = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise DeltaError(f"{display(path)} is no file any more")
        yield cast("IO[bytes]", file)


def hashed(file: IO[bytes], progress: Progress | None = None) -> tuple[bytes, int]:
    """BLAKE3-256 and size of what a file has from where it stands."""
    hasher, size = blake3(), 0
    for piece in read_pieces(file):
        hasher.update(piece)
        size += len(piece)
        if progress is not None:
            progress(size)
    return hasher.digest(), size
