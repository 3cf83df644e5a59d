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
from dblike_cli.http import HttpTransport
from dblike_cli.wakeups import Wakeups
from dblike_delta.seams import Random

_CONNECT: Final = 10.0
"""Seconds for connecting and shaking hands: a starved server must not hold us for ever."""
_PING: Final = 25.0
"""Seconds without a message after which we ask whether the other side is still there."""
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0


class Events:
    """A thread that listens, and connects again whenever the connection ends."""

    def __init__(
        self,
        transport: HttpTransport,
        folder: str,
        token: str,
        wakeups: Wakeups,
        *,
        random: Random,
        is_news: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._transport = transport
        self._folder = folder
        self._token = token
        self._wakeups = wakeups
        self._random = random
        self._is_news = is_news
        self._ending = threading.Event()
        self._socket: Any = None
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def reconnect(self) -> None:
        """Drop the connection, which may be dead without knowing it (after a suspend)."""
        socket = self._socket
        if socket is not None:
            with contextlib.suppress(Exception):
                socket.shutdown()

    def close(self) -> None:
        """Stop listening."""
        self._ending.set()
        self.reconnect()
        self._thread.join(_CONNECT)

    def _run(self) -> None:
        failures = 0
        while not self._ending.is_set():
            with contextlib.suppress(Exception):
                self._socket = self._connect(failures)
                failures = 0
                # What happened while nobody listened is found by asking.
                self._wakeups.remote(back=True)
                self._listen()
            if self._socket is not None:
                self._socket.shutdown()
                self._socket = None
            failures += 1
            longest = min(_FIRST_PAUSE * 2.0**failures, _LONGEST_PAUSE)
            self._ending.wait(self._random.uniform(_FIRST_PAUSE, longest))

    def _connect(self, attempt: int) -> Any:
        """A connection to the site that serves requests; the next one where that failed."""
        import websocket

        addresses = self._transport.addresses
        start = addresses.index(self._transport.site)
        address = addresses[(start + attempt) % len(addresses)]
        sock = open_socket(address, _CONNECT, self._transport.tls)
        try:
            # With a socket of our own the library asks no proxy, and resolves no name.
            client = websocket.create_connection(
                _url(address),
                timeout=_CONNECT,
                header=[f"Authorization: Bearer {self._token}"],
                suppress_origin=True,
                redirect_limit=0,
                socket=sock,
            )
        except BaseException:
            sock.close()
            raise
        if client.getstatus() != 101:
            sock.close()
            raise ConnectionError(f"{address.name}: no WebSocket there")
        client.settimeout(_PING)
        return client

    def _listen(self) -> None:
        """Until the connection ends, which every failure here makes it do."""
        import websocket

        silent = False
        while not self._ending.is_set():
            try:
                opcode, data = self._socket.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException:
                if silent:
                    return
                silent = True
                self._socket.ping()
                continue
            silent = False
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return
            if opcode == websocket.ABNF.OPCODE_TEXT:
                self._hear(data)

    def _hear(self, data: bytes) -> None:
        notice = json.loads(data)
        if notice.get("folder") == self._folder and self._is_news(str(notice.get("cursor"))):
            self._wakeups.remote()


def _url(address: Address) -> str:
    return f"{'wss' if address.secure else 'ws'}://{address.name}{address.prefix}/v1/events"
