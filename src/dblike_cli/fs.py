"""The file system as the engine sees it: one folder, and paths beneath it as bytes.

`FileSystem` and `File` are the seam; errors are OSError with the errno that Linux gives.  The
client's own files lie in the same folder, below `.dblike`, so that a temporary file can take the
place of a user's by a rename.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from dblike_delta.commands import Data

OWN: Final = b".dblike"
"""The client's own directory, in the root of every linked folder."""


class Stat(Protocol):
    """What lstat says; `os.stat_result` is one."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_dev(self) -> int: ...


class Rename(enum.Enum):
    """What a rename does with what is at its target."""

    REPLACE = enum.auto()  # it goes
    KEEP = enum.auto()  # FileExistsError; of our own files alone, as some disks need two steps
    EXCHANGE = enum.auto()  # it takes the source's name; ENOTSUP where the disk can't


class NewFile(NamedTuple):
    """A file to be made: its name in its directory, and all of it."""

    name: bytes
    data: Data
    mode: int
    mtime_ns: int


class Seen(NamedTuple):
    """A Stat of a file that was just made."""

    st_mode: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_ino: int
    st_dev: int


class File(Protocol):
    """An open regular file."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes from the position on; fewer only at the end."""

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset` on; fewer only at the end.  The position stays."""

    def write(self, data: Data) -> None:
        """All of `data` at the position."""

    def copy_from(self, source: File, offset: int, length: int) -> None:
        """`length` bytes of another file at the position; EIO where it has fewer."""

    def seek_end(self) -> int:
        """Go to the end; where that is."""

    def truncate(self, size: int) -> None: ...
    def stat(self) -> Stat: ...
    def chmod(self, mode: int) -> None: ...
    def utime(self, mtime_ns: int) -> None: ...

    def sync(self) -> None:
        """Make content and size durable.  After an error the file is not to be trusted."""

    def close(self) -> None: ...


class Making(Protocol):
    """Files that are being made, while their maker goes on."""

    def done(self) -> bool:
        """Whether `result` need not wait."""

    def result(self) -> Sequence[Stat] | None:
        """The lstats of all.  None: there is none of them, and each is to be made by itself, which
        says why."""


class Ready:
    """What was made at once, or (None) can't be made with others."""

    def __init__(self, stats: Sequence[Stat] | None = None) -> None:
        self._stats = stats

    def done(self) -> bool:
        return True

    def result(self) -> Sequence[Stat] | None:
        return self._stats


class FileSystem(Protocol):
    """A folder.  Paths are relative to its root, which is b""."""

    def scandir(self, path: bytes) -> list[tuple[bytes, Stat | None]]:
        """Names in a directory in any order, each with its lstat; None where lstat failed."""

    def lstat(self, path: bytes) -> Stat: ...
    def readlink(self, path: bytes) -> bytes: ...

    def open_read(self, path: bytes) -> File:
        """For reading; EINVAL for what is no regular file."""

    def read_small(self, path: bytes, limit: int) -> tuple[bytes, Stat, Stat]:
        """What is in a regular file (nothing, where that is over `limit`), and what stat said of it
        before and after; EINVAL for what is none."""

    def create(self, path: bytes, mode: int = 0o600) -> File:
        """A new regular file, for reading and writing."""

    def make_many(self, directory: bytes, files: Sequence[NewFile]) -> Making:
        """Begin to make new regular files, all or none."""

    def open_update(self, path: bytes) -> File:
        """An existing regular file, for reading and writing from its beginning."""

    def rename(self, source: bytes, target: bytes, how: Rename) -> None: ...
    def move_many(
        self, source: bytes, target: bytes, names: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Stat | None]:
        """Rename from one directory into another where nothing is in the way, in any order.  May be
        called in any thread.

        What lstat says of each afterwards; None for one that stays where it is, to be renamed by
        itself, which says why.
        """

    def unlink(self, path: bytes) -> None: ...
    def mkdir(self, path: bytes, mode: int) -> None: ...
    def rmdir(self, path: bytes) -> None: ...
    def symlink(self, target: bytes, path: bytes) -> None: ...

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the permission bits of a file or directory, not following a symlink."""

    def utime(self, path: bytes, mtime_ns: int) -> None: ...

    def sync_directory(self, path: bytes) -> None:
        """Make the names in a directory durable."""

    def sync_all(self) -> None:
        """Make all that was written on this disk durable.  May be called in any thread."""

    def free_space(self) -> int:
        """Bytes that can still be written."""

    def identity(self) -> tuple[int, int]:
        """Device and inode of what the root's name leads to now."""

    def refresh(self) -> None:
        """Open the root anew, by its name, and forget all else that was opened."""

    def forget(self) -> None:
        """Look for directories anew, by their paths: they may have been moved or replaced since
        they were opened.  The root stays what it is."""

    def close(self) -> None: ...
