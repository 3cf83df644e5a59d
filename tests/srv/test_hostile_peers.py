"""Sites that say what can't be: they are not believed, and nothing that is here changes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from dblike_delta.exchange import Exchange, Request, Unreachable
from dblike_delta.messages import CursorMark, JournalMark, LoginRequest, Record, Trailer
from dblike_delta.seams import Clock, SystemClock
from dblike_srv import accounts
from dblike_srv.app import create_app
from dblike_srv.config import decode_config
from dblike_srv.models import contents, devices, folders, journal, journals, users, versions
from dblike_srv.replication import follower as following
from dblike_srv.replication import keys
from dblike_srv.replication.arrival import Fault
from dblike_srv.replication.follower import Follower, Locks
from dblike_srv.replication.link import Link, SiteTransport
from dblike_srv.replication.listener import Listener
from dblike_srv.replication.sites import announce
from dblike_srv.site import Site, open_site
from dblike_srv.status import peers_of
from dblike_srv.store.mem import MemoryStore
from rig.liar import Liar, Lie
from rig.writer import Writer
from rig.wsgi import WsgiTransport

KEY, PASSWORD = "k" * 64, "correct horse"
NEVER = 2**63 - 1


class Member:
    """A site in memory, and its application."""

    def __init__(self, directory: Path, key: str = KEY, clock: Clock | None = None) -> None:
        config = {"data": str(directory), "database": "sqlite://", "cluster_key": key,
                  "site": {"url": f"http://{directory.name}"}}  # fmt: skip
        self.site = open_site(decode_config(config), store=MemoryStore(), clock=clock)
        announce(self.site)
        self.app = create_app(self.site)

    def add_ada(self) -> None:
        accounts.create_user(self.site, "ada", PASSWORD)

    def writer(self, device: str) -> Writer:
        """A device of ada's here."""
        exchange = Exchange(WsgiTransport(self.app.wsgi_app))
        login = LoginRequest(user="ada", password=PASSWORD, device=device)
        return Writer(exchange, bytes.fromhex(exchange.login(login).device_id))

    def follow(self, other: Member, **lies: Lie) -> None:
        """Take in all that another one says."""
        run(self.site, Liar(other.app.wsgi_app, **lies))

    def close(self) -> None:
        self.app.extensions["dblike-hub"].stop()
        self.site.close()


def run(site: Site, transport: Any, locks: Locks | None = None) -> None:
    """One round of following."""
    follower = Follower(site, Link(site, "http://liar", transport), locks)
    follower.connect()
    follower.catch_up()


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Member]]:
    """The site that is lied to, an honest one whose data are there, and the one that lies."""
    made = [Member(tmp_path / name) for name in ("here", "honest", "liar")]
    made[1].add_ada()
    made[1].writer("honest").write({b"kept": b"precious", b"also": b"kept" * 9999})
    made[2].follow(made[1])
    made[0].follow(made[1])
    made[2].writer("liar").write({b"new": b"what the liar has"})
    yield made
    for member in made:
        member.close()


def held(site: Site) -> dict[str, set[Any]]:
    """What must not change."""
    tables = (users, devices, folders, versions, journal, journals, contents)

    def look(connection: Any) -> dict[str, set[Any]]:
        return {t.name: set(connection.execute(select(t)).all()) for t in tables}

    return site.database.read(look)


# --- the lies


def hello(**values: Any) -> dict[str, Lie]:
    return {"hello": lambda said: said | values}


def shared(change: Callable[[dict[str, Any]], None]) -> dict[str, Lie]:
    def lie(said: dict[str, Any]) -> dict[str, Any]:
        change(said)
        return said

    return {"shared": lie}


def renamed(said: dict[str, Any]) -> None:
    said["users"] = [dict(user, uid=b"u" * 16) for user in said["users"]]


def moved(said: dict[str, Any]) -> None:
    other = {"uid": b"e" * 16, "name": b"eve", "created": 1}
    said["users"].append(other)
    said["devices"] = [dict(device, user=other["uid"]) for device in said["devices"]]


def misnamed(said: dict[str, Any]) -> None:
    said["users"].append({"uid": b"m" * 16, "name": b"\xff\xfe", "created": 1})


def taken(said: dict[str, Any]) -> None:
    said["devices"] += [dict(device, id=b"d" * 16) for device in said["devices"]]


def timeless(said: dict[str, Any]) -> None:
    said["sites"] = [dict(site, url="http://evil", changed=2**53) for site in said["sites"]]


def endless(said: dict[str, Any]) -> None:
    said |= {"more": True, "upto": 0}


def far(said: dict[str, Any]) -> None:
    said["upto"] = NEVER


def journal_lie(change: Callable[[list[Any]], list[Any]]) -> dict[str, Lie]:
    return {"journal": change}


def backwards(events: list[Any]) -> list[Any]:
    mark = next(e for e in events if isinstance(e, JournalMark))
    record = next(e for e in events if isinstance(e, Record))
    return [mark, record, mark, record, *events[2:]]


def twice(events: list[Any]) -> list[Any]:
    return [*events[:-2], *events]


def never_ending(events: list[Any]) -> list[Any]:
    return [JournalMark(b"j" * 16, NEVER - 1), *events[1:]]


def of_record(**values: Any) -> dict[str, Lie]:
    def change(events: list[Any]) -> list[Any]:
        return [
            msgspec.structs.replace(e, **values) if isinstance(e, Record) else e for e in events
        ]

    return journal_lie(change)


def content(change: Callable[[list[Any]], list[Any]]) -> dict[str, Lie]:
    return {"fetch": change}


def other_bytes(events: list[Any]) -> list[Any]:
    return [
        msgspec.structs.replace(e, data=bytes(e.data).replace(b"liar", b"evil"))
        if hasattr(e, "data")
        else e
        for e in events
    ]


def large(events: list[Any]) -> list[Any]:
    return [
        msgspec.structs.replace(e, size=10**9) if isinstance(e, Record | Trailer) else e
        for e in events
    ]


def unasked(events: list[Any]) -> list[Any]:
    return [
        msgspec.structs.replace(e, hash=b"?" * 32) if isinstance(e, Record) else e for e in events
    ]


LIES: dict[str, dict[str, Lie]] = {
    "no proof": hello(proof=b""),
    "another proof": hello(proof=b"x" * 16),
    "another id": hello(site=b"i" * 16),
    "protocol 0": hello(protocol=0),
    "protocol 999": hello(protocol=999),
    "two ids": {"session": lambda s: s | {"site": dict(s["site"], id=b"t" * 16)}},
    "a name with two ids": shared(renamed),
    "a device of another user": shared(moved),
    "a name that is none": shared(misnamed),
    "a token of another device": shared(taken),
    "a time that none can follow": shared(timeless),
    "accounts without end": shared(endless),
    "a number beyond all": shared(far),
    "a journal that goes back": journal_lie(backwards),
    "a journal that repeats": journal_lie(twice),
    "a journal that never ends": journal_lie(never_ending),
    "a path upwards": of_record(path=b"../new"),
    "a path into the client": of_record(path=b".dblike/config.json"),
    "a counter of another": of_record(counter=7),
    "no vector": of_record(vector=b""),
    "no hash": of_record(hash=b""),
    "another user's mode": of_record(mode=0o4777),
    "a file with a target": of_record(target=b"/etc/passwd"),
    "other bytes": content(other_bytes),
    "a size that does not come": content(large),
    "what nobody asked for": content(unasked),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_change_nothing(members: list[Member], lie: str) -> None:
    """The liar is named, what is here stays, and the honest one is followed as before."""
    here, honest, liar = members
    before = held(here.site)
    with pytest.raises(Fault):
        here.follow(liar, **LIES[lie])
    after = held(here.site)
    for name in before:
        assert before[name] <= after[name], name
    assert not any(b"new" in row.path for row in after["versions"])
    honest.writer("again").write({b"more": b"of it"})
    here.follow(honest)
    here.follow(liar)  # as soon as it speaks the truth
    assert {b"kept", b"more", b"new"} <= {row.path for row in held(here.site)["versions"]}


def at_cursors(member: Member, make: Callable[[Site, bytes], str]) -> dict[str, Lie]:
    """Both ways to say where a folder stands."""

    def positions(said: dict[str, Any]) -> dict[str, Any]:
        return {"positions": [[f, make(member.site, bytes(f))] for f, _ in said["positions"]]}

    def journal_end(said: list[Any]) -> list[Any]:
        query = select(folders.c.id)
        folder = bytes(member.site.database.read(lambda c: c.execute(query).scalar_one()))
        mark = CursorMark(make(member.site, folder), more=False)
        return [mark if isinstance(event, CursorMark) else event for event in said]

    return {"folders": positions, "journal": journal_end}


CURSORS = {
    "of the largest number": lambda site, folder: site.seal.cursor(folder, {b"j" * 16: NEVER}),
    "without a seal": lambda site, folder: "A" * 60,
    "of another folder": lambda site, folder: site.seal.cursor(b"f" * 16, {b"j" * 16: 1}),
}


@pytest.mark.parametrize("what", ["folders", "journal"])
@pytest.mark.parametrize("which", CURSORS)
def test_impossible_positions(members: list[Member], which: str, what: str) -> None:
    """A journal that ends where none can end must not make us skip what is still to come."""
    here, honest, liar = members
    before = held(here.site)["journals"]
    with pytest.raises(Fault):
        here.follow(liar, **{what: at_cursors(liar, CURSORS[which])[what]})
    assert before <= held(here.site)["journals"]
    here.follow(honest)


def test_another_key(members: list[Member], tmp_path: Path) -> None:
    """A site of another cluster, or with a key that was replaced."""
    other = Member(tmp_path / "other", "o" * 64)
    other.add_ada()
    before = held(members[0].site)
    with pytest.raises(Fault, match="another cluster key"):
        members[0].follow(other)
    with pytest.raises(Fault, match="another cluster key"):
        other.follow(members[0])
    assert held(members[0].site) == before
    other.close()


class Fast(SystemClock):
    """Ten years ahead."""

    def now_ms(self) -> int:
        return super().now_ms() + 10 * 365 * 86_400_000


def test_a_clock_that_is_years_off(members: list[Member], tmp_path: Path) -> None:
    """All is taken in, `status` says what is wrong, and what is changed later wins all the same."""
    here, fast = members[0], Member(tmp_path / "fast", clock=Fast())
    fast.follow(here)
    accounts.set_password(fast.site, "ada", "from the future")
    here.follow(fast)
    assert "days apart" in peers_of(here.site)[0].problem
    accounts.set_password(here.site, "ada", PASSWORD)
    fast.follow(here)
    for member in (here, fast):
        member.writer("phone").write({b"written-%s" % member.site.id.hex().encode(): b"it"})
    here.follow(fast)
    fast.follow(here)
    assert fast.writer("tablet").exchange.folders()[0].cursor == (
        here.writer("laptop").exchange.folders()[0].cursor
    )
    fast.close()


@pytest.mark.parametrize(
    "follows",
    [
        {0: [1], 1: [2], 2: [3], 3: [0]},  # a ring, one way
        {0: [1, 2, 3], 1: [0], 2: [0], 3: [0]},  # a star
        {0: [1], 1: [0, 2], 2: [1, 3], 3: [2]},  # a chain
    ],
)
def test_ways(tmp_path: Path, follows: dict[int, list[int]]) -> None:
    """Whatever way it takes, it comes everywhere."""
    made = [Member(tmp_path / f"site{number}") for number in range(4)]

    def round_about() -> None:
        for one, others in follows.items():
            for other in others:
                made[one].follow(made[other])

    made[0].add_ada()
    for _ in range(3):
        round_about()
    writers = [member.writer(f"device {number}") for number, member in enumerate(made)]
    for number, writer in enumerate(writers):
        writer.write({b"of-%d" % number: b"%d" % number * 100, b"all": b"%d" % number})
    for _ in range(9):  # for the writes, then for the copies that each site makes of conflicts
        round_about()
    assert len({writer.exchange.folders()[0].cursor for writer in writers}) == 1
    trees = [{(r.path, r.hash) for r in w.exchange.changes("home").records} for w in writers]
    assert all(tree == trees[0] for tree in trees)
    assert len(trees[0]) == 8
    for member in made:
        member.close()


def test_itself(members: list[Member]) -> None:
    """A URL that leads back, or to a copy of this site."""
    with pytest.raises(Fault, match="the very same site"):
        members[0].follow(members[0])


def test_revocation_is_for_good(members: list[Member]) -> None:
    """A device that was revoked here is not let in again by what another site says."""
    here, _, liar = members
    lost = here.writer("lost")
    with here.site.database.engine.begin() as connection:
        connection.execute(devices.update().where(devices.c.id == lost.device).values(
            revoked=5, token=None))  # fmt: skip

    def again(said: dict[str, Any]) -> dict[str, Any]:
        user = said["users"][0]["uid"]
        said["devices"].append({"id": lost.device, "user": user, "name": "", "created": 1,
                                "token": b"t" * 32, "token_at": 2**42})  # fmt: skip
        return said

    here.follow(liar, shared=again)
    query = select(devices).where(devices.c.id == lost.device)
    row = here.site.database.read(lambda c: c.execute(query).one())
    assert row.revoked == 5
    assert row.token is None


def test_a_stall_keeps_nobody_else_waiting(
    members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one site says nothing in the middle of a folder, the same folder of another comes."""
    monkeypatch.setattr(following, "PATIENCE", 0.05)
    here, honest, liar = members
    locks, stalled, over = Locks(), threading.Event(), threading.Event()

    def stall(events: list[Any]) -> list[Any]:
        stalled.set()
        over.wait(60)
        return events

    def follow() -> None:
        run(here.site, Liar(liar.app.wsgi_app, journal=stall), locks)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert stalled.wait(60)
    honest.writer("again").write({b"more": b"of it"})
    run(here.site, Liar(honest.app.wsgi_app), locks)
    assert b"more" in {row.path for row in held(here.site)["versions"]}
    over.set()
    thread.join(60)
    assert b"new" in {row.path for row in held(here.site)["versions"]}


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"])
def test_silence_is_bounded(reply: bytes) -> None:
    """A site that takes the connection and says nothing, or announces a lot and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def serve() -> None:
            connection, _ = listener.accept()
            accepted.append(connection)
            connection.recv(1 << 16)
            connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = SiteTransport(url, silence=0.1)
        with pytest.raises(Unreachable):
            list(transport.request(Request("GET", "/")).chunks())
        transport.close()
        accepted[0].close()


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
