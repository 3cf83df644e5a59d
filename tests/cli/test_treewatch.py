"""Watching a tree: real directories, real inotify, hints that miss nothing."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dblike_cli.report import Hints
from dblike_cli.syscalls import EXCHANGE, renameat2
from dblike_cli.treewatch import InotifyTree, ObserverTree, TreeWatch
from dblike_cli.wakeups import Wakeups
from dblike_delta.seams import SystemClock
from rig.permissions import permissions


class Heard:
    """Collects what is heard, and waits for it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.settled: list[bytes] = []
        self.touched: list[bytes] = []
        self.overflows = 0

    def touch(self, *paths: bytes, settled: bool) -> None:
        with self.changed:
            (self.settled if settled else self.touched).extend(paths)
            self.changed.notify_all()

    def everywhere(self) -> None:
        with self.changed:
            self.overflows += 1
            self.changed.notify_all()

    def wait_for(self, *paths: bytes) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(paths) <= {*self.settled, *self.touched}, 10)

    def forget(self) -> None:
        with self.changed:
            self.settled.clear()
            self.touched.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / ".dblike").mkdir(parents=True)
    (made / "sub" / "deep").mkdir(parents=True)
    return made


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture(params=[InotifyTree, ObserverTree])
def tree(request: pytest.FixtureRequest, root: Path, heard: Heard) -> Iterator[TreeWatch]:
    place = os.fsencode(root) if request.param is InotifyTree else root
    watch = request.param(place, heard)
    yield watch
    watch.close()


@pytest.fixture
def inotify(root: Path, heard: Heard) -> Iterator[InotifyTree]:
    watch = InotifyTree(os.fsencode(root), heard)
    yield watch
    watch.close()


@pytest.mark.usefixtures("tree")
def test_a_written_file(root: Path, heard: Heard) -> None:
    (root / "sub" / "deep" / "file").write_text("x")
    heard.wait_for(b"sub/deep/file")


@pytest.mark.usefixtures("tree")
def test_names_are_bytes(root: Path, heard: Heard) -> None:
    name = b"caf\xe9\n"
    with open(os.path.join(os.fsencode(root), name), "wb"):
        pass
    heard.wait_for(name)


@pytest.mark.usefixtures("tree")
def test_all_that_can_happen_to_a_file(root: Path, heard: Heard) -> None:
    file = root / "file"
    file.write_text("x")
    heard.wait_for(b"file")
    actions: list[tuple[Callable[..., object], tuple[object, ...], bytes]] = [
        (file.chmod, (0o600,), b"file"),
        (file.rename, (root / "other",), b"other"),
        ((root / "link").symlink_to, ("file",), b"link"),
        (os.link, (root / "other", root / "hard"), b"hard"),
        ((root / "hard").unlink, (), b"hard"),
        ((root / "empty").mkdir, (), b"empty"),
        ((root / "empty").rmdir, (), b"empty"),
        (os.mkfifo, (root / "fifo",), b"fifo"),
    ]
    for action, arguments, seen in actions:
        heard.forget()
        action(*arguments)
        heard.wait_for(seen)


def test_closing_settles_a_file(inotify: InotifyTree, root: Path, heard: Heard) -> None:
    with (root / "file").open("w") as file:
        file.write("x")
        file.flush()
        heard.wait_for(b"file")
        assert b"file" not in heard.settled
    with heard.changed:
        assert heard.changed.wait_for(lambda: b"file" in heard.settled, 10)


def test_our_own_directory_is_not_watched(inotify: InotifyTree, root: Path, heard: Heard) -> None:
    (root / ".dblike" / "state").write_text("x")
    (root / ".dblike" / "tmp").mkdir()
    (root / "file").write_text("x")
    heard.wait_for(b"file")
    assert {*heard.settled, *heard.touched} == {b"file"}


def test_reading_is_no_change(inotify: InotifyTree, root: Path, heard: Heard) -> None:
    (root / "file").write_text("x")
    heard.wait_for(b"file")
    with heard.changed:
        heard.changed.wait_for(lambda: b"file" in heard.settled, 10)
    heard.forget()
    (root / "file").read_text()
    list(root.iterdir())
    (root / "last").write_text("x")
    heard.wait_for(b"last")
    assert {*heard.settled, *heard.touched} == {b"last"}


@pytest.mark.usefixtures("tree")
def test_a_new_tree_is_watched_all_the_way_down(root: Path, heard: Heard) -> None:
    (root / "a" / "b" / "c").mkdir(parents=True)
    heard.wait_for(b"a")
    for _ in range(100):  # what is written before all is watched is told of by what is above
        (root / "a" / "b" / "c" / "file").write_text("x")
        with heard.changed:
            if heard.changed.wait_for(
                lambda: b"a/b/c/file" in {*heard.settled, *heard.touched}, 0.1
            ):
                break
    assert b"a" in heard.settled
    heard.wait_for(b"a/b/c/file")


def test_a_directory_moved_in_and_out(
    inotify: InotifyTree, root: Path, heard: Heard, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    outside.rename(root / "moved")
    heard.wait_for(b"moved")
    (root / "moved" / "in" / "file").write_text("x")
    heard.wait_for(b"moved/in/file")
    (root / "moved").rename(outside)
    with heard.changed:
        assert heard.changed.wait_for(lambda: b"moved" in heard.touched, 10)
    heard.forget()
    (outside / "in" / "unseen").write_text("x")
    (root / "seen").write_text("x")
    heard.wait_for(b"seen")
    assert {*heard.settled, *heard.touched} == {b"seen"}


def test_a_directory_renamed_is_known_by_its_new_name(
    inotify: InotifyTree, root: Path, heard: Heard
) -> None:
    (root / "sub").rename(root / "new")
    heard.wait_for(b"sub")
    with heard.changed:  # and once more when what is below is watched
        assert heard.changed.wait_for(lambda: heard.settled.count(b"new") == 2, 10)
    (root / "new" / "deep" / "file").write_text("x")
    heard.wait_for(b"new/deep/file")


def test_both_names_of_a_directory_are_told_of_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one alone looks like a delete.  What is below is watched afterwards."""
    wakeups, watched = Wakeups(SystemClock()), threading.Event()
    watch = InotifyTree(os.fsencode(root), wakeups)
    watch_below = watch._watch_below

    def watch_late(top: bytes) -> None:
        assert top != b"new" or watched.wait(10)
        watch_below(top)

    monkeypatch.setattr(watch, "_watch_below", watch_late)
    try:
        (root / "sub").rename(root / "new")
        assert wakeups.wait(10) == Hints(frozenset({b"sub", b"new"}), remote=False)
        watched.set()
        assert wakeups.wait(10) == Hints(frozenset({b"new"}), remote=False)
    finally:
        watched.set()
        watch.close()


def test_both_names_of_a_file_are_told_of_at_once(root: Path) -> None:
    wakeups = Wakeups(SystemClock())
    (root / "file").write_text("x")
    watch = InotifyTree(os.fsencode(root), wakeups)
    try:
        for old, new in itertools.pairwise(["file", *(f"sub/{n}" for n in range(20))]):
            (root / old).rename(root / new)
            names = frozenset({os.fsencode(old), os.fsencode(new)})
            assert wakeups.wait(10) == Hints(names, remote=False)
    finally:
        watch.close()


def test_what_moves_out_is_told_of_although_no_new_name_comes(root: Path, tmp_path: Path) -> None:
    wakeups = Wakeups(SystemClock())
    (root / "file").write_text("x")
    watch = InotifyTree(os.fsencode(root), wakeups)
    try:
        for name in ("sub", "file"):
            (root / name).rename(tmp_path / name)
            assert wakeups.wait(10) == Hints(frozenset({os.fsencode(name)}), remote=False)
    finally:
        watch.close()


def test_watches_of_deleted_directories_are_forgotten(
    inotify: InotifyTree, root: Path, heard: Heard
) -> None:
    held = os.open(root / "sub", os.O_RDONLY)  # the kernel keeps the old one's watch for so long
    shutil.rmtree(root / "sub")
    heard.wait_for(b"sub")
    heard.forget()
    (root / "sub").mkdir()
    heard.wait_for(b"sub")
    (root / "sub" / "again").write_text("x")
    heard.wait_for(b"sub/again")
    assert sorted(inotify._paths.values()) == [b"", b"sub"]
    os.close(held)


def test_an_overflow_means_everywhere(inotify: InotifyTree, root: Path, heard: Heard) -> None:
    """What the kernel dropped may be a new directory, so the tree is walked again."""
    inotify._unwatch(b"sub")
    inotify.on_queue_overflow()
    assert heard.overflows == 1
    (root / "sub" / "file").write_text("x")
    heard.wait_for(b"sub/file")


def test_what_could_not_be_watched_is_counted_anew(
    inotify: InotifyTree, root: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = inotify._inotify.add_callback

    def add_some(path: bytes, *rest: Any) -> Any:
        if path.endswith(b"/deep"):
            raise OSError(errno.ENOSPC, "no watches are left")
        return add(path, *rest)

    with monkeypatch.context() as used_up:
        used_up.setattr(inotify._inotify, "add_callback", add_some)
        for _ in range(3):
            inotify.on_queue_overflow()
            assert inotify.blind == 1
        (root / "sub" / "deep").rmdir()
        heard.wait_for(b"sub/deep")
        assert inotify.blind == 0
        (root / "sub" / "deep").mkdir()
        with heard.changed:
            assert heard.changed.wait_for(lambda: inotify.blind == 1, 10)
    inotify.on_queue_overflow()
    assert inotify.blind == 0


def test_the_root_going_away_means_everywhere(
    inotify: InotifyTree, root: Path, heard: Heard, tmp_path: Path
) -> None:
    root.rename(tmp_path / "elsewhere")
    with heard.changed:
        assert heard.changed.wait_for(lambda: heard.overflows > 0, 10)


def test_a_root_that_was_made_anew_is_not_the_one_that_is_watched(
    inotify: InotifyTree, root: Path, heard: Heard
) -> None:
    """It may have the same inode."""
    assert not inotify.lost
    shutil.rmtree(root)
    root.mkdir()
    with heard.changed:
        assert heard.changed.wait_for(lambda: heard.overflows > 0 and inotify.lost, 10)


def test_what_can_not_be_asked_what_it_is_is_watched(
    root: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that does not say it in its listings, and then fails."""

    class Mute:
        def __init__(self, entry: os.DirEntry[bytes]) -> None:
            self.name = entry.name

        def is_dir(self, **_: Any) -> bool:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    @contextlib.contextmanager
    def scandir(path: bytes) -> Iterator[list[Mute]]:
        with listing(path) as entries:
            yield [Mute(entry) for entry in entries]

    listing = os.scandir
    (root / "file").write_text("x")
    with monkeypatch.context() as mute:
        mute.setattr(os, "scandir", scandir)
        watch = InotifyTree(os.fsencode(root), heard)
    (root / "sub" / "deep" / "file").write_text("x")
    heard.wait_for(b"sub/deep/file")
    assert watch.blind == 0
    watch.close()


def test_watching_never_ends_in_silence(
    inotify: InotifyTree, root: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a surprise")

    monkeypatch.setattr(inotify, "_watch_below", fail)
    (root / "new").mkdir()
    with heard.changed:
        assert heard.changed.wait_for(lambda: heard.overflows > 0, 10)
    assert inotify.trouble == "a surprise"


def test_a_directory_moved_into_a_new_one(inotify: InotifyTree, root: Path, heard: Heard) -> None:
    """It is found in there before word of its move comes: there is no watch yet that would tell
    where it went."""
    with inotify._inotify._lock:  # nothing is read meanwhile
        (root / "new").mkdir()
        (root / "sub").rename(root / "new" / "sub")
    heard.wait_for(b"new", b"sub")
    heard.forget()
    (root / "new" / "sub" / "deep" / "file").write_text("x")
    heard.wait_for(b"new/sub/deep/file")
    heard.forget()
    (root / "sub").mkdir()
    heard.wait_for(b"sub")
    (root / "sub" / "file").write_text("x")
    heard.wait_for(b"sub/file")


def test_two_directories_that_change_places(inotify: InotifyTree, root: Path, heard: Heard) -> None:
    (root / "other" / "side").mkdir(parents=True)
    heard.wait_for(b"other")
    heard.forget()
    here = os.open(root, os.O_RDONLY)
    renameat2(here, b"sub", here, b"other", EXCHANGE)
    os.close(here)
    # Each went and came.  What happens in one until all of that was heard is found by a look at it.
    with heard.changed:
        said = heard.settled.count
        assert heard.changed.wait_for(lambda: said(b"sub") == said(b"other") == 3, 10)
    heard.forget()
    (root / "sub" / "side" / "file").write_text("x")
    (root / "other" / "deep" / "file").write_text("x")
    heard.wait_for(b"sub/side/file", b"other/deep/file")


def test_a_root_that_is_a_symlink(root: Path, heard: Heard, tmp_path: Path) -> None:
    """Only what is in the folder is not followed: how its owner reaches it is their own matter."""
    link = tmp_path / "link"
    link.symlink_to(root)
    watch = InotifyTree(os.fsencode(link), heard)
    try:
        (root / "sub" / "deep" / "file").write_text("x")
        heard.wait_for(b"sub/deep/file")
        (root / "file").write_text("x")
        heard.wait_for(b"file")
        watch.on_queue_overflow()
        assert not watch.lost
    finally:
        watch.close()


def test_directories_that_move_while_the_tree_is_first_walked(root: Path, heard: Heard) -> None:
    for number in range(3000):
        (root / "sub" / f"{number}").mkdir()
    ending = threading.Event()

    def move() -> None:
        while not ending.wait(0.001):
            (root / "sub" / "deep").rename(root / "sub" / "deeper")
            (root / "sub" / "deeper").rename(root / "sub" / "deep")

    mover = threading.Thread(target=move)
    mover.start()
    watch = InotifyTree(os.fsencode(root), heard)
    ending.set()
    mover.join()
    try:
        (root / "last").write_text("x")
        heard.wait_for(b"last")
        (root / "sub" / "deep" / "file").write_text("x")
        heard.wait_for(b"sub/deep/file")
        assert watch.trouble == ""
    finally:
        watch.close()


def test_a_directory_that_may_be_read_later(root: Path, heard: Heard) -> None:
    (root / "sub").chmod(0)
    with permissions():
        watch = InotifyTree(os.fsencode(root), heard)
    try:
        (root / "sub").chmod(0o700)
        heard.wait_for(b"sub")
        heard.forget()
        (root / "sub" / "deep" / "file").write_text("x")
        heard.wait_for(b"sub/deep/file")
    finally:
        watch.close()
