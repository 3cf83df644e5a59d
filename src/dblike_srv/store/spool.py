"""A pack being written to a file of its own, which a store then adopts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from dblike_delta.beside import Beside
from dblike_delta.system import Strides, give_to_owner
from dblike_srv.store.base import Away, Data

BUFFER: Final = 1 << 20
_THREADS: Final = ThreadPoolExecutor(4, "spool")
"""They write for all packs of this process; none is started before it is needed."""


class SpoolWriter:
    """Writes to `path`, beside the caller; `commit` syncs the file and hands it to `adopt`.

    With a `size` it goes on with a file that is there, cut to that size.  After an error of the
    disk, which may come up at any later call, it is of no more use.
    """

    def __init__(
        self, path: Path, adopt: Callable[[Path, bytes], None], *, size: int | None = None
    ) -> None:
        self._path = path
        self._adopt = adopt
        self._buffer = bytearray()
        self._descriptor = -1
        self._written = 0  # or about to be
        self._strides = Strides()
        self._beside = Beside(_THREADS)
        if size is not None:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            give_to_owner(self._descriptor, path.parent)
            os.ftruncate(self._descriptor, size)
            self._written = os.lseek(self._descriptor, 0, os.SEEK_END)

    @property
    def size(self) -> int:
        return self._written + len(self._buffer)

    def write(self, data: Data) -> None:
        if len(self._buffer) + len(data) < BUFFER:
            self._buffer += data
            return
        if self._buffer:
            held, self._buffer = self._buffer, bytearray()
            self._put(held)
        if len(data) < BUFFER:
            self._buffer += data
        else:
            self._put(data)

    def read(self, offset: int, length: int) -> bytes:
        self.flush()
        return os.pread(self._descriptor, length, offset)

    def flush(self) -> None:
        """Hand all that was written to the system."""
        self._pass_on()
        self.settle()

    def then(self, call: Callable[[], object]) -> None:
        """Have a call made when all that was written until now is the system's."""
        self._pass_on()
        self._beside.do(call)

    def settle(self) -> None:
        """Wait until all such calls were made."""
        self._beside.settle()

    def commit(self, name: bytes) -> None:
        self.flush()
        try:
            os.fsync(self._descriptor)
        except OSError:
            self.abort()  # what the disk did not take reads well for a while all the same
            raise
        self._adopt(self._path, name)
        self.close()

    def abort(self) -> None:
        self._buffer.clear()
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file, and leave it."""
        with contextlib.suppress(Exception):  # no write counts that was not settled before
            self._beside.settle()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _pass_on(self) -> None:
        if self._buffer or self._descriptor < 0:
            data, self._buffer = self._buffer, bytearray()
            self._put(data)

    def _put(self, data: Data) -> None:
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                self._descriptor = os.open(self._path, flags, 0o600)
            except FileNotFoundError as error:  # the directory's disk is not mounted
                raise Away(f"the store can't be written: {error}") from error
            give_to_owner(self._descriptor, self._path.parent)
        self._written += len(data)
        self._beside.do(lambda: self._write_all(data))

    def _write_all(self, data: Data) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._strides.wrote(self._descriptor, len(data))


def remove_older(directory: Path, before_ms: int) -> int:
    """Remove files that were last written before that moment; how many."""
    removed = 0
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime_ns // 1_000_000 < before_ms:
                path.unlink()
                removed += 1
    return removed
