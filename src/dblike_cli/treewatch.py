"""Watching a directory tree: what the kernel says becomes hints, and doubt becomes "everywhere".

On Linux this stands on watchdog's inotify reader, below its observer.  The observer would also
watch .dblike, where every download makes a dozen events; it holds a file that is moved out of the
tree back for half a second; and it swallows the error that says that the watches are used up.
Elsewhere the observer serves.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from dblike_delta.paths import is_below, is_reserved, join

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import InotifyEvent, InotifyFD, WatchDescriptor

_LIMITS: Final = Path("/proc/sys/fs/inotify")

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT = 0x400, 0x800, 0x2000
_ONLYDIR, _DONT_FOLLOW, _EXCL_UNLINK, _ISDIR = 0x1000000, 0x2000000, 0x4000000, 0x40000000
_CHANGES = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_MASK: Final = _CHANGES | _DELETE_SELF | _MOVE_SELF | _ONLYDIR | _EXCL_UNLINK
_SETTLED = _CLOSE_WRITE | _MOVED_TO | _DELETE
"""After these the path is what it will be; after the others more is likely to follow at once."""
_MOST_MOVING: Final = 1000
"""So many names that something left are remembered until word of the new one comes."""


class Listener(Protocol):
    """Hears of changes, from another thread."""

    def touch(self, *paths: bytes, settled: bool) -> None:
        """Look at these paths, at all at once, and at what lies below them."""

    def everywhere(self) -> None:
        """Events were lost: look everywhere."""


class TreeWatch(Protocol):
    """Watches a tree while it is open."""

    @property
    def blind(self) -> int:
        """Directories that can't be watched, because there are no watches left."""

    @property
    def lost(self) -> bool:
        """Whether the directory that was watched is gone, so that nothing more will be heard."""

    @property
    def trouble(self) -> str:
        """Why watching ended; empty while it goes on."""

    def close(self) -> None:
        """Stop watching."""


def watch_tree(root: Path, listener: Listener) -> TreeWatch | None:
    """Watch everything below `root` but .dblike; None where nothing can be watched at all."""
    try:
        linux = sys.platform.startswith("linux")
        return InotifyTree(os.fsencode(root), listener) if linux else ObserverTree(root, listener)
    except OSError:
        return None


def watch_limit() -> int | None:
    """How many directories this user may watch, where the system says so."""
    return _limit("max_user_watches")


def instance_limit() -> int | None:
    """How many programs of this user may watch any, likewise."""
    return _limit("max_user_instances")


def _limit(name: str) -> int | None:
    try:
        return int((_LIMITS / name).read_text())
    except (OSError, ValueError):
        return None


class InotifyTree:
    """One inotify instance, one watch for each directory."""

    def __init__(self, root: bytes, listener: Listener) -> None:
        from watchdog.observers.inotify_c import InotifyFD

        self._root = root
        self._listener = listener
        self._unseen: set[bytes] = set()
        self._lock = threading.Lock()
        self._paths: dict[WatchDescriptor, bytes] = {}
        self._watches: dict[bytes, WatchDescriptor] = {}
        self._moving: dict[int, bytes] = {}
        self.trouble = ""
        self._inotify: InotifyFD = InotifyFD()
        self._inotify.run = partial(self._run, self._inotify.run)  # type: ignore[method-assign]
        self._watch(b"")
        is_there = bool(self._paths)
        self._watch_below(b"")
        # What happens meanwhile waits in the kernel, so that one thread alone keeps the watches.
        self._inotify.start()
        if not is_there:
            self.close()
            raise OSError(errno.ENOSPC, "no inotify watches are left")

    @property
    def blind(self) -> int:
        """How many directories the watches did not reach for."""
        return len(self._unseen)

    @property
    def lost(self) -> bool:
        """Whether the root is not watched any more: it was deleted, or its disk is away.  Another
        directory that has its name may have its inode, too."""
        return b"" not in self._watches

    def close(self) -> None:
        """Stop watching."""
        self._inotify.stop()
        self._inotify.join()

    # --- what watchdog's reader calls, in its thread

    def _run(self, read: Callable[[], None]) -> None:
        """All of the thread.  Whatever ends it is told: it must not be taken for quiet."""
        try:
            read()
        except Exception as error:  # noqa: BLE001
            self.trouble = str(error) or type(error).__name__
            self._listener.everywhere()

    def on_event(self, event: InotifyEvent) -> None:
        """Something happened in a watched directory."""
        with self._lock:
            directory = self._paths.get(event.wd)
        if directory is None:
            return
        if not event.name:
            if event.mask & (_DELETE_SELF | _MOVE_SELF | _UNMOUNT) and not directory:
                self._listener.everywhere()
            return
        path = join(directory, event.name)
        if is_reserved(path):
            return
        former = self._former(path, event)
        if former is not None:
            # Whoever looks at the old name alone takes it for a delete.
            self._listener.touch(former, path, settled=True)
        if event.mask & _ISDIR:
            self._directory(path, event.mask)
        if former is None or event.mask & _ISDIR:  # it takes a while to watch what is below
            settled = event.mask & (_SETTLED | _ISDIR) and not event.mask & _MOVED_FROM
            self._listener.touch(path, settled=bool(settled))

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """A watched directory is gone."""
        with self._lock:
            self._forget(wd)

    def on_queue_overflow(self) -> None:
        """The kernel dropped events: directories may have come, gone and moved."""
        self._unwatch(b"")
        self._unseen.clear()
        self._watch(b"")
        self._watch_below(b"")
        self._listener.everywhere()

    # --- inside

    def _former(self, path: bytes, event: InotifyEvent) -> bytes | None:
        """The name that what moved here had in the tree.  Word of the two comes one after the
        other: where none comes of a new name, what left has left the tree."""
        if event.mask & _MOVED_TO:
            return self._moving.pop(event.cookie, None)
        if event.mask & _MOVED_FROM:
            if len(self._moving) >= _MOST_MOVING:
                self._moving.clear()
            self._moving[event.cookie] = path
        return None

    def _directory(self, path: bytes, mask: int) -> None:
        if self._unseen and mask & (_MOVED_FROM | _MOVED_TO | _DELETE):
            self._unseen = {p for p in self._unseen if p != path and not is_below(p, path)}
        if mask & (_MOVED_FROM | _MOVED_TO):
            self._unwatch(path)
        elif mask & _DELETE:
            # The kernel ends the watch only when nobody has the directory open any more; another
            # one may have its name by then.
            self._drop([path] if path in self._watches else [])
        if not mask & _DELETE and path not in self._watches:
            # Watched first and listed afterwards, so that nothing falls between the two.  Where one
            # went another one may have come in exchange; and one that may be read from now on was
            # not watched before.
            self._watch(path)
            self._watch_below(path)

    def _watch(self, path: bytes) -> None:
        if path in self._watches:
            return
        full = os.path.join(self._root, path) if path else self._root
        # The folder may be reached by a symlink; what is in it is never one.
        mask = _MASK | _DONT_FOLLOW if path else _MASK
        try:
            wd = self._inotify.add_callback(full, mask, self, path)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._unseen.add(path)
            return
        if wd < 0:  # watchdog's word for a directory that may not be read
            self._inotify.remove_callbacks([(wd, path)])  # type: ignore[list-item]
            return
        former = self._paths.get(wd)
        if former is not None:
            # It moved here, and word of that is still to come, or does not come: this directory
            # was not watched when it did.
            self._unwatch(former)
        with self._lock:
            self._paths[wd] = path
            self._watches[path] = wd

    def _watch_below(self, top: bytes) -> None:
        pending = [top]
        while pending:
            directory = pending.pop()
            try:
                with os.scandir(os.path.join(self._root, directory)) as entries:
                    below = [join(directory, e.name) for e in entries if _may_be_directory(e)]
            except OSError:
                continue
            for path in below:
                if not is_reserved(path):
                    self._watch(path)
                    pending.append(path)

    def _unwatch(self, top: bytes) -> None:
        if top not in self._watches:
            return
        self._drop([path for path in self._watches if path == top or is_below(path, top)])

    def _drop(self, paths: list[bytes]) -> None:
        with self._lock:
            gone = [(self._watches[path], path) for path in paths]
            for wd, _ in gone:
                self._forget(wd)
        self._inotify.remove_callbacks(gone)  # type: ignore[arg-type]

    def _forget(self, wd: WatchDescriptor) -> None:
        path = self._paths.pop(wd, None)
        if path is not None and self._watches.get(path) == wd:
            del self._watches[path]


def _may_be_directory(entry: os.DirEntry[bytes]) -> bool:
    """To watch what is none fails without harm.  Where the disk does not say in its listing what an
    entry is, asking may fail."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return True


class ObserverTree:
    """Whatever the system has, through watchdog's observer."""

    def __init__(self, root: Path, listener: Listener) -> None:
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer

        self.blind = 0
        self.lost, self.trouble = False, ""
        self._root = os.path.join(os.fsencode(root), b"")
        self._listener = listener
        handler = FileSystemEventHandler()
        handler.on_any_event = self._hear  # type: ignore[method-assign]
        self._observer = Observer()
        self._observer.schedule(handler, os.fspath(root), recursive=True)
        self._observer.start()

    def close(self) -> None:
        """Stop watching."""
        self._observer.stop()
        self._observer.join()

    def _hear(self, event: Any) -> None:
        if event.event_type in ("opened", "closed_no_write"):
            return
        settled = event.event_type in ("closed", "moved", "deleted") or event.is_directory
        full = [os.fsencode(raw) for raw in (event.src_path, event.dest_path) if raw]
        paths = [path[len(self._root) :] for path in full if path.startswith(self._root)]
        self._listener.touch(*(p for p in paths if not is_reserved(p)), settled=settled)
