"""A TCP proxy that misbehaves on purpose: cuts, delays, dribbles, and answers for the server.

It stands in front of HTTP and WebSocket alike.  What it does to a connection is decided when that
connection is accepted, by the `plan` that the test gave.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """What happens to one connection.  Byte counts are from its beginning; None is never."""

    cut_request: int | None = None
    cut_reply: int | None = None
    reset: bool = False
    delay: float = 0.0
    piece: int = 1 << 16
    answer: bytes | None = None
    refuse: bool = False
    lose_reply_to: tuple[bytes, ...] = ()
    """Once these were all seen in requests, in this order, the next reply never arrives."""


FINE = Fault()


class _Ear:
    """Listens to the requests of a connection for what its fault waits for."""

    def __init__(self, words: tuple[bytes, ...]) -> None:
        self.owner = threading.current_thread()
        self._words = list(words)
        self._waits = bool(words)
        self._tail = b""

    @property
    def heard_all(self) -> bool:
        return self._waits and not self._words

    def hear(self, data: bytes) -> None:
        text = self._tail + data
        while self._words and (at := text.find(self._words[0])) >= 0:
            text = text[at + len(self._words.pop(0)) :]
        self._tail = text[-64:]


@dataclass
class Proxy:
    """Listens on a port of its own and forwards to `target`; `plan(n)` is connection n's fault."""

    target: tuple[str, int]
    plan: Callable[[int], Fault] = lambda _: FINE
    connections: int = 0
    sent: int = 0
    received: int = 0
    lost: int = 0
    """Replies that the server gave and that never arrived."""
    _listener: socket.socket = field(init=False)
    _open: set[socket.socket] = field(init=False, default_factory=set)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def drop_all(self) -> None:
        """Cut every open connection at once, as a network does that goes away."""
        with self._lock:
            sockets = list(self._open)
        for sock in sockets:
            _kill(sock, reset=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            fault = self.plan(number)
            threading.Thread(target=self._serve, args=(client, fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        if fault.refuse:
            _kill(client, reset=True)
            return
        if fault.answer is not None:
            with contextlib.suppress(OSError):
                client.recv(1 << 16)
                client.sendall(fault.answer)
            _kill(client, reset=False)
            return
        try:
            server = socket.create_connection(self.target, timeout=10)
        except OSError:
            _kill(client, reset=True)
            return
        server.settimeout(None)
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {client, server}
        ear = _Ear(fault.lose_reply_to)
        up = threading.Thread(
            target=self._pump, args=(client, server, fault.cut_request, fault, ear), daemon=True
        )
        up.start()
        self._pump(server, client, fault.cut_reply, fault, ear)
        up.join()
        with self._lock:
            self._open -= {client, server}
        _kill(client, reset=False)
        _kill(server, reset=False)

    def _pump(
        self, source: socket.socket, sink: socket.socket, cut: int | None, fault: Fault, ear: _Ear
    ) -> None:
        passed = 0
        up = threading.current_thread() is not ear.owner
        try:
            while data := source.recv(fault.piece):
                if up:
                    ear.hear(data)
                elif ear.heard_all:
                    self.lost += 1
                    _kill(source, reset=fault.reset)
                    _kill(sink, reset=fault.reset)
                    return
                if fault.delay:
                    time.sleep(fault.delay)  # the delay is what is being injected
                if cut is not None and passed + len(data) > cut:
                    sink.sendall(data[: cut - passed])
                    _kill(source, reset=fault.reset)
                    _kill(sink, reset=fault.reset)
                    return
                sink.sendall(data)
                passed += len(data)
                if up:
                    self.sent += len(data)
                else:
                    self.received += len(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _kill(source, reset=False)
            _kill(sink, reset=False)


def _kill(sock: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


@contextlib.contextmanager
def proxied(url: str, plan: Callable[[int], Fault] = lambda _: FINE) -> Iterator[Proxy]:
    """A proxy in front of the server at `url` (http://host:port)."""
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    proxy = Proxy((host, int(port)), plan)
    try:
        yield proxy
    finally:
        proxy.close()
