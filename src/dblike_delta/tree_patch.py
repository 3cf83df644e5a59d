"""Carries out a tree's changeset: all contents are made and checked before anything is replaced."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO, Final, cast

from dblike_delta.changeset import Body, Decoder, Event
from dblike_delta.delta import SPOOL
from dblike_delta.errors import (
    BaseMismatch,
    BaseMissing,
    FormatError,
    IntegrityError,
    LimitError,
    PathError,
)
from dblike_delta.limits import DEFAULT_LIMITS, Limits
from dblike_delta.messages import Record, Trailer
from dblike_delta.patch import patch
from dblike_delta.paths import ancestors, check_path, display, parent
from dblike_delta.streams import Progress, Readable, read_pieces
from dblike_delta.system import syncfs
from dblike_delta.trees import TreeResult, hashed, open_file, walk
from dblike_delta.versions import Kind

_FRAME_OF_A_DELTA: Final = 5
"""Bytes of magic number and end."""
_LONGEST_COMMAND: Final = 17
"""Bytes; each command stands for one byte of content at least."""


def patch_tree(
    root: Path,
    changeset: Readable,
    *,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> TreeResult:
    """Make of the directory what the changeset was made from; nobody else may change it meanwhile.

    Until the changeset was read to its end, and every content is here and right, nothing changes
    but for a directory of ours in `root`, which goes again.  Then deletes, directories, files and
    symlinks take their places; to repeat it does no harm.  What the changeset does not speak of
    stays, and so does a deleted directory that still holds such things.  DeltaError of any kind:
    nothing was changed.  OSError: perhaps a part was; try again.  `progress`: is told the bytes
    read of the changeset; what it raises ends the work, and nothing was changed.
    """
    with (
        tempfile.TemporaryDirectory(prefix=".patch-", dir=root) as name,
        tempfile.SpooledTemporaryFile(SPOOL) as body,
    ):
        contents = _Contents(root, Path(name), cast("IO[bytes]", body), limits)
        decoder, done = Decoder(), 0
        for piece in read_pieces(changeset):
            for event in decoder.receive(bytes(piece)):
                contents.take(event)
            done += len(piece)
            if progress is not None:
                progress(done)
        decoder.close()
        contents.finish()
        if contents.staged:
            # What moved or is replaced must not be lost in a power cut that comes after this.
            _sync(Path(name))
        _carry_out(root, contents.records, contents.staged)
    deleted = sum(each.kind == Kind.DELETED for each in contents.records.values())
    changed = len(contents.records) - deleted
    return TreeResult(changed, deleted, contents.literal, contents.copied)


class _Contents:
    """Takes a changeset in: its records, and a file in the staging directory for each content."""

    def __init__(self, root: Path, staging: Path, body: IO[bytes], limits: Limits) -> None:
        self._root, self._staging, self._limits = root, staging, limits
        self._body = body  # the delta of the open record
        self.records: dict[bytes, Record] = {}
        self.staged: dict[bytes, Path] = {}
        self.literal = self.copied = 0
        self._open: Record | None = None
        self._known: dict[bytes, bytes] | None = None

    def take(self, event: Event) -> None:
        """What the changeset says next."""
        match event:
            case Record():
                self._begin(event)
            case Body():
                self._add(event.data)
            case Trailer():
                self._end(event)
            case _:
                pass

    def finish(self) -> None:
        """The changeset has ended: FormatError or PathError for what can't be a tree."""
        if self._open is not None:
            raise FormatError(f"{display(self._open.path)} has no trailer")
        for path, record in self.records.items():
            for above in ancestors(path) if record.kind != Kind.DELETED else ():
                other = self.records.get(above)
                if other is not None and other.kind != Kind.DIRECTORY:
                    raise FormatError(f"{display(above)} is no directory, and holds something")
                if other is None and not _is_directory(self._root, above):
                    raise PathError(f"{display(above)} is no directory here", path=path)

    def _begin(self, record: Record) -> None:
        if self._open is not None:
            raise FormatError(f"{display(self._open.path)} has no trailer")
        check_path(record.path)
        if record.path in self.records:
            raise FormatError(f"{display(record.path)} is there twice")
        if record.size > self._limits.max_file_size:
            raise LimitError(f"a file of {record.size} bytes", wanted=record.size)
        if record.body != bool(record.body and record.kind == Kind.FILE) or record.start:
            raise FormatError(f"{display(record.path)} has a body that can't be its own")
        if record.kind == Kind.SYMLINK and (not record.target or b"\0" in record.target):
            raise FormatError(f"{display(record.path)} is a symlink that can't be")
        self.records[record.path] = record
        if record.body:
            self._open = record
        elif record.kind == Kind.FILE and not self._is_there(record):
            self._stage_known(record)

    def _opened(self) -> Record:
        if self._open is None:
            raise FormatError("a body that belongs to no record")
        return self._open

    def _add(self, data: memoryview) -> None:
        most = _FRAME_OF_A_DELTA + _LONGEST_COMMAND * self._opened().size
        if self._body.tell() + len(data) > most:
            raise LimitError(f"{display(self._opened().path)}: a body larger than any of its size")
        self._body.write(data)

    def _end(self, trailer: Trailer) -> None:
        record = self._opened()
        if (trailer.hash, trailer.size) != (record.hash, record.size):
            raise IntegrityError(f"{display(record.path)}: record and trailer disagree")
        if not self._is_there(record):
            self._stage_patched(record)
        self._open = None
        self._body.seek(0)
        self._body.truncate()

    def _is_there(self, record: Record) -> bool:
        """Whether the path has this content already."""
        if _is_file(self._root, record.path):
            with open_file(self._root, record.path) as file:
                size = os.fstat(file.fileno()).st_size
                return size == record.size and hashed(file) == (record.hash, record.size)
        return False

    def _stage_patched(self, record: Record) -> None:
        self._body.seek(0)
        with self._base(record) as base, self._new(record.path) as out:
            result = patch(base, self._body, out, max_size=record.size, limits=self._limits)
        if (result.hash, result.size) != (record.hash, record.size):
            raise IntegrityError(f"{display(record.path)}: the result is not what was promised")
        self.literal += result.literal
        self.copied += result.copied

    def _base(self, record: Record) -> IO[bytes]:
        """What the body is a delta against."""
        if not record.base:
            return cast("IO[bytes]", tempfile.TemporaryFile())
        if not _is_file(self._root, record.path):
            raise BaseMismatch(f"{display(record.path)} is no file here")
        return (self._root / os.fsdecode(record.path)).open("rb", buffering=0)

    def _stage_known(self, record: Record) -> None:
        """A content that moved or was copied: found by its hash."""
        source = self._all().get(record.hash)
        if source is None:
            raise BaseMissing(f"the content of {display(record.path)} is not here")
        with open_file(self._root, source) as file, self._new(record.path) as out:
            shutil.copyfileobj(file, out, 1 << 20)
            out.seek(0)
            if hashed(out) != (record.hash, record.size):
                raise IntegrityError(f"{display(source)} changed while it was read")

    def _all(self) -> dict[bytes, bytes]:
        """The paths of all contents here, by their hashes."""
        if self._known is None:
            self._known = {}
            own = os.fsencode(self._staging.name) + b"/"
            for path, status in walk(self._root):
                if stat.S_ISREG(status.st_mode) and not path.startswith(own):
                    with open_file(self._root, path) as file:
                        self._known[hashed(file)[0]] = path
        return self._known

    def _new(self, path: bytes) -> IO[bytes]:
        self.staged[path] = self._staging / str(len(self.staged))
        return self.staged[path].open("x+b", buffering=0)


def _carry_out(root: Path, records: dict[bytes, Record], staged: dict[bytes, Path]) -> None:
    order = sorted(records)
    modes: dict[bytes, int] = {}
    try:
        _open(root, order, modes)
        modes |= {path: each.mode for path, each in records.items() if each.kind == Kind.DIRECTORY}
        for path in reversed(order):
            if records[path].kind == Kind.DELETED:
                _delete(root, path)
        for path in order:
            _place(root, records[path], staged.get(path))
    finally:
        # Last, and the deepest first: a directory may forbid what was done in it.  Each gets its
        # own whether or not another one could.
        with contextlib.ExitStack() as closing:
            for path in sorted(modes):
                closing.callback(_close, root, path, modes[path])


def _sync(staging: Path) -> None:
    descriptor = os.open(staging, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syncfs(descriptor)
    finally:
        os.close(descriptor)


def _open(root: Path, order: list[bytes], shut: dict[bytes, int]) -> None:
    """Let what happens in directories happen; those that forbade it go to `shut`, with their
    modes, one by one."""
    by_effect = os.access in os.supports_effective_ids
    for place in sorted({parent(path) for path in order} - {b""}):
        full, mode = _full(root, place), _mode(root, place)
        if stat.S_ISDIR(mode) and not os.access(full, os.W_OK | os.X_OK, effective_ids=by_effect):
            full.chmod(mode & 0o7777 | 0o300)
            shut[place] = mode


def _close(root: Path, path: bytes, wanted: int) -> None:
    """Give a directory, if there is one, the mode that it is to have."""
    mode = _mode(root, path)
    if stat.S_ISDIR(mode):
        # What is no permission, such as the group's inheritance, stays as it is here.
        _full(root, path).chmod(mode & 0o7000 | wanted & 0o777)


def _delete(root: Path, path: bytes) -> None:
    full = _full(root, path)
    mode = _mode(root, path)
    if not mode:
        return
    if not stat.S_ISDIR(mode):
        full.unlink()
    elif not os.listdir(full):
        full.rmdir()


def _place(root: Path, record: Record, content: Path | None) -> None:
    full = _full(root, record.path)
    if record.kind == Kind.DIRECTORY:
        if not _is_directory(root, record.path):
            full.unlink(missing_ok=True)
            full.mkdir()
        return
    if record.kind == Kind.DELETED:
        return
    if _is_directory(root, record.path):
        full.rmdir()
    if record.kind == Kind.SYMLINK:
        full.unlink(missing_ok=True)
        full.symlink_to(os.fsdecode(record.target))
        return
    made = full if content is None else content
    made.chmod(record.mode & 0o777)
    os.utime(made, ns=(record.mtime_ns, record.mtime_ns))
    made.replace(full)


def _full(root: Path, path: bytes) -> Path:
    return root / os.fsdecode(path)


def _mode(root: Path, path: bytes) -> int:
    """What is at a path, or 0: no symlink is followed on the way to it."""
    top, mode = os.fsencode(root), 0
    for each in (*ancestors(path), path):
        if mode and not stat.S_ISDIR(mode):
            return 0
        try:
            mode = os.lstat(os.path.join(top, each)).st_mode
        except FileNotFoundError:
            return 0
    return mode


def _is_directory(root: Path, path: bytes) -> bool:
    return stat.S_ISDIR(_mode(root, path))


def _is_file(root: Path, path: bytes) -> bool:
    return stat.S_ISREG(_mode(root, path))
