"""The hub: one thread, any number of sockets, and each way in which one of them ends."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from dblike_delta.seams import SystemClock
from dblike_srv.hub import Hub, HubSettings, leave
from dblike_srv.hub_client import Session

WAIT = 10.0
A, B = bytes(15) + b"a", bytes(15) + b"b"


class MemoryDirectory:
    """A directory of users' folders, with a list of sessions that ended."""

    def __init__(self) -> None:
        self.folders: dict[int, dict[bytes, str]] = {}
        self.ended: set[Session] = set()

    def positions(self, users: Iterable[int]) -> Mapping[int, Mapping[bytes, str]]:
        return {user: dict(self.folders.get(user, {})) for user in users}

    def alive(self, sessions: Iterable[Session]) -> set[Session]:
        return set(sessions) - self.ended


class Peer:
    """The other end of an adopted socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(WAIT)
        self._connection = Connection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    def send(self, event: Event) -> None:
        self.sock.sendall(self._connection.send(event))

    def next(self) -> Event | None:
        """The next event; None where the connection ended."""
        while not self._events:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._connection.receive_data(data)
            self._events += self._connection.events()
        return self._events.pop(0)

    def notice(self) -> dict[str, object]:
        """The next notice; pings are answered."""
        text = ""  # a message may come in parts
        while True:
            event = self.next()
            if isinstance(event, Ping):
                self.send(event.response())
                continue
            assert isinstance(event, TextMessage), event
            text += event.data
            if event.message_finished:
                return json.loads(text)

    def end(self) -> int:
        """The code of the close frame that comes; all else before it is passed over."""
        while (event := self.next()) is not None:
            if isinstance(event, CloseConnection):
                return event.code
        return -1


class Rig:
    """A hub with its directory."""

    def __init__(self, **settings: float) -> None:
        self.peers: list[Peer] = []
        self.directory = MemoryDirectory()
        self.directory.folders[1] = {A: "a1"}
        self.directory.folders[2] = {B: "b1"}
        defaults = {"backstop": 0.05, "tick": 0.02}
        self.hub = Hub(self.directory, SystemClock(), HubSettings(**{**defaults, **settings}))

    def connect(self, user: int = 1, device: bytes = b"d", received: bytes = b"") -> Peer:
        ours, theirs = socket.socketpair()
        self.hub.adopt(ours, Session(user=user, device=device, token=device), received)
        self.peers.append(Peer(theirs))
        return self.peers[-1]

    def close(self) -> None:
        for peer in self.peers:
            peer.sock.close()
        self.hub.stop(wait=WAIT)


Rigging = Callable[..., Rig]


@pytest.fixture
def rigging() -> Iterator[Rigging]:
    made: list[Rig] = []

    def make(**settings: float) -> Rig:
        made.append(Rig(**settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def rig(rigging: Rigging) -> Rig:
    return rigging()


def test_a_new_socket_hears_at_once_where_its_folders_stand(rig: Rig) -> None:
    assert rig.connect(1).notice()["cursor"] == "a1"
    assert rig.connect(2).notice() == {
        "folder": B.hex(),
        "cursor": "b1",
        "time": pytest.approx(0, abs=1e15),
    }


def test_a_new_socket_hears_of_all_its_folders(rig: Rig) -> None:
    """More than the system takes at once, and more than is kept ready for it."""
    rig.directory.folders[1] = {n.to_bytes(16, "big"): "c" * 100 for n in range(3000)}
    peer = rig.connect(1)
    wanted = {folder.hex() for folder in rig.directory.folders[1]}
    while wanted:
        wanted.discard(str(peer.notice()["folder"]))


def test_a_notice_goes_to_those_whose_folder_it_is(rig: Rig) -> None:
    one, other = rig.connect(1), rig.connect(2)
    one.notice(), other.notice()
    rig.directory.folders[1][A] = "a2"
    rig.hub.notify(A, "a2")
    rig.directory.folders[2][B] = "b2"
    rig.hub.notify(B, "b2")
    assert one.notice()["cursor"] == "a2"
    assert other.notice()["cursor"] == "b2"


def test_a_lost_notice_is_made_up_for(rig: Rig) -> None:
    """What the database says is passed on, though nobody published it."""
    peer = rig.connect()
    peer.notice()
    rig.directory.folders[1][A] = "a2"
    assert peer.notice()["cursor"] == "a2"


def test_a_folder_made_later_is_heard_of(rig: Rig) -> None:
    peer = rig.connect()
    peer.notice()
    rig.directory.folders[1][B] = "new"
    assert peer.notice() == {"folder": B.hex(), "cursor": "new", "time": pytest.approx(0, abs=1e15)}


def test_a_session_that_ended_is_closed(rig: Rig) -> None:
    """Open WebSockets are closed."""
    peer, other = rig.connect(device=b"x"), rig.connect(device=b"y")
    peer.notice()
    rig.directory.ended.add(Session(user=1, device=b"x", token=b"x"))
    assert peer.end() == 1008
    other.notice()
    rig.directory.folders[1][A] = "a2"
    assert other.notice()["cursor"] == "a2"


def test_stopping_tells_everyone_to_come_back(rigging: Rigging) -> None:
    rig = rigging()
    peers = [rig.connect(device=bytes([n])) for n in range(20)]
    for peer in peers:
        peer.notice()
    rig.hub.stop()
    assert [peer.end() for peer in peers] == [1012] * 20


def test_a_peer_that_answers_no_ping_is_dropped(rigging: Rigging) -> None:
    rig = rigging(ping=0.1)
    silent, lively = rig.connect(device=b"s"), rig.connect(device=b"l")
    for _ in range(3):
        event = lively.next()
        while not isinstance(event, Ping):
            event = lively.next()
        lively.send(event.response())
    while silent.next() is not None:
        pass
    assert len(rig.hub) == 1


def test_a_peer_that_never_reads_is_let_go_and_others_hear_on(rigging: Rigging) -> None:
    rig = rigging(stall=0.2, ping=60.0)
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    rig.hub.adopt(ours, Session(user=1, device=b"deaf", token=b"deaf"))
    other = rig.connect(device=b"o")
    other.notice()
    cursor = 0
    while len(rig.hub) == 2:
        cursor += 1
        rig.directory.folders[1][A] = f"c{cursor}" + "x" * 2000
        rig.hub.notify(A, rig.directory.folders[1][A])
        other.notice()
    assert len(rig.hub) == 1
    theirs.close()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (BytesMessage(b"x"), 1003),
        (TextMessage("hello"), 1008),
        (TextMessage("x" * 70_000), 1009),
        (CloseConnection(1000), 1000),
        (CloseConnection(4321), 4321),
    ],
)
def test_what_a_peer_may_not_say(rig: Rig, sent: Event, code: int) -> None:
    peer = rig.connect()
    peer.send(sent)
    assert peer.end() == code


def _frame(first: int, second: int, rest: bytes = b"") -> bytes:
    return bytes([first, second]) + rest


MASK = b"\0\0\0\0"


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        pytest.param(_frame(0x81, 0x01, b"x"), {1002}, id="unmasked"),
        pytest.param(_frame(0xF1, 0x80, MASK), {1002}, id="reserved bits"),
        pytest.param(_frame(0x83, 0x80, MASK), {1002}, id="reserved opcode"),
        pytest.param(_frame(0x8B, 0x80, MASK), {1002}, id="reserved control opcode"),
        pytest.param(
            _frame(0x81, 0xFF, struct.pack(">Q", 1 << 63) + MASK), {1002, 1009}, id="2^63"
        ),
        pytest.param(_frame(0x09, 0x80, MASK), {1002}, id="fragmented ping"),
        pytest.param(_frame(0x89, 0xFE, struct.pack(">H", 126) + MASK), {1002}, id="long ping"),
        pytest.param(_frame(0x81, 0x82, MASK + b"\xc3\x28"), {1007}, id="not UTF-8"),
        pytest.param(_frame(0x88, 0x82, MASK + b"\0\0"), {1002}, id="close 0"),
        pytest.param(_frame(0x88, 0x82, MASK + b"\x03\xe7"), {1002}, id="close 999"),
        pytest.param(_frame(0x88, 0x82, MASK + b"\x13\x88"), {1002}, id="close 5000"),
        pytest.param(_frame(0x88, 0x81, MASK + b"\0"), {1002}, id="half a close code"),
        pytest.param(_frame(0x80, 0x80, MASK), {1002}, id="nothing to continue"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", {1002}, id="HTTP"),
        pytest.param(_frame(0x01, 0x81, MASK + b"x") * 1000, {1002, 1009}, id="fragments"),
    ],
)
def test_frames_that_break_the_protocol(rig: Rig, sent: bytes, codes: set[int]) -> None:
    peer, other = rig.connect(device=b"p"), rig.connect(device=b"o")
    peer.sock.sendall(sent)
    assert peer.end() in codes
    assert other.notice()["cursor"] == "a1"


def test_random_bytes_end_the_socket_and_nothing_else(rig: Rig) -> None:
    other = rig.connect(device=b"o")
    other.notice()
    for _ in range(30):
        peer = rig.connect(device=b"p")
        peer.sock.sendall(os.urandom(200) + _frame(0x83, 0x80, MASK))
        peer.end()
    rig.directory.folders[1][A] = "a2"
    assert other.notice()["cursor"] == "a2"


def test_a_ping_is_answered_also_where_it_came_with_the_handshake(rig: Rig) -> None:
    early = Connection(ConnectionType.CLIENT).send(Ping(b"early"))
    peer = rig.connect(received=early)
    seen = []
    while not any(isinstance(event, Pong) for event in seen):
        seen.append(peer.next())
    assert Pong(payload=bytearray(b"early")) in seen or any(
        isinstance(e, Pong) and bytes(e.payload) == b"early" for e in seen
    )


def test_a_user_has_so_many_sockets_and_no_more(rigging: Rigging) -> None:
    rig = rigging(per_user=3)
    peers = [rig.connect(device=bytes([n])) for n in range(3)]
    for peer in peers:
        peer.notice()
    assert not rig.hub.room_for(Session(user=1, device=b"n", token=b"n"))
    assert rig.hub.room_for(Session(user=2, device=b"n", token=b"n"))
    assert rig.connect(device=b"late").end() == 1001


def test_many_sockets_take_two_threads(rig: Rig) -> None:
    before = threading.active_count()
    peers = [rig.connect(device=n.to_bytes(2)) for n in range(199)]
    for peer in peers:
        peer.notice()
    assert threading.active_count() <= before + 2
    rig.directory.folders[1][A] = "a2"
    rig.hub.notify(A, "a2")
    assert {peer.notice()["cursor"] for peer in peers} == {"a2"}
    for peer in peers:
        peer.sock.close()


def test_what_is_left_behind_may_be_shut_down_by_its_owner() -> None:
    ours, theirs = socket.socketpair()
    taken = leave(ours)
    ours.close()
    with taken, theirs:
        taken.sendall(b"still here")
        assert theirs.recv(100) == b"still here"
