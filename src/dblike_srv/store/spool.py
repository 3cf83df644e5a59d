"""A pack being written to a file of its own, which a store then adopts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dblike_srv.store.base import Data

BUFFER: Final = 1 << 20


class SpoolWriter:
    """Writes to `path`; `commit` syncs the file and hands it to `adopt`.

    With a `size` it goes on with a file that is there, cut to that size.
    """

    def __init__(
        self, path: Path, adopt: Callable[[Path, bytes], None], *, size: int | None = None
    ) -> None:
        self._path = path
        self._adopt = adopt
        self._buffer = bytearray()
        self._descriptor = -1
        self._written = 0
        if size is not None:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._descriptor, size)
            self._written = os.lseek(self._descriptor, 0, os.SEEK_END)

    @property
    def size(self) -> int:
        return self._written + len(self._buffer)

    def write(self, data: Data) -> None:
        if len(self._buffer) + len(data) < BUFFER:
            self._buffer += data
            return
        self.flush()
        if len(data) < BUFFER:
            self._buffer += data
        else:
            self._put(data)

    def read(self, offset: int, length: int) -> bytes:
        self.flush()
        return os.pread(self._descriptor, length, offset)

    def flush(self) -> None:
        """Hand all that was written to the system."""
        if self._buffer or self._descriptor < 0:
            data, self._buffer = self._buffer, bytearray()
            self._put(data)

    def commit(self, name: bytes) -> None:
        self.flush()
        os.fsync(self._descriptor)
        self._adopt(self._path, name)
        self.close()

    def abort(self) -> None:
        self._buffer.clear()
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file, and leave it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _put(self, data: Data) -> None:
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self._written += written
            view = view[written:]
