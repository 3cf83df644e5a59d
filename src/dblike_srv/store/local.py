"""Packs on a local disk: DIR/packs/ab/ab12…, written as DIR/tmp/….

A pack is durable before it has its name: the file is synced, renamed, and its directory synced.  On
ext4 and xfs a rename alone can come back undone after a power cut.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Final

from dblike_delta.seams import Random
from dblike_srv.store.base import Data

OPEN_PACKS: Final = 64
"""Packs whose descriptors are kept, since many reads of one pack follow each other."""
BUFFER: Final = 1 << 20


class LocalStore:
    """Packs below a directory that one or more processes of one host use."""

    def __init__(self, root: Path, random: Random) -> None:
        self._packs = root / "packs"
        self._temporary = root / "tmp"
        self._random = random
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._lock = Lock()
        for directory in (self._packs, self._temporary):
            directory.mkdir(parents=True, exist_ok=True)

    def writer(self) -> LocalWriter:
        return LocalWriter(self, self._temporary / self._random.bytes(16).hex())

    def read(self, name: bytes, offset: int, length: int) -> bytes:
        with self._lock:  # held over pread, so that no descriptor is closed under it
            data = os.pread(self._descriptor(name), length, offset)
        while len(data) < length:  # a pread gives at most 2 GiB, and less on a signal
            more = self._more(name, offset + len(data), length - len(data))
            data += more
        return data

    def size(self, name: bytes) -> int:
        return self.path(name).stat().st_size

    def delete(self, name: bytes) -> None:
        with self._lock:
            descriptor = self._open.pop(name, None)
            if descriptor is not None:
                os.close(descriptor)
        self.path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[bytes]:
        for entry in self._packs.glob("??/*"):
            with contextlib.suppress(ValueError):
                yield bytes.fromhex(entry.name)

    def path(self, name: bytes) -> Path:
        """Where a pack lies."""
        text = name.hex()
        return self._packs / text[:2] / text

    def _more(self, name: bytes, offset: int, length: int) -> bytes:
        with self._lock:
            data = os.pread(self._descriptor(name), length, offset)
        if not data:
            raise OSError(f"pack {name.hex()} ends at byte {offset}")
        return data

    def _descriptor(self, name: bytes) -> int:
        descriptor = self._open.get(name)
        if descriptor is None:
            descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
            self._open[name] = descriptor
            if len(self._open) > OPEN_PACKS:
                _, oldest = self._open.popitem(last=False)
                os.close(oldest)
        self._open.move_to_end(name)
        return descriptor


class LocalWriter:
    """A pack being written to a file of its own."""

    def __init__(self, store: LocalStore, temporary: Path) -> None:
        self._store = store
        self._temporary = temporary
        self._buffer = bytearray()
        self._descriptor = -1
        self._written = 0

    @property
    def size(self) -> int:
        return self._written + len(self._buffer)

    def write(self, data: Data) -> None:
        if len(self._buffer) + len(data) < BUFFER:
            self._buffer += data
            return
        self._flush()
        if len(data) < BUFFER:
            self._buffer += data
        else:
            self._put(data)

    def read(self, offset: int, length: int) -> bytes:
        self._flush()
        return os.pread(self._descriptor, length, offset)

    def commit(self, name: bytes) -> None:
        self._flush()
        os.fsync(self._descriptor)
        final = self._store.path(name)
        if not final.parent.is_dir():
            final.parent.mkdir(exist_ok=True)
            _sync_directory(final.parent.parent)
        os.rename(self._temporary, final)  # equal names are equal bytes: replacing changes nothing
        _sync_directory(final.parent)
        self._close()

    def abort(self) -> None:
        self._buffer.clear()
        self._close()
        self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._buffer or self._descriptor < 0:
            data, self._buffer = self._buffer, bytearray()
            self._put(data)

    def _put(self, data: Data) -> None:
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._temporary, flags, 0o600)
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self._written += written
            view = view[written:]

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
