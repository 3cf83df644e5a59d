"""Waiting for the heads of requests, without a thread for each that waits.

Gunicorn gives a thread to each connection that says something: as many as there are threads, each
with half of a head, kept everybody else out for as long as they liked.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from functools import partial
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker

HEAD: Final = 10.0
"""Seconds for all of a head, from when its connection was made or used again."""
ENDING: Final = 2.0
"""The same where the worker ends."""
LARGEST: Final = 64 << 10
_PIECE: Final = 8 << 10
_END: Final = b"\r\n\r\n"
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)


class HeadWorker(ThreadWorker):  # type: ignore[misc]
    """Gives a connection to a thread when a whole head is there, or its end.

    What it reads until then the parser finds in its buffer.  Where gunicorn itself encrypts, or
    speaks HTTP/2, it is left to gunicorn.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: dict[Any, float] = {}

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
        self._waiting[conn] = time.monotonic()
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._read_on, conn))

    def murder_keepalived(self, force: bool = False) -> None:
        """Close what was silent for too long."""
        super().murder_keepalived(force)
        patience = HEAD if self.alive else ENDING
        now = time.monotonic()
        for conn, since in list(self._waiting.items()):
            if now - since < patience and not force:
                break
            self._give_up(conn)

    def _read_on(self, conn: Any, _: Any) -> None:
        if _is_there(conn):
            del self._waiting[conn]
            self.poller.unregister(conn.sock)
            super().enqueue_req(conn)
        elif len(conn.parser.unreader.buf.getvalue()) > LARGEST:
            with contextlib.suppress(OSError):
                conn.sock.send(_TOO_LARGE)
            self._give_up(conn)

    def _give_up(self, conn: Any) -> None:
        del self._waiting[conn]
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()


def _is_there(conn: Any) -> bool:
    """Read what came; whether a thread can go on with that: it would wait for nothing."""
    try:
        piece = conn.sock.recv(_PIECE)
    except BlockingIOError:
        piece = b""
    except OSError:
        return True  # it finds that out, too
    else:
        if not piece:
            return True
    unreader = conn.parser.unreader
    held = unreader.take_buffered() + piece
    unreader.unread(held)
    return _END in held
