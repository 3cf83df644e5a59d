"""Waiting for requests, and for those who leave, without a thread for each that waits.

Gunicorn gives a thread to each connection that says something: as many as there are threads, each
with half of a head or of a login, kept everybody else out for as long as they liked.  Those who did
not hang up after a reply it waited for one by one, and meanwhile for nobody else.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker

from dblike_srv.api.body import WHOLE
from dblike_srv.slots import Slots

HEAD: Final = 10.0
"""Seconds for all of a head, from when its connection was made or used again."""
BODY: Final = 20.0
"""Seconds for all of a small body from then on: a line of a kilobyte a second has it through."""
ENDING: Final = 2.0
"""The same where the worker ends; and how long who was answered has to hang up."""
THREADS: Final = 8
"""So many threads for each request that is worked on: the others wait for their lines."""
LARGEST: Final = 64 << 10
_PIECE: Final = 8 << 10
_DRAIN: Final = 0.01
"""Seconds for the rest of a body that nobody wanted: what is here of it."""
_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*0*([0-9]{1,5})[ \t]*\r\n")
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class HeadWorker(ThreadWorker):  # type: ignore[misc]
    """Gives a connection to a thread when all of a head and of a small body is there, or its end.

    What it reads until then the parser finds in its buffer.  Where gunicorn itself encrypts, or
    speaks HTTP/2, it is left to gunicorn.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heads: dict[Any, float] = {}
        self._bodies: dict[Any, float] = {}
        self._leaving: dict[Any, float] = {}
        self._slots = Slots(self.cfg.threads)

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Where requests are answered."""
        return ThreadPoolExecutor(THREADS * self.cfg.threads)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request, in a thread of the pool's."""
        with self._slots.taken():
            return super().handle_request(req, conn)

    def enqueue_req(self, conn: Any) -> None:
        """A connection was made, or is used again."""
        if self.cfg.is_ssl or getattr(self.cfg, "http2_cleartext", "off") != "off":
            super().enqueue_req(conn)
            return
        conn.init()
        conn.sock.setblocking(False)
        if _is_there(conn):
            super().enqueue_req(conn)
            return
        self._heads[conn] = time.monotonic()
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._read_on, conn))
        self._note_head(conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """A reply was given: who is to hang up now is not waited for by all others."""
        if fs.cancelled() or fs.exception() is not None or fs.result():
            super().finish_request(conn, fs)
            return
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._see_off, conn))
        except (OSError, ValueError):  # it is gone, or somebody else's
            self.nr_conns -= 1
            conn.close()
        else:
            self._leaving[conn] = time.monotonic()

    def murder_keepalived(self, force: bool = False) -> None:
        """Close what was silent for too long."""
        super().murder_keepalived(force)
        now = time.monotonic()
        for waiting, patience in (
            (self._heads, HEAD), (self._bodies, BODY), (self._leaving, ENDING)
        ):  # fmt: skip
            for conn, since in list(waiting.items()):
                if now - since < (patience if self.alive else ENDING) and not force:
                    break
                self._give_up(conn, _TOO_SLOW if waiting is self._bodies else b"")

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Whether the connection can be used again.  What is still to come of a body that nobody
        wanted keeps no thread."""
        return keepalive and bool(conn.parser.finish_body(deadline=time.monotonic() + _DRAIN))

    def _read_on(self, conn: Any, _: Any) -> None:
        if _is_there(conn):
            self._forget(conn)
            super().enqueue_req(conn)
        elif conn in self._heads:
            self._note_head(conn)

    def _note_head(self, conn: Any) -> None:
        """Where the head is there it is the body that is waited for."""
        held = conn.parser.unreader.buf.getvalue()
        if _END in held:
            del self._heads[conn]
            self._bodies[conn] = time.monotonic()
        elif len(held) > LARGEST:
            self._give_up(conn, _TOO_LARGE)

    def _see_off(self, conn: Any, _: Any) -> None:
        """Take what comes of one who was answered until it hangs up: a connection that is closed
        with bytes unread is reset, and the reply may be lost."""
        try:
            piece = conn.sock.recv(LARGEST)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._give_up(conn)

    def _give_up(self, conn: Any, said: bytes = b"") -> None:
        if said:
            with contextlib.suppress(OSError):
                conn.sock.send(said)
        self._forget(conn)
        self.nr_conns -= 1
        conn.close()

    def _forget(self, conn: Any) -> None:
        for waiting in (self._heads, self._bodies, self._leaving):
            waiting.pop(conn, None)
        self.poller.unregister(conn.sock)


def _is_there(conn: Any) -> bool:
    """Read what came; whether a thread can go on with that: it would wait for nothing."""
    unreader = conn.parser.unreader
    held = unreader.take_buffered()
    there = _is_whole(held)
    while not there and len(held) <= LARGEST + WHOLE:
        try:
            piece = conn.sock.recv(_PIECE)
        except BlockingIOError:
            break
        except OSError:
            piece = b""  # a thread finds that out, too
        held += piece
        there = not piece or _is_whole(held)
    unreader.unread(held)
    return there


def _is_whole(held: bytes) -> bool:
    """Whether this is a head, and all of its body where that is small."""
    end = held.find(_END)
    if end < 0:
        return False
    head = held[: end + 2].lower()
    length = _LENGTH.search(head)
    if length is None or b"\r\nexpect:" in head:
        return True
    size = int(length[1])
    return size > WHOLE or len(held) - end - len(_END) >= size
