"""A folder in memory that keeps to the client's `FileSystem` contract, and can fail at any call.

Times come from a clock of the test's.  `hook(name)` is called before every call that changes
something; what it raises happens instead of the call.
"""

from __future__ import annotations

import copy
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from dblike_cli.fs import NewFile, Ready, Rename


def error(number: int, path: bytes = b"") -> OSError:
    return OSError(number, os.strerror(number), os.fsdecode(path))


@dataclass
class Inode:
    """A file, directory or symlink; `children` tells a directory, `target` a symlink."""

    number: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    data: bytearray = field(default_factory=bytearray)
    children: dict[bytes, Inode] | None = None
    target: bytes = b""

    @property
    def size(self) -> int:
        return len(self.target) if stat.S_ISLNK(self.mode) else len(self.data)


class MemFS:
    """The folder.  `now_ns` is its disk's clock."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._numbers = iter(range(1, 1 << 62))
        self.hook: Callable[[str], None] = lambda _: None
        self.changes = 0
        self.root = self._inode(stat.S_IFDIR | 0o755, children={})

    def snapshot(self) -> Inode:
        """The whole tree as it is, to go back to."""
        return copy.deepcopy(self.root)

    def restore(self, root: Inode) -> None:
        """Go back to a snapshot, as a disk does that comes from a backup: with new inodes."""
        self.root = copy.deepcopy(root)
        for _, inode in walk(self.root):
            inode.number = next(self._numbers)
            inode.ctime_ns = self._now_ns()

    def return_to(self, root: Inode) -> None:
        """Go back to a snapshot, as a virtual machine does: inode for inode."""
        self.root = copy.deepcopy(root)

    # --- looking

    def scandir(self, path: bytes) -> list[tuple[bytes, Any]]:
        return [(name, _stat(inode)) for name, inode in self._directory(path).items()]

    def lstat(self, path: bytes) -> Any:
        return _stat(self._find(path))

    def readlink(self, path: bytes) -> bytes:
        inode = self._find(path)
        if not stat.S_ISLNK(inode.mode):
            raise error(errno.EINVAL, path)
        return inode.target

    def open_read(self, path: bytes) -> MemFile:
        inode = self._find(path)
        if stat.S_ISLNK(inode.mode):
            raise error(errno.ELOOP, path)
        if not stat.S_ISREG(inode.mode):
            raise error(errno.EINVAL, path)
        return MemFile(self, inode)

    def read_small(self, path: bytes, limit: int) -> tuple[bytes, Any, Any]:
        file = self.open_read(path)
        before = file.stat()
        return file.read(before.st_size if before.st_size <= limit else 0), before, file.stat()

    # --- changing

    def create(self, path: bytes, mode: int = 0o600) -> MemFile:
        self._change("create")
        siblings, name = self._place(path)
        if name in siblings:
            raise error(errno.EEXIST, path)
        siblings[name] = self._inode(stat.S_IFREG | mode)
        return MemFile(self, siblings[name])

    def make_many(self, directory: bytes, files: Sequence[NewFile]) -> Ready:
        return Ready()

    def open_update(self, path: bytes) -> MemFile:
        return self.open_read(path)

    def rename(self, source: bytes, target: bytes, how: Rename) -> None:
        self._change("rename")
        old, a = self._place(source)
        new, b = self._place(target)
        if a not in old:
            raise error(errno.ENOENT, source)
        if how is Rename.KEEP and b in new:
            raise error(errno.EEXIST, target)
        if how is Rename.EXCHANGE:
            if b not in new:
                raise error(errno.ENOENT, target)
            old[a], new[b] = new[b], old[a]
        else:
            self._check_replace(old[a], new.get(b), target)
            new[b] = old.pop(a)
        for inode in filter(None, (new.get(b), old.get(a))):
            inode.ctime_ns = self._now_ns()

    def move_many(
        self, source: bytes, target: bytes, names: Sequence[tuple[bytes, bytes]]
    ) -> list[None]:
        return [None] * len(names)

    def unlink(self, path: bytes) -> None:
        self._change("unlink")
        siblings, name = self._place(path)
        if name not in siblings:
            raise error(errno.ENOENT, path)
        if siblings[name].children is not None:
            raise error(errno.EISDIR, path)
        del siblings[name]

    def mkdir(self, path: bytes, mode: int) -> None:
        self._change("mkdir")
        siblings, name = self._place(path)
        if name in siblings:
            raise error(errno.EEXIST, path)
        siblings[name] = self._inode(stat.S_IFDIR | mode, children={})

    def rmdir(self, path: bytes) -> None:
        self._change("rmdir")
        siblings, name = self._place(path)
        if self._directory(path):
            raise error(errno.ENOTEMPTY, path)
        del siblings[name]

    def symlink(self, target: bytes, path: bytes) -> None:
        self._change("symlink")
        siblings, name = self._place(path)
        if name in siblings:
            raise error(errno.EEXIST, path)
        siblings[name] = self._inode(stat.S_IFLNK | 0o777)
        siblings[name].target = target

    def chmod(self, path: bytes, mode: int) -> None:
        self._change("chmod")
        inode = self._find(path)
        if stat.S_ISLNK(inode.mode):
            raise error(errno.ELOOP, path)
        self.touch(inode, mode=mode)

    def utime(self, path: bytes, mtime_ns: int) -> None:
        self._change("utime")
        self.touch(self._find(path), mtime_ns=mtime_ns)

    def sync_directory(self, path: bytes) -> None:
        self._change("sync_directory")
        self._directory(path)

    def sync_all(self) -> None:
        self._change("sync_all")

    def free_space(self) -> int:
        return 1 << 50

    def identity(self) -> tuple[int, int]:
        return 1, self.root.number

    def refresh(self) -> None:
        """Nothing is kept open here."""

    def forget(self) -> None:
        """Nothing is kept open here."""

    def close(self) -> None:
        """Nothing is kept open here."""

    # --- inside

    def touch(self, inode: Inode, *, mode: int | None = None, mtime_ns: int | None = None) -> None:
        if mode is not None:
            inode.mode = stat.S_IFMT(inode.mode) | mode
        if mtime_ns is not None:
            inode.mtime_ns = mtime_ns
        inode.ctime_ns = self._now_ns()

    def written(self, inode: Inode) -> None:
        inode.mtime_ns = inode.ctime_ns = self._now_ns()

    def change(self, name: str) -> None:
        self._change(name)

    def _change(self, name: str) -> None:
        self.changes += 1
        self.hook(name)

    def _inode(self, mode: int, children: dict[bytes, Inode] | None = None) -> Inode:
        now = self._now_ns()
        return Inode(next(self._numbers), mode, now, now, children=children)

    def _find(self, path: bytes) -> Inode:
        inode = self.root
        for part in path.split(b"/") if path else []:
            if inode.children is None:
                raise error(errno.ELOOP if inode.target else errno.ENOTDIR, path)
            try:
                inode = inode.children[part]
            except KeyError:
                raise error(errno.ENOENT, path) from None
        return inode

    def _directory(self, path: bytes) -> dict[bytes, Inode]:
        children = self._find(path).children
        if children is None:
            raise error(errno.ENOTDIR, path)
        return children

    def _place(self, path: bytes) -> tuple[dict[bytes, Inode], bytes]:
        above, _, name = path.rpartition(b"/")
        return self._directory(above), name

    def _check_replace(self, source: Inode, target: Inode | None, path: bytes) -> None:
        if target is None or target is source:
            return
        if target.children is not None:
            if source.children is None:
                raise error(errno.EISDIR, path)
            if target.children:
                raise error(errno.ENOTEMPTY, path)
        elif source.children is not None:
            raise error(errno.ENOTDIR, path)


class MemFile:
    """An open file of a MemFS; it goes on being that file when its name is gone."""

    def __init__(self, fs: MemFS, inode: Inode) -> None:
        self._fs = fs
        self._inode = inode
        self._at = 0

    def read(self, size: int) -> bytes:
        data = self.pread(size, self._at)
        self._at += len(data)
        return data

    def pread(self, size: int, offset: int) -> bytes:
        return bytes(self._inode.data[offset : offset + size])

    def write(self, data: Any) -> None:
        self._fs.change("write")
        raw = bytes(data)
        self._inode.data[self._at : self._at + len(raw)] = raw
        self._at += len(raw)
        self._fs.written(self._inode)

    def copy_from(self, source: Any, offset: int, length: int) -> None:
        data = source.pread(length, offset)
        if len(data) < length:
            raise error(errno.EIO)
        self.write(data)

    def seek_end(self) -> int:
        self._at = len(self._inode.data)
        return self._at

    def truncate(self, size: int) -> None:
        self._fs.change("truncate")
        del self._inode.data[size:]
        self._inode.data.extend(bytes(size - len(self._inode.data)))
        self._at = size
        self._fs.written(self._inode)

    def stat(self) -> Any:
        return _stat(self._inode)

    def chmod(self, mode: int) -> None:
        self._fs.change("chmod")
        self._fs.touch(self._inode, mode=mode)

    def utime(self, mtime_ns: int) -> None:
        self._fs.change("utime")
        self._fs.touch(self._inode, mtime_ns=mtime_ns)

    def sync(self) -> None:
        self._fs.change("sync")

    def close(self) -> None:
        """Nothing to let go of."""


def walk(inode: Inode, path: bytes = b"") -> Iterator[tuple[bytes, Inode]]:
    """Every inode below (and with) this one, with its path."""
    yield path, inode
    for name, child in (inode.children or {}).items():
        yield from walk(child, path + b"/" + name if path else name)


def _stat(inode: Inode) -> Any:
    return SimpleNamespace(
        st_mode=inode.mode,
        st_size=inode.size,
        st_mtime_ns=inode.mtime_ns,
        st_ctime_ns=inode.ctime_ns,
        st_ino=inode.number,
        st_dev=1,
    )
