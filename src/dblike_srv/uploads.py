"""Resumable uploads: a changeset that comes in several requests, and goes on after a cut.

An upload is a directory (`unfinished`) whose state is also written at the end of each request, of
one that was cut as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from dblike_delta.changeset import Decoder, Event, Part
from dblike_delta.errors import DeltaError
from dblike_delta.messages import SOURCES_FIELD, CommitReply, Sources, UploadStatus
from dblike_srv.commit import commit_items, new_intake, pack_of
from dblike_srv.errors import Conflict, TooLarge
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.packs import Pack
from dblike_srv.site import Site
from dblike_srv.slots import waiting
from dblike_srv.store.base import PackStore
from dblike_srv.unfinished import (
    NO_STATE,
    SAVE_EVERY,
    Unfinished,
    close_state,
    open_state,
    read_state,
    remove_idle,
)

REMEMBERED: Final = 16
"""Uploads that a worker keeps open; the least recently used one is read from disk again."""
Chunks = Callable[[Callable[[], int]], Iterable[Part]]
"""Makes the pieces of a stream, given who says how many bytes are best received at once."""


class _Upload:
    """An upload as a worker holds it."""

    def __init__(self, site: Site, identity: Identity, directory: Path) -> None:
        self.sound = True
        """Whether what is held here is all that was taken, once each: else the state on disk is."""
        self._kept = Unfinished(directory, site.store)
        self.intake = new_intake(site, identity, self._kept.writer)
        self._decoder = Decoder(start=self._kept.offset)
        self._decoder.finished = self._kept.complete
        self._kept.restore(self.intake)

    @property
    def offset(self) -> int:
        """Bytes of the stream that need not be sent again."""
        return self._decoder.boundary

    def append(self, chunks: Chunks) -> None:
        """Take in more; what came in whole blocks stays, wherever the rest is cut."""
        try:
            for chunk in chunks(lambda: self._decoder.wanted):
                self.sound = False
                for event in self._decoder.receive(chunk):
                    self._take(event)
                self.sound = True
                if self.offset - self._kept.offset >= SAVE_EVERY:
                    self.save()
        finally:
            if not self._decoder.finished:
                self._decoder = Decoder(start=self.offset)
            if self.sound and self.offset > self._kept.offset:
                self.save()
            if self.sound:
                self.settle()

    def _take(self, event: Event) -> None:
        if isinstance(event, Sources):
            raise Conflict(
                "a resumable upload takes no sources: send the hashes", field=SOURCES_FIELD
            )
        self.intake.take(event)

    def save(self) -> None:
        """Write the state, beside what follows."""
        self.sound = False
        self._kept.save(self.intake, self.offset, complete=self._decoder.finished)
        self.sound = True

    def settle(self) -> None:
        """Wait until it is there for whoever goes on."""
        self.sound = False
        self._kept.settle()
        self.sound = True

    def finish(self, site: Site, identity: Identity, folder: FolderRef) -> CommitReply:
        """Commit what came.  Where that fails, the state on disk is good for another try."""
        self._decoder.close()
        return commit_items(site, identity, folder, self.intake.items, self._keep_pack(site.store))

    def _keep_pack(self, store: PackStore) -> Pack | None:
        """Make the literals durable, where any item uses them."""
        if self._kept.adopted is not None:  # by a former try, which may have ended right then
            store.settle(self._kept.adopted.name)
            return self._kept.adopted
        pack = pack_of(self.intake)
        if pack is not None:
            self._kept.save(self.intake, self.offset, complete=True, name=pack.name)
            self._kept.writer.commit(pack.name)  # by when the state is written
        return pack

    def close(self) -> None:
        self._kept.close()


class _Registry:
    """The uploads that this process holds, by directory, each with the state that it left, open: so
    long no other file gets its inode, by which it is known again."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, tuple[_Upload, int]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, directory: Path) -> _Upload | None:
        """The upload, if no other process went on with it meanwhile; it is not held any more."""
        with self._lock:
            upload, left = self._held.pop(directory, (None, NO_STATE))
        if upload is not None and not close_state(left, directory):
            upload.close()
            return None
        return upload

    def keep(self, directory: Path, upload: _Upload) -> None:
        try:
            left = open_state(directory)
        except OSError:
            upload.close()  # the next request reads it from disk
            return
        with self._lock:
            self._held[directory] = (upload, left)
            oldest = self._held.popitem(last=False) if len(self._held) > REMEMBERED else None
        if oldest is not None:
            where, (upload, left) = oldest
            upload.close()
            close_state(left, where)


_registry = _Registry()


def upload_status(site: Site, identity: Identity, folder: FolderRef, upload_id: str) -> int | None:
    """How far an upload came; None where nothing is known of it."""
    state = read_state(_directory(site, identity, folder, upload_id), site.store)
    return None if state is None else state.offset


def append_upload(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    upload_id: str,
    offset: int,
    chunks: Chunks,
    complete: bool,
) -> UploadStatus | CommitReply:
    """The next bytes of an upload; the last ones commit it.

    Raises Conflict where `offset` is not where the upload stands, and says where that is, or where
    contents are named by sources, after which the upload is as it was before this request;
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
    chunks: Chunks,
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
    try:
        reply = upload.finish(site, identity, folder)
    finally:
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
    return remove_idle(_root(site).glob("*/*"), site.clock.now_ms())


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
    """One request at a time, over all workers of the host.  Raises Conflict where the one before
    took the upload away."""
    file = directory / "lock"
    over = Conflict("the upload was just finished or abandoned", offset=0)
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise over from None
    try:
        with waiting():
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not _is_at(descriptor, file):
            raise over
        yield
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
