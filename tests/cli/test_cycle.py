"""The cycle: both ways, first links, restrictions, dry runs, and the fixed point."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import delete

from dblike_cli import run
from dblike_cli.context import Settings
from dblike_cli.entries import UNTRUSTED
from dblike_cli.errors import StateDamaged
from dblike_cli.exits import Exit
from dblike_cli.fs import Rename
from dblike_cli.realfs import RealFS
from dblike_cli.report import Code, Direction, Hints
from dblike_cli.session import Session
from dblike_cli.state import State
from dblike_delta.exchange import Request, Response, Transport, Unreachable
from dblike_delta.seams import SystemClock
from dblike_srv import accounts
from dblike_srv.app import create_app
from dblike_srv.config import decode_config
from dblike_srv.errors import Conflict
from dblike_srv.models import versions
from dblike_srv.site import Site, open_site
from rig.core_site import StillClock
from rig.devices import PULL, PUSH, Laptop
from rig.wsgi import WsgiTransport

NewLaptop = Callable[..., Laptop]


class Counter:
    """Counts requests."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.targets: list[str] = []

    def request(self, request: Request) -> Response:
        self.targets.append(request.target.partition("?")[0].rpartition("/")[2])
        return self.inner.request(request)


def fill(device: Laptop, seed: int = 1) -> None:
    rng = random.Random(seed)
    for number in range(30):
        device.write(f"d{number % 4}/s{number % 3}/f{number}", rng.randbytes(rng.randrange(3000)))
    device.write("large", rng.randbytes(5 << 20))
    device.write("empty-file", "")
    device.place("empty-directory").mkdir()
    device.place("link").symlink_to("d1/s1")


def settle(*devices: Laptop) -> None:
    for _ in range(5):
        for device in devices:
            device.sync()


def nothing_happened(report: Any) -> bool:
    done = (report.uploaded, report.applied, report.deleted, report.adopted, report.conflicts)
    return not any(done) and report.bytes_sent == 0


def test_both_hold_the_same_and_then_nothing_happens(laptop: NewLaptop) -> None:
    """0 versions, 0 uploaded bytes, 0 writes in 10 more rounds."""
    one, two = laptop("one"), laptop("two")
    fill(one)
    one.sync()
    two.sync()
    assert one.tree() == two.tree()
    settle(one, two)

    def durable(device: Laptop) -> tuple[bytes, Any]:
        rows = list(device.state.tree.rows())
        return repr(rows).encode(), device.state.meta.cursor

    before = [durable(device) for device in (one, two)]
    for _ in range(10):
        assert nothing_happened(one.sync())
        assert nothing_happened(two.sync())
    assert [durable(device) for device in (one, two)] == before


def test_the_echo_of_our_own_commit_is_no_work(laptop: NewLaptop, wire: WsgiTransport) -> None:
    counter = Counter(wire)
    one = laptop("one", transport=counter)
    one.write("a", "1")
    one.sync()
    one.write("a", "2")
    counter.targets.clear()
    report = one.sync(hints=Hints(frozenset({b"a"}), remote=False))
    assert report.uploaded == (b"a",)
    assert counter.targets == ["commit"]
    assert one.state.meta.cursor == one.exchange.folders()[0].cursor


def test_a_hint_of_the_site_costs_two_requests(laptop: NewLaptop, wire: WsgiTransport) -> None:
    counter = Counter(wire)
    one, two = laptop("one"), laptop("two", transport=counter)
    fill(one)
    settle(one, two)
    one.write("d1/s1/f1", "changed")
    one.sync()
    counter.targets.clear()
    report = two.sync(hints=Hints(remote=True))
    assert report.applied == (b"d1/s1/f1",)
    assert counter.targets == ["changes", "fetch"]
    assert report.scanned == 0, "only what is news was looked at"


def test_a_version_has_the_sites_time_whenever_it_is_made(laptop: NewLaptop) -> None:
    """By that it wins a conflict or not: also where nothing but an edit here is to be looked at
    after all was opened anew."""
    one = laptop("one", clock=StillClock())
    one.sync()
    one.restart()
    one.write("f", "x")
    before = SystemClock().now_ms()
    one.sync(hints=Hints(frozenset({b"f"}), remote=False))
    (record,) = one.exchange.changes(one.folder, "").records
    assert record.time >= before


def test_first_link_of_two_full_trees_is_their_union(laptop: NewLaptop) -> None:
    """Equal content is adopted without transfer, different content becomes copies."""
    one, two = laptop("one"), laptop("two")
    fill(one)
    fill(two)
    one.write("both", "of one")
    two.write("both", "of two")
    one.write("only-one", "1")
    two.write("only-two", "2")
    os.utime(two.place("large"), (5, 5))
    one.sync()
    report = two.sync()
    assert len(report.adopted) > 30
    assert set(report.uploaded) == {b"both", b"only-two"}
    assert report.deleted == ()
    assert report.bytes_sent < 5000
    settle(one, two)
    assert one.tree() == two.tree()
    files = {one.read(path) for path in one.tree(times=False) if one.place(path).is_file()}
    assert {b"of one", b"of two", b"1", b"2"} <= files
    assert len([path for path in one.tree() if "conflicted copy" in path]) == 1
    # A large file that was adopted is as good for deltas as one that was sent.
    data = two.read("large")
    two.write("large", data + b"!")
    assert two.sync().bytes_sent < 20_000


def test_a_lost_state_is_a_first_link_of_a_new_device(laptop: NewLaptop) -> None:
    """0 lost, 0 copies where content is equal."""
    one, two = laptop("one"), laptop("two")
    fill(one)
    settle(one, two)
    before = one.device.id
    one.state.close()
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (one.root / ".dblike" / name).unlink(missing_ok=True)
    one.restart()
    one.write("d0/s0/f0", "edited meanwhile")
    report = one.sync()
    assert one.device.id != before
    assert report.in_sync
    settle(one, two)
    assert one.tree() == two.tree()
    copies = [path for path in one.tree() if "conflicted copy" in path]
    assert len(copies) == 1  # of the one file that differed


def test_push_and_pull_are_one_way(laptop: NewLaptop) -> None:
    one, two = laptop("one"), laptop("two")
    one.write("a", "1")
    two.write("b", "2")
    one.sync()
    assert two.sync(PULL).applied == (b"a",)
    assert set(one.sync(PULL).applied) == set()
    assert two.sync(PUSH).uploaded == (b"b",)
    one.write("c", "3")
    report = one.sync(PUSH)
    assert report.uploaded == (b"c",)
    assert report.in_sync
    assert set(one.tree()) == {"a", "c"}
    one.sync(PULL)
    assert set(one.tree()) == {"a", "b", "c"}


def test_a_pull_lists_what_changed_on_both_sides(laptop: NewLaptop) -> None:
    """It takes neither side's version, and so it is not in sync; what is only ours is no matter."""
    one, two = laptop("one"), laptop("two")
    for path in ("both", "deleted", "ours", "theirs"):
        one.write(path, "1")
    settle(one, two)
    one.write("both", "of one")
    one.place("deleted").unlink()
    one.write("theirs", "of one")
    one.sync()
    for path in ("both", "deleted", "ours", "new"):
        two.write(path, "of two")
    for dry in (True, False):
        report = two.pull(dry_run=dry)
        assert [item.path for item in report.pending] == [b"both", b"deleted"]
        assert report.exit_code == 3
    assert report.applied == (b"theirs",)
    assert two.read("both") == b"of two"
    two.sync()
    settle(one, two)
    assert one.sync(PULL).exit_code == two.sync(PULL).exit_code == 0
    two.write("ours", "again")
    assert two.pull().exit_code == 0


def test_a_pull_into_a_full_directory_lists_what_differs(laptop: NewLaptop) -> None:
    one, two = laptop("one"), laptop("two")
    for path in ("same", "other"):
        os.utime(one.write(path, path), (1, 1))
    one.sync()
    os.utime(two.write("same", "same"), (1, 1))
    two.write("other", "of two")
    report = two.pull()
    assert [item.path for item in report.pending] == [b"other"]
    assert report.exit_code == 3


def test_paths_restrict_a_cycle(laptop: NewLaptop) -> None:
    one, two = laptop("one"), laptop("two")
    one.write("in/deep/a", "1")
    one.write("out/b", "2")
    report = one.sync(paths=(b"in/deep",))
    assert set(report.uploaded) == {b"in", b"in/deep", b"in/deep/a"}
    one.sync()
    report = two.sync(paths=(b"out/b",))
    assert set(report.applied) == {b"out", b"out/b"}
    two.sync()
    assert one.tree() == two.tree()


def test_the_rules_can_be_sent_alone(laptop: NewLaptop) -> None:
    one = laptop("one")
    one.write("gone", "1")
    one.sync()
    one.write(".dblikeignore", "*.o")
    one.write("other", "2")
    one.place("gone").unlink()
    report = one.push(paths=(b".dblikeignore",))
    assert (report.uploaded, report.deleted) == ((b".dblikeignore",), ())
    report = one.push()
    assert (report.uploaded, report.deleted) == ((b"other",), (b"gone",))


def test_what_is_settled_by_a_sync_of_the_root_is_not_pending(laptop: NewLaptop) -> None:
    one = laptop("one")
    (one.root / ".DBLike").mkdir()
    assert not one.sync().in_sync
    (one.root / ".DBLike").rmdir()
    assert one.sync(paths=(b"",)).in_sync
    assert one.state.notes.pending() == []


@pytest.mark.parametrize("year", [1600, 1902, 2400])
def test_a_file_of_a_year_that_nothing_can_say_is_synced(laptop: NewLaptop, year: int) -> None:
    """With the nearest time that a version can have, and once."""
    one, two = laptop("one"), laptop("two")
    seconds = (year - 1970) * 31_556_952
    for path in ("small", "large"):
        os.utime(one.write(path, path * (1 << 20)), (seconds, seconds))
    here = one.tree()
    one.sync()
    assert two.sync().applied == (b"large", b"small")
    settle(one, two)
    for device in (one, two):
        assert nothing_happened(device.sync(checksum=True))
    assert (one.tree(), two.tree(times=False)) == (here, one.tree(times=False))
    earliest, latest = -(2**63), 2**63 - 1
    for path, found in two.tree().items():
        assert found[3] == max(earliest, min(here[path][3], latest))


def test_a_dry_run_says_all_and_does_nothing(laptop: NewLaptop) -> None:
    one, two = laptop("one"), laptop("two")
    one.write("a", "1")
    one.write("gone", "1")
    settle(one, two)
    two.write("b", "22")
    two.place("gone").unlink()
    one.write("a", "changed")
    one.write("new", "333")
    one.sync()
    tree, cursor = two.tree(), two.state.meta.cursor
    report = two.sync(dry_run=True)
    assert {(item.action, item.path) for item in report.planned} == {
        ("upload", b"b"), ("delete-remote", b"gone"), ("download", b"a"), ("download", b"new"),
    }  # fmt: skip
    assert not report.in_sync
    assert (two.tree(), two.state.meta.cursor) == (tree, cursor)
    assert two.state.remote.empty()
    assert two.state.outbox.all() == []
    two.sync()
    assert two.sync(dry_run=True).planned == ()


def test_what_a_second_round_settles_is_not_pending(laptop: NewLaptop) -> None:
    """A file that became a directory at the site is saved here just as that takes its place."""
    one, two = laptop("one"), laptop("two")
    os.utime(one.write("a", "old"), (1, 1))
    settle(one, two)
    one.place("a").unlink()
    one.write("a/b", "1")
    one.write("a/c", "2")
    one.sync()
    two.fs.close()
    two.fs = Saving(two.root, "a")
    report = two.sync()
    assert report.rounds == 2
    assert {b"a/b", b"a/c"} <= set(report.applied)
    assert (report.pending, report.in_sync) == ((), True)
    assert len(report.conflicts) == 1, "what was saved is kept"
    assert two.state.notes.pending() == []


class Saving(RealFS):
    """Somebody saves to a file once, just as it is to make way."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root)
        self.place: Path | None = root / name

    def rename(self, source: bytes, target: bytes, how: Rename) -> None:
        if self.place is not None and source == os.fsencode(self.place.name):
            self.place.write_text("saved at that moment")
            self.place = None
        super().rename(source, target, how)


def test_what_a_site_did_before_it_died_is_told_with_the_rest(
    laptop: NewLaptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conflict copy is no less there for having come from the site that was asked first."""
    one, three = laptop("one"), laptop("three")
    two = laptop("two", settings=Settings(durable=False, fetch_wants=1))
    one.write("f", "old")
    settle(one, two, three)
    for device in (one, three):
        device.write("f", f"of {device.name}")
        device.write(f"z-{device.name}", device.name)
    two.write("mine", "x")
    settle(one, three)
    fetch, asked = two.exchange.fetch, itertools.count(1)

    def fetch_some(*given: Any) -> Iterator[Any]:
        if next(asked) == 4:
            raise Unreachable("the site died")
        return fetch(*given)

    monkeypatch.setattr(two.exchange, "fetch", fetch_some)
    session = SimpleNamespace(
        transport=SimpleNamespace(has_choice=True),
        reporter=lambda: contextlib.nullcontext(two.heard),
        context=lambda reporter, _: dataclasses.replace(two.context, reporter=reporter),
        reset=two.restart,
    )
    report = run.cycle(cast("Session", session), Direction.BOTH, run.Wish())
    assert next(asked) == 6, "each content was asked for once, and one of them again"
    assert report.uploaded == (b"mine",)
    assert set(report.applied) == {b"f", b"z-one", b"z-three"}
    assert (len(report.conflicts), report.exit_code) == (1, Exit.PENDING)
    assert report.in_sync


def test_an_edit_beats_a_delete_on_both_sides(laptop: NewLaptop) -> None:
    """Edit and delete at once: the edit, no copy, everywhere."""
    one, two = laptop("one"), laptop("two")
    for name in ("a", "b"):
        one.write(name, "1")
    settle(one, two)
    one.place("a").unlink()
    two.write("a", "edited")
    one.write("b", "edited")
    two.place("b").unlink()
    settle(one, two)
    assert {path: one.read(path) for path in one.tree()} == {"a": b"edited", "b": b"edited"}
    assert one.tree() == two.tree()


def test_deleting_a_conflict_copy_is_final(laptop: NewLaptop) -> None:
    one, two = laptop("one"), laptop("two")
    one.write("a", "1")
    two.write("a", "2")
    settle(one, two)
    [copy] = [path for path in one.tree() if path != "a"]
    one.place(copy).unlink()
    settle(one, two)
    assert set(one.tree()) == set(two.tree()) == {"a"}
    two.write("a", "3")
    settle(one, two)
    assert set(one.tree()) == set(two.tree()) == {"a"}


@pytest.mark.parametrize("what", ["swap", "cycle", "invert"])
def test_renames_lose_nothing(laptop: NewLaptop, what: str) -> None:
    one, two = laptop("one"), laptop("two")
    for name in ("a", "b", "c", "x/y/file"):
        one.write(name, f"content of {name}")
    settle(one, two)
    root = one.root
    match what:
        case "swap":
            (root / "a").rename(root / "t")
            (root / "b").rename(root / "a")
            (root / "t").rename(root / "b")
        case "cycle":
            (root / "a").rename(root / "t")
            (root / "c").rename(root / "a")
            (root / "b").rename(root / "c")
            (root / "t").rename(root / "b")
        case _:
            (root / "x" / "y").rename(root / "t")
            (root / "x").rename(root / "t" / "x")
            (root / "t").rename(root / "y")
    expected = one.tree()
    report = one.sync()
    assert report.bytes_sent < 4000
    assert two.sync().in_sync
    assert one.tree() == two.tree() == expected


@pytest.mark.parametrize("rule", ["build/", "*.o"])
def test_what_was_synced_before_a_rule_is_deleted_nowhere_by_it(
    laptop: NewLaptop, rule: str
) -> None:
    """Nor does the directory of it come back empty where it was deleted."""
    one, two = laptop("one"), laptop("two")
    one.write("build/x.o", "object")
    one.write("build/sub/y.o", "another")
    settle(one, two)
    one.write(".dblikeignore", rule)
    settle(one, two)
    expected = two.tree()
    shutil.rmtree(one.place("build"))
    settle(one, two)
    assert set(one.tree()) == {".dblikeignore"}
    assert two.tree() == expected
    one.write("build/new.c", "new")
    settle(one, two)
    came = set() if rule == "build/" else {"build/new.c"}
    assert two.tree().keys() - expected.keys() == came


def test_what_was_deleted_under_a_rule_comes_again_when_it_is_edited(laptop: NewLaptop) -> None:
    """And where it is deleted elsewhere, too, nothing of it is left to be settled."""
    one, two = laptop("one"), laptop("two")
    for name in ("edited", "kept", "deleted", "deep/er/edited"):
        one.write(f"out/{name}", "1")
    one.sync()
    two.sync()
    one.settings = Settings(durable=False, ignore=("out/",))
    shutil.rmtree(one.place("out"))
    assert one.sync().in_sync
    assert two.sync().deleted == ()
    two.write("out/edited", "2")
    two.write("out/deep/er/edited", "2")
    two.place("out/deleted").unlink()
    two.sync()
    report = one.sync()
    assert (report.in_sync, report.uploaded, report.deleted) == (True, (), ())
    files = {path: data for path, (kind, *data) in one.tree().items() if kind == "file"}
    assert files.keys() == {"out/edited", "out/deep/er/edited"}
    assert one.read("out/edited") == b"2"
    assert two.sync().deleted == ()
    assert two.read("out/kept") == b"1"


@pytest.mark.parametrize("here", ["as agreed", "touched", "edited"])
@pytest.mark.parametrize("there", ["edited", "deleted"])
def test_what_a_rule_names_since_it_was_synced_is_settled(
    laptop: NewLaptop, here: str, there: str
) -> None:
    """What is as agreed here follows the server; an edit that a rule keeps here is kept, once."""
    one, two = laptop("one"), laptop("two")
    one.write("a", "1")
    settle(one, two)
    two.settings = Settings(durable=False, ignore=("a",))
    match here:
        case "as agreed":  # but it was recorded in the tick in which it was made
            with two.state.transaction():
                two.state.tree.restamp([(b"a", UNTRUSTED)])
        case "touched":
            os.utime(two.place("a"), (1, 1))
        case _:
            two.write("a", "mine")
    if there == "edited":
        one.write("a", "2")
    else:
        one.place("a").unlink()
    one.sync()
    report = two.sync()
    assert report.rounds <= 2
    if here != "edited":
        assert two.tree() == one.tree()
    else:
        assert two.read("a") == b"mine"
        assert [item.code for item in report.pending] == [Code.CHANGED] * (there == "edited")
    assert two.sync().in_sync == (here != "edited" or there == "deleted")
    one.sync()
    assert one.place("a").exists() == (there == "edited")


def test_ignored_files_stay_here(laptop: NewLaptop) -> None:
    one, two = laptop("one"), laptop("two")
    one.write("keep.o", "synced before the rule")
    settle(one, two)
    one.write(".dblikeignore", "*.o\nbuild/\n")
    one.write("x.o", "never goes up")
    one.write("build/out", "neither")
    settle(one, two)
    assert set(two.tree()) == {".dblikeignore", "keep.o"}
    assert set(one.tree()) == {".dblikeignore", "keep.o", "x.o", "build", "build/out"}
    assert one.sync().in_sync


def test_a_used_up_quota_is_a_brake(laptop: NewLaptop, site: Site) -> None:
    accounts.set_quota(site, "ada", 1000)
    one = laptop("one")
    one.write("large", random.Random(1).randbytes(5000))
    one.write("small", "fits")
    report = one.sync()
    assert [item.path for item in report.refused] == [b"large"]
    assert report.exit_code is Exit.BRAKE
    assert one.sync().exit_code is Exit.BRAKE


def test_random_edits_on_three_devices_converge(laptop: NewLaptop) -> None:
    """Invariants 1 and 3: what nobody overwrote or deleted is kept, and all are the same."""
    settings = Settings(
        durable=False, signature_from=200, whole_below=3000, batch_bytes=2000, segment=1500,
        read_size=512,
    )  # fmt: skip
    devices = [laptop(name, settings=settings) for name in ("one", "two", "three")]
    rng = random.Random(7)
    names = ["a", "b", "c/x", "c/y", "d/e/z", "c"]
    written: set[bytes] = set()
    replaced: set[bytes] = set()
    for step in range(120):
        device = rng.choice(devices)
        place = device.place(rng.choice(names))
        if rng.random() < 0.4:
            device.sync(max_delete="100%")
        elif place.is_dir() or any(above.is_file() for above in place.parents):
            continue
        else:
            if place.exists():
                replaced.add(place.read_bytes())
            if rng.random() < 0.2 and place.exists():
                place.unlink()
            else:
                data = f"{step}-".encode() + rng.randbytes(rng.choice([5, 500, 5000]))
                device.write(str(place.relative_to(device.root)), data)
                written.add(data)
    settle(*devices)
    trees = [device.tree() for device in devices]
    assert trees[0] == trees[1] == trees[2]
    kept = {devices[0].read(path) for path in trees[0] if devices[0].place(path).is_file()}
    assert written - replaced <= kept
    assert all(nothing_happened(device.sync()) for device in devices)


class Moving:
    """A wire whose other end can be replaced."""

    def __init__(self) -> None:
        self.inner: Transport | None = None

    def request(self, request: Request) -> Response:
        assert self.inner is not None
        return self.inner.request(request)


def test_a_site_that_was_restored_from_a_backup_undoes_nobody(
    laptop: NewLaptop, tmp_path: Path
) -> None:
    """Nothing here is deleted or replaced by something older, and what the site lost goes up."""
    wire = Moving()
    with serving(tmp_path / "data", wire):
        one, two = laptop("one", transport=wire), laptop("two", transport=wire)
        fill(one)
        one.write("edited", "old")
        one.write("gone", "was deleted after the backup")
        settle(one, two)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    with serving(tmp_path / "data", wire):
        one.write("edited", "new")
        one.write("made", "after the backup")
        one.place("gone").unlink()
        one.place("link").unlink()
        one.place("link").symlink_to("elsewhere")
        settle(one, two)
        two.write("large", two.read("large") + b"edit")
        settle(two, one)
        expected = one.tree()
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "backup").rename(tmp_path / "data")
    with serving(tmp_path / "data", wire):
        one.write("d0/s0/f0", "edited since")
        for device in (one, two):
            device.sync(PULL, hints=Hints(remote=True))
        assert one.read("edited") == b"new"
        settle(one, two)
        assert one.tree() == two.tree()
        seen = {path: what[:2] for path, what in one.tree().items() if path != "gone"}
        before = {path: what[:2] for path, what in expected.items()}
        before["d0/s0/f0"] = ("file", b"edited since")
        assert seen == before
        assert nothing_happened(one.sync())


@pytest.mark.parametrize("lost", [False, True])
def test_who_was_behind_when_a_site_was_restored_just_catches_up(
    laptop: NewLaptop, tmp_path: Path, lost: bool
) -> None:
    """What is here is old, and nobody's edit: also of what the site got again meanwhile."""
    wire = Moving()
    with serving(tmp_path / "data", wire):
        one, two = laptop("one", transport=wire), laptop("two", transport=wire)
        fill(one)
        settle(one, two)
        if lost:
            shutil.copytree(tmp_path / "data", tmp_path / "backup")
        one.write("d0/s0/f0", "edited")
        one.place("d1/s1/f1").unlink()
        one.sync()
    if not lost:
        shutil.copytree(tmp_path / "data", tmp_path / "backup")
    with serving(tmp_path / "data", wire):
        one.write("made", "after the backup")
        one.sync()
        expected = one.tree()
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "backup").rename(tmp_path / "data")
    with serving(tmp_path / "data", wire):
        one.sync()
        assert not two.sync().uploaded
        settle(one, two)
        assert two.tree() == one.tree() == expected


@contextlib.contextmanager
def serving(data: Path, wire: Moving) -> Iterator[None]:
    """A site on these data, at the other end of the wire."""
    site = open_site(decode_config({"data": str(data), "cluster_key": "k" * 64}))
    with contextlib.suppress(Conflict):
        accounts.create_user(site, "ada", "correct horse")
    app = create_app(site)
    wire.inner = WsgiTransport(app.wsgi_app)
    yield
    app.extensions["dblike-hub"].stop(wait=5)
    site.close()


@pytest.mark.parametrize("page", [1, 1000])
def test_an_old_copy_brings_back_no_deleted_file(laptop: NewLaptop, page: int) -> None:
    """Bytes that a delete buried are taken for what was deleted, while history has them."""
    one = laptop("one")
    for name in ("buried", "edited", "there", "d/deep", "e/deep", "empty"):
        one.write(name, "" if name == "empty" else f"bytes of {name}")
    one.write("large", b"large" * 1_000_000)
    one.sync()
    old = {name: one.read(name) for name in ("buried", "edited", "there", "large", "empty")}
    for name in ("buried", "edited", "d/deep", "e/deep", "large", "empty"):
        one.place(name).unlink()
    one.place("d").rmdir()
    one.place("e").rmdir()
    one.sync()

    two = laptop("two", settings=Settings(durable=False, changes_limit=page))
    for name, data in old.items():
        two.write(name, data)
    two.write("d/deep", "bytes of d/deep")
    two.write("e/deep", "bytes of e/deep")
    two.write("e/new", "never seen")
    two.write("edited", "other bytes")
    two.write("new", "never seen")
    report = two.sync()
    assert sorted(report.deleted) == [b"buried", b"d", b"d/deep", b"e/deep", b"empty", b"large"]
    assert report.in_sync
    assert set(two.tree()) == {"edited", "there", "new", "e", "e/new"}
    one.sync()
    assert one.tree() == two.tree()
    # It is a rule of the first look only: who makes such a file again wants it.
    two.write("buried", old["buried"])
    assert two.sync().uploaded == (b"buried",)
    one.sync()
    assert one.read("buried") == old["buried"]


def test_an_old_copy_is_new_where_history_forgot_it(laptop: NewLaptop, site: Site) -> None:
    """What could not be brought back is not deleted."""
    one = laptop("one")
    one.write("f", "bytes")
    one.sync()
    one.place("f").unlink()
    one.sync()
    site.database.transact(lambda c: c.execute(delete(versions).where(versions.c.kind == 1)))
    two = laptop("two")
    two.write("f", "bytes")
    assert two.sync().uploaded == (b"f",)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE tree SET path = 7 WHERE path = x'66'",
        "UPDATE tree SET kind = 77",
        "INSERT INTO remote VALUES (x'66', x'c1')",
        "INSERT INTO outbox VALUES (x'66', 1, 1, x'c1', x'', x'', x'')",
    ],
)
def test_a_value_that_no_one_wrote_is_damage_of_the_state(laptop: NewLaptop, damage: str) -> None:
    """SQLite reads what is there; whatever stumbles over it is no bug."""
    device = laptop()
    device.write("f", "1")
    device.write("g", "1")
    device.sync()
    device.state.close()
    with sqlite3.connect(device.root / ".dblike" / "state.db") as connection:
        connection.execute(damage)
    connection.close()
    device.state = State(device.root / ".dblike" / "state.db")
    device.place("f").unlink()
    with pytest.raises(StateDamaged, match="doctor"):
        device.sync()
