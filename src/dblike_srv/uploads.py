"""Resumable uploads: a changeset that comes in several requests, and goes on after a cut.

An upload is a directory: `pack` holds the literals so far, `state` how far the stream came and what
is known of its versions.  The state is replaced every few MiB, and at the end of each request, also
of one that was cut; a worker that did not see the beginning reads the pack once to go on.  Nothing
here needs to survive a power cut: an upload of another boot is forgotten, and sent again.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from dblike_delta.changeset import Decoder, Part
from dblike_delta.errors import DeltaError
from dblike_delta.messages import CommitReply, UploadStatus
from dblike_srv.commit import commit_items, keep_pack, new_intake
from dblike_srv.errors import Conflict, TooLarge
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.intake import Suspended
from dblike_srv.site import Site
from dblike_srv.store.spool import SpoolWriter

REMEMBERED: Final = 16
"""Uploads that a worker keeps open; the least recently used one is read from disk again."""
SAVE_EVERY: Final = 6 << 20
"""Bytes of the stream after which the state is written also within a request."""
IDLE_MS: Final = 24 * 3600 * 1000
"""An upload that nobody went on with for so long may be removed."""


class _State(msgspec.Struct, frozen=True, array_like=True):
    boot: str
    offset: int
    size: int
    intake: Suspended


_decode = msgspec.msgpack.Decoder(_State).decode


class _Upload:
    """An upload as a worker holds it."""

    def __init__(self, site: Site, identity: Identity, directory: Path) -> None:
        self._directory = directory
        self.sound = True
        """Whether what is held here is all that was taken, once each: else the state on disk is."""
        state = _read_state(directory)
        if state is not None and _size(directory / "pack") < state.size:
            state = None  # it was on its way into the store when the last try failed
        size = 0 if state is None else state.size
        self._writer = SpoolWriter(directory / "pack", site.store.adopt, size=size)
        self.intake = new_intake(site, identity, self._writer)
        self._saved = 0 if state is None else state.offset
        self._decoder = Decoder(start=self._saved)
        if state is not None:
            self.intake.resume(state.intake)

    @property
    def offset(self) -> int:
        """Bytes of the stream that need not be sent again."""
        return self._decoder.boundary

    def append(self, chunks: Iterable[Part]) -> None:
        """Take in more; what came in whole blocks stays, wherever the rest is cut."""
        try:
            for chunk in chunks:
                self.sound = False
                for event in self._decoder.receive(chunk):
                    self.intake.take(event)
                self.sound = True
                if self.offset - self._saved >= SAVE_EVERY:
                    self.save()
        finally:
            if not self._decoder.finished:
                self._decoder = Decoder(start=self.offset)
            if self.sound:
                self.save()

    def save(self) -> None:
        """Write the state."""
        self.sound = False
        self._writer.flush()
        state = _State(_boot(), self.offset, self._writer.size, self.intake.suspend())
        temporary = self._directory / "state.new"
        temporary.write_bytes(msgspec.msgpack.encode(state))
        os.replace(temporary, self._directory / "state")
        self.sound, self._saved = True, self.offset

    def finish(self, site: Site, identity: Identity, folder: FolderRef) -> CommitReply:
        """Commit what came."""
        self._decoder.close()
        pack = keep_pack(self.intake, self._writer)
        return commit_items(site, identity, folder, self.intake.items, pack)

    def close(self) -> None:
        self._writer.close()


class _Registry:
    """The uploads that this process holds, by directory, with the inode of the state it left."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, tuple[_Upload, int]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, directory: Path) -> _Upload | None:
        """The upload, if no other process went on with it meanwhile; it is not held any more."""
        with self._lock:
            upload, inode = self._held.pop(directory, (None, 0))
        if upload is not None and inode != _inode(directory):
            upload.close()
            return None
        return upload

    def keep(self, directory: Path, upload: _Upload) -> None:
        with self._lock:
            self._held[directory] = (upload, _inode(directory))
            oldest = self._held.popitem(last=False) if len(self._held) > REMEMBERED else None
        if oldest is not None:
            oldest[1][0].close()


_registry = _Registry()


def upload_status(site: Site, identity: Identity, folder: FolderRef, upload_id: str) -> int | None:
    """How far an upload came; None where nothing is known of it."""
    state = _read_state(_directory(site, identity, folder, upload_id))
    return None if state is None else state.offset


def append_upload(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    upload_id: str,
    offset: int,
    chunks: Iterable[Part],
    complete: bool,
) -> UploadStatus | CommitReply:
    """The next bytes of an upload; the last ones commit it.

    Raises Conflict where `offset` is not where the upload stands, and says where that is;
    DeltaError where the stream is wrong, after which the upload is gone.
    """
    directory = _directory(site, identity, folder, upload_id)
    _make(site, directory)
    with _locked(directory):
        upload = _registry.take(directory) or _Upload(site, identity, directory)
        try:
            return _append(site, identity, folder, upload, offset, chunks, complete, directory)
        except DeltaError:
            upload.close()
            shutil.rmtree(directory, ignore_errors=True)
            raise


def _append(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    upload: _Upload,
    offset: int,
    chunks: Iterable[Part],
    complete: bool,
    directory: Path,
) -> UploadStatus | CommitReply:
    if offset != upload.offset:
        _registry.keep(directory, upload)
        raise Conflict(f"the upload stands at byte {upload.offset}", offset=upload.offset)
    try:
        upload.append(chunks)
    except DeltaError:
        raise
    except BaseException:
        if upload.sound:
            _registry.keep(directory, upload)
        else:
            upload.close()
        raise
    if not complete:
        _registry.keep(directory, upload)
        return UploadStatus(upload.offset)
    reply = upload.finish(site, identity, folder)
    upload.close()
    shutil.rmtree(directory, ignore_errors=True)
    return reply


def abandon_upload(site: Site, identity: Identity, folder: FolderRef, upload_id: str) -> None:
    """Forget an upload."""
    directory = _directory(site, identity, folder, upload_id)
    if directory.is_dir():
        with _locked(directory):
            upload = _registry.take(directory)
            if upload is not None:
                upload.close()
            shutil.rmtree(directory, ignore_errors=True)


def remove_idle_uploads(site: Site) -> int:
    """Remove uploads of another boot, and those that nobody goes on with; how many."""
    removed = 0
    oldest = site.clock.now_ms() - IDLE_MS
    for directory in _root(site).glob("*/*"):
        state = directory / "state"
        with contextlib.suppress(OSError):
            young = directory.stat().st_mtime_ns // 1_000_000 >= oldest
            if young and (not state.exists() or _read_state(directory) is not None):
                continue
            shutil.rmtree(directory, ignore_errors=True)
            removed += 1
    return removed


def _root(site: Site) -> Path:
    return Path(site.config.data) / "uploads"


def _directory(site: Site, identity: Identity, folder: FolderRef, upload_id: str) -> Path:
    name = f"{identity.device.hex()}-{folder.row}-{upload_id}"
    return _root(site) / str(identity.user) / name


def _make(site: Site, directory: Path) -> None:
    if directory.is_dir():
        return
    parent = directory.parent
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if len(os.listdir(parent)) >= site.config.limits.uploads_per_user:
        raise TooLarge("too many unfinished uploads; finish or abandon some", field="upload")
    directory.mkdir(exist_ok=True, mode=0o700)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One request at a time, over all workers of the host."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise Conflict("the upload was just finished or abandoned", offset=0) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_state(directory: Path) -> _State | None:
    try:
        state = _decode((directory / "state").read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    return state if state.boot == _boot() else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _inode(directory: Path) -> int:
    try:
        return (directory / "state").stat().st_ino
    except FileNotFoundError:
        return 0


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
