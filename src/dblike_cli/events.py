"""The WebSocket on which a site says that something is new.  It wakes the loop and does no more:
losing every message costs latency, never data.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from dblike_cli.connection import Address, open_socket
from dblike_cli.session import Session

_CONNECT: Final = 10.0
"""Seconds for connecting and shaking hands: a starved server must not hold us for ever."""
_CONNECT_ELSE: Final = 2.0
"""The same where there is another site."""
_PING: Final = 25.0
"""Seconds without a message after which we ask whether the other side is still there."""
_PING_ELSE: Final = 10.0
_PONG_ELSE: Final = 3.0
"""The same, and how long we wait for the answer, where there is another site."""
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0
_SOUND: Final = 5.0
"""Seconds after which a connection was one; what ends sooner is no better than none."""
_LOST: Final = 2
"""A connection's end is the first failure; a restart of the server has no second one."""


class Events:
    """A thread that listens, and connects again whenever the connection ends.

    `hear` gets the cursor at which the folder is there; an empty one after each new connection,
    because what happened while nobody listened is only found by asking.  `lose` is called when a
    connection ended and the first attempt to get another one failed.
    """

    def __init__(
        self, session: Session, hear: Callable[[str], None], lose: Callable[[], None]
    ) -> None:
        self._session = session
        self._hear = hear
        self._lose = lose
        self._ending = threading.Event()
        self._socket: Any = None
        self._address: Address | None = None
        self._left = False  # the connection ended because we wanted that
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the site can tell us something now."""
        return self._socket is not None

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def reconnect(self) -> None:
        """Drop the connection, which may be dead without knowing it (after a sleep)."""
        self._left = True
        client = self._socket
        if client is not None:
            with contextlib.suppress(Exception):
                client.sock.shutdown(2)

    def close(self) -> None:
        """Stop listening."""
        self._ending.set()
        self.reconnect()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        failures = refused = 0
        began = 0.0
        while not self._ending.is_set():
            client = None
            with contextlib.suppress(Exception):
                self._socket = client = self._connect(refused)
                self._left = False
                began = time.monotonic()
                self._hear("")
                self._listen(client)
            self._socket = None
            refused = 0 if client is not None else refused + 1
            if client is not None:
                client.shutdown()
                self._session.transport.refresh()  # what it died of, those beside it may have, too
                if self._left or time.monotonic() - began > _SOUND:
                    failures = 0
            failures += 1
            if failures == _LOST:
                self._lose()
            longest = min(_FIRST_PAUSE * 2.0 ** min(failures, 10), _LONGEST_PAUSE)
            self._ending.wait(self._session.random.uniform(_FIRST_PAUSE, longest))

    def _connect(self, attempt: int) -> Any:
        """A connection to the site that serves requests; to another one where an attempt failed."""
        import websocket

        transport = self._session.transport
        ways = [transport.find(), *transport.others()]
        address = ways[attempt % len(ways)]
        patience = _CONNECT_ELSE if transport.has_choice else _CONNECT
        try:
            sock = open_socket(address, patience, transport.tls)
        except OSError:
            transport.lost(address)
            raise
        try:
            # With a socket of our own the library asks no proxy and follows no redirect.
            client = websocket.create_connection(
                _url(address),
                timeout=patience,
                header=[f"Authorization: Bearer {self._session.credential.token}"],
                suppress_origin=True,
                redirect_limit=0,
                socket=sock,
            )
            client.settimeout(_PING_ELSE if transport.has_choice else _PING)
        except BaseException:
            sock.close()
            raise
        if client.getstatus() != 101:
            sock.close()
            raise ConnectionError(f"{address.name}: no WebSocket there")
        self._address = address
        return client

    @property
    def _is_elsewhere(self) -> bool:
        """Whether another site serves: what is told here may not be there yet when it is asked."""
        serving = self._session.transport.site
        return serving is not None and serving != self._address

    def _listen(self, client: Any) -> None:
        """Until the connection ends, is silent for too long, or turns out to be to another site
        than the one that serves."""
        import websocket

        silent = False
        while not self._ending.is_set():
            try:
                opcode, data = client.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException:
                if silent:
                    self._session.transport.is_there()  # requests need not find that out again
                if silent or self._is_elsewhere:
                    self._left = True
                    return
                silent = True
                client.ping()
                self._be_patient(client, _PONG_ELSE)
                continue
            if silent:
                self._be_patient(client, _PING_ELSE)
            silent = False
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return
            if opcode == websocket.ABNF.OPCODE_TEXT:
                notice = json.loads(data)
                if notice["folder"] == self._session.credential.folder_id:
                    self._hear(str(notice["cursor"]))
                    if self._is_elsewhere:
                        self._left = True
                        return

    def _be_patient(self, client: Any, seconds: float) -> None:
        if self._session.transport.has_choice:
            client.settimeout(seconds)


def _url(address: Address) -> str:
    return f"{'wss' if address.secure else 'ws'}://{address.name}{address.prefix}/v1/events"
