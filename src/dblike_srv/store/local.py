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
from dblike_srv.store.spool import SpoolWriter

OPEN_PACKS: Final = 64
"""Packs whose descriptors are kept, since many reads of one pack follow each other."""


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

    def writer(self) -> SpoolWriter:
        return SpoolWriter(self._temporary / self._random.bytes(16).hex(), self.adopt)

    def adopt(self, path: Path, name: bytes) -> None:
        final = self.path(name)
        if not final.parent.is_dir():
            final.parent.mkdir(exist_ok=True)
            _sync_directory(final.parent.parent)
        os.rename(path, final)  # equal names are equal bytes: replacing changes nothing
        _sync_directory(final.parent)

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


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
