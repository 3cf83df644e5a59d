"""More sites than one: going on at another, news of the past, and offering what too few hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dblike_cli.context import Settings
from dblike_cli.report import Hints
from dblike_delta.exchange import Unreachable
from dblike_delta.versions import Kind
from rig.core_site import StillClock
from rig.devices import Laptop
from rig.permissions import permissions
from rig.sites import Sites

NewLaptop = Callable[..., Laptop]


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    made = Sites(tmp_path / "sites")
    yield made
    made.close()


@pytest.fixture
def device(tmp_path: Path, sites: Sites) -> Iterator[NewLaptop]:
    made: list[Laptop] = []

    def make(name: str = "laptop", **options: Any) -> Laptop:
        made.append(Laptop(tmp_path / name, sites, name=name, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def live(sites: Sites, name: str) -> set[bytes]:
    found = sites.records(name).items()
    return {path for path, record in found if record.kind != Kind.DELETED}


# --- news of the past


def test_a_site_that_is_behind_reverts_nothing(sites: Sites, device: NewLaptop) -> None:
    one, two = device("one"), device("two")
    one.write("edited", "old")
    one.write("deleted", "old")
    one.write("deleted-there", "old")
    one.sync()
    two.sync()
    sites.split()
    one.write("edited", "new")
    one.place("deleted").unlink()
    one.sync()
    two.place("deleted-there").unlink()
    two.sync()
    one.sync()
    before = one.tree()
    sites.serving = "b"
    retell(one)
    report = one.sync()
    assert one.tree() == before
    done = (report.applied, report.deleted, report.conflicts, report.uploaded)
    assert not any(done)
    assert nothing(one)


def test_news_of_the_past_take_no_news_back(sites: Sites, device: NewLaptop) -> None:
    """What was heard and not applied yet stays the newest that is known."""
    one, two = device("one"), device("two")
    one.write("f", "old")
    one.sync()
    two.sync()
    sites.split()
    two.write("f", "new")
    two.sync()
    one.push()
    news = one.state.remote.get(b"f")
    assert news is not None
    sites.serving = "b"
    retell(one)
    one.push()
    assert one.state.remote.get(b"f") == news
    sites.serving = "a"
    one.sync()
    assert one.read("f") == b"new"


def test_a_path_that_lives_again_knows_of_its_delete(sites: Sites, device: NewLaptop) -> None:
    one = device("one")
    one.write("f", "first")
    one.sync()
    one.place("f").unlink()
    one.sync()
    tomb = one.state.tombs.get(b"f")
    assert tomb is not None
    one.write("f", "second")
    one.sync()
    assert one.state.tombs.get(b"f") is None
    heads = sites.records("a")[b"f"]
    assert heads.context != tomb.context
    assert nothing(one)


def test_old_tombs_are_forgotten(sites: Sites, device: NewLaptop) -> None:
    clock = StillClock()
    one = device("one", clock=clock)
    for name in ("f", "g"):
        one.write(name, name)
        one.sync()
        one.place(name).unlink()
        one.sync()
        clock.advance(31 * 24 * 3600 * 1000)
    assert set(one.state.tombs.all()) == {b"g"}


# --- offering


def test_what_one_site_has_alone_is_offered_to_the_next(sites: Sites, device: NewLaptop) -> None:
    one = device("one")
    one.write("gone", "x")
    one.write("kept", "x")
    one.sync()
    sites.split()
    sites.copies, sites.wanted = 1, 2
    one.write("small", "new")
    one.write("large", b"large" * 1_000_000)
    one.write("kept", "edited")
    one.place("dir").mkdir()
    one.place("link").symlink_to("small")
    one.place("gone").unlink()
    report = one.sync()
    assert report.short == 6
    assert report.in_sync
    assert int(report.exit_code) == 0

    sites.serving = "b"
    sites.copies = 2
    report = one.sync()
    assert report.short == 0
    same = {path: (r.device, r.counter, r.time, r.hash) for path, r in sites.records("a").items()}
    assert {p: (r.device, r.counter, r.time, r.hash) for p, r in sites.records("b").items()} == same
    assert not report.conflicts
    assert nothing(one)


def test_a_site_is_not_asked_all_the_time(sites: Sites, device: NewLaptop) -> None:
    clock = StillClock()
    one = device("one", clock=clock)
    sites.wanted = 2
    one.write("f", "x")
    one.sync()
    one.sync()
    commits = sites.seen.count("POST commit")
    one.sync()
    assert sites.seen.count("POST commit") == commits
    clock.advance(61_000)
    one.sync()
    assert sites.seen.count("POST commit") == commits + 1
    sites.copies = 2
    clock.advance(1_000_000)
    assert one.sync().short == 0


def test_an_offer_survives_a_restart(sites: Sites, device: NewLaptop) -> None:
    one = device("one")
    sites.wanted = 2
    one.write("f", "x")
    one.sync()
    sites.copies = 2
    one.restart()
    assert one.sync().short == 0


def test_an_offer_comes_before_news_that_do_not_know_of_it(sites: Sites, device: NewLaptop) -> None:
    """Else a site that never heard of our edit would have it taken away here."""
    one, two = device("one"), device("two")
    one.write("f", "base")
    one.sync()
    two.sync()
    sites.split()
    sites.wanted = 2
    one.write("f", "ours")
    one.sync()
    sites.serving = "b"
    two.write("f", "theirs")
    two.sync()
    one.sync()
    two.sync()
    contents = {data for p, data in files(one).items() if "f" in p}
    assert contents == {b"ours", b"theirs"}
    assert files(one) == files(two)


def test_an_edit_takes_the_place_of_an_offer(sites: Sites, device: NewLaptop) -> None:
    one = device("one")
    one.write("f", "base")
    one.sync()
    sites.split()
    sites.wanted = 2
    one.write("f", "first")
    one.sync()
    sites.serving = "b"
    one.write("f", "second")
    sites.copies = 2
    report = one.sync()
    assert (report.short, report.conflicts, report.new_device) == (0, (), False)
    assert files(one) == {"f": b"second"}


def test_an_offer_that_was_replaced_meanwhile_is_dropped(sites: Sites, device: NewLaptop) -> None:
    one, two = device("one"), device("two")
    one.write("f", "base")
    one.sync()
    two.sync()
    sites.split()
    sites.wanted = 2
    one.write("f", "ours")
    one.sync()
    two.sync()
    two.write("f", "answer to ours")
    sites.serving = "b"
    two.sync()  # b hears of the answer, and so of what it answers
    sites.serving = "b"
    report = one.sync()
    assert (report.short, report.conflicts, report.new_device) == (0, (), False)
    assert files(one) == files(two) == {"f": b"answer to ours"}


def test_what_a_copy_of_the_device_replaced_was_not_ours(sites: Sites, device: NewLaptop) -> None:
    """A machine was copied, and both go on.  The other's delete knows a later dot of theirs, and
    nothing of the edit that is sent here, and sent again."""
    one, two = device("one"), device("two")
    one.write("f", "base")
    one.sync()
    two.sync()
    with one.state.transaction():
        one.state.meta.take_counters(10)
    with two.state.transaction():
        two.state.meta._set(device=one.device.id, counter=2)
    two.device, two.exchange.token = one.device, one.exchange.token
    one.place("f").unlink()
    one.sync()
    two.write("f", "edited")
    sites.lose = lambda request: request.target.partition("?")[0].endswith("/commit")
    with pytest.raises(Unreachable):
        two.sync()
    sites.lose = lambda _: False
    report = two.sync()
    assert report.new_device
    one.sync()
    assert files(one) == files(two) == {"f": b"edited"}


def test_an_offer_to_a_site_that_knows_the_dot_otherwise(
    sites: Sites, device: NewLaptop, tmp_path: Path
) -> None:
    """Two copies of a device used the same dot: this one goes on as another device."""
    one = device("one")
    one.sync()
    sites.split()
    sites.wanted = 2
    one.write("f", "here")
    one.sync()
    offer = one.state.offers.all()
    with one.state.transaction():
        one.state.offers.drop([b"f"])
        one.state.meta._set(counter=1)
    sites.serving = "b"
    one.write("g", "there")
    one.sync()
    with one.state.transaction():
        one.state.offers.put(offer)
        one.state.offers.drop([b"g"])
    one.state.meta.note("offered to", "")
    report = one.sync()
    assert report.new_device
    assert report.short == 0


@pytest.fixture
def copied(sites: Sites, device: NewLaptop) -> tuple[Laptop, Laptop]:
    """A device and a copy of it that does not know that it is one; both have the file `f`."""
    one, copy = device("one"), device("copy")
    one.write("f", "old")
    for each in (one, copy):
        each.sync()
    copy.device, copy.exchange.token = one.device, one.exchange.token
    with copy.state.transaction():
        copy.state.meta.become(one.device.id, copy.place(".dblike").stat().st_ino)
        copy.state.meta._set(counter=one.state.meta._get("counter", 1))
    sites.split()
    return one, copy


@pytest.mark.parametrize("deleted", [True, False])
def test_what_a_copied_device_said_is_no_answer_to_what_was_said_here(
    sites: Sites, copied: tuple[Laptop, Laptop], deleted: bool
) -> None:
    """Under the same dot, while the answer at another site was lost: it was never seen here, so
    nothing that is done here was done in knowledge of it."""
    one, copy = copied
    one.write("f", "made here")
    one.sync()
    sites.serving, sites.lose = "b", lambda request: "/commit" in request.target
    if deleted:
        copy.place("f").unlink()
    else:
        copy.write("f", "made there")
    with pytest.raises(Unreachable):
        copy.sync()
    sites.serving, sites.lose = "a", lambda _: False
    assert copy.state.outbox.get(b"f").counter == sites.records("a")[b"f"].counter
    copy.sync()
    one.sync()
    texts = {b"made here"} if deleted else {b"made here", b"made there"}
    assert set(files(one).values()) == set(files(copy).values()) == texts
    assert nothing(one)
    assert nothing(copy)


@pytest.mark.parametrize("made", ["file", "directory"])
def test_what_a_copied_device_made_elsewhere_under_the_same_dot_is_taken(
    sites: Sites, device: NewLaptop, made: str
) -> None:
    """It is not what is here, though it goes by the same name."""
    one, copy, other = device("one"), device("copy"), device("other")
    copy.device, copy.exchange.token = one.device, one.exchange.token
    with copy.state.transaction():
        copy.state.meta.become(one.device.id, copy.place(".dblike").stat().st_ino)
    sites.split()
    if made == "file":
        one.write("f", "made here")
    else:
        one.place("f").mkdir()
    one.sync()
    sites.serving = "b"
    copy.write("f", "made there")
    copy.sync()
    ours, theirs = sites.records("a")[b"f"], sites.records("b")[b"f"]
    assert (ours.device, ours.counter) == (theirs.device, theirs.counter)
    one.sync()
    other.sync()
    assert one.tree() == other.tree() == copy.tree()
    assert nothing(one)


# --- a site that is lost


def test_what_a_lost_site_had_alone_comes_from_its_device(sites: Sites, device: NewLaptop) -> None:
    """One site is enough, and it is lost: the next one hears of the very same versions."""
    one = device("one")
    one.write("edited", "old")
    one.write("gone", "old")
    one.sync()
    sites.split()
    sites.introduce()
    one.write("edited", "new")
    one.write("large", b"large" * 1_000_000)
    one.place("gone").unlink()
    report = one.sync()
    assert report.short == 0
    assert report.in_sync
    sites.serving = "b"
    report = one.sync()
    assert (report.short, report.conflicts, report.uploaded) == (0, (), ())
    same = {path: (r.device, r.counter, r.time, r.hash) for path, r in sites.records("a").items()}
    assert {p: (r.device, r.counter, r.time, r.hash) for p, r in sites.records("b").items()} == same
    assert device("two").pull().in_sync
    assert nothing(one)


def test_what_other_devices_made_waits_for_them(sites: Sites, device: NewLaptop) -> None:
    """A site that is only away may come back with it: nobody speaks for another device."""
    one, two = _both_know(sites, device)
    sites.serving = "b"
    assert not two.sync().uploaded
    assert b"f" not in live(sites, "b")
    sites.lose_a()
    one.sync()  # its own version comes first
    report = two.sync()
    assert (report.uploaded, report.conflicts) == ((), ())
    assert sites.records("b")[b"f"].device == one.device.id


def test_what_nobody_else_brings_comes_from_whom_has_it(sites: Sites, device: NewLaptop) -> None:
    """The site left for good, and who made the versions is away, too: deletes come as well."""
    one, two = _both_know(sites, device)
    sites.serving = "b"
    sites.lose_a()
    report = two.sync()
    assert (report.uploaded, report.conflicts) == ((b"f",), ())
    assert live(sites, "b") == {b"f"}
    for _ in range(2):
        one.sync()
        two.sync()
    assert files(one) == files(two) == {"f": b"made by one"}
    assert nothing(one)
    assert nothing(two)


def _both_know(sites: Sites, device: NewLaptop) -> tuple[Laptop, Laptop]:
    """Two devices with what one of them made at `a`, which `b` never heard of."""
    one, two = device("one"), device("two")
    one.write("deleted", "x")
    one.sync()
    two.sync()
    sites.split()
    sites.introduce()
    one.write("f", "made by one")
    one.place("deleted").unlink()
    one.sync()
    two.sync()
    return one, two


def test_a_site_that_is_lost_behind_a_balancer(sites: Sites, device: NewLaptop) -> None:
    """Its name serves as before; what was heard there tells that it is another one."""
    one = device("one")
    one.sync()
    sites.split()
    sites.introduce()
    one.write("f", "x")
    one.sync()
    sites.swap()
    one.sync()
    assert b"f" in live(sites, "b")


def test_what_others_hold_is_not_kept(sites: Sites, device: NewLaptop) -> None:
    """Once the site says so, the next commit is all that there is to be offered."""
    one = device("one")
    one.sync()
    sites.split()
    sites.introduce()
    one.write("first", "x")
    one.sync()
    one.write("second", "x")
    one.sync()
    assert [offer.path for offer in one.state.offers.all()] == [b"first", b"second"]
    sites.hold("a")
    one.write("third", "x")
    one.sync()
    assert [offer.path for offer in one.state.offers.all()] == [b"third"]


def test_alone_a_site_keeps_nobody_busy(sites: Sites, device: NewLaptop) -> None:
    """Where there is no other site, nothing is remembered for one."""
    one = device("one")
    one.write("f", "x")
    one.sync()
    assert one.state.offers.empty()


# --- a reply that was lost, and the answer at another site


def test_a_lost_reply_and_someone_who_went_on_from_it(sites: Sites, device: NewLaptop) -> None:
    """The site that is asked again has only the later version: ours is done with, nothing more."""
    one, two = device("one"), device("two")
    one.write("f", "base")
    one.sync()
    two.sync()
    sites.split()
    one.write("f", "ours")
    sites.lose = lambda request: "/commit" in request.target
    with pytest.raises(Exception, match="lost"):
        one.sync()
    sites.lose = lambda _: False
    two.sync()
    two.write("f", "answer to ours")
    sites.serving = "b"
    two.sync()
    report = one.sync()
    assert (report.conflicts, report.new_device) == ((), False)
    assert files(one) == files(two) == {"f": b"answer to ours"}
    assert nothing(one)


def test_what_went_before_its_answer_is_deleted_where_it_arrived(
    sites: Sites, device: NewLaptop
) -> None:
    """It waits for no answer, however long the site that took it is away."""
    one, two = device("one"), device("two")
    lose_answer(sites, one)
    one.place("d/f").unlink()
    sites.serving = "b"
    one.sync(hints=Hints(remote=False))
    assert one.state.outbox.all() == []
    assert nothing(one)
    sites.serving = "a"
    two.sync()
    assert set(files(two)) == {"d/f"}
    one.sync(hints=Hints())
    assert live(sites, "a") == {b"d"}
    two.sync()
    assert files(one) == files(two) == {}
    assert nothing(one)


def test_what_went_before_its_answer_is_in_nobodys_way(sites: Sites, device: NewLaptop) -> None:
    """Neither in that of another one's file, nor in that of a later one of its own device."""
    one, two = device("one"), device("two")
    lose_answer(sites, one)
    one.place("d/f").unlink()
    sites.serving = "b"
    one.sync(hints=Hints(remote=False))
    two.write("d/f", "of two")
    two.sync()
    one.sync()
    assert files(one) == {"d/f": b"of two"}
    one.write("d/f", "again")
    assert one.sync(hints=Hints(frozenset({b"d/f"}))).uploaded == (b"d/f",)
    sites.serving = "a"
    assert nothing(one)
    assert files(one) == {"d/f": b"again"}


def test_what_can_not_be_seen_waits_for_its_answer(sites: Sites, device: NewLaptop) -> None:
    one = device("one")
    lose_answer(sites, one)
    sites.serving = "b"
    one.place("d").chmod(0)
    with permissions():
        one.sync(hints=Hints(remote=False))
        one.sync()
    one.place("d").chmod(0o755)
    assert one.state.outbox.get(b"d/f")
    sites.serving = "a"
    one.sync()
    assert (one.state.outbox.all(), files(one)) == ([], {"d/f": b"ours"})
    assert live(sites, "a") == {b"d", b"d/f"}


# --- a site that went back in time


def test_a_delete_that_a_site_forgot_is_told_again(
    sites: Sites, device: NewLaptop, tmp_path: Path
) -> None:
    one, two = device("one"), device("two")
    one.write("f", "x")
    one.write("g", "x")
    one.sync()
    two.sync()
    sites.split()
    one.place("f").unlink()
    one.sync()
    sites.roll_back()
    one.sync()
    assert set(files(one)) == {"g"}
    assert live(sites, "a") == {b"g"}
    two.sync()
    assert set(files(two)) == {"g"}


@pytest.mark.parametrize("died", ["as it was asked", "as it was told"])
def test_what_a_site_lost_is_sent_whenever_it_fails(
    sites: Sites, device: NewLaptop, died: str
) -> None:
    """Nothing but the disk says by then that all has to be looked at: no hint does."""
    one = device("one", settings=Settings(durable=False, batch_records=1))
    one.sync()
    sites.split()
    for name in ("f", "g", "h"):
        one.write(name, name)
    one.sync()
    sites.roll_back()
    last = "/commit" if died == "as it was told" else "/changes?cursor=&"
    sites.lose = lambda request: last in request.target
    with pytest.raises(Unreachable):
        one.sync(hints=Hints())
    sites.lose = lambda _: False
    one.restart()
    report = one.sync(hints=Hints())
    assert report.in_sync
    assert live(sites, "a") == {b"f", b"g", b"h"}
    assert one.sync(hints=Hints()).scanned == 0, "once is enough"


@pytest.mark.parametrize("everywhere", [False, True])
def test_what_a_site_lost_is_sent_in_the_cycle_that_hears_of_it(
    sites: Sites, device: NewLaptop, everywhere: bool
) -> None:
    """Also where that is by the answer to an edit, and the look was over by then."""
    one = device("one")
    one.sync()
    sites.split()
    for name in ("f", "g", "h"):
        one.write(name, name)
    one.sync()
    sites.roll_back()
    one.write("f", "edited")
    report = one.sync(hints=Hints(frozenset({b"f"}), everywhere, remote=False))
    assert report.in_sync
    assert live(sites, "a") == {b"f", b"g", b"h"}
    assert not one.state.meta.unseen
    assert nothing(one)


# --- helpers


def files(device: Laptop) -> dict[str, bytes]:
    return {path: device.read(path) for path, what in device.tree().items() if what[0] == "file"}


def nothing(device: Laptop) -> bool:
    report = device.sync()
    done = (report.uploaded, report.applied, report.deleted, report.conflicts, report.pending)
    return not any(done)


def lose_answer(sites: Sites, device: Laptop) -> None:
    """Let `a`, and not `b`, take in a file of which the device does not hear that."""
    device.sync()
    sites.split()
    device.write("d/f", "ours")
    sites.lose = lambda request: "/commit" in request.target
    with pytest.raises(Unreachable):
        device.sync()
    sites.lose = lambda _: False


def retell(device: Laptop) -> None:
    """Let the site tell of all its paths again, with nothing new about them."""
    with device.state.transaction():
        device.state.meta.step("")
