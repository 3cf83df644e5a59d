"""What both sides can tell by themselves does not travel, and everything still works without."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from dblike_cli.report import Hints
from dblike_delta.changeset import Part, decode
from dblike_delta.exchange import Request, Response, Transport
from dblike_delta.messages import TAKES_HEADER, Record, Sources
from dblike_delta.vectors import handed_out, vector_in
from rig.devices import Laptop
from rig.sites import Sites
from rig.wsgi import WsgiTransport

NewLaptop = Callable[..., Laptop]


class Ear:
    """Hears what goes over a wire: the events of commits and of changes, and where they went."""

    def __init__(self, inner: Transport) -> None:
        self.inner: Transport = inner
        self.sent: list[object] = []
        self.heard: list[object] = []
        self.asked: list[str] = []

    @property
    def serving(self) -> str:
        return getattr(self.inner, "serving", "")

    def request(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.target.rpartition('/')[2]}")
        if "/commit" in request.target and isinstance(request.body, list):
            self.sent += decode(request.body)
        reply = self.inner.request(request)
        if "/changes" not in request.target:
            return reply
        body = b"".join(reply.chunks())
        self.heard += decode([body])
        return Whole(reply, body)


class Whole:
    """A reply whose body was read."""

    def __init__(self, reply: Response, body: bytes) -> None:
        self.status = reply.status
        self.headers: Mapping[str, str] = reply.headers
        self._body, self.close = body, reply.close

    def chunks(self) -> list[bytes]:
        return [self._body]


class Older:
    """The way to a site of the release before, as far as `where` goes: it says nothing of sources,
    takes none, and hears no wish to be brief."""

    def __init__(self, inner: WsgiTransport, where: str) -> None:
        self.inner, self.where = inner, where

    def request(self, request: Request) -> Response:
        if self.where not in request.target:
            return self.inner.request(request)
        target = request.target.replace("?brief=1", "").replace("&brief=1", "")
        request = msgspec.structs.replace(request, target=target)
        if isinstance(request.body, list) and has_sources(request.body):
            no_frame = b"\0" * 8
            request = msgspec.structs.replace(request, body=no_frame, length=len(no_frame))
        reply = self.inner.request(request)
        reply.headers = {n: v for n, v in reply.headers.items() if n != TAKES_HEADER.lower()}
        return reply


def has_sources(body: list[Part]) -> bool:
    return any(isinstance(event, Sources) for event in decode(body))


def two_with_files(laptop: NewLaptop, ear: Ear) -> tuple[Laptop, Laptop]:
    one, two = laptop("one", transport=ear), laptop("two", transport=ear)
    for number in range(20):
        one.write(f"old/f{number}", f"content of {number}" * 50)
    one.sync()
    two.sync()
    return one, two


def forget(ear: Ear) -> None:
    for log in (ear.sent, ear.heard, ear.asked):
        log.clear()


def hashes(events: list[object]) -> list[bytes]:
    return [event.hash for event in events if isinstance(event, Record) and event.hash]


def test_a_renamed_directory_travels_without_a_hash(laptop: NewLaptop, wire: WsgiTransport) -> None:
    ear = Ear(wire)
    one, two = two_with_files(laptop, ear)
    forget(ear)
    (one.root / "old").rename(one.root / "new")
    one.sync()
    two.sync()
    assert hashes(ear.sent) == hashes(ear.heard) == []
    assert [sum(isinstance(e, Sources) for e in log) for log in (ear.sent, ear.heard)] == [1, 1]
    names = [line.partition("?")[0] for line in ear.asked]
    assert names == ["GET changes", "POST commit", "GET changes"]
    assert one.tree() == two.tree()
    assert set(two.tree()) == {"new", *(f"new/f{number}" for number in range(20))}


def test_our_own_versions_need_no_seal(laptop: NewLaptop, wire: WsgiTransport) -> None:
    """A device's next dot says that it knew of the last one; what others made it has to prove."""
    ear = Ear(wire)
    one, two = two_with_files(laptop, ear)
    forget(ear)
    one.write("old/f1", "edited")
    one.sync()
    (record,) = (event for event in ear.sent if isinstance(event, Record))
    assert record.context == b""
    known = one.state.tree.get(b"old/f1")
    assert known is not None
    assert vector_in(known.synced.context).get(one.device.id) == record.counter
    two.sync()
    forget(ear)
    two.write("old/f1", "answered")
    assert two.sync().conflicts == ()
    (record,) = (event for event in ear.sent if isinstance(event, Record))
    assert handed_out(record.context) == record.context != b""
    one.sync()
    assert one.read("old/f1") == b"answered"


def test_a_page_that_names_what_is_not_here_is_asked_for_again(
    laptop: NewLaptop, wire: WsgiTransport
) -> None:
    ear = Ear(wire)
    one, two = two_with_files(laptop, ear)
    (one.root / "old/f1").rename(one.root / "moved")
    one.sync()
    with two.state.transaction():
        two.state.tree.doubt()
        two.state.tree.unsettle()
    forget(ear)
    two.sync()
    first, again = ear.asked[:2]
    assert first == again + "&brief=1"
    assert two.read("moved") == one.read("moved")


@pytest.fixture
def sites(tmp_path: Path):
    made = Sites(tmp_path / "sites")
    yield made
    made.close()


def test_a_site_that_lacks_the_named_versions_gets_hashes_and_contents(
    sites: Sites, tmp_path: Path
) -> None:
    ear = Ear(sites)
    one = Laptop(tmp_path / "one", ear, name="one")
    one.write("there", "both sites have this")
    one.sync()
    sites.split()
    one.write("here", "only the first site has this")
    one.sync()
    sites.serving = "b"
    for name in ("here", "there"):
        one.place(name).rename(one.root / f"{name}-moved")
    forget(ear)
    report = one.sync()
    one.close()
    assert report.in_sync
    records = sites.records("b")
    assert {b"here-moved", b"there-moved"} <= set(records)
    assert len([line for line in ear.asked if line.startswith("POST commit")]) == 3


@pytest.mark.parametrize("where", ["", "/commit"])
def test_a_site_of_the_release_before(laptop: NewLaptop, wire: WsgiTransport, where: str) -> None:
    """From the first request on, or behind a balancer that leads some to it."""
    ear = Ear(wire)
    ear.inner = Older(wire, where)
    one, two = two_with_files(laptop, ear)
    known = one.state.tree.get(b"old/f1")
    assert known is not None
    assert handed_out(known.synced.context) == known.synced.context != b""
    forget(ear)
    (one.root / "old").rename(one.root / "new")
    assert one.sync().in_sync
    assert isinstance(ear.sent[0], Sources) == bool(where)
    assert hashes(ear.sent)
    two.sync()
    assert one.tree() == two.tree()
    assert set(two.tree()) == {"new", *(f"new/f{number}" for number in range(20))}


@pytest.mark.parametrize("asking", [False, True])
def test_another_device_of_the_same_folder_proves_what_it_knew(
    laptop: NewLaptop, wire: WsgiTransport, asking: bool
) -> None:
    """A copy of the directory goes on from what its original made, and makes no conflict of it,
    whether it would have asked for news or not."""
    one, two = two_with_files(laptop, Ear(wire))
    shutil.copytree(one.root, one.root.parent / "clone", symlinks=True)
    clone = laptop("clone")
    clone.device, clone.exchange.token = one.device, one.exchange.token
    clone.write("old/f1", "edited by the copy")
    clone.place("old/f2").unlink()
    report = clone.sync(hints=Hints(everywhere=True, remote=asking))
    assert clone.device.id != one.device.id
    assert (report.conflicts, report.in_sync) == ((), True)
    one.sync()
    two.sync()
    assert one.tree() == two.tree() == clone.tree()
    assert one.read("old/f1") == b"edited by the copy"
    assert len(one.tree()) == 20


def test_a_crash_on_the_way_to_a_new_device_takes_no_proof_away(
    laptop: NewLaptop, wire: WsgiTransport
) -> None:
    """The credential of the new device is written first, and what is known here learns of it at the
    next start."""
    one, two = two_with_files(laptop, Ear(wire))
    one.renew()
    one.write("old/f1", "edited as another one")
    assert one.sync(hints=Hints(everywhere=True, remote=False)).conflicts == ()
    two.sync()
    assert one.tree() == two.tree()
    assert len(two.tree()) == 21
