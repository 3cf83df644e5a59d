"""A crash at any instruction leaves a state from which the next start goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from dblike_cli.context import Settings
from dblike_cli.realfs import RealFS
from dblike_cli.state import State
from dblike_delta.messages import Record, Want
from dblike_delta.seams import SystemClock
from rig.devices import Laptop
from rig.mortal import Death, Life, MortalFS, MortalState, MortalWire

NewLaptop = Callable[..., Laptop]

# Small sizes, so that a few kilobytes go through every path: streams, segments, deltas, batches.
SMALL = Settings(
    durable=True, signature_from=200, whole_below=3000, batch_bytes=2000, segment=1500,
    read_size=512, apply_batch=3,
)  # fmt: skip


def fill(device: Laptop) -> None:
    """One of everything."""
    device.write("small", "small one")
    device.write("large", os.urandom(6000))
    device.write("delta", bytes(range(256)) * 10)
    device.write("gone", "to be deleted")
    device.write("d/moved", "to be moved")
    device.write("was-dir/in", "a directory that becomes a file")
    device.write("was-file", "a file that becomes a directory")
    device.write("closed/in", "in a directory that nobody may write to")
    device.place("closed").chmod(0o555)
    device.place("link").symlink_to("small")


def change(device: Laptop) -> None:
    """Something of every kind happens."""
    device.write("small", "small two")
    device.write("large", os.urandom(7000))
    device.write("delta", bytes(range(256)) * 5 + b"edit" + bytes(range(256)) * 5)
    device.place("gone").unlink()
    device.place("d").rename(device.root / "e")
    shutil.rmtree(device.place("was-dir"))
    device.write("was-dir", "now a file")
    device.place("was-file").unlink()
    device.write("was-file/in", "now a directory")
    device.place("link").unlink()
    device.place("link").symlink_to("elsewhere")
    device.write("new/deep/file", "new")
    device.place("closed").chmod(0o755)
    device.write("closed/in", "edited")
    device.place("closed").chmod(0o555)
    device.place("small").chmod(0o600)


def die(device: Laptop, life: Life) -> bool:
    """Sync until death; whether it came."""
    device.fs.close()
    device.state.close()
    wire = device.transport
    device.fs = MortalFS(device.root, life)
    device.state = MortalState(device.root / ".dblike" / "state.db", life)
    device.exchange._transport = MortalWire(wire, life)
    try:
        device.sync()
    except Death:
        pass
    finally:
        device.fs.close()
        device.state.close()
        device.fs = RealFS(device.root)
        device.state = State(device.root / ".dblike" / "state.db")
        device.exchange._transport = wire
    return life.dead


def leftovers(device: Laptop) -> list[str]:
    own = device.root / ".dblike"
    return [str(p) for name in ("tmp", "staging") for p in (own / name).iterdir()]


@pytest.mark.parametrize("dies", ["sender", "receiver"])
@pytest.mark.parametrize(
    "stride",
    [17, pytest.param(5, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.long)],
)
def test_death_at_every_contact(laptop: NewLaptop, dies: str, stride: int) -> None:
    """Whoever dies, and wherever, both end up the same and nothing is lost."""
    one = laptop("one", settings=SMALL)
    two = laptop("two", settings=SMALL)
    at, deaths = 1 - stride, 0
    alive = False
    while not alive:
        at += stride
        reset(one, two, at)
        change(one)
        expected = one.tree()
        if dies == "sender":
            alive = not die(one, Life(at))
            one.sync()
        else:
            one.sync()
            alive = not die(two, Life(at))
        deaths += not alive
        settle(one, two)
        assert two.tree() == expected, f"after death at {at}"
        assert one.tree() == expected, f"after death at {at}"
        assert leftovers(one) == leftovers(two) == []
    assert deaths > 60 // stride


def reset(one: Laptop, two: Laptop, number: int) -> None:
    """Both hold the same, and it is new to this round."""
    for path in one.root.iterdir():
        if path.name == ".dblike":
            continue
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
            shutil.rmtree(path)
        else:
            path.unlink()
    fill(one)
    one.write("round", f"{number}")
    settle(one, two)
    assert one.tree() == two.tree()


def settle(*devices: Laptop) -> None:
    """Sync until nobody has anything to do; no device may need a conflict copy for that."""
    for _ in range(6):
        reports = [device.sync(max_delete="100%") for device in devices]
        assert [report.conflicts for report in reports] == [()] * len(devices)
        if not any(r.uploaded or r.applied or r.deleted or r.adopted for r in reports):
            assert all(report.in_sync for report in reports)
            return
    raise AssertionError(f"no fixed point: {reports}")


def test_ten_deaths_in_a_row(laptop: NewLaptop) -> None:
    """Also while it recovers."""
    one, two = laptop("one", settings=SMALL), laptop("two", settings=SMALL)
    reset(one, two, 0)
    change(one)
    expected = one.tree()
    for at in (7, 3, 11, 5, 23, 2, 41, 13, 29, 17):
        die(one, Life(at))
        one.sync() if at == 41 else None
        die(two, Life(at))
    settle(one, two)
    assert one.tree() == two.tree() == expected
    assert leftovers(one) == leftovers(two) == []


def test_an_edit_that_was_brought_out_of_the_way_comes_back(laptop: NewLaptop) -> None:
    """A crash between the exchange and the look at what came out: the bytes are the user's."""
    one = laptop("one", settings=SMALL)
    one.sync()
    swap = "swap-" + "0" * 32 + "-" + "1" * 32 + "-abc"
    one.write(f".dblike/tmp/{swap}", "an edit of that moment")
    one.write(".dblike/tmp/new-abc", "half a down")
    one.restart()
    one.sync()
    assert leftovers(one) == []
    [found] = [p for p in one.root.iterdir() if p.name != ".dblike"]
    assert found.name.startswith("recovered ")
    assert found.read_text() == "an edit of that moment"


class Slow(SystemClock):
    """A minute goes by between two looks at it."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 60
        return self.now


def test_what_came_whole_in_a_long_download_is_not_fetched_again(laptop: NewLaptop) -> None:
    settings = msgspec.structs.replace(SMALL, apply_batch=2_000)
    one = laptop("one", settings=settings)
    two = laptop("two", settings=settings, clock=Slow())
    for number in range(5):
        one.write(f"video {number}", os.urandom(4000))
    one.sync()
    life, fetch, begun = Life(), two.exchange.fetch, list[bytes]()

    def until_the_last(folder: str, wants: Sequence[Want]) -> Iterator[Any]:
        for event in fetch(folder, wants):
            if isinstance(event, Record):
                begun.append(event.path)
            life.dead = len(begun) == 5
            yield event

    two.exchange.fetch = until_the_last  # type: ignore[method-assign]
    assert die(two, life)
    two.exchange.fetch = fetch  # type: ignore[method-assign]
    report = two.sync()
    assert report.applied == (begun[-1],)
    assert report.bytes_received < 8000
    assert two.tree() == one.tree()
    assert leftovers(two) == []


def remake(device: Laptop, kind: str, text: str) -> None:
    """Make the path `a` anew, as a file, a symlink or an empty directory."""
    place = device.place("a")
    if place.is_dir() and not place.is_symlink():
        place.rmdir()
    else:
        place.unlink(missing_ok=True)
    if kind == "file":
        device.write("a", text)
    elif kind == "symlink":
        place.symlink_to(text)
    else:
        place.mkdir()


@pytest.mark.parametrize("kind", ["file", "symlink", "directory"])
def test_an_edit_after_a_crash_in_its_download_is_no_conflict(laptop: NewLaptop, kind: str) -> None:
    """What had taken its place when the crash came is no edit, whatever came after it."""
    one, two = laptop("one", settings=SMALL), laptop("two", settings=SMALL)
    one.write("a", "first")
    one.sync()
    two.sync()
    steps = 0
    while True:
        steps += 1
        remake(one, kind, f"edit {steps}")
        one.sync()
        died = die(two, Life(steps))
        remake(one, "file", f"edit {steps} and one more")
        one.sync()
        two.sync()
        two.sync()
        one.sync()
        assert sorted(os.listdir(two.root)) == [".dblike", "a"], steps
        assert two.place("a").read_text() == f"edit {steps} and one more"
        if not died:
            return


@pytest.mark.parametrize("kind", ["file", "symlink", "directory"])
def test_what_is_restored_after_a_crash_in_its_delete_stays(laptop: NewLaptop, kind: str) -> None:
    """That it is not there is no delete of this device's, but of the site's, and is over."""
    one, two = laptop("one", settings=SMALL), laptop("two", settings=SMALL)
    steps = 0
    while True:
        steps += 1
        remake(one, kind, "the same")
        os.utime(one.place("a"), (1, 1), follow_symlinks=False)
        one.sync()
        two.sync()
        two.sync()
        one.place("a").rename(one.root.parent / "kept")
        one.sync()
        died = die(two, Life(steps))
        (one.root.parent / "kept").rename(one.place("a"))
        one.sync()
        two.sync()
        two.sync()
        one.sync()
        assert sorted(os.listdir(one.root)) == [".dblike", "a"], steps
        assert one.tree() == two.tree()
        if not died:
            return


@pytest.mark.parametrize("kind", ["symlink", "directory"])
def test_what_is_as_before_after_a_crash_in_its_change_stays(laptop: NewLaptop, kind: str) -> None:
    """That a file had just made way for something else is no delete of this device's."""
    one, two = laptop("one", settings=SMALL), laptop("two", settings=SMALL)
    kept, steps = one.root.parent / "kept", 0
    os.utime(one.write("a", "the same"), (1, 1))
    while True:
        steps += 1
        one.sync()
        two.sync()
        two.sync()
        one.place("a").rename(kept)
        remake(one, kind, "another")
        one.sync()
        died = die(two, Life(steps))
        if kind == "directory":
            one.place("a").rmdir()
        kept.rename(one.place("a"))
        one.sync()
        two.sync()
        two.sync()
        one.sync()
        assert two.place("a").read_text() == "the same", steps
        assert one.tree() == two.tree()
        if not died:
            return
