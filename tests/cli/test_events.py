"""The WebSocket's client: it connects again, whatever the other side does."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import takewhile
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dblike_cli.events import _FIRST_PAUSE, Events
from dblike_cli.http import HttpTransport
from dblike_cli.session import Session
from dblike_delta.seams import SystemClock

FOLDER, TOKEN = "f" * 32, "token"
PATIENCE = 30
HEALTHY = b"HTTP/1.1 200 OK\r\nX-DBLike-Time: 1\r\nContent-Length: 0\r\n\r\n"


class Socket:
    """A server's end of a WebSocket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        stream = connection.makefile("rb")
        lines = iter(stream.readline, b"")
        self.head = b"".join(takewhile(lambda line: line != b"\r\n", lines)).decode()
        if not self.head.startswith("GET /healthz"):
            self._read_key()

    def _read_key(self) -> None:
        key = next(
            line.split()[1]
            for line in self.head.splitlines()
            if line.startswith("Sec-WebSocket-Key")
        )
        magic = key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.accept = base64.b64encode(hashlib.sha1(magic).digest()).decode()

    def agree(self) -> None:
        self.connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {self.accept}\r\n\r\n".encode()
        )

    def say(self, document: Any) -> None:
        text = json.dumps(document).encode()
        self.connection.sendall(bytes([0x81, len(text)]) + text)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


class Server:
    """Hands out what connects."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.came: queue.Queue[Socket] = queue.Queue()
        self.open: list[Socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                site = Socket(self.listener.accept()[0])
                if site.head.startswith("GET /healthz"):
                    site.connection.sendall(HEALTHY)
                    site.close()
                else:
                    self.came.put(site)

    def next(self) -> Socket:
        self.open.append(self.came.get(timeout=PATIENCE))
        return self.open[-1]

    def close(self) -> None:
        self.listener.close()
        for each in self.open:
            each.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


class Random:
    """No time is lost between two attempts."""

    def uniform(self, a: float, b: float) -> float:
        return 0.01

    def bytes(self, n: int) -> bytes:
        return bytes(n)


@pytest.fixture
def heard() -> queue.Queue[str]:
    return queue.Queue()


@pytest.fixture
def listen(heard: queue.Queue[str]) -> Iterator[Callable[..., Events]]:
    started: list[Events] = []
    transports: list[HttpTransport] = []

    def start(*urls: str) -> Events:
        transport = HttpTransport(urls, clock=SystemClock(), random=Random(), pause=lambda _: None)
        transports.append(transport)
        session = SimpleNamespace(
            transport=transport,
            credential=SimpleNamespace(token=TOKEN, folder_id=FOLDER),
            random=Random(),
        )
        started.append(Events(cast("Session", session), heard.put, lambda: heard.put("lost")))
        started[-1].start()
        return started[-1]

    yield start
    for events in started:
        events.close()
    for transport in transports:
        transport.close()


def test_what_the_site_says_is_heard(
    server: Server, listen: Callable[..., Events], heard: queue.Queue[str]
) -> None:
    listen(f"{server.url}/sync")
    site = server.next()
    assert site.head.startswith("GET /sync/v1/events HTTP/1.1")
    assert f"Authorization: Bearer {TOKEN}" in site.head
    assert "Origin:" not in site.head
    site.agree()
    assert heard.get(timeout=PATIENCE) == "", "what was missed is found by asking"
    site.say({"folder": "another", "cursor": "c0"})
    site.say({"folder": FOLDER, "cursor": "c1", "time": 5, "new": "field"})
    assert heard.get(timeout=PATIENCE) == "c1"


@pytest.mark.parametrize("say", ["close", "nonsense", "binary", "refuse", "redirect", "nothing"])
def test_it_comes_back_whatever_happens(
    server: Server, listen: Callable[..., Events], heard: queue.Queue[str], say: str
) -> None:
    listen(server.url)
    site = server.next()
    match say:
        case "close":
            site.agree()
            site.connection.sendall(b"\x88\x02\x03\xf4")
        case "nonsense":
            site.agree()
            site.connection.sendall(b"\x81\x03{]}")
        case "binary":
            site.agree()
            site.connection.sendall(b"\xff\xff\xff\xff")
        case "refuse":
            site.connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        case "redirect":
            site.connection.sendall(
                b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
            )
        case _:
            pass
    site.close()
    again = server.next()
    again.agree()
    again.say({"folder": FOLDER, "cursor": "c2"})
    while heard.get(timeout=PATIENCE) != "c2":
        pass


def test_the_next_server_is_tried(
    server: Server, listen: Callable[..., Events], heard: queue.Queue[str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{probe.getsockname()[1]}"
    listen(dead, server.url)
    server.next().agree()
    assert heard.get(timeout=PATIENCE) == ""


def test_the_site_that_serves_is_gone_back_to(
    server: Server, listen: Callable[..., Events], heard: queue.Queue[str]
) -> None:
    """Another one may tell what the one that is asked has not heard yet."""
    other = Server()
    try:
        listen(server.url, other.url)
        site = server.next()
        site.agree()
        assert heard.get(timeout=PATIENCE) == ""
        site.close()  # as when its server is started anew
        server.next().close()
        away = other.next()  # this one can't be had at once
        away.agree()
        away.say({"folder": FOLDER, "cursor": "c1"})
        server.next().agree()
        assert [heard.get(timeout=PATIENCE) for _ in range(4)] == ["lost", "", "c1", ""]
    finally:
        other.close()


def test_a_server_that_stays_away_is_said_once(
    server: Server, listen: Callable[..., Events], heard: queue.Queue[str]
) -> None:
    listen(server.url)
    site = server.next()
    site.agree()
    assert heard.get(timeout=PATIENCE) == ""
    site.close()
    for _ in range(4):
        server.next().close()
    server.next().agree()
    assert [heard.get(timeout=PATIENCE) for _ in range(2)] == ["lost", ""]


def test_a_connection_that_may_be_dead_is_made_anew(
    server: Server, listen: Callable[..., Events], heard: queue.Queue[str]
) -> None:
    events = listen(server.url)
    server.next().agree()
    heard.get(timeout=PATIENCE)
    events.reconnect()
    server.next().agree()
    assert heard.get(timeout=PATIENCE) == ""


def test_what_a_connection_died_of_may_have_killed_others(
    server: Server, listen: Callable[..., Events], heard: queue.Queue[str]
) -> None:
    """A request on one of them would be waited for for two minutes."""
    transport = listen(server.url)._session.transport
    site = server.next()
    refreshed = threading.Event()
    transport.refresh = refreshed.set  # type: ignore[method-assign]
    site.agree()
    assert heard.get(timeout=PATIENCE) == ""
    assert not refreshed.is_set()
    site.close()
    assert refreshed.wait(PATIENCE)


def test_connections_that_end_at_once_are_made_less_and_less_often(
    server: Server, listen: Callable[..., Events], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in between may let a socket begin, and no more: each asks the site for news."""
    pauses: list[float] = []

    def uniform(_: Random, a: float, b: float) -> float:
        if a == _FIRST_PAUSE:
            pauses.append(b)
        return 0.01

    monkeypatch.setattr(Random, "uniform", uniform)
    listen(server.url)
    for _ in range(5):
        site = server.next()
        site.agree()
        site.close()
    server.next()
    assert pauses[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_it_does_not_give_up(heard: queue.Queue[str]) -> None:
    """However often it failed: a server may be away for days."""
    tries = 0
    enough = threading.Event()

    def find() -> None:
        nonlocal tries
        tries += 1
        if tries > 1100:
            enough.set()
        raise OSError

    session = SimpleNamespace(
        transport=SimpleNamespace(find=find), random=SimpleNamespace(uniform=lambda *_: 0.0)
    )
    events = Events(cast("Session", session), heard.put, lambda: None)
    events.start()
    assert enough.wait(PATIENCE)
    events.close()
