"""The stop signs: no delete without proof, no mass delete without a word."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from dblike_cli.credentials import Credential, write_credential
from dblike_cli.cycle import run_cycle
from dblike_cli.errors import Stopped, Usage
from dblike_cli.exits import Exit
from dblike_cli.options import Common
from dblike_cli.report import Code, Direction, Hints
from dblike_cli.session import open_session
from rig.devices import Laptop

NewLaptop = Callable[..., Laptop]


def full(laptop: NewLaptop, count: int = 120) -> Laptop:
    one = laptop("one")
    for number in range(count):
        one.write(f"d/f{number:03}", f"{number}")
    one.sync()
    return one


def deleted_in_steps(one: Laptop) -> Iterator[Hints]:
    """What `watch` sees of one `rm`."""
    paths = sorted(one.place("d").iterdir())
    for at in range(0, len(paths), 20):
        some = paths[at : at + 20]
        for place in some:
            place.unlink()
        yield Hints(frozenset(b"d/" + os.fsencode(place.name) for place in some))


def test_a_missing_root_stops_everything(laptop: NewLaptop) -> None:
    """An unmounted disk is not "everything was deleted"."""
    one = full(laptop, 3)
    one.root.rename(one.root.parent / "away")
    with pytest.raises(Stopped, match="mounted") as caught:
        one.sync()
    assert caught.value.exit_code is Exit.BRAKE
    one.root.mkdir()
    with pytest.raises(Stopped, match="missing"):
        one.sync()
    one.root.rmdir()
    (one.root.parent / "away").rename(one.root)
    assert one.sync().in_sync


def test_mass_delete_here_is_held(laptop: NewLaptop) -> None:
    one, two = full(laptop), laptop("two")
    two.sync()
    shutil.rmtree(one.place("d"))
    one.write("new", "still goes up")
    report = one.sync()
    assert report.brake is not None
    assert (report.brake.side, report.brake.count, report.brake.total) == ("local", 120, 120)
    assert report.exit_code is Exit.BRAKE
    assert report.deleted == ()
    assert report.uploaded == (b"new",)
    assert len(two.sync().deleted) == 0
    assert one.sync(max_delete="119").brake is not None
    report = one.sync(max_delete="120")
    assert report.brake is None
    assert len(report.deleted) == 121
    report = two.sync()
    assert report.brake is not None
    assert report.brake.side == "remote"
    assert len(two.tree()) == 122
    assert two.sync().brake is not None, "a held delete is not forgotten"
    assert two.sync(max_delete="100%").in_sync
    assert set(two.tree()) == {"new"}


def test_mass_deletes_on_both_sides_are_both_held(laptop: NewLaptop) -> None:
    one, two = laptop("one"), laptop("two")
    for number in range(60):
        one.write(f"here/f{number}", f"{number}")
        one.write(f"there/f{number}", f"-{number}")
    one.sync()
    two.sync()
    shutil.rmtree(two.place("there"))
    two.sync(max_delete="100%")
    shutil.rmtree(one.place("here"))
    one.write("new", "still goes up")
    report = one.sync(max_delete="50")
    assert report.deleted == ()
    assert report.uploaded == (b"new",)
    assert len(one.tree()) == 62
    assert report.brake is not None
    assert report.brake.message == (
        "60 of 120 files disappeared from this folder, and 60 of 120 files were deleted remotely; "
        "if that is right, go on with --max-delete 60"
    )
    assert one.sync(max_delete="60").in_sync
    assert set(one.tree()) == {"new"}


def test_a_small_delete_is_not_held(laptop: NewLaptop) -> None:
    one = full(laptop, 50)
    for number in range(50):
        one.place(f"d/f{number:03}").unlink()
    assert len(one.sync().deleted) == 50


def test_a_move_is_no_delete(laptop: NewLaptop) -> None:
    one, two = full(laptop), laptop("two")
    two.sync()
    one.place("d").rename(one.root / "e")
    report = one.sync()
    assert report.brake is None
    assert report.bytes_sent < 30_000  # records only
    report = two.sync()
    assert report.brake is None
    assert two.tree() == one.tree()


def test_a_move_of_directories_and_symlinks_is_no_delete(laptop: NewLaptop) -> None:
    """A directory is gone when what is in it is: here, and on every other device."""
    one, two = laptop("one"), laptop("two")
    for number in range(60):
        one.write(f"d/{number}/f", f"{number}")
        one.place(f"d/{number}/link").symlink_to(f"../{number}/f")
    for device in (one, one, two, two):
        device.sync()
    one.place("d").rename(one.root / "e")
    assert one.sync().brake is None
    assert two.sync().brake is None
    assert two.tree() == one.tree()
    assert len(one.sync(max_delete="0").pending) == 0
    for number in range(60):
        one.place(f"e/{number}/link").unlink()
    report = one.sync(max_delete="59")
    assert report.brake is not None
    assert (report.brake.count, report.brake.total) == (60, 120)


def test_what_moves_in_many_small_steps_is_no_mass_delete(laptop: NewLaptop) -> None:
    """Directories that were emptied one by one, and then went, count as what was in them."""
    one = laptop("one")
    for number in range(60):
        one.write(f"d/{number}/deep/f", f"{number}")
    one.sync()
    one.sync()
    one.place("e").mkdir()
    for number in range(60):
        one.place(f"d/{number}/deep/f").rename(one.place(f"e/{number}"))
        shutil.rmtree(one.place(f"d/{number}"))
        assert one.sync().brake is None


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "5%%", "٣"])
def test_max_delete_is_a_number_or_a_percentage(laptop: NewLaptop, text: str) -> None:
    with pytest.raises(Usage, match="max-delete"):
        laptop("one").sync(max_delete=text)


@pytest.mark.parametrize(
    ("text", "held"), [("0", True), ("1", False), ("10%", True), ("50%", False)]
)
def test_max_delete_holds_as_said(laptop: NewLaptop, text: str, held: bool) -> None:
    one = full(laptop, 3)
    one.place("d/f001").unlink()
    assert (one.sync(max_delete=text).brake is not None) is held


def test_a_held_path_is_listed_with_its_code(laptop: NewLaptop) -> None:
    one = full(laptop)
    shutil.rmtree(one.place("d"))
    report = one.sync()
    assert Code.BRAKE in Code
    assert report.brake is not None
    assert "--max-delete 120" in report.brake.message
    assert not report.in_sync


def test_a_mass_delete_in_many_small_steps_is_held(laptop: NewLaptop) -> None:
    one, two = full(laptop), laptop("two")
    two.sync()
    for hints in deleted_in_steps(one):
        report = one.sync(hints=hints)
        two.sync(hints=Hints())
    assert report.brake is not None
    assert (report.brake.side, report.brake.total) == ("local", 120)
    assert report.brake.count > 60
    assert len(two.tree()) == 61
    assert one.sync().brake is not None
    assert one.sync(max_delete=str(report.brake.count)).in_sync
    one.place("d").rmdir()
    assert one.sync().brake is None, "what was answered for counts no more"


def test_what_went_before_a_failure_counts(laptop: NewLaptop) -> None:
    """As `watch` goes on after one: with all opened anew."""
    one = full(laptop)
    own = one.root / ".dblike"
    (own / "config.json").write_text(json.dumps({"servers": ["https://files.example.org"]}))
    write_credential(
        own / "credential",
        Credential(
            token="t",
            device_id=one.device.id.hex(),
            user="ada",
            folder="home",
            folder_id=one.folder,
        ),
    )
    with open_session(Common(directory=one.root)) as session:
        for hints in deleted_in_steps(one):
            context = session.context(one.heard, one.exchange)
            report = run_cycle(context, Direction.BOTH, hints=hints)
            session.reset()
    assert report.brake is not None
    assert report.brake.count > 60


def test_what_comes_and_goes_is_no_mass_delete(laptop: NewLaptop) -> None:
    one = full(laptop)
    for round_ in range(5):
        for number in range(30):
            one.write(f"d/temporary{number}", f"{round_}")
        assert len(one.sync().uploaded) == 30
        for number in range(30):
            one.place(f"d/temporary{number}").unlink()
        report = one.sync()
        assert report.brake is None
        assert len(report.deleted) == 30
