"""What sites ask each other: who may, and what comes through the socket."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient

from dblike_srv.directory import SiteDirectory
from dblike_srv.errors import Conflict
from dblike_srv.hub_client import EVERYONE, Session
from dblike_srv.registers import HELD
from dblike_srv.replication import keys
from dblike_srv.replication.arrival import Fault
from dblike_srv.replication.follower import Follower
from dblike_srv.replication.link import Left, Link
from dblike_srv.replication.listener import Listener
from dblike_srv.replication.sites import announce, part_with
from dblike_srv.replication.supervisor import Following
from rig.liar import Liar
from rig.members import Member, held

# --- what comes through the socket


def notices_from(frames: list[bytes]) -> tuple[str, threading.Thread, threading.Event]:
    """A WebSocket that says this and then nothing; its URL."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(4096)
            key = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
            assert key is not None
            magic = key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            proof = base64.b64encode(hashlib.sha1(magic, usedforsecurity=False).digest())
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + proof + b"\r\n\r\n"
            )
            with contextlib.suppress(OSError):
                connection.sendall(b"".join(frames))
            over.wait(60)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", thread, over


def frame(payload: bytes, *, announced: int | None = None) -> bytes:
    size = len(payload) if announced is None else announced
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def notice(folder: bytes, cursor: str = "x") -> bytes:
    return frame(msgspec.json.encode({"folder": folder.hex(), "cursor": cursor, "time": 0}))


@pytest.mark.parametrize(
    "frames",
    [
        [frame(b"x" * 1000, announced=2**62)],
        [frame(b"{" * 1000)],
        [b"\x01\x05" + b'{"fol', b"\x80\x01}"],  # a message in pieces
        [notice(b"\xff" * 8)],
    ],
)
def test_a_socket_that_says_what_is_no_notice(members: list[Member], frames: list[bytes]) -> None:
    """The connection ends, and what the site really has was taken in before."""
    here, _, liar = members
    url, thread, over = notices_from(frames)
    link = Link(here.site, url, Liar(liar.app.wsgi_app))
    follower = Follower(here.site, link)
    follower.connect()
    with contextlib.suppress(Fault):
        Listener(here.site, link, follower, threading.Event()).run()
    assert b"new" in {row.path for row in held(here.site)["versions"]}
    over.set()
    thread.join(60)


def test_what_concerns_a_site_alone_is_passed_over(members: list[Member]) -> None:
    """A process of another release may tell it all the same."""
    here, _, liar = members
    url, thread, over = notices_from([notice(HELD), b"\x88\x00"])
    follower = Follower(here.site, Link(here.site, url, Liar(liar.app.wsgi_app)))
    follower.connect()
    Listener(here.site, follower._link, follower, threading.Event()).run()
    over.set()
    thread.join(60)


def test_a_flood_of_notices(members: list[Member]) -> None:
    """Of folders that nobody has: it is not believed; what is kept of the flood is bounded."""
    here, _, liar = members
    url, thread, over = notices_from([notice(n.to_bytes(16, "big")) for n in range(1, 30_000)])
    link = Link(here.site, url, Liar(liar.app.wsgi_app))
    follower = Follower(here.site, link)
    follower.connect()
    with pytest.raises(Fault, match=r"a folder that it does not tell about|a cursor that"):
        Listener(here.site, link, follower, threading.Event()).run()
    over.set()
    thread.join(60)


# --- what others may ask here


@pytest.fixture
def asked(members: list[Member]) -> FlaskClient:
    """The site that is asked."""
    return members[0].app.test_client()


PEER = ("shared", "folders", f"folders/{'0' * 32}/journal")


@pytest.mark.parametrize("what", PEER)
def test_a_device_is_no_site(members: list[Member], asked: FlaskClient, what: str) -> None:
    """Neither nobody, nor a device, nor a session of another site or time gets anything."""
    site = members[0].site
    tokens = (
        "",
        members[0].writer("phone").exchange.token,
        keys.make_token(members[1].site, site.id),
        keys.make_token(site, b"s" * 16)[:-4] + "AAAA",
    )
    for token in tokens:
        head = {"Authorization": f"Bearer {token}"} if token else {}
        assert asked.get(f"/v1/peer/{what}", headers=head).status_code == 401


def test_a_site_is_no_device(members: list[Member], asked: FlaskClient) -> None:
    """A site's session is good for following, and for nothing that users do."""
    token = keys.make_token(members[0].site, members[1].site.id)
    head = {"Authorization": f"Bearer {token}"}
    assert asked.get("/v1/peer/shared", headers=head).status_code == 200
    for what in ("folders", "devices", "folders/home/changes", "folders/home/files/kept"):
        assert asked.get(f"/v1/{what}", headers=head).status_code == 401


def test_sessions_need_the_key(members: list[Member], asked: FlaskClient) -> None:
    """A proof is of both ids and a nonce that this site made."""
    here, other = members[0].site, members[1].site
    nonce, mine = keys.make_nonce(here), msgspec.to_builtins(announce(other), builtin_types=[bytes])

    def opens(**values: Any) -> int:
        proof = keys.follower_proof(here, other.id, here.id, nonce)
        said = {"site": mine, "nonce": nonce, "proof": proof} | values
        body = msgspec.msgpack.encode(said)
        kind = {"Content-Type": "application/msgpack"}
        return asked.post("/v1/peer/session", data=body, headers=kind).status_code

    assert opens() == 200
    assert opens(proof=b"x" * 16) == 401
    assert opens(site=mine | {"id": b"z" * 16}) == 401
    assert opens(nonce=keys.make_nonce(other)) == 401
    assert opens(nonce=b"n" * 40) == 401
    assert opens(proof=keys.site_proof(here, other.id, here.id, nonce)) == 401


def test_a_site_that_left_is_followed_by_nobody(members: list[Member], asked: FlaskClient) -> None:
    """It tells nothing more, neither to who has a session nor to who asks for one, and sends
    devices to the others; and who heard that it left does not ask."""
    here, other = members[0].site, members[1].site
    token = keys.make_token(here, other.id)
    head = {"Authorization": f"Bearer {token}"}
    assert asked.get("/readyz").status_code == 200
    assert asked.get("/v1/peer/shared", headers=head).status_code == 200
    part_with(other, announce(here))
    with pytest.raises(Conflict, match="left the cluster"):
        members[1].follow(members[0])
    part_with(here, announce(here))
    assert asked.get("/v1/peer/shared", headers=head).status_code == 401
    with pytest.raises(Fault, match="left the cluster"):
        Link(other, "http://here", Liar(members[0].app.wsgi_app)).open(announce(other))
    assert asked.get("/readyz").status_code == 503


@pytest.mark.parametrize("who", [0, 1])
def test_who_left_does_not_listen_on(members: list[Member], who: int) -> None:
    """Its socket was open, and its session is good for an hour."""
    here, other = members[0].site, members[1].site
    session = Session(EVERYONE, other.id, keys.make_token(here, other.id).encode())
    directory = SiteDirectory(here)
    assert directory.alive({session}) == {session}
    part_with(here, announce(members[who].site))
    assert directory.alive({session}) == set()


def test_a_site_that_left_nobody_serves(tmp_path: Path) -> None:
    """There is no other one to send its devices to."""
    alone = Member(tmp_path / "alone")
    part_with(alone.site, announce(alone.site))
    assert alone.app.test_client().get("/readyz").status_code == 200
    alone.close()


def test_a_site_that_was_taken_out_learns_of_it(members: list[Member]) -> None:
    """It was away when it was: whom it follows next tells it, and nothing else."""
    here, other = members[0].site, members[1].site
    part_with(here, announce(other))
    assert members[1].app.test_client().get("/readyz").status_code == 200
    with pytest.raises(Left):
        members[1].follow(members[0])
    assert Following(other).urls() == set()
    assert members[1].app.test_client().get("/readyz").status_code == 503
