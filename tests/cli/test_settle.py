"""Settling a conflict drops nothing that the server lacks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dblike_cli.errors import Failed
from dblike_cli.fs import Rename
from dblike_cli.realfs import RealFS
from dblike_cli.recover import prepare
from dblike_cli.settle import Choice, look_at, settle
from rig.devices import Laptop
from rig.mortal import Death, Life, MortalFS

NewLaptop = Callable[..., Laptop]


class SavedFS(RealFS):
    """Somebody saves `victim` just before it is moved."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self.victim = b""

    def rename(self, source: bytes, target: bytes, how: Rename) -> None:
        if source == self.victim:
            self.victim = b""
            draft = self.root / ".dblike" / "draft"
            draft.write_text("saved at that moment")
            draft.replace(self.root / os.fsdecode(source))
        super().rename(source, target, how)


@pytest.fixture
def one(laptop: NewLaptop, tmp_path: Path) -> Laptop:
    """A device with a conflict: "a.txt", and a copy of it."""
    (tmp_path / "one").mkdir()
    one, two = laptop("one", fs=SavedFS(tmp_path / "one")), laptop("two")
    one.write("a.txt", "one's")
    two.write("a.txt", "two's")
    for device in (one, two, one, one):
        device.sync()
    prepare(one.context)
    return one


def copy_in(device: Laptop) -> bytes:
    return next(os.fsencode(path) for path in device.tree() if path != "a.txt")


def contents(device: Laptop) -> dict[str, bytes]:
    return {path: device.read(path) for path in device.tree()}


def test_each_choice(one: Laptop) -> None:
    copy, ours = copy_in(one), one.read("a.txt")
    theirs = one.read(copy)
    agreed = look_at(one.context, [b"a.txt", copy])
    settle(one.context, agreed, b"a.txt", copy, "both")
    assert contents(one) == {"a.txt": ours, "a (2).txt": theirs}
    one.place("a (2).txt").rename(one.place(copy))
    settle(one.context, look_at(one.context, agreed), b"a.txt", copy, "theirs")
    assert contents(one) == {"a.txt": theirs}


def test_ours_drops_the_copy(one: Laptop) -> None:
    copy, ours = copy_in(one), one.read("a.txt")
    settle(one.context, look_at(one.context, [b"a.txt", copy]), b"a.txt", copy, "ours")
    assert contents(one) == {"a.txt": ours}
    assert list((one.root / ".dblike" / "tmp").iterdir()) == []


@pytest.mark.parametrize("when", ["between", "at once"])
@pytest.mark.parametrize("choice", ["ours", "theirs"])
def test_what_is_saved_meanwhile_stays(one: Laptop, choice: Choice, when: str) -> None:
    copy = copy_in(one)
    saved = copy if choice == "ours" else b"a.txt"
    agreed = look_at(one.context, [b"a.txt", copy])
    if when == "between":
        one.write(saved, "saved at that moment")
    else:
        assert isinstance(one.fs, SavedFS)
        one.fs.victim = saved
    before = contents(one)
    with pytest.raises(Failed, match="edited"):
        settle(one.context, agreed, b"a.txt", copy, choice)
    assert contents(one) == before | {os.fsdecode(saved): b"saved at that moment"}
    with pytest.raises(Failed, match="sync` first"):
        look_at(one.context, [saved])


@pytest.mark.parametrize("choice", ["both", "theirs"])
def test_what_was_on_its_way_when_the_end_came_is_here(one: Laptop, choice: Choice) -> None:
    """Under a name of its own: where it was to go is known to nobody any more."""
    copy = copy_in(one)
    theirs, life = one.read(copy), Life(2 if choice == "both" else 4)
    agreed = look_at(one.context, [b"a.txt", copy])
    one.fs.close()
    one.fs = MortalFS(one.root, life)
    with pytest.raises(Death):
        settle(one.context, agreed, b"a.txt", copy, choice)
    assert not one.place(copy).exists()
    one.restart()
    one.sync()
    assert theirs in contents(one).values()
    assert list((one.root / ".dblike" / "tmp").iterdir()) == []


@pytest.mark.parametrize(("name", "other"), [
    ("n" * 255, "n" * 251 + " (2)"),
    ("é" * 127 + "x", "é" * 125 + " (2)"),
    ("n" * 251 + ".txt", "n" * 247 + " (2).txt"),
    ("n." + "e" * 253, "n." + "e" * 249 + " (2)"),
    (".hidden", ".hidden (2)"),
    ("d/.x.y", "d/.x (2).y"),
])  # fmt: skip
def test_both_of_a_long_name_fit(laptop: NewLaptop, name: str, other: str) -> None:
    one = laptop("one")
    one.write(name, "winner")
    copy = one.write("copy", "loser")
    one.sync()
    agreed = look_at(one.context, [os.fsencode(name), b"copy"])
    settle(one.context, agreed, os.fsencode(name), b"copy", "both")
    assert one.read(name) == b"winner"
    assert one.read(other) == b"loser"
    assert not copy.exists()
