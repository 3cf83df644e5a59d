"""A socket that is waited for with patience, not blindly: where the other side is silent, someone
is asked whether it is still there.
"""

from __future__ import annotations

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
_SOON: Final = 0.05
"""Seconds in which all of a large piece may come, before what there is of it is taken."""
_SMALL: Final = 64 << 10
_HEAD: Final = 8 << 10
_CHUNK_HEAD: Final = 64


class Line:
    """A connected socket.

    `limit` is how many seconds a read or a write may take.  `alive` says whether there is no better
    than to go on waiting; None: there never is.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._secure = isinstance(sock, ssl.SSLSocket)
        self.limit = 60.0
        self.alive: Callable[[], bool] | None = None

    def makefile(self, _mode: str) -> Reader:
        """A reader of one reply, as http.client asks a socket for one; closing it closes no more
        than that."""
        return Reader(self)

    def receive(self, size: int) -> bytes:
        """Wait for up to `size` bytes, for all of them where they come soon; none at the end.
        Raises OSError."""
        if size > _SMALL and not self._secure:
            # Waking up once for a large piece is cheaper than for each of its parts, and what
            # came in one piece needs no joining.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            try:
                _ready(self._sock, select.POLLIN, _SOON)
            finally:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return self._receive(lambda: self._sock.recv(size))

    def receive_line(self, most: int) -> bytes:
        """Wait for bytes, at most to the end of a line; more where the line can't be looked at
        beforehand."""
        if self._secure:
            return self.receive(most)
        seen = self._receive(lambda: self._sock.recv(most, socket.MSG_PEEK))
        return self._sock.recv(seen.find(b"\n") + 1 or len(seen)) if seen else b""

    def _receive(self, call: Callable[[], bytes]) -> bytes:
        while True:
            try:
                return call()
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


class Reader:
    """One reply, for http.client: its head by lines, its body in pieces that no buffer copies."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._held = b""
        self._in_head = True

    def readline(self, limit: int) -> bytes:
        """A line; what there is of it at the end, or at `limit` bytes."""
        while not (end := self._held.find(b"\n") + 1) and len(self._held) < limit:
            # A head is short, and comes at once.  Between the chunks of a body no more is taken
            # than the line: what follows it is a large piece.
            line = self._line
            more = line.receive(_HEAD) if self._in_head else line.receive_line(_CHUNK_HEAD)
            if not more:
                break
            self._held += more
        return self._take(min(end or len(self._held), limit))

    def read1(self, size: int) -> bytes:
        """Up to `size` bytes of the body as they come; none at the end."""
        self._in_head = False
        return self._take(size) if self._held else self._line.receive(size)

    def read(self, size: int) -> bytes:
        """That many bytes of the body, fewer at the end."""
        data = b""
        while len(data) < size and (more := self.read1(size - len(data))):
            data += more
        return data

    def flush(self) -> None:
        """Nothing is written to it."""

    def close(self) -> None:
        """What was received of the next reply is none: there is one request at a time."""

    def _take(self, size: int) -> bytes:
        taken, self._held = self._held[:size], self._held[size:]
        return taken


def _ready(sock: socket.socket, event: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(sock, event)
    return bool(poller.poll(seconds * 1000))
