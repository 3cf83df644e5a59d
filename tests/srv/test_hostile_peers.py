"""Sites that say what can't be: they are not believed, and nothing that is here changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from dblike_delta.changeset import Body
from dblike_delta.messages import CursorMark, JournalMark, Record, Refusal, Trailer
from dblike_srv.collect import gc
from dblike_srv.config import Retention
from dblike_srv.maintenance import scrub
from dblike_srv.models import devices, folders
from dblike_srv.replication.arrival import Fault
from dblike_srv.replication.link import Link
from dblike_srv.replication.repair import ask_for_lost
from dblike_srv.replication.sites import announce
from dblike_srv.site import Site
from dblike_srv.store.mem import MemoryStore
from rig.core_site import DAY_MS, StillClock
from rig.liar import Liar, Lie
from rig.members import Member, held

NEVER = 2**63 - 1


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
        msgspec.structs.replace(e, device=b"?" * 16) if isinstance(e, Record) else e for e in events
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


@pytest.fixture
def emptied(tmp_path: Path) -> Iterator[tuple[Member, Member]]:
    """A site that lost all of its packs, and noticed, and one that it followed; bob's folder holds
    one content, and ada's some more, each in a pack of its own."""
    here, other = Member(tmp_path / "here"), Member(tmp_path / "other")
    other.add_user("ada")
    other.add_user("bob")
    for user, count in (("ada", 9), ("bob", 1)):
        device = other.writer("laptop", user)
        for n in range(count):
            device.write({b"file %d" % n: b"%s's precious %d" % (user.encode(), n)})
    here.follow(other)
    packs_of(here).clear()
    assert len(scrub(here.site).damaged_contents) == 10
    yield here, other
    here.close()
    other.close()


def packs_of(member: Member) -> dict[bytes, bytes]:
    assert isinstance(member.site.store, MemoryStore)
    return member.site.store.packs


def repaired(here: Member, other: Member, **lies: Lie) -> int:
    """Let a site ask the other one for what it lost; how many contents it still lacks."""
    link = Link(here.site, "http://other", Liar(other.app.wsgi_app, **lies))
    link.open(announce(here.site))
    ask_for_lost(here.site, link)
    link.close()
    return len(scrub(here.site).damaged_contents)


def test_repair_brings_all_but_what_the_other_site_lost_as_well(
    emptied: tuple[Member, Member],
) -> None:
    """And says so to that one: it did not know."""
    here, other = emptied
    packs = packs_of(other)
    spoilt, gone = [name for name, pack in packs.items() if b"ada" in pack][:2]
    packs[spoilt] = packs[spoilt].replace(b"precious", b"spoilt!!")
    del packs[gone]
    assert repaired(here, other) == 2
    refused: list[str] = []

    def listen(events: list[Any]) -> list[Any]:
        refused.extend(event.status for event in events if isinstance(event, Refusal))
        return events

    assert repaired(here, other, fetch=listen) == 2
    assert refused == ["damaged"] * 2


def test_repair_brings_all_but_what_the_other_site_forgot(tmp_path: Path) -> None:
    """What lives there comes, though older and newer versions with the same content are no more."""
    clock = StillClock()
    here, other = (Member(tmp_path / name, clock=clock) for name in ("here", "other"))
    other.add_ada()
    device = other.writer("laptop")
    for files in (
        {b"f": b"old"}, {b"f": b"new"}, {b"was": b"lives"}, {b"g": b"lives"}, {b"is": b"lives"},
        {b"was": b"1"}, {b"g": b"lives no more"}, {b"g": b"2"}, {b"h": b"lives"}, {b"h": b"3"},
    ):  # fmt: skip
        device.write(files)
    here.follow(other)
    forgetful = Retention(versions=0, days=1)
    other.site.config = msgspec.structs.replace(other.site.config, retention=forgetful)
    clock.advance(3 * DAY_MS)
    assert gc(other.site).versions
    packs_of(here).clear()
    assert len(scrub(here.site).damaged_contents) == 7
    assert repaired(here, other) == 2
    for member in (here, other):
        member.close()


def test_repair_asks_for_all_though_one_folder_comes_wrong(emptied: tuple[Member, Member]) -> None:
    here, other = emptied

    def worthless(events: list[Any]) -> list[Any]:
        return [
            msgspec.structs.replace(e, data=bytes(e.data).replace(b"ada's", b"eve's"))
            if isinstance(e, Body)
            else e
            for e in events
        ]

    assert repaired(here, other, fetch=worthless) == 9
    assert repaired(here, other) == 0


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
