"""Request bodies, read in large pieces.

Under gunicorn's threaded worker the body of a plain HTTP/1 request with a known length is received
from the socket itself; gunicorn's reader copies every byte several times on the way.
Anywhere else, `wsgi.input` is read as usual.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from dblike_srv.errors import SiteError
from dblike_srv.slots import waiting

PIECE: Final = 1 << 20
WHOLE: Final = 16 << 10
"""A body of so many bytes is here before a thread is given to its request."""
_SMALL: Final = 64 << 10
_SOON: Final = 50
"""Milliseconds in which all of a piece may come, before what there is of it is taken."""
_LARGEST: Final = 2 << 20


class BodyCut(SiteError):
    """The request's body ended before its announced end, or can't be read."""


class BodySlow(SiteError):
    """The request's next bytes did not come in time."""


def body_chunks(
    environ: dict[str, Any], wanted: Callable[[], int] = lambda: PIECE
) -> Iterator[bytes]:
    """The body in pieces, of as many bytes as are `wanted` where so many come soon.

    Raises BodyCut where the body is shorter than it said, BodySlow where a piece takes longer than
    the socket's timeout.
    """
    reader = _length_reader(environ)
    try:
        if reader is None:
            yield from _from_input(environ)
        else:
            yield from _from_socket(environ, reader, wanted)
    except TimeoutError:
        raise BodySlow("the body came too slowly") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BodyCut("the body was cut short") from None


@contextlib.contextmanager
def hurry(environ: dict[str, Any], seconds: float) -> Iterator[None]:
    """Have what is read of the body in here come within so many seconds; raises BodySlow.

    One byte a minute is no silence, and the thread of a request is nobody else's as long.  What
    reads chunks and TLS can't be told of a deadline, so the connection is closed for reading.
    """
    connection = environ.get("gunicorn.socket")
    if not isinstance(connection, socket.socket):
        yield
        return
    late = threading.Event()

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RD)  # below TLS: the reply goes out

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except BodyCut:
        if late.is_set():
            raise BodySlow("the body came too slowly") from None
        raise
    finally:
        timer.cancel()


def _length_reader(environ: dict[str, Any]) -> Any:
    """The server's reader of a body of known length, where it can be bypassed; else None."""
    if "gunicorn.socket" not in environ:
        return None
    from gunicorn.http.body import Body, LengthReader
    from gunicorn.http.unreader import SocketUnreader

    body = environ["wsgi.input"]
    if type(body) is not Body or type(body.reader) is not LengthReader or body.buf.tell():
        return None
    reader = body.reader
    unreader = reader.unreader
    # A TLS socket holds bytes of its own, and a short body is not worth the detour.
    if type(unreader) is not SocketUnreader or hasattr(unreader.sock, "pending"):
        return None
    return reader if reader.length > _SMALL else None


def _from_socket(
    environ: dict[str, Any], reader: Any, wanted: Callable[[], int]
) -> Iterator[bytes]:
    """Drain what gunicorn holds already, then receive straight from the socket.

    `reader.length` is kept true all the while, so that gunicorn knows what of the body is unread
    and where the next request begins.
    """
    body, unreader = environ["wsgi.input"], reader.unreader
    body.failed = True  # should this stop half-way, the connection is of no more use
    held = unreader.take_buffered()
    if len(held) > reader.length:
        unreader.unread(held[reader.length :])
        held = held[: reader.length]
    if held:
        reader.length -= len(held)
        yield held
    while reader.length:
        size = min(wanted(), _LARGEST, reader.length)
        with waiting():
            piece = _receive(unreader.sock, size)
        if not piece:
            raise BodyCut("the body was cut short")
        reader.length -= len(piece)
        yield piece
    body.failed = False


def _receive(connection: socket.socket, size: int) -> bytes:
    """Up to `size` bytes: all of them where they come soon, by waking up once."""
    if size > _SMALL:
        poller = select.poll()
        poller.register(connection, select.POLLIN)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        try:
            poller.poll(_SOON)
        finally:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    return connection.recv(size)


def _from_input(environ: dict[str, Any]) -> Iterator[bytes]:
    """Whatever the WSGI server offers.  Without a length only a server that ends the input itself
    (a chunked body under gunicorn) can be read."""
    stream = environ["wsgi.input"]
    announced = environ.get("CONTENT_LENGTH") or ""
    if not announced.isdecimal():
        if environ.get("wsgi.input_terminated"):
            while piece := _read(stream, PIECE):
                yield piece
        return
    left = int(announced)
    while left:
        piece = _read(stream, min(PIECE, left))
        if not piece:
            raise BodyCut("the body was cut short")
        left -= len(piece)
        yield piece


def _read(stream: Any, size: int) -> bytes:
    try:
        with waiting():
            piece: bytes = stream.read(size)
    except (OSError, SiteError):
        raise
    except Exception as error:  # noqa: BLE001 - the servers' parse errors have no common root
        raise BodyCut(f"the body can't be read: {type(error).__name__}") from None
    return piece
