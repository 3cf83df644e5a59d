"""Upload: what travels, in which shape, and what the site's answers do."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dblike_cli.context import Settings
from dblike_cli.report import Code, Hints
from dblike_cli.state import Known
from dblike_delta.exchange import Refused, Request, Response, Transport, Unreachable
from dblike_srv import accounts
from dblike_srv.site import Site
from dblike_srv.store.base import Data, PackStore, PackWriter
from rig.core_site import StillClock
from rig.devices import Laptop
from rig.wsgi import WsgiTransport

NewLaptop = Callable[..., Laptop]


class Wire:
    """Counts and cuts: `cut` says for each request whether it is lost on the way or its reply."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.log: list[tuple[str, str, int]] = []
        self.cut: Callable[[Request], str] = lambda _: ""

    def request(self, request: Request) -> Response:
        fate = self.cut(request)
        self.log.append((request.method, request.target.partition("?")[0], request.length or 0))
        if fate == "before":
            raise Unreachable("cut")
        reply = self.inner.request(request)
        if fate == "after":
            for _ in reply.chunks():
                pass
            raise Unreachable("the reply is lost")
        return reply

    def sent(self, what: str) -> int:
        return sum(size for _, target, size in self.log if what in target)


@pytest.fixture
def cutting(wire: WsgiTransport) -> Wire:
    return Wire(wire)


def test_small_files_travel_together(laptop: NewLaptop, cutting: Wire) -> None:
    one = laptop("one", transport=cutting)
    for number in range(300):
        one.write(f"f{number}", os.urandom(100))
    cutting.log.clear()
    assert len(one.push().uploaded) == 300
    assert [target.rpartition("/")[2] for _, target, _ in cutting.log] == ["changes", "commit"]


def test_a_rename_and_a_copy_send_no_content(laptop: NewLaptop, cutting: Wire) -> None:
    one, two = laptop("one", transport=cutting), laptop("two")
    one.write("a", os.urandom(200_000))
    one.write("b", os.urandom(5 << 20))
    one.sync()
    two.sync()
    one.place("a").rename(one.root / "c")
    one.write("copy", one.read("b"))
    one.place("b").chmod(0o600)
    cutting.log.clear()
    report = one.sync()
    assert set(report.uploaded) == {b"b", b"c", b"copy"}
    assert cutting.sent("commit") < 2000
    report = two.sync()
    assert report.bytes_received < 2000
    assert two.tree() == one.tree()


@pytest.mark.parametrize("size", [100_000, 6 << 20])
@pytest.mark.parametrize("replaced", [0, 8], ids=["inserted", "in place"])
def test_an_edit_travels_as_a_delta(
    laptop: NewLaptop, cutting: Wire, size: int, replaced: int
) -> None:
    """One byte changed, whole file uploaded."""
    one, two = laptop("one", transport=cutting), laptop("two")
    one.write("a", os.urandom(size))
    one.sync()
    two.sync()
    for device in (one, two, one):
        data = bytearray(device.read("a"))
        at = size // 2
        data[at : at + replaced] = os.urandom(8)
        device.write("a", bytes(data))
        cutting.log.clear()
        report = device.sync()
        assert report.bytes_sent < 16_000
        other = two if device is one else one
        assert other.sync().bytes_received < 16_000
        assert other.tree() == device.tree()


def test_the_same_content_twice_is_sent_once(laptop: NewLaptop, cutting: Wire) -> None:
    one, two = laptop("one", transport=cutting), laptop("two")
    data = os.urandom(300_000)
    one.write("a", data)
    one.write("b", data)
    cutting.log.clear()
    one.sync()
    assert cutting.sent("commit") < 310_000
    assert two.sync().bytes_received < 310_000
    assert two.tree() == one.tree()


@pytest.mark.parametrize("threads", [False, True])
def test_a_large_upload_goes_on_where_it_was_cut(
    laptop: NewLaptop, cutting: Wire, threads: bool
) -> None:
    """At most a segment is sent again; a new start of the client goes on too."""
    settings = Settings(durable=False, whole_below=100_000, segment=1 << 20)
    executor = ThreadPoolExecutor(1) if threads else None
    one = laptop("one", transport=cutting, settings=settings, executor=executor)
    data = os.urandom(10 << 20)
    one.write("a", data)
    cutting.log.clear()
    count = 0

    def cut(request: Request) -> str:
        nonlocal count
        count += "/uploads/" in request.target and request.method == "PUT"
        return "before" if count >= 6 else ""

    cutting.cut = cut
    with pytest.raises(Unreachable):
        one.push()
    sent = cutting.sent("uploads")
    cutting.cut = lambda _: ""
    one.restart()
    cutting.log.clear()
    report = one.push()
    assert report.uploaded == (b"a",)
    assert sent + cutting.sent("uploads") + cutting.sent("commit") < (10 << 20) + (5 << 20)
    assert cutting.sent("uploads") < 7 << 20
    two = laptop("two")
    two.sync()
    assert two.read("a") == data
    if executor is not None:
        executor.shutdown()


def _unfinished(site: Site) -> int:
    """How many uploads the site waits for the rest of."""
    return len(list((Path(site.config.data) / "uploads").glob("*/*")))


@pytest.mark.parametrize("after", [5 << 20, 10, 0])
def test_an_upload_of_what_is_another_by_now_is_given_up(
    laptop: NewLaptop, cutting: Wire, site: Site, after: int
) -> None:
    """It became another file, a small one, or none."""
    settings = Settings(durable=False, whole_below=100_000, segment=1 << 20)
    one = laptop("one", transport=cutting, settings=settings)
    file = one.write("a", "before")
    one.sync()
    cutting.cut = _cut_after(3)
    file.write_bytes(os.urandom(5 << 20))
    with pytest.raises(Unreachable):
        one.push()
    assert _unfinished(site) == 1
    cutting.cut = lambda _: ""
    if after:
        file.write_bytes(os.urandom(after))
    else:
        file.unlink()
    assert one.push().in_sync
    assert _unfinished(site) == 0


def test_what_waits_for_unfinished_uploads_keeps_nothing_else(
    laptop: NewLaptop, cutting: Wire, site: Site
) -> None:
    settings = Settings(durable=False, whole_below=100_000, segment=1 << 20)
    limits = msgspec.structs.replace(site.config.limits, uploads_per_user=1)
    object.__setattr__(site, "config", msgspec.structs.replace(site.config, limits=limits))
    one = laptop("one", transport=cutting, settings=settings)
    two = laptop("two", settings=settings)
    one.write("a", os.urandom(5 << 20))
    cutting.cut = _cut_after(3)
    with pytest.raises(Unreachable):
        one.push()
    cutting.cut = lambda _: ""
    for path, size in (("large", 5 << 20), ("small", 10)):
        two.write(path, os.urandom(size))
    report = two.sync()
    assert report.uploaded == (b"small",)
    assert [(p.path, p.code) for p in report.pending] == [(b"large", Code.UNAVAILABLE)]
    assert one.sync().in_sync
    assert two.sync().uploaded == (b"large",)


def _cut_after(count: int) -> Callable[[Request], str]:
    """What cuts all appends but the first ones, and the question where the site stands."""
    rest = iter([""] * count)

    def cut(request: Request) -> str:
        if "/uploads/" not in request.target or request.method == "DELETE":
            return ""
        return next(rest, "before") if request.method == "PUT" else "before"

    return cut


def test_a_large_upload_whose_commit_failed_is_not_sent_again(
    laptop: NewLaptop, cutting: Wire, site: Site
) -> None:
    """The site takes all of it, and can't commit just then."""
    settings = Settings(durable=False, whole_below=100_000, segment=1 << 20)
    one, data = laptop("one", transport=cutting, settings=settings), os.urandom(5 << 20)
    one.write("a", data)

    def cut(request: Request) -> str:
        if request.headers.get("Upload-Complete") == "?1":
            accounts.set_quota(site, "ada", 1 << 20)
        return ""

    cutting.cut = cut
    with pytest.raises(Refused, match="quota"):
        one.push()
    accounts.set_quota(site, "ada", 0)
    cutting.cut = lambda _: ""
    cutting.log.clear()
    assert one.push().uploaded == (b"a",)
    assert cutting.sent("uploads") == cutting.sent("commit") == 0
    two = laptop("two")
    two.sync()
    assert two.read("a") == data


def test_a_large_file_that_changes_while_it_is_sent_is_sent_no_further(
    laptop: NewLaptop, cutting: Wire
) -> None:
    settings = Settings(durable=False, whole_below=100_000, segment=1 << 20)
    one, data = laptop("one", transport=cutting, settings=settings), os.urandom(10 << 20)
    file = one.write("a", data)
    cutting.log.clear()

    def save(request: Request) -> str:
        if request.method == "PUT" and file.stat().st_size == len(data):
            with file.open("ab") as saved:
                saved.write(b"more")
        return ""

    cutting.cut = save
    report = one.push()
    assert [item.code for item in report.pending] == [Code.WRITING]
    assert (1 << 20) < cutting.sent("uploads") < (4 << 20)
    assert report.bytes_sent == cutting.sent("uploads")
    assert cutting.log[-1][0] == "DELETE"
    assert one.push().uploaded == (b"a",)


@pytest.mark.parametrize("large", [False, True])
def test_a_lost_reply_makes_no_second_version(
    laptop: NewLaptop, cutting: Wire, large: bool
) -> None:
    """Retries are free; nobody conflicts with himself."""
    settings = Settings(durable=False, whole_below=1000, segment=3000)
    one, two = laptop("one", transport=cutting, settings=settings), laptop("two")
    one.write("a", os.urandom(10_000 if large else 100))
    lost = iter(["after"])

    def cut(request: Request) -> str:
        final = request.headers.get("Upload-Complete") == "?1" or "commit" in request.target
        return next(lost, "") if final else ""

    cutting.cut = cut
    with pytest.raises(Unreachable):
        one.push()
    assert len(one.state.outbox.all()) == 1
    dot = one.state.outbox.all()[0].counter
    one.restart()
    report = one.push()
    assert report.in_sync
    known = one.state.tree.get(b"a")
    assert known is not None
    assert known.synced.dot.counter == dot
    assert two.sync().conflicts == ()
    assert two.tree() == one.tree()


def test_an_edit_after_a_lost_reply_is_no_conflict(laptop: NewLaptop, cutting: Wire) -> None:
    one, two = laptop("one", transport=cutting), laptop("two")
    one.write("a", "first")
    lost = iter(["after"])
    cutting.cut = lambda request: next(lost, "") if "commit" in request.target else ""
    with pytest.raises(Unreachable):
        one.push()
    one.write("a", "second")
    assert one.sync().conflicts == ()
    assert two.sync().conflicts == ()
    assert two.read("a") == b"second"


def test_base_or_content_that_the_site_lost_is_sent_in_full(laptop: NewLaptop, site: Any) -> None:
    from sqlalchemy import delete

    from dblike_srv.models import contents

    one = laptop("one")
    small, large = os.urandom(100_000), os.urandom(5 << 20)
    one.write("small", small)
    one.write("large", large)
    one.sync()
    site.database.transact(lambda connection: connection.execute(delete(contents)))
    one.write("small", small + b"edit")
    one.write("large", large + b"edit")
    one.write("copy", small)
    report = one.sync()
    assert set(report.uploaded) == {b"small", b"large", b"copy"}
    assert report.in_sync
    two = laptop("two")
    two.sync()
    assert two.tree() == one.tree()


def test_what_the_site_lost_goes_again_while_the_next_batch_is_on_its_way(
    laptop: NewLaptop, site: Any
) -> None:
    """Of what was renamed no bytes are held: they are read again."""
    from sqlalchemy import delete

    from dblike_srv.models import contents

    settings = Settings(durable=False, batch_records=3)
    with ThreadPoolExecutor(1) as executor:
        one = laptop("one", settings=settings, executor=executor)
        for number in range(10):
            one.write(f"old/{number}", os.urandom(100))
        one.sync()
        site.database.transact(lambda connection: connection.execute(delete(contents)))
        one.place("old").rename(one.root / "new")
        assert one.sync().in_sync
    two = laptop("two")
    two.sync()
    assert two.tree() == one.tree()


def test_renamed_bytes_do_not_fill_a_batch(laptop: NewLaptop, cutting: Wire) -> None:
    settings = Settings(durable=False, batch_bytes=1000)
    one = laptop("one", transport=cutting, settings=settings)
    for number in range(40):
        one.write(f"old/{number}", os.urandom(100))
    one.sync()
    one.place("old").rename(one.root / "new")
    cutting.log.clear()
    assert len(one.push().uploaded) == 41
    assert [target.rpartition("/")[2] for _, target, _ in cutting.log] == ["changes", "commit"]


def test_what_the_site_refuses_is_listed_until_it_changes(
    laptop: NewLaptop, site: Any, cutting: Wire
) -> None:
    import msgspec

    limits = msgspec.structs.replace(site.config.limits, file_size=1000)
    object.__setattr__(site, "config", msgspec.structs.replace(site.config, limits=limits))
    one = laptop("one", transport=cutting)
    one.write("big", b"x" * 2000)
    one.write("fine", b"x")
    report = one.sync()
    assert report.uploaded == (b"fine",)
    assert [(item.path, item.code) for item in report.refused] == [(b"big", Code.REFUSED)]
    assert report.exit_code == 3
    cutting.log.clear()
    assert len(one.sync(hints=Hints(frozenset({b"big"}))).refused) == 1
    assert cutting.sent("commit") == 0, "it is not sent again and again"
    one.write("big", b"y" * 500)
    report = one.sync()
    assert report.uploaded == (b"big",)
    assert report.refused == ()
    assert report.in_sync


def test_what_is_refused_for_a_quota_goes_when_that_is_larger(
    laptop: NewLaptop, site: Site
) -> None:
    accounts.set_quota(site, "ada", 1000)
    one = laptop("one")
    one.write("file", os.urandom(2000))
    assert len(one.sync().refused) == 1
    accounts.set_quota(site, "ada", 0)
    report = one.sync()
    assert (report.uploaded, report.refused, report.in_sync) == ((b"file",), (), True)


@pytest.mark.parametrize("hinted", [False, True])
def test_what_was_refused_and_is_no_more_is_not_listed(
    laptop: NewLaptop, site: Site, hinted: bool
) -> None:
    """Deleted, renamed, or as it was before."""
    accounts.set_quota(site, "ada", 1000)
    one = laptop("one")
    os.utime(one.write("edited", "small"), (1, 1))
    one.sync()
    for path in ("deleted", "d/renamed", "edited", "stays"):
        one.write(path, os.urandom(2000))
    assert len(one.sync().refused) == 4
    one.place("deleted").unlink()
    one.place("d").rename(one.root / "e")
    os.utime(one.write("edited", "small"), (1, 1))
    places = frozenset({b"deleted", b"d", b"e", b"edited"})
    report = one.sync(hints=Hints(places) if hinted else None)
    assert [item.path for item in report.refused] == [b"e/renamed", b"stays"]
    one.place("stays").unlink()
    shutil.rmtree(one.place("e"))
    report = one.sync()
    assert (report.refused, report.in_sync) == ((), True)


class FullWriter:
    """Writes a pack on a disk that has `room` for it."""

    def __init__(self, inner: PackWriter, room: int) -> None:
        self._inner, self._room = inner, room

    def write(self, data: Data) -> None:
        self._inner.write(data)
        if self._inner.size > self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class FullStore:
    """A store on a disk that takes no pack of more than `room` bytes."""

    def __init__(self, inner: PackStore) -> None:
        self._inner = inner
        self.room = 1 << 20

    def writer(self) -> FullWriter:
        return FullWriter(self._inner.writer(), self.room)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_what_a_full_site_has_no_room_for_keeps_nothing_else(
    laptop: NewLaptop, site: Site, cutting: Wire
) -> None:
    """What is smaller goes up, others' changes come down, and it is tried again when the site says
    so."""
    clock, store = StillClock(), FullStore(site.store)
    object.__setattr__(site, "store", store)
    one, two = laptop("one"), laptop("two", transport=cutting, clock=clock)
    one.write("of-one", "1")
    one.sync()
    for path, size in (("a-large", 5 << 20), ("b-larger", 6 << 20), ("small", 100)):
        two.write(path, os.urandom(size))
    report = two.sync()
    assert (report.uploaded, report.applied) == ((b"small",), (b"of-one",))
    large = [b"a-large", b"b-larger"]
    assert [item.path for item in report.pending] == large
    assert {item.code for item in report.pending} == {Code.NO_SPACE}
    assert report.exit_code == 3
    cutting.log.clear()
    store.room = 1 << 63
    assert two.sync().uploaded == ()
    assert cutting.sent("commit") == 0, "what the site said holds for a while"
    clock.advance(300_000)
    assert list(two.sync().uploaded) == large
    one.sync()
    assert one.tree() == two.tree()


def test_a_state_that_went_back_goes_on_as_a_new_device(laptop: NewLaptop) -> None:
    """Yesterday's state.db; dots are not used twice, and nothing is lost."""
    one, two = laptop("one"), laptop("two")
    one.write("a", "1")
    one.sync()
    state = one.root / ".dblike" / "state.db"
    one.state.close()
    yesterday = state.read_bytes()
    one.restart()
    one.write("a", "2")
    one.write("b", "made after the backup")
    one.sync()
    two.sync()
    one.state.close()
    for name in ("state.db-wal", "state.db-shm"):
        (state.parent / name).unlink(missing_ok=True)
    state.write_bytes(yesterday)
    one.restart()
    one.write("a", "3")
    one.write("c", "new")
    before = one.device.id
    report = one.sync()
    assert one.device.id != before
    assert report.in_sync
    two.sync()
    one.sync()
    assert one.tree() == two.tree()
    contents = {two.read(path) for path in two.tree()}
    assert {b"3", b"made after the backup", b"new"} <= contents


def test_a_state_that_went_back_and_heard_of_itself_is_not_believed(
    laptop: NewLaptop, cutting: Wire
) -> None:
    """A site that lacks what the dot stood for would take the edit for one that was replaced: it is
    not asked."""
    one = laptop("one", transport=cutting)
    for name in ("other", "more", "a"):
        one.write(name, "1")
        one.sync()
    with one.state.transaction():
        one.state.meta._set(counter=1)
    before = one.device.id
    one.write("a", "2")
    cutting.log.clear()
    report = one.sync()
    assert report.uploaded == (b"a",)
    assert one.device.id != before
    assert sum("commit" in target for _, target, _ in cutting.log) == 1


def test_a_dot_that_is_reused_while_the_next_batch_is_on_its_way(laptop: NewLaptop) -> None:
    """What the site took of the next one in the old device's name makes no conflict."""
    settings = Settings(durable=False, batch_records=2)
    with ThreadPoolExecutor(1) as executor:
        one = laptop("one", settings=settings, executor=executor)
        one.write("a", "1")
        one.sync()
        state = one.root / ".dblike" / "state.db"
        one.state.close()
        yesterday = state.read_bytes()
        one.restart()
        one.write("a", "2")
        one.sync()
        one.state.close()
        for name in ("state.db-wal", "state.db-shm"):
            (state.parent / name).unlink(missing_ok=True)
        state.write_bytes(yesterday)
        one.restart()
        for number in range(7):
            one.write(f"b{number}", f"{number}")
        before = one.device.id
        report = one.sync()
    assert one.device.id != before
    assert report.in_sync
    assert report.conflicts == ()
    two = laptop("two")
    two.sync()
    assert two.tree() == one.tree()
    assert set(two.tree()) == {"a", *(f"b{number}" for number in range(7))}


def test_what_another_site_took_from_a_copy_of_a_device_gives_way(laptop: NewLaptop) -> None:
    """Both said with one number that a file has the same content, and another mode: each to a site
    of its own.  Then the two sites meet, and have the one mode."""
    one = laptop("one")
    one.write("a", "1")
    one.place("a").chmod(0o600)
    one.sync()
    one.place("a").chmod(0o750)
    known = one.state.tree.get(b"a")
    assert known is not None
    assert known.synced.entry is not None
    entry = msgspec.structs.replace(known.synced.entry, mode=0o750)
    synced = msgspec.structs.replace(known.synced, entry=entry)
    with one.state.transaction():
        one.state.tree.record([Known(b"a", b"", synced)])
        one.state.meta.step("")
    assert one.sync().in_sync
    assert stat.S_IMODE(one.place("a").stat().st_mode) == 0o600


def test_a_copied_folder_is_another_device(laptop: NewLaptop) -> None:
    """`cp -a` of a linked folder; both go on."""
    import shutil

    one = laptop("one")
    one.write("a", "1")
    one.sync()
    shutil.copytree(one.root, one.root.parent / "clone", symlinks=True)
    clone = laptop("clone")
    clone.device = one.device
    clone.exchange.token = one.exchange.token
    one.write("b", "from one")
    clone.write("b", "from clone")
    one.sync()
    report = clone.sync()
    assert clone.device.id != one.device.id
    assert report.in_sync
    one.sync()
    assert one.tree() == clone.tree()
    assert {one.read(path) for path in one.tree()} == {b"1", b"from one", b"from clone"}


def test_a_refused_token_changes_nothing(laptop: NewLaptop) -> None:
    one = laptop("one")
    one.write("a", "1")
    one.sync()
    one.write("b", "2")
    one.exchange.token = "wrong"
    with pytest.raises(Refused):
        one.sync()
    assert set(one.tree()) == {"a", "b"}


class Page:
    """A captive portal's answer to everything."""

    status = 200
    headers: Mapping[str, str] = {"content-type": "text/html"}

    def chunks(self) -> Iterator[bytes]:
        yield b"<html>Please log in</html>"

    def close(self) -> None:
        pass


@pytest.mark.parametrize("status", [200, 204, 302, 404, 410, 500, 503])
def test_a_page_of_something_in_between_changes_nothing(laptop: NewLaptop, status: int) -> None:
    """No delete and no step of the cursor from what is no answer of a site."""
    one = laptop("one")
    one.write("a", "1")
    one.sync()
    cursor = one.state.meta.cursor
    page = Page()
    page.status = status

    class Portal:
        def request(self, _: Request) -> Page:
            return page

    inner, one.exchange._transport = one.exchange._transport, Portal()
    with pytest.raises(Unreachable):
        one.sync()
    one.exchange._transport = inner
    assert one.state.meta.cursor == cursor
    assert set(one.tree()) == {"a"}
    assert one.sync().in_sync


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_there_again_before_its_delete_is_sent_stays(
    laptop: NewLaptop, wire: WsgiTransport, kind: str
) -> None:
    """Deletes go last, and what goes before them takes its time."""

    class Restoring:
        def request(self, request: Request) -> Response:
            if request.target.partition("?")[0].endswith("/commit") and kept.exists():
                kept.rename(one.place("a"))
            return wire.request(request)

    one, two = laptop("one", settings=Settings(durable=False, batch_records=1)), laptop("two")
    kept = one.root.parent / "kept"
    one.write("a" if kind == "file" else "a/in", "text")
    one.sync()
    two.sync()
    one.place("a").rename(kept)
    one.write("new", "1")
    one.write("new too", "2")
    one.exchange._transport = Restoring()
    report = one.sync()
    assert report.deleted == ()
    assert not report.in_sync
    assert one.sync().in_sync
    two.sync()
    assert two.tree() == one.tree()
    assert one.place("a").exists()


@pytest.mark.parametrize("kind", ["file", "symlink", "directory"])
def test_what_was_restored_after_a_delete_whose_reply_was_lost_stays(
    laptop: NewLaptop, cutting: Wire, kind: str
) -> None:
    """The echo of a device's own delete is no news to it."""
    one, two = laptop("one", transport=cutting), laptop("two")
    kept, place = one.root.parent / "kept", one.place("a")
    match kind:
        case "file":
            one.write("a", "text")
        case "symlink":
            place.symlink_to("text")
        case _:
            place.mkdir()
    one.sync()
    two.sync()
    place.rename(kept)
    cutting.cut = lambda request: (
        "after" if request.target.partition("?")[0].endswith("/commit") else ""
    )
    with pytest.raises(Unreachable):
        one.sync()
    cutting.cut = lambda _: ""
    kept.rename(place)
    before = one.tree()
    one.sync()
    assert one.tree() == before
    two.sync()
    assert two.tree() == before
    assert one.sync().in_sync
