"""A site says what can't be of one folder: the others of it are followed as before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from dblike_delta.exchange import Refused, Request
from dblike_delta.messages import Record
from dblike_srv.models import follows
from dblike_srv.replication.arrival import Fault
from dblike_srv.replication.aside import QUARANTINE, Aside
from dblike_srv.replication.follower import Follower
from dblike_srv.replication.link import Link
from dblike_srv.status import peers_of
from rig.cluster import eventually
from rig.core_site import StillClock
from rig.hearing import Hearing, Notices
from rig.liar import Liar, Said, decode
from rig.members import Member, held

USERS = ("ada", "ben", "cy")


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def two(
    tmp_path: Path, clock: StillClock, request: pytest.FixtureRequest
) -> Iterator[tuple[Member, Member]]:
    """One that knows nothing, and one where each of three users has a file, called as they are."""
    on_disk = getattr(request, "param", False)  # for threads
    here, there = (
        Member(tmp_path / name, clock=clock, on_disk=on_disk) for name in ("here", "there")
    )
    for user in USERS:
        there.add_user(user)
        there.writer("laptop", user).write({user.encode(): b"content"})
    yield here, there
    here.close()
    there.close()


def lying_of(user: str) -> Any:
    """A version of this user's has a number that its vector does not know."""

    def lie(events: list[Any]) -> list[Any]:
        return [
            msgspec.structs.replace(e, counter=7)
            if isinstance(e, Record) and e.path == user.encode()
            else e
            for e in events
        ]

    return lie


def paths(member: Member) -> set[bytes]:
    return {row.path for row in held(member.site)["versions"]}


def problem(member: Member) -> str:
    query = select(follows.c.problem)
    return str(member.site.database.read(lambda c: c.execute(query).scalar_one()))


class Failing(Liar):
    """A site that fails with a folder of which there is such a path."""

    path = b""

    def request(self, request: Request) -> Any:
        reply = super().request(request)
        if request.target.partition("?")[0].endswith("/journal"):
            body = b"".join(reply.chunks())
            if any(isinstance(e, Record) and e.path == self.path for e in decode(body)):
                problem = msgspec.json.encode({"title": "it failed", "status": 500})
                return Said(500, {"content-type": "application/problem+json"}, problem)
            return Said(reply.status, reply.headers, body)
        return reply


@pytest.mark.parametrize("how", ["lies", "fails"])
@pytest.mark.parametrize("user", USERS)
def test_one_folder_that_can_not_be(
    two: tuple[Member, Member], clock: StillClock, user: str, how: str
) -> None:
    here, there = two
    aside = Aside()

    def session(*, bad: bool) -> Follower:
        liar = Liar(there.app.wsgi_app)
        if bad and how == "lies":
            liar.lies = {"journal": lying_of(user)}
        elif bad:
            liar = Failing(there.app.wsgi_app)
            liar.path = user.encode()
        link = Link(here.site, "http://there", liar)
        follower = Follower(here.site, link, None, None, aside)
        follower.connect()
        return follower

    good, failure = {name.encode() for name in USERS if name != user}, Fault | Refused
    assert isinstance(session(bad=True).catch_up(), failure)
    assert paths(here) == good

    follower = session(bad=True)
    assert follower.catch_up() is None
    assert "1 folder; the others go on" in problem(here)
    other = next(name for name in USERS if name != user)
    there.writer("phone", other).write({b"more": b"of it"})
    follower.catch_up()
    assert paths(here) == good | {b"more"}

    clock.advance(int(QUARANTINE * 1000))
    assert isinstance(follower.catch_up(), failure)
    clock.advance(int(QUARANTINE * 1000))
    assert session(bad=False).catch_up() is None
    assert paths(here) == good | {b"more", user.encode()}
    assert problem(here) == ""


@pytest.mark.parametrize("two", [True], indirect=True, ids=["on disk"])
def test_a_folder_in_use_that_can_not_be(two: tuple[Member, Member], clock: StillClock) -> None:
    """Its user goes on writing there: the session goes on, and whatever is new of the
    others comes as it is told."""
    here, there = two
    link = Link(here.site, "http://there", Liar(there.app.wsgi_app, journal=lying_of("ada")))
    follower, notices = Follower(here.site, link), Notices()
    follower.connect()
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as exits:
        exits.callback(notices.shutdown)
        session = pool.submit(Hearing(here.site, link, follower, notices).run)
        bad, good = there.writer("laptop", "ada"), there.writer("laptop", "ben")
        for minute in range(5):
            name = b"minute %d" % minute
            bad.write({b"of ada, " + name: b"it"})
            good.write({name: b"it"})
            notices.tell(there)
            eventually(lambda name=name: session.done() or name in paths(here))
            clock.advance(int(QUARANTINE * 1000))
    session.result()
    assert {b"ben", b"cy", b"minute 4"} <= paths(here)
    assert not any(b"ada" in path for path in paths(here))
    assert "(1 folder; the others go on)" in problem(here)


def test_what_came_by_another_site_is_forgiven(two: tuple[Member, Member]) -> None:
    """A folder of which nothing is missing any more waits for nothing: the site counts as one that
    is followed to its end."""
    here, there = two
    aside = Aside()

    def session(url: str, aside: Aside, **lies: Any) -> Follower:
        link = Link(here.site, url, Liar(there.app.wsgi_app, **lies))
        follower = Follower(here.site, link, None, None, aside)
        follower.connect()
        return follower

    assert session("http://there", aside, journal=lying_of("ada")).catch_up() is not None
    assert session("http://other", Aside()).catch_up() is None
    assert session("http://there", aside).catch_up() is None
    assert {row.problem for row in peers_of(here.site)} == {""}


def test_it_is_asked_again_ever_later() -> None:
    aside, now, waits = Aside(), 0.0, []
    for _ in range(9):
        aside.put(b"folder", now, Fault("no"))
        since = now
        while aside.holds(b"folder", now):
            now += 0.125
        waits.append(now - since)
    assert waits[0] < 1.0
    assert waits == sorted(waits)
    assert waits[-1] == QUARANTINE
    aside.forgive(b"folder")
    assert not aside.holds(b"folder", since)
    assert aside.words() == ""
