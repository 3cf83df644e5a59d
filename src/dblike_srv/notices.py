"""Notices: "folder f is at cursor c", from the worker that committed to all that listen.

Notices are hints.  One that is lost costs latency and nothing else, since whoever listens also
re-reads the folders' positions every few seconds; so nothing here waits for anyone for long.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, Self

FOLDER_BYTES: Final = 16
LARGEST: Final = 32 << 10
"""Bytes of a datagram; a cursor has some sixty a site."""
PATIENCE: Final = 0.05
"""Seconds that a publisher waits for a listener whose queue is full before it passes it over."""

Listener = Callable[[bytes, str], None]

log = logging.getLogger(__name__)


class Notices(Protocol):
    """Publish and subscribe.  A listener is called from any thread, and must return at once."""

    def publish(self, folder: bytes, cursor: str) -> None:
        """Tell every listener of the site that `folder` (its id) is at `cursor`; never raises."""

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` from now on."""

    def unsubscribe(self, listener: Listener) -> None:
        """Stop calling `listener`; unknown ones are ignored."""

    def close(self) -> None:
        """Let go of sockets and files."""


class MemoryNotices:
    """Notices within one process, delivered before `publish` returns."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.Lock()

    def publish(self, folder: bytes, cursor: str) -> None:
        for listener in self._listeners:
            try:
                listener(folder, cursor)
            except Exception:
                log.exception("a listener of notices failed")

    def subscribe(self, listener: Listener) -> None:
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def unsubscribe(self, listener: Listener) -> None:
        with self._lock:
            self._listeners = tuple(known for known in self._listeners if known != listener)

    def close(self) -> None:
        with self._lock:
            self._listeners = ()


class LocalNotices(MemoryNotices):
    """Notices between the processes of one host, by unix datagram sockets in a directory.

    A process that listens binds a socket there; one that publishes sends to each it finds, and
    removes those whose process is gone.  A process that only publishes binds none.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._inbox: _Inbox | None = None

    def subscribe(self, listener: Listener) -> None:
        super().subscribe(listener)
        with self._lock:
            if self._inbox is None:
                self._inbox = _Inbox(self._directory, super().publish)

    def publish(self, folder: bytes, cursor: str) -> None:
        super().publish(folder, cursor)
        datagram = folder + cursor.encode("ascii", "replace")
        if len(datagram) > LARGEST:
            return
        own = self._inbox.path.name if self._inbox else ""
        try:
            others = [entry.name for entry in os.scandir(self._directory) if entry.name != own]
        except OSError:
            return  # nobody on this host ever listened
        if others:
            _send_all(self._directory, others, datagram)

    def close(self) -> None:
        super().close()
        with self._lock:
            inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.close()


class _Inbox:
    """The socket that this process is reached at, and the thread that reads it."""

    def __init__(self, directory: Path, deliver: Listener) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._deliver = deliver
        self._closed = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with _Near(directory) as near:
            self._socket.bind(near.address(self.path.name))
        self._thread = threading.Thread(target=self._read, name="notices", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._closed:
            try:
                datagram = self._socket.recv(LARGEST + 1)
            except OSError:
                return
            if len(datagram) > FOLDER_BYTES:
                cursor = datagram[FOLDER_BYTES:].decode("ascii", "replace")
                self._deliver(datagram[:FOLDER_BYTES], cursor)

    def close(self) -> None:
        """End the reading thread; the shutdown wakes it."""
        self._closed = True
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)
        self._socket.close()


class _Near:
    """Addresses in a directory by its descriptor: a socket's path may have 107 bytes at most."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def address(self, name: str) -> str:
        """What to bind or send to for the socket called `name`."""
        return f"/proc/self/fd/{self._descriptor}/{name}"


def _send_all(directory: Path, names: list[str], datagram: bytes) -> None:
    with contextlib.ExitStack() as stack:
        try:
            near = stack.enter_context(_Near(directory))
            sender = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        except OSError as error:
            log.warning("notices can't be sent: %s", error)
            return
        sender.settimeout(PATIENCE)
        for name in names:
            _send(sender, near.address(name), datagram, directory / name)


def _send(sender: socket.socket, address: str, datagram: bytes, path: Path) -> None:
    try:
        sender.sendto(datagram, address)
    except ConnectionRefusedError:
        _remove_stale(path)  # bound once, and nobody reads it any more
    except OSError:
        pass  # gone meanwhile, or its queue is full: it will re-read the positions


def _remove_stale(path: Path) -> None:
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
