"""What Python does not offer of the system, for programs that move large files."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from stat import S_ISDIR
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
"""glibc's names for mallopt."""
_BEGIN: Final = 2
"""SYNC_FILE_RANGE_WRITE."""
STRIDE: Final = 32 << 20
"""How much to write before the disk is told to begin with it."""

_libc = ctypes.CDLL(None, use_errno=True)
_syncfs = getattr(_libc, "syncfs", None)
_mallopt = getattr(_libc, "mallopt", None)
_sync_file_range = getattr(_libc, "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def keep_memory(most: int) -> None:
    """Let glibc keep the memory of large buffers for the next ones, and share it among threads.

    It keeps about `most` bytes that nobody uses: what comes and goes in a transfer.  By default
    it gives them back, and a page fault for each 4 KiB of each buffer was most of what a
    transfer of 1 GiB cost.
    """
    if _mallopt is not None:
        _mallopt(_MMAP_THRESHOLD, 32 << 20)
        _mallopt(_TRIM_THRESHOLD, most)
        _mallopt(_ARENA_MAX, 2)


def begin_sync(descriptor: int) -> None:
    """Have the disk begin with what was written to a file, so that its fsync finds little to do.

    It promises nothing: fsync does, and tells of errors.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, 0, 0, _BEGIN)


def sync_path(path: Path) -> None:
    """Have the disk keep what a file holds, or which names a directory has; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def syncfs(descriptor: int) -> None:
    """Have the disk of a file or directory keep all that was written to it; raises OSError."""
    if _syncfs is None:
        os.sync()
    elif _syncfs(descriptor):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def give_to_owner(descriptor: int, directory: Path) -> None:
    """Let what root made in a directory be whose the directory is, as SQLite does with its files:
    a program that runs as that user could not use it.  By its descriptor, for whoever owns the
    directory may put something else in its place meanwhile."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError):  # root without that right, as in some containers
        owner, made = directory.stat(), os.fstat(descriptor)
        if made.st_uid == 0 != owner.st_uid and (made.st_nlink == 1 or S_ISDIR(made.st_mode)):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def make_directory(path: Path) -> None:
    """Make a directory, where it is not there, that is whose the one above it is."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        give_to_owner(descriptor, path.parent)
    finally:
        os.close(descriptor)


class Strides:
    """Counts what is written to a file, and begins with its sync every `STRIDE` bytes."""

    def __init__(self) -> None:
        self._size = 0

    def wrote(self, descriptor: int, size: int) -> None:
        """So many bytes more."""
        self._size += size
        if self._size >= STRIDE:
            self._size = 0
            begin_sync(descriptor)
