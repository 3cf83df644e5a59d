"""One WebSocket of the hub: its protocol, what waits to be sent, and when it was last heard."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from typing import Final

import msgspec
from wsproto.connection import Connection, ConnectionState
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError

GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
TEXT_ONLY: Final = 1003
REVOKED: Final = 1008  # policy violation
TOO_BIG: Final = 1009
RESTARTING: Final = 1012
TRY_LATER: Final = 1013

_FAREWELL: Final = 2.0  # seconds in which the other side may answer a close frame
_SENDABLE: Final = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
_SILENT: Final = {1005, 1006}  # codes that stand for "none was said"
_PIECE: Final = 16 << 10
_BOUND: Final = 32 << 10  # unsent bytes, above which nothing is added
_LARGEST: Final = 4 << 10  # bytes of a message to us; nothing is expected that is longer


EVERYONE: Final = 0
"""In place of a user's row: another site, which listens to all folders."""


class Session(msgspec.Struct, frozen=True):
    """Who listens: the user's row, the device's id, and the token's stored hash.  Of another site:
    EVERYONE, its id and its token."""

    user: int
    device: bytes
    token: bytes


class Client:
    """A WebSocket after its handshake.  Only the hub's thread calls it."""

    __slots__ = (
        "_connection",
        "_heard",
        "_news",
        "_now",
        "_out",
        "_pinged",
        "_stuck",
        "_until",
        "folders",
        "gone",
        "mask",
        "session",
        "sock",
    )

    def __init__(
        self,
        sock: socket.socket,
        connection: Connection,
        session: Session,
        now: Callable[[], float],
    ) -> None:
        self.sock = sock
        self.session = session
        self.folders: set[bytes] = set()
        self.mask = selectors.EVENT_READ
        self.gone = False
        self._connection = connection
        self._now = now
        self._out = bytearray()
        self._news: dict[bytes, str] = {}
        self._heard = self._pinged = now()
        self._stuck: float | None = None  # since when what was sent is not read
        self._until: float | None = None  # after a goodbye: when to stop waiting for the answer

    @property
    def waiting(self) -> bool:
        """Whether there is something that the other side has not made room for."""
        return bool(self._out)

    def tell(self, folder: bytes, text: str) -> None:
        """Send a notice when there is room; a newer one of the same folder takes its place."""
        self._news[folder] = text

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; what was not yet sent is forgotten, for whoever reconnects asks anyway."""
        if self._connection.state is ConnectionState.OPEN:
            self._news.clear()
            self._push(CloseConnection(code, reason))
            self._until = self._now() + _FAREWELL

    def read(self) -> None:
        """Take what came."""
        try:
            data = self.sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.receive(data)
        else:
            self.gone = True

    def receive(self, data: bytes) -> None:
        """React to bytes from the other side."""
        self._heard = self._now()
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                self._react(event)
        except Exception:  # noqa: BLE001 - whatever one peer sends, the others go on
            self.close(PROTOCOL_ERROR, "not a WebSocket frame")

    def write(self) -> None:
        """Send what there is room for."""
        self._fill()
        while self._out and not self.gone:
            self._send()
            if self._out:
                break
            self._fill()
        if self._connection.state is ConnectionState.CLOSED and not self._out:
            self.gone = True

    def check(self, *, ping: float, stall: float) -> None:
        """Ping when it is time; give up on a client that is silent or doesn't read."""
        now = self._now()
        if self._until is not None:
            self.gone = self.gone or now > self._until
        elif self._stuck is not None and now - self._stuck > stall:
            self.close(TRY_LATER, "notices are not read")
        elif now - self._pinged >= ping:
            self.gone = self.gone or self._heard < self._pinged
            self._pinged = now
            self._push(Ping())

    def _react(self, event: Event) -> None:
        match event:
            case Ping():
                self._push(event.response())
            case CloseConnection():
                self._part(event.code)
            case BytesMessage():
                self.close(TEXT_ONLY, "text only")
            case TextMessage() if len(event.data) > _LARGEST or not event.message_finished:
                self.close(TOO_BIG, "too long")
            case TextMessage():
                # This socket only tells; whoever talks is not one of our clients.
                self.close(REVOKED, "this socket only tells")
            case _:
                pass

    def _part(self, code: int) -> None:
        """The other side leaves, or what it sent can't be read: answer it, then let go."""
        answer = code if code in _SENDABLE else PROTOCOL_ERROR
        if self._connection.state is ConnectionState.REMOTE_CLOSING:
            self._push(CloseConnection(1000 if code in _SILENT else answer))
            self._until = self._now() + _FAREWELL
        else:
            self.close(answer, "")

    def _fill(self) -> None:
        """Notices for as much as is sent at once; the others wait, since newer ones may come."""
        if not self._out and self._connection.state is ConnectionState.OPEN:
            while self._news and len(self._out) < _BOUND:
                self._push(TextMessage(self._news.pop(next(iter(self._news)))))

    def _push(self, event: Event) -> None:
        if len(self._out) < _BOUND or isinstance(event, CloseConnection):
            with contextlib.suppress(LocalProtocolError):
                self._out += self._connection.send(event)

    def _send(self) -> None:
        try:
            sent = self.sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.gone = True
            return
        del self._out[:sent]
        if not self._out:
            self._stuck = None
        elif sent or self._stuck is None:
            self._stuck = self._now()
