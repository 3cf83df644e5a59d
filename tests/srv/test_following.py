"""Following between sites: every way that is connected, clocks that differ, sites that stall."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from dblike_delta.changeset import Encoder
from dblike_delta.exchange import Request, Unreachable
from dblike_delta.messages import FetchRequest
from dblike_delta.seams import SystemClock
from dblike_delta.versions import VersionVector
from dblike_srv import accounts, maintenance
from dblike_srv.accounts import Unauthorized
from dblike_srv.changes import since
from dblike_srv.collect import gc
from dblike_srv.config import Peer, Retention
from dblike_srv.errors import Busy
from dblike_srv.folders import find_folder
from dblike_srv.replication import follower as following
from dblike_srv.replication import journals, rows, turns
from dblike_srv.replication.arrival import Fault, Unfinished
from dblike_srv.replication.copies import count_copies
from dblike_srv.replication.follower import Follower
from dblike_srv.replication.link import Link, SiteTransport
from dblike_srv.replication.lost import are_lost
from dblike_srv.replication.sites import announce, part_with
from dblike_srv.replication.supervisor import Following, Supervisor, _is_passing
from dblike_srv.replication.turns import Locks
from dblike_srv.site import Site
from dblike_srv.status import peers_of
from dblike_srv.store.mem import MemoryStore, MemoryWriter
from rig.cluster import eventually
from rig.hearing import Hearing, Notices
from rig.liar import Liar
from rig.members import PASSWORD, Member, held, run
from rig.wsgi import WsgiResponse, WsgiTransport


class Fast(SystemClock):
    """Ten years ahead."""

    def now_ms(self) -> int:
        return super().now_ms() + 10 * 365 * 86_400_000


class Stepping(SystemClock):
    """Moved by hand."""

    moved = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + int(self.moved * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.moved


def test_a_site_that_answers_is_not_silent(members: list[Member], tmp_path: Path) -> None:
    """Also where there is nothing new of it, as `status` and the metrics say."""
    clock = Stepping()
    here = Member(tmp_path / "here", clock=clock)
    here.follow(members[0])
    follower = Follower(here.site, Link(here.site, "http://asked", Asked(members[0])))
    follower.connect()
    for moved in (3600, 7200):
        clock.moved = moved
        before = clock.now_ms()
        follower.rows.take()
        follower.report()
        assert max(peer.contact for peer in peers_of(here.site)) >= before
    here.close()


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


def test_a_clock_that_is_years_off_hides_no_loss(tmp_path: Path) -> None:
    """What a lost site had alone is asked of the devices as soon as the others were heard."""
    here, lost = (Member(tmp_path / name) for name in ("here", "lost"))
    fast = Member(tmp_path / "fast", clock=Fast())
    part_with(here.site, announce(lost.site))
    fast.follow(here)

    def is_lost() -> bool:
        ids, now = {lost.site.id}, here.site.clock.now_ms()
        return here.site.database.read(lambda connection: are_lost(connection, ids, now))

    assert not is_lost()
    here.follow(fast)
    assert "days apart" in peers_of(here.site)[0].problem
    assert is_lost()
    for member in (here, lost, fast):
        member.close()


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


def test_a_stall_keeps_nobody_else_waiting(
    members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one site says nothing in the middle of a folder, the same folder of another comes."""
    monkeypatch.setattr(turns, "PATIENCE", 0.05)
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


@pytest.mark.parametrize("early", [True], indirect=True)
def test_who_is_revoked_waits_for_no_transfer(
    two: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a file of one user's is on its way for hours, another one's lost device is let in no
    more."""
    monkeypatch.setattr(rows, "EVERY", 0.05)
    here, there = two
    there.add_user("ben")
    stolen = there.writer("stolen", "ben")
    here.follow(there)
    there.writer("laptop").write({b"large": b"of ada"})
    started, over = threading.Event(), threading.Event()

    def stall(events: list[Any]) -> list[Any]:
        started.set()
        assert over.wait(60)
        return events

    def is_let_in() -> bool:
        with contextlib.suppress(Unauthorized):
            return bool(accounts.identify(here.site, stolen.exchange.token))
        return False

    link = Link(here.site, "http://liar", Liar(there.app.wsgi_app, fetch=stall))
    follower, notices = Follower(here.site, link), Notices()
    follower.connect()
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as exits:
        exits.callback(notices.shutdown)
        exits.callback(over.set)
        session = pool.submit(Hearing(here.site, link, follower, notices).run)
        assert started.wait(60)
        assert is_let_in()
        stolen.exchange.revoke(stolen.device.hex())
        eventually(lambda: not is_let_in())
    session.result()
    assert b"large" in {row.path for row in held(here.site)["versions"]}


class FullWriter(MemoryWriter):
    """Its pack finds no room."""

    def commit(self, name: bytes) -> None:
        raise OSError("the disk is full")


class FullStore(MemoryStore):
    """Takes nothing more."""

    def writer(self) -> MemoryWriter:
        return FullWriter(self)


class Asked(WsgiTransport):
    """Counts contents that are asked for; says nothing to journals from the `last` on."""

    def __init__(self, member: Member, last: int = 10**9) -> None:
        super().__init__(member.app.wsgi_app)
        self.journals, self.last, self.wants = 0, last, 0

    def request(self, request: Request) -> WsgiResponse:
        if "/journal?" in request.target:
            self.journals += 1
            if self.journals >= self.last:
                raise Unreachable("the line was cut")
        if request.target.endswith("/fetch"):
            assert isinstance(request.body, bytes)
            self.wants += len(msgspec.msgpack.decode(request.body, type=FetchRequest).wants)
        return super().request(request)

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(params=[False, True], ids=["in turn", "early"])
def early(request: pytest.FixtureRequest) -> bool:
    """Whether threads ask for what comes next."""
    return bool(request.param)


@pytest.fixture
def two(tmp_path: Path, early: bool) -> Iterator[list[Member]]:
    """Sites that threads may look at."""
    made = [Member(tmp_path / name, on_disk=early) for name in ("here", "there")]
    made[1].add_ada()
    yield made
    for member in made:
        member.close()


def follow(here: Member, asked: Asked, page: int, early: bool) -> None:
    link = Link(here.site, "http://asked", asked)
    follower = Follower(here.site, link, page=page, early=early)
    follower.connect()
    if error := follower.catch_up():
        raise error


def test_what_is_about_to_be_written_is_not_asked_for_again(two: list[Member], early: bool) -> None:
    """The next run is asked for before: its contents may be those of the one in front of it."""
    here, there = two
    writer = there.writer("laptop")
    for data in (b"1" * 9000, b"2" * 9000, b"1" * 9000, b"2" * 9000):
        for path in (b"f", b"g"):
            writer.write({path: data})
    asked = Asked(there)
    follow(here, asked, page=1, early=early)
    assert asked.wants == 2
    tree, same = (
        [(r.path, r.hash) for r in member.writer("reader").exchange.changes("home").records]
        for member in (here, there)
    )
    assert tree == same


def test_what_came_is_written_though_the_next_is_cut(two: list[Member], early: bool) -> None:
    """Else a line that fails at each second page would bring nothing at all."""
    here, there = two
    writer = there.writer("laptop")
    for number in range(3):
        writer.write({b"n%d" % number: b"%d" % number * 9000})
    for number in range(2):
        with pytest.raises(Unreachable):
            follow(here, Asked(there, last=2), page=1, early=early)
        paths = {row.path for row in held(here.site)["versions"]}
        assert {b"n%d" % n for n in range(number + 1)} <= paths


def test_what_is_not_written_is_not_waited_for(two: list[Member], early: bool) -> None:
    """A disk that fails while the next contents are on their way: it comes again, later."""
    here, there = two
    writer = there.writer("laptop")
    for number in range(3):
        writer.write({b"n%d" % number: b"%d" % number * 9000})
    store, here.site.store = here.site.store, FullStore()
    with pytest.raises(OSError, match="full"):
        follow(here, Asked(there), page=1, early=early)
    assert not held(here.site)["versions"]
    here.site.store = store
    follow(here, Asked(there), page=1, early=early)
    assert {row.path for row in held(here.site)["versions"]} == {b"n0", b"n1", b"n2"}


class Meanwhile(Asked):
    """Something happens while contents are on their way, the first time."""

    def __init__(self, member: Member, happens: Callable[[], object]) -> None:
        super().__init__(member)
        self.happens: Callable[[], object] | None = happens

    def request(self, request: Request) -> WsgiResponse:
        if request.target.endswith("/fetch") and self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        return super().request(request)


def test_a_content_that_is_collected_meanwhile_is_asked_for(two: list[Member], early: bool) -> None:
    """It was here when it was decided what to ask for: an old version had it."""
    here, there = two
    forgetful = msgspec.structs.replace(here.site.config, retention=Retention(days=0, versions=0))
    here.site.config = forgetful
    writer = there.writer("laptop")
    writer.write({b"f": b"1" * 9000})
    writer.write({b"f": b"2" * 9000})
    follow(here, Asked(there), page=10, early=early)
    writer.write({b"g": b"1" * 9000, b"h": b"3" * 9000})
    asked = Meanwhile(there, lambda: gc(here.site))
    with contextlib.suppress(Busy):
        follow(here, asked, page=10, early=early)
    follow(here, asked, page=10, early=early)
    named = {row.hash for row in held(here.site)["versions"]}
    assert named - {b""} == {row.hash for row in held(here.site)["contents"]}


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


class Impatient(threading.Event):
    """Waits for nothing."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def test_a_site_that_is_away_for_days_is_not_given_up(members: list[Member]) -> None:
    work = SimpleNamespace(ended=Impatient(), prodded=Impatient())
    tries = 0

    class Away(Following):
        def _follow_once(self, url: str, work: Any) -> Exception:
            nonlocal tries
            tries += 1
            if tries > 1100:
                work.ended.set()
            return Unreachable("away")

    Away(members[0].site)._follow("http://away", cast("Any", work))
    assert tries > 1100


def test_a_site_is_followed_once(members: list[Member]) -> None:
    """One that answers at a URL of our config needs not be followed at its own URL, too."""
    here, honest, _ = members
    config = msgspec.structs.replace(here.site.config, peers=(Peer("http://liar/"),))
    here.site.config = config
    here.follow(honest)
    assert Following(here.site).urls() == {"http://liar"}
    following.note(here.site, "http://liar", problem="away: no answer")
    assert Following(here.site).urls() == {"http://liar", "http://honest"}


def test_changes_since_a_moment_are_those_of_all_sites(tmp_path: Path) -> None:
    """By when they came here, through whichever site, and however many of its own this one has."""
    clock = Stepping()
    here, there = Member(tmp_path / "here", clock=clock), Member(tmp_path / "there")
    there.add_ada()
    writer = there.writer("phone")
    writer.write({b"early": b"1"})
    here.follow(there)
    laptop = here.writer("laptop")
    laptop.write({b"own": b"2"})
    writer.write({b"late": b"3", b"later": b"4"})
    clock.moved = 3600
    moment = clock.now_ms()
    here.follow(there)
    folder = find_folder(here.site, accounts.administrator(here.site, "ada"), "home")
    assert folder is not None
    found, cursor, more = since(here.site, folder, moment, 100)
    assert {record.path for record in found} == {b"late", b"later"}
    assert (cursor, more) == (laptop.exchange.folders()[0].cursor, False)
    assert since(here.site, folder, clock.now_ms() + 1, 100)[0] == []
    for member in (here, there):
        member.close()


@pytest.mark.parametrize("early", [True], indirect=True)
def test_who_was_taken_out_of_the_config_is_listed_no_more(two: list[Member]) -> None:
    """Also where nobody is left to be followed."""
    here, there = two
    here.follow(there)
    assert any(peer.contact for peer in peers_of(here.site))
    rules = msgspec.structs.replace(here.site.config.replication, follow="peers")
    here.site.config = msgspec.structs.replace(here.site.config, replication=rules)
    supervisor = Supervisor(here.site)
    thread = threading.Thread(target=supervisor.run, daemon=True)
    thread.start()
    eventually(lambda: not any(peer.contact for peer in peers_of(here.site)))
    supervisor.stop()
    thread.join(60)


def test_a_url_that_is_not_encrypted(members: list[Member]) -> None:
    """Also where only others told it: nothing is sent there."""
    here = members[0].site
    with pytest.raises(Unreachable):
        Link(here, "http://two.invalid").open(announce(here))
    rules = msgspec.structs.replace(here.config.replication, insecure=False)
    here.config = msgspec.structs.replace(here.config, replication=rules)
    with pytest.raises(Fault, match="not encrypted"):
        Link(here, "http://two.invalid").open(announce(here))


def test_two_may_note_the_same_site_first(members: list[Member]) -> None:
    """A server that starts asks all sites, beside the process that follows them."""
    here, at_once = members[0].site, threading.Barrier(8)

    def note(url: str) -> None:
        at_once.wait()
        following.note(here, url, problem="")

    with ThreadPoolExecutor(8) as pool:
        for n in range(20):
            list(pool.map(note, [f"http://fresh/{n}"] * 8))


@pytest.mark.parametrize("lost", [1, 1001])
def test_a_pack_that_is_gone_stops_nobody(two: list[Member], early: bool, lost: int) -> None:
    """Nor one that the disk can't read: what is in it is damaged at the site that is followed, as
    that finds when it is told to look; all else comes."""
    here, there = two
    writer, store = there.writer("laptop"), there.site.store
    writer.write({b"first": b"1" * 900})
    before = set(store.names())
    writer.write({b"lost%d" % n: b"%d." % n for n in range(lost)})
    gone = set(store.names()) - before
    writer.write({b"last": b"3" * 900})
    for name in gone:
        store.delete(name)
    follow(here, Asked(there), page=5000, early=early)
    assert len(held(here.site)["versions"]) == lost + 2
    assert len(held(here.site)["contents"]) == 2


def test_a_site_says_that_it_has_what_it_took_itself(two: list[Member]) -> None:
    """Also in a session that goes on, and where the other one, which has that from it, took nothing
    since: a device that offers it there again is to hear that both have it."""
    here, there = two
    here.follow(there)
    follower = Follower(here.site, Link(here.site, "http://there", Asked(there)))
    follower.connect()
    follower.catch_up()
    here.writer("laptop").write({b"f": b"data"})
    there.follow(here)
    follower.catch_up()
    (place,) = journals.positions(there.site, b"").positions
    folder = journals.folder_by_id(there.site, place.folder)
    assert folder is not None
    assert count_copies(there.site, folder, place.cursor, there.site.id) == 2


class Reading(Asked):
    """Takes longer to look for damage than anyone waits."""

    def request(self, request: Request) -> WsgiResponse:
        if request.target.endswith("/damage"):
            raise Unreachable("no answer in time")
        return super().request(request)


def test_who_reads_for_long_is_not_asked_again_at_once(two: list[Member], early: bool) -> None:
    """Else each try, seconds apart, would have it read all of a large file once more."""
    here, there = two
    there.writer("laptop").write({b"lost": b"1" * 900})
    for name in there.site.store.names():
        there.site.store.delete(name)
    with pytest.raises(Unfinished, match="unavailable") as error:
        follow(here, Reading(there), page=5000, early=early)
    assert not _is_passing(error.value)


class Collecting(Asked):
    """Garbage is collected here while contents come from there."""

    def __init__(self, member: Member, here: Site) -> None:
        super().__init__(member)
        self._here = here

    def request(self, request: Request) -> WsgiResponse:
        if request.target.endswith("/fetch"):
            maintenance.gc(self._here)
        return super().request(request)


def test_what_is_collected_while_its_next_version_comes(two: list[Member], early: bool) -> None:
    """A content that was here when its versions were asked for, and is not when they are written:
    no version comes without it."""
    here, there = two
    writer = there.writer("laptop")
    writer.write({b"f": b"old" * 900})
    writer.write({b"f": b"new" * 900})
    follow(here, Asked(there), page=5000, early=early)
    forgetful = Retention(days=0, versions=0)
    here.site.config = msgspec.structs.replace(here.site.config, retention=forgetful)
    writer.write({b"again": b"old" * 900, b"more": b"more" * 900})
    with pytest.raises(Busy):
        follow(here, Collecting(there, here.site), page=5000, early=early)
    follow(here, Asked(there), page=5000, early=early)
    rows = held(here.site)
    assert len(rows["contents"]) == 3
    assert {row.path for row in rows["versions"]} >= {b"again", b"more"}


def test_a_path_that_very_many_devices_edited(members: list[Member]) -> None:
    """What one user's file is known by must not keep a site from hearing of anything else."""
    here, there = members[0], members[1]
    writer = there.writer("laptop")
    known = VersionVector.of({n.to_bytes(16, "big"): 1 for n in range(1, 3855)})
    folder = find_folder(there.site, accounts.administrator(there.site, "ada"), "home")
    assert folder is not None
    context = there.site.seal.context(folder.id, b"worn", known.pack())
    record = msgspec.structs.replace(writer.record(b"worn", b""), context=context, body=False)
    encoder = Encoder()
    parts = [*encoder.record(record), *encoder.finish()]
    assert writer.exchange.commit("home", parts).results[0].status == "accepted"
    here.follow(there)
    assert b"worn" in {row.path for row in held(here.site)["versions"]}
