"""Directories in which their owner may not do everything, opened while there is work in them."""

from __future__ import annotations

import contextlib
import stat

from dblike_cli.context import Context
from dblike_cli.entries import PERMISSIONS, UNTRUSTED, stamp_of
from dblike_cli.fs import FileSystem
from dblike_cli.place import is_closed


class Closed:
    """Those of one apply.  Until each has its mode the tree has no stamp of it, so that a start
    after a crash gives it that."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._modes: dict[bytes, int] = {}
        self._seen: set[bytes] = set()

    def made(self, path: bytes, mode: int) -> None:
        """A new directory is open, and is to get this mode in the end."""
        self._modes[path] = mode

    def open(self, path: bytes) -> None:
        """Something is to be done in a directory: open it, where it is as was agreed on."""
        if path in self._seen:
            return
        self._seen.add(path)
        known = self._context.state.tree.get(path)
        entry = known.synced.entry if known is not None else None
        if entry is None or not is_closed(entry):
            return
        with contextlib.suppress(OSError):  # what is to be done in it says what is wrong
            self._open(path, entry.mode)

    def _open(self, path: bytes, mode: int) -> None:
        fs, state = self._context.fs, self._context.state
        if not _has_mode(fs, path, mode):
            return  # somebody gave it another one, or it is new and open
        with state.transaction():
            state.tree.restamp([(path, UNTRUSTED)])
        fs.chmod(path, mode | 0o700)
        self._modes[path] = mode

    def close(self) -> None:
        """Nothing is left to do in any of them."""
        fs, state = self._context.fs, self._context.state
        for path, mode in sorted(self._modes.items(), reverse=True):
            try:
                if not close_directory(fs, path, mode):
                    continue
                stamp = stamp_of(fs.lstat(path))
            except OSError:
                continue
            with state.transaction():
                state.tree.restamp([(path, stamp)])


def close_directory(fs: FileSystem, path: bytes, mode: int) -> bool:
    """Give a directory that was opened its mode; False where somebody gave it another one since."""
    if not _has_mode(fs, path, mode | 0o700):
        return False
    fs.chmod(path, mode)
    return True


def _has_mode(fs: FileSystem, path: bytes, mode: int) -> bool:
    st = fs.lstat(path)
    return stat.S_ISDIR(st.st_mode) and st.st_mode & PERMISSIONS == mode
