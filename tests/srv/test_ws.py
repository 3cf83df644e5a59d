"""Sockets of a real server: notices across workers, revocation, restarts, killed workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
from collections.abc import Callable, Iterator
from socket import create_connection

import psutil
import pytest
import websocket

from dblike_delta.exchange import Exchange, Refused, Unreachable
from dblike_delta.messages import LoginRequest
from rig.plain_http import PlainTransport
from rig.programs import wait_until
from rig.writer import Writer

WAIT = 20.0
PASSWORD = "correct horse"

Connect = Callable[..., websocket.WebSocket]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open a socket with a token; all are closed in the end."""
    opened: list[websocket.WebSocket] = []

    def start(server, token: str, **options) -> websocket.WebSocket:
        socket = websocket.create_connection(
            f"ws://127.0.0.1:{server.port}/v1/events",
            header={"Authorization": f"Bearer {token}"},
            timeout=WAIT,
            suppress_origin=True,
            **options,
        )
        opened.append(socket)
        return socket

    yield start
    for socket in opened:
        socket.shutdown()


def enter(server, device_id: str, name: str = "laptop") -> Exchange:
    made = Exchange(PlainTransport(server.url))
    made.login(LoginRequest("ada", PASSWORD, name, device_id))
    return made


def closing(socket: websocket.WebSocket) -> int:
    """The code with which the server closes the socket."""
    while True:
        opcode, data = socket.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(data[:2], "big")


def hears(socket: websocket.WebSocket, cursor: str) -> None:
    """Wait for the notice of this cursor."""
    while json.loads(socket.recv())["cursor"] != cursor:
        pass


def test_a_commit_in_one_worker_is_heard_in_the_others(gunicorn_server, connect: Connect) -> None:
    exchange = enter(gunicorn_server, "a1" * 16)
    sockets = [connect(gunicorn_server, exchange.token) for _ in range(12)]
    for socket in sockets:
        assert json.loads(socket.recv())["cursor"] == exchange.folders()[0].cursor
    held = [len(_sockets_of(pid)) for pid in gunicorn_server.workers()]
    assert sum(held) >= 12
    writer = Writer(exchange, bytes.fromhex("a1" * 16))
    for number in range(5):
        cursor = writer.write({b"f": b"%d" % number}).cursor
        for socket in sockets:
            hears(socket, cursor)


def _sockets_of(pid: int) -> list[object]:
    connections = psutil.Process(pid).net_connections("tcp")
    return [each for each in connections if each.status == psutil.CONN_ESTABLISHED]


REFUSED = (
    ({}, 401),
    ({"Authorization": "Bearer dbl_wrong"}, 401),
    ({"Authorization": "{good}", "Origin": "https://evil.example"}, 403),
    ({"Authorization": "{good}", "Origin": "null"}, 403),
    ({"Authorization": "{good}", "Origin": "http://["}, 403),
    ({"Authorization": "{good}", "Sec-WebSocket-Version": "8"}, 400),
    ({"Authorization": "{good}", "Sec-WebSocket-Key": ""}, 400),
    ({"Authorization": "{good}", "Connection": "close"}, 400),
)


def test_who_may_not_listen(gunicorn_server) -> None:
    """Bearer only, and never in the URL; no page of another host."""
    token = enter(gunicorn_server, "a1" * 16).token
    for headers, status in REFUSED:
        given = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        given |= {
            name: value.replace("{good}", f"Bearer {token}") for name, value in headers.items()
        }
        connection = http.client.HTTPConnection("127.0.0.1", gunicorn_server.port, timeout=WAIT)
        with contextlib.closing(connection):
            connection.request("GET", f"/v1/events?token={token}", headers=given)
            assert connection.getresponse().status == status


@pytest.mark.parametrize("path", ["/v1/events", "/v1/peer/events"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_nobody_is_let_in_before_it_is_known_who_it_is(
    gunicorn_server, path: str, slash: str
) -> None:
    """A proxy that saw the handshake's yes hands on whatever follows: requests of which it knows
    nothing."""
    ask = (
        f"GET {path}{slash} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with create_connection(("127.0.0.1", gunicorn_server.port), WAIT) as connection:
        connection.sendall(ask.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 401 ")


def test_a_page_of_the_same_host_may_listen(gunicorn_server, connect: Connect) -> None:
    token = enter(gunicorn_server, "a1" * 16).token
    socket = websocket.create_connection(
        f"ws://127.0.0.1:{gunicorn_server.port}/v1/events",
        header={"Authorization": f"Bearer {token}"},
        origin=gunicorn_server.url,
        timeout=WAIT,
    )
    assert json.loads(socket.recv())["folder"]
    socket.close()


def test_compression_is_not_negotiated(gunicorn_server, connect: Connect) -> None:
    """A bomb of 1,024 to 1 has nothing to go through."""
    token = enter(gunicorn_server, "a1" * 16).token
    offered = {
        "Authorization": f"Bearer {token}",
        "Sec-WebSocket-Extensions": "permessage-deflate",
    }
    socket = websocket.create_connection(
        f"ws://127.0.0.1:{gunicorn_server.port}/v1/events", header=offered, timeout=WAIT,
        suppress_origin=True,
    )  # fmt: skip
    assert "sec-websocket-extensions" not in socket.headers
    socket.close()


def test_a_revoked_device_hears_nothing_more(gunicorn_server, connect: Connect) -> None:
    """Refused at once, and its open sockets are closed."""
    mine, other = enter(gunicorn_server, "a1" * 16), enter(gunicorn_server, "b2" * 16)
    socket = connect(gunicorn_server, other.token)
    mine.revoke("b2" * 16)
    with pytest.raises(Refused):
        other.folders()
    assert closing(socket) == 1008


def test_a_disabled_user_hears_nothing_more(gunicorn_server, connect: Connect) -> None:
    socket = connect(gunicorn_server, enter(gunicorn_server, "a1" * 16).token)
    gunicorn_server.command("user", "disable", "ada")
    assert closing(socket) == 1008


def test_a_client_that_talks_is_shown_the_door(gunicorn_server, connect: Connect) -> None:
    token = enter(gunicorn_server, "a1" * 16).token
    for send, code in (
        (lambda socket: socket.send("{}"), 1008),
        (lambda socket: socket.send_binary(b"x"), 1003),
        (lambda socket: socket.send("x" * 70_000), 1009),
    ):
        socket = connect(gunicorn_server, token)
        send(socket)
        assert closing(socket) == code


def test_reload_sends_sockets_away_and_loses_nothing(gunicorn_server, connect: Connect) -> None:
    exchange = enter(gunicorn_server, "a1" * 16)
    sockets = [connect(gunicorn_server, exchange.token) for _ in range(6)]
    before = set(gunicorn_server.workers())
    gunicorn_server.process.send_signal(signal.SIGHUP)
    assert [closing(socket) for socket in sockets] == [1012] * 6
    psutil.wait_procs(
        [psutil.Process(pid) for pid in before if psutil.pid_exists(pid)], timeout=WAIT
    )
    again = connect(gunicorn_server, exchange.token)
    hears(again, exchange.folders()[0].cursor)
    assert not before & set(gunicorn_server.workers())


def test_a_reload_with_a_wrong_config_ends_nothing(gunicorn_server) -> None:
    """Other workers serve with the config that there was; the log says what is wrong."""
    config = gunicorn_server.data / "config.json"
    before = config.read_text()
    config.write_text('{"wrong": 1}')
    gunicorn_server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: gunicorn_server.log.read_text().count("goes on with the config") == 1)
    assert enter(gunicorn_server, "a1" * 16).folders()
    config.write_text(before)
    assert gunicorn_server.process.poll() is None


def test_stopping_says_goodbye_and_ends(gunicorn_server, connect: Connect) -> None:
    socket = connect(gunicorn_server, enter(gunicorn_server, "a1" * 16).token)
    socket.ping("taken over?")  # whoever answers is the one who says goodbye
    while socket.recv_data(control_frame=True)[0] != 0xA:
        continue
    gunicorn_server.process.terminate()
    assert closing(socket) == 1012
    assert gunicorn_server.process.wait(WAIT) == 0
    assert list((gunicorn_server.data / "run" / "notices").iterdir()) == []


def test_killed_workers_are_replaced_and_nothing_is_lost(gunicorn_server, connect: Connect) -> None:
    exchange = enter(gunicorn_server, "a1" * 16)
    writer = Writer(exchange, bytes.fromhex("a1" * 16))
    for number in range(6):
        changeset = writer.changeset({b"f%d" % number: os.urandom(200_000)})
        victim = psutil.Process(gunicorn_server.workers()[0])
        with contextlib.suppress(Unreachable):
            exchange.commit("home", _and_kill(changeset, victim))
        victim.wait(WAIT)
        reply = _until_served(lambda parts=changeset: exchange.commit("home", parts))
        assert reply.results[0].status in ("accepted", "known")
    assert len(exchange.changes("home").records) == 6
    socket = connect(gunicorn_server, exchange.token)
    hears(socket, writer.write({b"g": b"x"}).cursor)


class _Killing(list):
    """Parts of a body; a process is killed when half of them were sent.  They are looked through
    once before, to know their length."""

    victim: psutil.Process
    rounds = 0

    def __iter__(self):
        self.rounds += 1
        for number, part in enumerate(super().__iter__()):
            if number == len(self) // 2 and self.rounds == 2:
                self.victim.kill()
            yield part


def _and_kill(parts, victim: psutil.Process) -> list:
    killing = _Killing(parts)
    killing.victim = victim
    return killing


def _until_served(call):
    for _ in range(50):
        with contextlib.suppress(Unreachable):
            return call()
    raise AssertionError("not served any more")


def test_sockets_hold_no_request_threads(serve, connect: Connect) -> None:
    """200 sockets on a server with 4 threads, and it still answers."""
    server = serve("--workers", "1", DBLIKE_THREADS="4")
    exchange = enter(server, "a1" * 16)
    sockets = [connect(server, exchange.token) for _ in range(199)]
    assert exchange.folders()
    (worker,) = server.workers()
    assert psutil.Process(worker).num_threads() < 12
    cursor = Writer(exchange, bytes.fromhex("a1" * 16)).write({b"f": b"x"}).cursor
    for socket in sockets:
        hears(socket, cursor)


def test_one_user_may_not_take_all_sockets(serve, connect: Connect) -> None:
    server = serve("--workers", "1", DBLIKE_LIMITS='{"sockets_per_user": 5}')
    token = enter(server, "a1" * 16).token
    for _ in range(5):
        connect(server, token).recv()
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        connect(server, token)
    assert caught.value.status_code == 429
