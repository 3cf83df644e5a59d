"""A folder of this machine's disk.

`RealFS` never leaves the folder and never follows a symlink: every directory is opened through the
descriptor of the one above it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from dblike_cli.fs import OWN, Making, NewFile, Ready, Rename, Seen, Stat
from dblike_cli.realfile import RealFile
from dblike_cli.syscalls import EXCHANGE, NOREPLACE, renameat2
from dblike_delta.paths import name as name_of
from dblike_delta.paths import parent
from dblike_delta.system import syncfs

_files: Any
try:
    from dblike_cli import _files
except ImportError:  # it was installed without a C compiler
    _files = None

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES: Final = 200
_ENCODING: Final = sys.getfilesystemencoding()
_UNSUPPORTED: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


class _Making:
    """Files that compiled code is making."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.done = inner.done

    def result(self) -> Sequence[Stat] | None:
        try:
            return [Seen(*found) for found in self._inner.result()]
        except OSError:
            return None


class RealFS:
    """The folder at `directory` of this machine."""

    def __init__(self, directory: str | bytes | os.PathLike[str]) -> None:
        self._directory = os.fsencode(directory)
        self._root = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: dict[bytes, int] = {}
        self._most = _most_open()

    # --- looking

    def scandir(self, path: bytes) -> list[tuple[bytes, Stat | None]]:
        found: list[tuple[bytes, Stat | None]] = []
        with os.scandir(self._dir(path)) as entries:
            for entry in entries:
                raw = entry.name.encode(_ENCODING, "surrogateescape")
                try:
                    found.append((raw, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
                except OSError:
                    found.append((raw, None))
        return found

    def lstat(self, path: bytes) -> Stat:
        if not path:
            return os.fstat(self._root)
        return os.lstat(name_of(path), dir_fd=self._dir(parent(path)))

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(name_of(path), dir_fd=self._dir(parent(path)))

    def open_read(self, path: bytes) -> RealFile:
        return self._regular(os.open(name_of(path), _READ, dir_fd=self._dir(parent(path))))

    def read_small(self, path: bytes, limit: int) -> tuple[bytes, Stat, Stat]:
        # Thousands of these are a push's first phase: five calls of the system each, and no object.
        fd = os.open(name_of(path), _READ, dir_fd=self._dir(parent(path)))
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            size, data = before.st_size, b""
            if size <= limit:
                data = more = os.read(fd, size + 1)
                while more and len(data) < size:
                    more = os.read(fd, size + 1 - len(data))
                    data += more
            return data, before, os.fstat(fd)
        finally:
            os.close(fd)

    # --- writing

    def create(self, path: bytes, mode: int = 0o600) -> RealFile:
        try:
            return RealFile(os.open(name_of(path), _CREATE, mode, dir_fd=self._dir(parent(path))))
        except OSError as error:
            if path.startswith(OWN):  # a made-up name, another one at each try, tells nobody where
                error.filename = self._directory
            raise

    def make_many(self, directory: bytes, files: Sequence[NewFile]) -> Making:
        if _files is not None:
            with (
                contextlib.suppress(OSError, OverflowError),
                self._held(directory) as where,
            ):
                return _Making(_files.Making(where, files))
        return Ready()

    def open_update(self, path: bytes) -> RealFile:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return self._regular(os.open(name_of(path), flags, dir_fd=self._dir(parent(path))))

    def rename(self, source: bytes, target: bytes, how: Rename) -> None:
        if len(self._open) + 2 > self._most:
            self._trim()
        old, new = self._dir(parent(source)), self._dir(parent(target))
        a, b = name_of(source), name_of(target)
        if how is Rename.REPLACE:
            os.rename(a, b, src_dir_fd=old, dst_dir_fd=new)
        elif how is Rename.EXCHANGE:
            _exchange(old, a, new, b)
        else:
            _rename_keeping(old, a, new, b)
        if not source.startswith(OWN):
            self._forget_below(source)

    def move_many(
        self, source: bytes, target: bytes, names: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Stat | None]:
        if _files is not None:
            with (
                contextlib.suppress(OSError),
                self._held(source) as old,
                self._held(target) as new,
            ):
                moved = _files.move_files(old, new, names)
                return [None if found is None else Seen(*found) for found in moved]
        return [None] * len(names)

    def unlink(self, path: bytes) -> None:
        os.unlink(name_of(path), dir_fd=self._dir(parent(path)))

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(name_of(path), mode, dir_fd=self._dir(parent(path)))

    def rmdir(self, path: bytes) -> None:
        self._forget_below(path)
        os.rmdir(name_of(path), dir_fd=self._dir(parent(path)))

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, name_of(path), dir_fd=self._dir(parent(path)))

    def chmod(self, path: bytes, mode: int) -> None:
        # O_PATH needs no permission to read, and O_NOFOLLOW makes it the symlink itself.
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name_of(path), flags, dir_fd=self._dir(parent(path)))
        try:
            now = os.fstat(fd).st_mode
            if stat.S_ISLNK(now):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            # What a directory's group inherits is no permission, does not travel and stays.
            kept = now & 0o7000 if stat.S_ISDIR(now) else 0
            os.chmod(f"/proc/self/fd/{fd}", mode | kept)
        finally:
            os.close(fd)

    def utime(self, path: bytes, mtime_ns: int) -> None:
        fd = self._dir(parent(path))
        os.utime(name_of(path), ns=(mtime_ns, mtime_ns), dir_fd=fd, follow_symlinks=False)

    # --- durability

    def sync_directory(self, path: bytes) -> None:
        os.fsync(self._dir(path))

    def sync_all(self) -> None:
        syncfs(self._root)

    # --- the folder itself

    def free_space(self) -> int:
        disk = os.fstatvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def identity(self) -> tuple[int, int]:
        root = os.stat(self._directory)
        return root.st_dev, root.st_ino

    def refresh(self) -> None:
        self.forget()
        fresh = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.close(self._root)
        self._root = fresh

    def forget(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def close(self) -> None:
        self.forget()
        os.close(self._root)

    # --- directories' descriptors

    def _dir(self, path: bytes) -> int:
        """A descriptor of the directory, valid until the next call; it is kept until `forget`."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is None:
            if len(self._open) >= self._most:
                self._trim()
            fd = self._open[path] = self._walk(path)
        return fd

    def _walk(self, path: bytes) -> int:
        """Open a directory, from the nearest one above it that is open."""
        above = parent(path)
        while above and above not in self._open:
            above = parent(above)
        base = self._open[above] if above else self._root
        return _open_below(base, path[len(above) + 1 :] if above else path)

    @contextlib.contextmanager
    def _held(self, path: bytes) -> Iterator[int]:
        """A descriptor of the directory for the calling thread alone, whichever that is."""
        fd = _open_below(self._root, path) if path else os.dup(self._root)
        try:
            yield fd
        finally:
            os.close(fd)

    def _trim(self) -> None:
        for path in list(self._open)[: self._most // 2]:
            os.close(self._open.pop(path))

    def _forget_below(self, path: bytes) -> None:
        below = path + b"/"
        for key in [key for key in self._open if key == path or key.startswith(below)]:
            os.close(self._open.pop(key))

    @staticmethod
    def _regular(fd: int) -> RealFile:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return RealFile(fd)
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")


def _most_open() -> int:
    """How many directories are kept open: half of the descriptors are for all else."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _OPEN_DIRECTORIES if limit < 0 else max(8, min(_OPEN_DIRECTORIES, limit // 2))


def _open_below(base: int, path: bytes) -> int:
    """Open a directory part by part, through no symlink."""
    fd = base
    for part in path.split(b"/"):
        try:
            below = os.open(part, _DIRECTORY, dir_fd=fd)
        finally:
            if fd != base:
                os.close(fd)
        fd = below
    return fd


def _exchange(old: int, a: bytes, new: int, b: bytes) -> None:
    try:
        renameat2(old, a, new, b, EXCHANGE)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP)) from None
        raise


def _rename_keeping(old: int, a: bytes, new: int, b: bytes) -> None:
    """Rename unless something is there; by hand where the kernel or the disk does not offer it."""
    try:
        renameat2(old, a, new, b, NOREPLACE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _link_and_unlink(old, a, new, b)


def _link_and_unlink(old: int, a: bytes, new: int, b: bytes) -> None:
    try:
        os.link(a, b, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EMLINK, *_UNSUPPORTED):
            raise
        # A directory, or a disk without hard links: the gap between these two can't be closed.
        try:
            os.lstat(b, dir_fd=new)
        except FileNotFoundError:
            os.rename(a, b, src_dir_fd=old, dst_dir_fd=new)
            return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
    os.unlink(a, dir_fd=old)
