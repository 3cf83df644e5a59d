"""Packs on a local disk: DIR/packs/ab/ab12…, written as DIR/tmp/….

A pack is durable before it has its name: the file is synced, renamed, and its directory synced.  On
ext4 and xfs a rename alone can come back undone after a power cut.

DIR/packs is made for a new store only.  Where it is missing later on, the disk is not mounted: what
was written below the empty mount point would be out of sight as soon as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dblike_delta.seams import Random
from dblike_delta.system import make_directory, sync_path
from dblike_srv.store.base import Away
from dblike_srv.store.spool import SpoolWriter, remove_older

_BROKEN = (None, errno.EIO, errno.EBADMSG, errno.EUCLEAN)
"""Errors of the pack itself: it is too short, or the disk can't read it."""


class LocalStore:
    """Packs below a directory that one or more processes of one host use."""

    def __init__(self, root: Path, random: Random, *, fresh: bool = True) -> None:
        self._packs = root / "packs"
        self._temporary = root / "tmp"
        self._random = random
        if fresh:
            make_directory(self._packs)
        self._make_temporary()

    def writer(self) -> SpoolWriter:
        self._make_temporary()
        return SpoolWriter(self._temporary / self._random.bytes(16).hex(), self.adopt)

    def adopt(self, path: Path, name: bytes) -> None:
        final = self.path(name)
        if not final.parent.is_dir():
            self.check()
            make_directory(final.parent)
            sync_path(self._packs)
        try:
            path.rename(final)  # equal names are equal bytes: replacing changes nothing
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(path, final)
        sync_path(final.parent)

    def settle(self, name: bytes) -> None:
        with self._asked():
            sync_path(self.path(name).parent)
            sync_path(self._packs)

    def read(self, name: bytes, offset: int, length: int) -> bytes:
        # Opened each time, for some microseconds: a descriptor that is kept would go on showing a
        # damaged file after another process has put a sound one in its place.
        with self._asked():
            descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, length, offset)
                while len(data) < length:  # a pread gives at most 2 GiB, and less on a signal
                    more = os.pread(descriptor, length - len(data), offset + len(data))
                    if not more:
                        raise OSError(f"pack {name.hex()} ends at byte {offset + len(data)}")
                    data += more
            finally:
                os.close(descriptor)
        return data

    def size(self, name: bytes) -> int:
        with self._asked():
            return self.path(name).stat().st_size

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Errors that say nothing of the pack (no descriptors, no rights, a disk that is not
        mounted, a server of files that is away) are the store's own."""
        try:
            yield
        except OSError as error:
            gone = isinstance(error, FileNotFoundError) and os.path.isdir(self._packs)
            if gone or error.errno in _BROKEN:
                raise
            raise Away(f"the store can't be read: {error}") from error

    def delete(self, name: bytes) -> None:
        self.path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[bytes]:
        for entry in self._packs.glob("??/*"):
            with contextlib.suppress(ValueError):
                yield bytes.fromhex(entry.name)

    def check(self) -> None:
        try:
            os.stat(self._packs)
        except FileNotFoundError:
            raise Away(
                f"there is no directory {self._packs}: mount its disk, or move the packs there; if "
                "they are lost, make it empty, and run `dblike-server scrub --repair`"
            ) from None

    def tidy(self, before_ms: int) -> int:
        return remove_older(self._temporary, before_ms)

    def path(self, name: bytes) -> Path:
        """Where a pack lies."""
        text = name.hex()
        return self._packs / text[:2] / text

    def _make_temporary(self) -> None:
        """Beside packs only: these may also come while the server runs, as a disk is mounted."""
        if not self._temporary.is_dir() and self._packs.is_dir():
            make_directory(self._temporary)

    def _copy(self, source: Path, final: Path) -> None:
        """From another file system: by way of this one's own temporary files."""
        temporary = self._temporary / self._random.bytes(16).hex()
        with source.open("rb") as bytes_in, temporary.open("xb") as out:
            shutil.copyfileobj(bytes_in, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(final)
        source.unlink()
