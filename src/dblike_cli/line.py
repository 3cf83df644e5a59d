"""A socket that is waited for with patience, not blindly: where the other side is silent, someone
is asked whether it is still there.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from dblike_delta.changeset import Part

SILENCE: Final = 0.35
"""Seconds of silence after which the other side is asked after; then it may take twice as long."""
_LONGEST: Final = 2.0


class Line:
    """A connected socket.

    `limit` is how many seconds a read or a write may take.  `alive` says whether there is no better
    than to go on waiting; None: there never is.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.limit = 60.0
        self.alive: Callable[[], bool] | None = None

    def makefile(self, _mode: str) -> io.BufferedReader:
        """A reader of one reply, as http.client asks a socket for one; closing it closes no more
        than that."""
        return io.BufferedReader(_Reader(self))

    def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes; 0 at the end.  Raises OSError."""
        while True:
            try:
                return self._sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)

    def send(self, data: Part) -> None:
        """Send all of it.  Raises OSError."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._sock.send(left) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)

    @property
    def readable(self) -> bool:
        """Whether there is something to read, or the end."""
        return _ready(self._sock, select.POLLIN | select.POLLHUP, 0)

    def close(self) -> None:
        """Drop it."""
        self._sock.close()

    def _wait(self, event: int) -> None:
        began, pause = time.monotonic(), SILENCE
        while True:
            left = began + self.limit - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if _ready(self._sock, event, left if self.alive is None else min(pause, left)):
                return
            if self.alive is not None and not self.alive():
                raise TimeoutError
            pause = min(2 * pause, _LONGEST)


class _Reader(io.RawIOBase):
    def __init__(self, line: Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._line.receive_into(buffer)


def _ready(sock: socket.socket, event: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(sock, event)
    return bool(poller.poll(seconds * 1000))
