"""The WebSocket on which a site says that something is new.  It wakes the loop and does no more:
losing every message costs latency, never data.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any, Final

from dblike_cli.connection import Address, open_socket
from dblike_cli.session import Session

_CONNECT: Final = 10.0
"""Seconds for connecting and shaking hands: a starved server must not hold us for ever."""
_PING: Final = 25.0
"""Seconds without a message after which we ask whether the other side is still there."""
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0


class Events:
    """A thread that listens, and connects again whenever the connection ends.

    `hear` gets the cursor at which the folder is there; an empty one after each new connection,
    because what happened while nobody listened is only found by asking.
    """

    def __init__(self, session: Session, hear: Callable[[str], None]) -> None:
        self._session = session
        self._hear = hear
        self._ending = threading.Event()
        self._socket: Any = None
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
        failures = 0
        while not self._ending.is_set():
            client = None
            with contextlib.suppress(Exception):
                self._socket = client = self._connect(failures)
                failures = 0
                self._hear("")
                self._listen(client)
            self._socket = None
            if client is not None:
                client.shutdown()
            failures += 1
            longest = min(_FIRST_PAUSE * 2.0**failures, _LONGEST_PAUSE)
            self._ending.wait(self._session.random.uniform(_FIRST_PAUSE, longest))

    def _connect(self, attempt: int) -> Any:
        """A connection to the site that serves requests; the next one where that failed."""
        import websocket

        transport = self._session.transport
        start = transport.addresses.index(transport.site)
        address = transport.addresses[(start + attempt) % len(transport.addresses)]
        sock = open_socket(address, _CONNECT, transport.tls)
        try:
            # With a socket of our own the library asks no proxy and follows no redirect.
            client = websocket.create_connection(
                _url(address),
                timeout=_CONNECT,
                header=[f"Authorization: Bearer {self._session.credential.token}"],
                suppress_origin=True,
                redirect_limit=0,
                socket=sock,
            )
            client.settimeout(_PING)
        except BaseException:
            sock.close()
            raise
        if client.getstatus() != 101:
            sock.close()
            raise ConnectionError(f"{address.name}: no WebSocket there")
        return client

    def _listen(self, client: Any) -> None:
        """Until the connection ends, or is silent for too long."""
        import websocket

        silent = False
        while not self._ending.is_set():
            try:
                opcode, data = client.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException:
                if silent:
                    return
                silent = True
                client.ping()
                continue
            silent = False
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return
            if opcode == websocket.ABNF.OPCODE_TEXT:
                notice = json.loads(data)
                if notice["folder"] == self._session.credential.folder_id:
                    self._hear(str(notice["cursor"]))


def _url(address: Address) -> str:
    return f"{'wss' if address.secure else 'ws'}://{address.name}{address.prefix}/v1/events"
