"""An open file of this machine's disk."""

from __future__ import annotations

import errno
import os
from typing import Final

from dblike_cli.fs import File, Stat
from dblike_delta.commands import Data
from dblike_delta.system import Strides

_NOT_BY_THE_KERNEL: Final = (
    errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV, errno.EBADF, errno.EPERM,
)  # fmt: skip


class RealFile:
    """A descriptor."""

    __slots__ = ("_strides", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._strides = Strides()

    def read(self, size: int) -> bytes:
        data = os.read(self.fd, size)
        if len(data) == size or not data:
            return data
        parts = [data]
        missing = size - len(data)
        while missing and (data := os.read(self.fd, missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self.fd, size, offset)
        while len(data) < size and (
            more := os.pread(self.fd, size - len(data), offset + len(data))
        ):
            data += more
        return data

    def write(self, data: Data) -> None:
        done = os.write(self.fd, data)
        view = memoryview(data)
        while done < view.nbytes:
            done += os.write(self.fd, view[done:])
        self._strides.wrote(self.fd, done)

    def copy_from(self, source: File, offset: int, length: int) -> None:
        if isinstance(source, RealFile):
            done = self._copy_range(source.fd, offset, length)
            offset, length = offset + done, length - done
        while length:
            data = source.pread(min(length, 1 << 20), offset)
            if not data:
                raise OSError(errno.EIO, "the file is shorter than it was")
            self.write(data)
            offset, length = offset + len(data), length - len(data)

    def _copy_range(self, source: int, offset: int, length: int) -> int:
        """What the kernel copies by itself; the rest is up to the caller."""
        done = 0
        try:
            while done < length:
                step = os.copy_file_range(source, self.fd, length - done, offset + done)
                if not step:
                    break
                done += step
        except OSError as error:
            if error.errno not in _NOT_BY_THE_KERNEL:
                raise
        return done

    def seek_end(self) -> int:
        return os.lseek(self.fd, 0, os.SEEK_END)

    def truncate(self, size: int) -> None:
        os.ftruncate(self.fd, size)
        os.lseek(self.fd, size, os.SEEK_SET)

    def stat(self) -> Stat:
        return os.fstat(self.fd)

    def chmod(self, mode: int) -> None:
        os.fchmod(self.fd, mode)

    def utime(self, mtime_ns: int) -> None:
        os.utime(self.fd, ns=(mtime_ns, mtime_ns))

    def sync(self) -> None:
        os.fsync(self.fd)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
