"""Apply: bytes that the site has not acknowledged are never replaced, renamed over or deleted."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dblike_cli import cycle, realfs
from dblike_cli.answers import Uploads
from dblike_cli.context import Context, Settings
from dblike_cli.entries import stamp_of
from dblike_cli.fs import NewFile, Ready, Rename, Seen, Stat
from dblike_cli.realfile import RealFile
from dblike_cli.realfs import RealFS
from dblike_cli.report import Code, Hints
from dblike_delta.messages import Want
from dblike_delta.paths import join
from dblike_delta.paths import name as name_of
from rig.devices import PULL, Laptop
from rig.permissions import permissions

NewLaptop = Callable[..., Laptop]


class Meddler(RealFS):
    """Somebody edits `victim` (deletes it, where `how` is None) just before the file system does
    what `when` says; once for each of `more`, where there are some."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.place = directory
        self.victim = b""
        self.when = ""
        self.how: bytes | None = b"edited at that moment"

        self.more: list[bytes] = []

    def _meddle(self, what: str, path: bytes) -> None:
        if self.victim and what == self.when and path == self.victim:
            victim = self.victim
            if self.more:
                self.how = self.more.pop(0)
            if not self.more:
                self.victim = b""
            if self.how is None:
                (self.place / os.fsdecode(victim)).unlink()
                return
            draft = self.place / ".dblike" / "draft"
            draft.write_bytes(self.how)
            draft.replace(self.place / os.fsdecode(victim))

    def lstat(self, path: bytes) -> os.stat_result:
        self._meddle("lstat", path)
        return super().lstat(path)  # type: ignore[return-value]

    def rename(self, source: bytes, target: bytes, how: Rename) -> None:
        self._meddle("rename", target)
        self._meddle("rename", source)
        super().rename(source, target, how)

    def move_many(
        self, source: bytes, target: bytes, names: Sequence[tuple[bytes, bytes]]
    ) -> list[None]:
        return [None] * len(names)


def pair(laptop: NewLaptop) -> tuple[Laptop, Laptop, Meddler]:
    """Two devices that hold the same; the second one's file system has a meddler."""
    one = laptop("one")
    for path in ("a", "b", "d/x"):
        os.utime(one.write(path, f"first {path}"), (1, 1))
    one.sync()
    (one.root.parent / "two").mkdir()
    fs = Meddler(one.root.parent / "two")
    two = laptop("two", fs=fs)
    two.sync()
    two.sync()
    return one, two, fs


@pytest.mark.parametrize("when", ["lstat", "rename"])
@pytest.mark.parametrize("gone", [False, True])
def test_an_edit_at_the_last_moment_survives(laptop: NewLaptop, when: str, gone: bool) -> None:
    """Also between the last look and the rename."""
    one, two, fs = pair(laptop)
    if gone:
        one.place("a").unlink()
    else:
        one.write("a", "second a")
    one.sync()
    fs.victim, fs.when = b"a", when
    report = two.pull()
    assert two.read("a") == b"edited at that moment"
    assert report.applied == report.deleted == ()
    two.sync()
    one.sync()
    assert one.tree() == two.tree()
    contents = {one.read(path) for path in one.tree(times=False) if one.place(path).is_file()}
    assert b"edited at that moment" in contents
    assert gone or b"second a" in contents
    assert list((two.root / ".dblike" / "tmp").iterdir()) == []


def test_two_edits_at_the_last_moment_both_survive(laptop: NewLaptop) -> None:
    """The second one hits the file that had just taken the place of the first."""
    one, two, fs = pair(laptop)
    one.write("a", "second a")
    one.sync()
    fs.victim, fs.when, fs.more = b"a", "rename", [b"saved", b"saved again"]
    two.pull()
    contents = {two.read(path) for path in two.tree() if two.place(path).is_file()}
    assert {b"saved", b"saved again"} <= contents
    assert list((two.root / ".dblike" / "tmp").iterdir()) == []


def test_a_file_that_goes_at_the_last_moment_leaves_nothing_behind(laptop: NewLaptop) -> None:
    one, two, fs = pair(laptop)
    one.write("a", "second a")
    one.sync()
    fs.victim, fs.when, fs.how = b"a", "rename", None
    two.pull()
    assert list((two.root / ".dblike" / "tmp").iterdir()) == []
    assert two.sync().in_sync
    assert two.read("a") == b"second a"


def test_a_file_renamed_elsewhere_is_moved_here(laptop: NewLaptop) -> None:
    """Nothing is read, written or sent; what has another time is a copy."""
    one, two, _ = pair(laptop)
    moved, touched = two.place("d/x").stat(), two.place("a").stat()
    one.place("d").rename(one.root / "e")
    os.utime(one.place("a").rename(one.root / "a2"), (5, 5))
    one.place("b").rename(one.root / "b1")
    one.write("b2", one.read("b1"))
    one.sync()
    report = two.pull()
    assert set(report.applied) == {b"e", b"e/x", b"a2", b"b1", b"b2"}
    assert set(report.deleted) == {b"d", b"d/x", b"a", b"b"}
    assert two.tree() == one.tree()
    assert two.place("e/x").stat().st_ino == moved.st_ino
    assert two.place("a2").stat().st_ino != touched.st_ino
    assert two.sync().uploaded == ()


@pytest.mark.parametrize("when", ["lstat", "rename"])
def test_an_edit_of_what_is_just_moved_survives(laptop: NewLaptop, when: str) -> None:
    """It stays where its user made it, and the rename brings what was agreed."""
    one, two, fs = pair(laptop)
    one.place("d/x").rename(one.root / "d/y")
    one.sync()
    fs.victim, fs.when = b"d/x", when
    two.pull()
    assert two.read("d/x") == b"edited at that moment"
    two.sync()
    one.sync()
    assert one.tree() == two.tree()
    assert two.read("d/x") == b"edited at that moment"
    assert two.read("d/y") == b"first d/x"


def test_a_file_made_where_one_arrives_is_kept(laptop: NewLaptop) -> None:
    one, two, fs = pair(laptop)
    one.write("new", "from one")
    one.sync()
    fs.victim, fs.when = b"new", "rename"
    report = two.pull()
    assert two.read("new") == b"edited at that moment"
    assert [item.code for item in report.pending] in ([Code.OCCUPIED], [])
    two.sync()
    one.sync()
    two.sync()
    assert one.tree() == two.tree()
    assert len(one.tree()) == 6  # d, and the conflict copy


def test_without_exchange_the_look_before_still_holds(
    laptop: NewLaptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RealFS.rename

    def rename(self: RealFS, source: bytes, target: bytes, how: Rename) -> None:
        if how is Rename.EXCHANGE:
            raise OSError(errno.ENOTSUP, "not on this disk")
        original(self, source, target, how)

    monkeypatch.setattr(RealFS, "rename", rename)
    one, two, fs = pair(laptop)
    one.write("a", "second a")
    one.write("b", "second b")
    one.sync()
    fs.victim, fs.when = b"a", "lstat"
    assert two.pull().applied == (b"b",)
    assert two.read("a") == b"edited at that moment"
    assert two.read("b") == b"second b"


@pytest.mark.parametrize("moved", [False, True])
def test_a_save_on_a_disk_that_renames_in_two_steps_survives(
    laptop: NewLaptop, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    """A network's disk, say, has no rename that keeps what is there.  Somebody saves when the file
    has just got its other name."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "not on this disk")

    def saving(act: Callable[..., None]) -> Callable[..., None]:
        def call(source: bytes, target: bytes, **options: Any) -> None:
            act(source, target, **options)
            if source == b"a":
                os.replace(two.write(".dblike/draft", "saved"), two.place("a"))

        return call

    one, two, _ = pair(laptop)
    if moved:
        one.place("a").rename(one.root / "a2")
    else:
        one.place("a").unlink()
    one.sync()
    monkeypatch.setattr(realfs, "renameat2", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", saving(os.link))
        patch.setattr(os, "rename", saving(os.rename))
        two.pull()
    assert two.read("a") == b"saved"
    assert two.sync().uploaded == (b"a",)
    one.sync()
    assert one.tree() == two.tree()
    assert one.place("a2").exists() is moved
    assert list((two.root / ".dblike" / "tmp").iterdir()) == []


def test_a_writer_that_keeps_the_old_file_open_is_not_lost(laptop: NewLaptop) -> None:
    """What made way is deleted last, and only if nobody wrote to it until then."""
    one, two, _ = pair(laptop)
    one.write("a", "second a")
    one.sync()
    with two.place("a").open("r+b") as file:
        original = two.state.remote.drop
        two.state.remote.drop = lambda paths: (  # type: ignore[method-assign]
            file.write(b"late"), file.flush(), original(paths),
        )  # fmt: skip
        two.pull()
        two.state.remote.drop = original  # type: ignore[method-assign]
    two.sync()
    contents = {two.read(path) for path in two.tree(times=False) if two.place(path).is_file()}
    assert {b"second a", b"latet a"} <= contents


@pytest.mark.parametrize("gone", [False, True])
def test_a_write_after_the_look_at_what_made_way_is_not_lost(laptop: NewLaptop, gone: bool) -> None:
    class Late(Meddler):
        def lstat(self, path: bytes) -> os.stat_result:
            st = super().lstat(path)
            if b"/swap-" in path or b"/old-" in path:
                writer.write(late.pop() if late else b"")
            return st

    one, two, fs = pair(laptop)
    if gone:
        one.place("a").unlink()
    else:
        one.write("a", "second a")
    one.sync()
    fs.close()
    two.fs, late = Late(two.root), [b" and more"]
    with two.place("a").open("ab", buffering=0) as writer:
        report = two.sync()
    assert not late
    kept = "a" if gone else "a (recovered 1)"
    assert two.read(kept) == b"first a and more"
    assert report.uploaded == (os.fsencode(kept),)
    one.sync()
    assert one.tree() == two.tree()


def test_what_is_still_written_to_when_its_directory_goes_is_kept(
    laptop: NewLaptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the next directory above, where it is an edit like any other."""
    one, two, _ = pair(laptop)
    one.write("d/deep/x", "another x")
    one.sync()
    two.sync()
    shutil.rmtree(one.place("d"))
    one.sync()
    original = two.state.remote.drop
    writers = [two.place(path).open("ab") for path in ("d/x", "d/deep/x")]

    def drop(paths: Iterable[bytes]) -> None:
        while writers and not two.place("d").exists():
            with writers.pop() as writer:
                writer.write(b" and more")
        original(paths)

    monkeypatch.setattr(two.state.remote, "drop", drop)
    report = two.sync(max_delete="100%")
    assert set(report.deleted) == {b"d", b"d/x", b"d/deep", b"d/deep/x"}
    assert set(report.uploaded) == {b"x", b"x (recovered 1)"}
    contents = {two.read("x"), two.read("x (recovered 1)")}
    assert contents == {b"first d/x and more", b"another x and more"}
    assert list((two.root / ".dblike" / "tmp").iterdir()) == []
    one.sync()
    assert one.tree() == two.tree()


def test_what_was_opened_is_closed_whatever_happens(
    laptop: NewLaptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop(paths: Iterable[bytes]) -> None:
        if not two.place("closed/a").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(paths)

    one, two = laptop("one"), laptop("two")
    original = two.state.remote.drop
    closed = one.write("closed/a", "to be deleted").parent
    closed.chmod(0o555)
    one.sync()
    two.sync()
    closed.chmod(0o755)
    one.place("closed/a").unlink()
    closed.chmod(0o555)
    one.write("new", "comes before anything goes")
    one.sync()
    with permissions(), monkeypatch.context() as patch:
        patch.setattr(two.state.remote, "drop", drop)
        with pytest.raises(OSError, match="error"):
            two.sync()
    assert stat.S_IMODE(two.place("closed").stat().st_mode) == 0o555
    assert two.sync().in_sync


def during_fetch(device: Laptop, act: Callable[[], None]) -> list[None]:
    """Somebody does this before the first content comes; one for each time that some are asked."""
    fetch, asked = device.exchange.fetch, list[None]()

    def call(folder: str, wants: Sequence[Want]) -> Iterator[Any]:
        if not asked:
            act()
        asked.append(None)
        return fetch(folder, wants)

    device.exchange.fetch = call  # type: ignore[method-assign]
    return asked


def test_an_edit_elsewhere_meets_what_took_its_directorys_place(laptop: NewLaptop) -> None:
    """While it came; and not the former directory, which goes."""

    def deploy() -> None:
        two.place("d").rename(two.root / "former")
        two.write("d/x", "deployed")

    one, two, _ = pair(laptop)
    one.write("d/x", "second d/x")
    one.sync()
    during_fetch(two, deploy)
    two.sync()
    shutil.rmtree(two.place("former"))
    for device in (two, one, two):
        device.sync()
    assert one.tree() == two.tree()
    contents = {one.read(path) for path in one.tree(times=False) if one.place(path).is_file()}
    assert {b"deployed", b"second d/x"} <= contents


def test_a_file_comes_once_where_its_directory_was_made_anew_meanwhile(laptop: NewLaptop) -> None:
    def clear() -> None:
        shutil.rmtree(two.place("d"))
        two.write("d/other", "made here")

    one, two, _ = pair(laptop)
    one.write("d/new", "from one")
    one.sync()
    asked = during_fetch(two, clear)
    two.sync(max_delete="100%")
    assert len(asked) == 1
    assert two.read("d/new") == b"from one"
    for device in (two, one):
        device.sync()
    assert one.tree() == two.tree()


def test_modes_times_links_and_odd_names(laptop: NewLaptop) -> None:
    one, two = laptop("one"), laptop("two")
    one.write(b"caf\xe9", "latin", mode=0o640)
    one.write("new\nline", "x")
    one.write("x" * 255, "long")
    one.write("d/read-only/deep", "x")
    one.place("d/read-only").chmod(0o555)
    os.utime(one.write("old", "x"), ns=(1, 123_456_789_987_654_321))
    os.utime(one.write("before", "x"), ns=(1, -5_000_000_007))
    one.place("to-nowhere").symlink_to("../../outside")
    one.write("suid", "x").chmod(0o4755)
    one.push()
    two.pull()
    expected = one.tree()
    expected["suid"] = ("file", b"x", 0o755, expected["suid"][3])
    assert two.tree() == expected
    assert not stat.S_IMODE(two.place("suid").stat().st_mode) & 0o7000


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSPC])
@pytest.mark.parametrize("path", ["a", "d/x", "new/in/it"])
def test_what_the_disk_says_no_to_is_fetched_when_it_is_time(
    laptop: NewLaptop, path: str, code: int
) -> None:
    """Not at each change of something else; and what is beside it comes."""

    class Refusing(Meddler):
        refused = b"new" if path.startswith("new") else os.fsencode(path)

        def rename(self, source: bytes, target: bytes, how: Rename) -> None:
            self._check(target)
            super().rename(source, target, how)

        def mkdir(self, path: bytes, mode: int) -> None:
            self._check(path)
            super().mkdir(path, mode)

        def _check(self, path: bytes) -> None:
            if path == self.refused:
                raise OSError(code, os.strerror(code))

    one, two, fs = pair(laptop)
    fs.close()
    two.fs = fs = Refusing(two.root)
    one.write(path, os.urandom(100_000))
    one.sync()
    trouble = {item.path: item.code for item in two.sync().pending}
    assert trouble[fs.refused] in (Code.DISK, Code.NO_SPACE)
    for number in range(5):
        one.write("b", f"{number}")
        one.write("d/beside", f"{number}")
        one.sync()
        report = two.sync(hints=Hints())
        assert set(report.applied) == {b"b", b"d/beside"}
        assert {item.path: item.code for item in report.pending} == trouble
        assert report.bytes_received < 10_000
    two.write("d/own", "edit")
    assert two.sync(hints=Hints(frozenset({b"d/own"}))).uploaded == (b"d/own",)
    fs.refused = b""
    report = two.sync(hints=Hints(frozenset(trouble)))
    assert os.fsencode(path) in report.applied
    assert report.in_sync
    one.sync()
    assert one.tree() == two.tree()


@pytest.mark.parametrize("batch", [1, 2_000])
def test_a_directory_that_came_closed_can_change(laptop: NewLaptop, batch: int) -> None:
    """Its owner may not write there, and so opens it, writes, and closes it again."""
    settings = Settings(durable=False, apply_batch=batch)
    one, two = laptop("one"), laptop("two", settings=settings)
    closed = one.place("closed")
    for path in ("closed/edited", "closed/gone", "closed/renamed", "closed/in/gone", "gone/in/it"):
        one.write(path, path)
    closed.chmod(0o555)
    one.place("gone").chmod(0o500)
    one.sync()
    with permissions():
        two.sync()
        assert two.tree() == one.tree()
        closed.chmod(0o755)
        one.write("closed/edited", "edited")
        one.write("closed/new/too", "new")
        one.place("closed/renamed").rename(closed / "other")
        one.place("closed/link").symlink_to("edited")
        one.place("closed/gone").unlink()
        shutil.rmtree(closed / "in")
        closed.chmod(0o555)
        one.place("gone").chmod(0o700)
        shutil.rmtree(one.place("gone"))
        one.sync()
        assert two.sync().in_sync
        assert two.tree() == one.tree()
        report = two.sync()
    assert (report.uploaded, report.applied, report.in_sync) == ((), (), True)


def test_a_mode_that_a_user_gave_meanwhile_is_kept(laptop: NewLaptop) -> None:
    one, two = laptop("one"), laptop("two")
    one.write("closed/a", "1")
    one.place("closed").chmod(0o555)
    one.sync()
    two.sync()
    one.write("closed/a", "2")
    one.sync()

    class Chmod(RealFS):
        def rename(self, source: bytes, target: bytes, how: Rename) -> None:
            super().rename(source, target, how)
            two.place("closed").chmod(0o711)

    two.fs.close()
    two.fs = Chmod(two.root)
    two.sync()
    assert two.sync().in_sync
    one.sync()
    assert stat.S_IMODE(one.place("closed").stat().st_mode) == 0o711
    assert one.tree() == two.tree()


def test_kinds_change_both_ways(laptop: NewLaptop) -> None:
    one, two = laptop("one"), laptop("two")
    one.write("file", "f")
    one.write("dir/in/deep", "x")
    one.place("link").symlink_to("file")
    one.sync()
    two.sync()
    for path in ("dir/in/deep", "file", "link"):
        one.place(path).unlink()
    one.place("dir/in").rmdir()
    one.place("dir").rmdir()
    one.write("dir", "a file")
    one.write("file/now/a", "directory")
    one.write("link/too", "directory")
    one.sync()
    assert two.sync().in_sync
    assert two.tree() == one.tree()


def test_a_directory_with_files_of_its_own_stays(laptop: NewLaptop) -> None:
    """Ignored files inside a deleted directory keep it, and it is said."""
    one, two, _ = pair(laptop)
    one.write(".dblikeignore", "*.o")
    one.sync()
    two.sync()
    two.write("d/own.o", "object")
    one.place("d/x").unlink()
    one.place("d").rmdir()
    one.sync()
    report = two.sync()
    assert report.deleted == (b"d/x",)
    assert [(item.path, item.code) for item in report.pending] == [(b"d", Code.KEPT)]
    assert two.read("d/own.o") == b"object"
    two.place("d/own.o").unlink()
    report = two.sync()
    assert report.deleted == (b"d",)
    assert report.in_sync


class FullDisk(RealFS):
    """Has room for `room` bytes."""

    room = 1 << 30

    def make_many(self, directory: bytes, files: Sequence[NewFile]) -> Ready:
        return Ready()

    def create(self, path: bytes, mode: int = 0o600) -> RealFile:
        return _FullFile(super().create(path, mode).fd, self)


class _FullFile(RealFile):
    def __init__(self, fd: int, fs: FullDisk) -> None:
        super().__init__(fd)
        self.owner = fs

    def write(self, data: bytes) -> None:  # type: ignore[override]
        if len(data) > self.owner.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.owner.room -= len(data)
        super().write(data)


@pytest.mark.parametrize("size", [50_000, 5 << 20])
def test_a_full_disk_keeps_the_old_file_and_goes_on_later(laptop: NewLaptop, size: int) -> None:
    one = laptop("one")
    one.write("a", "old")
    one.sync()
    (one.root.parent / "two").mkdir()
    fs = FullDisk(one.root.parent / "two")
    two = laptop("two", fs=fs)
    two.sync()
    one.write("a", os.urandom(size))
    one.write("b", os.urandom(size))
    one.place("sub").mkdir()
    one.sync()
    fs.room = 10_000
    report = two.sync()
    assert two.read("a") == b"old"
    assert report.exit_code == 3
    assert {item.path: item.code for item in report.pending} == {
        b"a": Code.NO_SPACE, b"b": Code.NO_SPACE,
    }  # fmt: skip
    assert two.place("sub").is_dir()
    fs.room = 1 << 30
    assert two.sync().in_sync
    assert two.tree() == one.tree()


def test_a_file_that_does_not_fit_keeps_nobody_out(laptop: NewLaptop) -> None:
    one = laptop("one")
    one.sync()
    (one.root.parent / "two").mkdir()
    two = laptop("two", fs=SmallDisk(one.root.parent / "two"))
    one.write("a", os.urandom(11 << 20))
    one.write("b", os.urandom(9 << 20))
    one.write("c", "small")
    one.sync()
    report = two.sync()
    assert {item.path: item.code for item in report.pending} == {b"a": Code.NO_SPACE}
    assert set(two.tree()) == {"b", "c"}


class SmallDisk(RealFS):
    """Has 14 MiB for all there is."""

    def free_space(self) -> int:
        return 14 << 20


def test_what_filled_the_disk_does_not_stay(laptop: NewLaptop) -> None:
    one = laptop("one")
    (one.root.parent / "two").mkdir()
    fs = FullDisk(one.root.parent / "two")
    fs.room = 3 << 20
    two = laptop("two", fs=fs)
    one.write("a", os.urandom(5 << 20))
    one.sync()
    assert [item.code for item in two.sync().pending] == [Code.NO_SPACE]
    assert list((two.root / ".dblike" / "staging").iterdir()) == []


class FoldingFS(RealFS):
    """A disk that takes names for each other that differ in case only."""

    def _fold(self, path: bytes) -> bytes:
        if not path or path.startswith(b".dblike"):
            return path
        above, _, name = path.rpartition(b"/")
        above = self._fold(above)
        for found, _ in super().scandir(above):
            if found.lower() == name.lower():
                return b"/".join(filter(None, (above, found)))
        return b"/".join(filter(None, (above, name)))

    def lstat(self, path: bytes) -> os.stat_result:
        return super().lstat(self._fold(path))  # type: ignore[return-value]

    def rename(self, source: bytes, target: bytes, how: Rename) -> None:
        super().rename(self._fold(source), self._fold(target), how)

    def move_many(
        self, source: bytes, target: bytes, names: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Stat | None]:
        above = self._fold(target)
        folded = [(old, name_of(self._fold(join(above, new)))) for old, new in names]
        return super().move_many(source, above, folded)

    def mkdir(self, path: bytes, mode: int) -> None:
        super().mkdir(self._fold(path), mode)

    def open_read(self, path: bytes) -> RealFile:
        return super().open_read(self._fold(path))

    def read_small(self, path: bytes, limit: int) -> tuple[bytes, Stat, Stat]:
        return super().read_small(self._fold(path), limit)


@pytest.mark.parametrize("batch", [1, 2_000])
def test_a_disk_that_folds_names_holds_the_second_one_back(laptop: NewLaptop, batch: int) -> None:
    """Visible, and nothing is renamed or overwritten at the site."""
    one = laptop("one")
    one.write("Readme", "first")
    one.write("readme", "second")
    one.write("Dir/x", "1")
    one.write("dir/y", "2")
    one.sync()
    (one.root.parent / "two").mkdir()
    settings = Settings(durable=False, apply_batch=batch)
    two = laptop("two", fs=FoldingFS(one.root.parent / "two"), settings=settings)
    report = two.sync()
    held = {item.path: item.code for item in report.pending}
    assert held.pop(b"readme") is Code.HELD
    assert held.pop(b"dir") is Code.HELD
    assert set(held) == {b"dir/y"}
    assert "Readme" in next(i.reason for i in report.pending if i.path == b"readme")
    assert (two.read("Readme"), two.read("Dir/x")) == (b"first", b"1")
    again = two.sync()
    assert again.uploaded == again.deleted == ()
    assert one.sync().in_sync
    assert (one.read("Readme"), one.read("readme")) == (b"first", b"second")


def test_a_name_gets_another_case_on_a_disk_that_folds_names(laptop: NewLaptop) -> None:
    """The old one is gone, though such a disk finds it."""
    one = laptop("one")
    os.utime(one.write("Readme", "text"), (1, 1))
    one.sync()
    (one.root.parent / "two").mkdir()
    two = laptop("two", fs=FoldingFS(one.root.parent / "two"))
    two.sync()
    two.sync()
    two.place("Readme").rename(two.root / "README")
    report = two.sync()
    assert (report.uploaded, report.deleted, report.in_sync) == ((b"README",), (b"Readme",), True)
    one.sync()
    assert one.tree() == two.tree()


@pytest.mark.parametrize("what", ["name", "content", "directory", "link"])
def test_a_name_gets_another_case_elsewhere(laptop: NewLaptop, what: str) -> None:
    """One sync is enough, and a file that is the same stays the same one."""
    one = laptop("one")
    os.utime(one.write("Readme", "text"), (1, 1))
    one.write("Dir/In/x", "x")
    one.place("Link").symlink_to("Readme")
    one.sync()
    (one.root.parent / "two").mkdir()
    two = laptop("two", fs=FoldingFS(one.root.parent / "two"))
    two.sync()
    two.sync()
    inode = two.place("Readme").stat().st_ino
    match what:
        case "directory":
            one.place("Dir").rename(one.root / "dir")
        case "link":
            one.place("Link").rename(one.root / "link")
        case _:
            one.place("Readme").rename(one.root / "README")
            if what == "content":
                one.write("README", "another text")
    one.sync()
    report = two.sync(max_delete="100%")
    assert (report.in_sync, report.uploaded, report.pending) == (True, (), ())
    assert two.tree() == one.tree()
    assert what != "name" or two.place("README").stat().st_ino == inode
    assert two.sync().uploaded == ()


def test_many_files_share_their_barriers(laptop: NewLaptop) -> None:
    one = laptop("one")
    for number in range(120):
        one.write(f"d{number % 7}/f{number}", f"{number}")
    one.push()
    synced: list[str] = []

    class Counting(RealFS):
        def sync_all(self) -> None:
            synced.append("all")
            super().sync_all()

        def sync_directory(self, path: bytes) -> None:
            synced.append("directory")
            super().sync_directory(path)

    (one.root.parent / "two").mkdir()
    fs = Counting(one.root.parent / "two")
    two = laptop("two", fs=fs, settings=Settings(durable=True))
    assert two.sync(PULL).in_sync
    assert two.tree() == one.tree()
    assert len(synced) <= 12
    assert "all" in synced


@pytest.mark.parametrize("what", ["symlink", "directory", "mode"])
def test_what_takes_the_place_of_what_just_came_is_an_edit(laptop: NewLaptop, what: str) -> None:
    """Also before that is remembered, which is when all else has come."""

    class Slow(Meddler):
        def rename(self, source: bytes, target: bytes, how: Rename) -> None:
            if target == b"z":
                replace(self.place / "new")
            super().rename(source, target, how)

    def replace(place: Path) -> None:
        match what:
            case "mode":
                place.chmod(0o711)
            case "symlink":
                place.unlink()
                place.symlink_to("b")
            case _:
                place.rmdir()
                place.write_text("a file of the user's")

    one, two, fs = pair(laptop)
    if what == "symlink":
        one.place("new").symlink_to("a")
    else:
        one.place("new").mkdir()
    one.write("z", "comes last")
    one.sync()
    fs.close()
    two.fs = Slow(two.root)
    two.sync()
    before = two.tree()
    two.fs.close()
    two.fs = RealFS(two.root)
    assert two.sync().uploaded == (b"new",)
    one.sync()
    assert one.tree() == two.tree() == before


@pytest.mark.parametrize("what", ["mode", "nothing"])
def test_an_edit_of_what_gets_the_mode_of_the_site_survives(laptop: NewLaptop, what: str) -> None:
    """One of the same size, in place, when it has just been looked at for the last time."""

    class Editing(RealFS):
        looks = 0

        def lstat(self, path: bytes) -> Stat:
            st = super().lstat(path)
            if path == b"a":
                self.looks += 1
                if self.looks == 1:
                    with two.place("a").open("r+b") as file:
                        file.write(b"EDITED!")
            return st

    one, two, fs = pair(laptop)
    if what == "mode":
        one.place("a").chmod(0o640)
    else:
        for device in (one, two):
            os.utime(device.write("a", "equal a"), (2, 2))
    one.sync()
    fs.close()
    two.fs = Editing(two.root)
    report = two.pull()
    assert report.adopted == (b"a",)
    two.fs.close()
    two.fs = RealFS(two.root)
    assert two.sync().uploaded == (b"a",)
    one.sync()
    assert one.read("a") == b"EDITED!"
    assert one.tree() == two.tree()


class CoarseFile(RealFile):
    """A file of a coarse disk."""

    def stat(self) -> Stat:
        return coarse(super().stat())


class Coarse(Meddler):
    """A disk that tells times of ten seconds apart, and somebody who writes in place."""

    exchanges = True

    def lstat(self, path: bytes) -> Stat:  # type: ignore[override]
        return coarse(RealFS.lstat(self, path))

    def scandir(self, path: bytes) -> list[tuple[bytes, Stat | None]]:
        return [(name, st and coarse(st)) for name, st in super().scandir(path)]

    def open_read(self, path: bytes) -> RealFile:
        return CoarseFile(super().open_read(path).fd)

    def create(self, path: bytes, mode: int = 0o600) -> RealFile:
        return CoarseFile(super().create(path, mode).fd)

    def make_many(self, directory: bytes, files: Sequence[NewFile]) -> Ready:
        return Ready()

    def rename(self, source: bytes, target: bytes, how: Rename) -> None:
        if self.victim and self.victim in (source, target):
            with (self.place / os.fsdecode(self.victim)).open("r+b") as file:
                file.write(b"EDITED!")
            self.victim = b""
        if how is Rename.EXCHANGE and not self.exchanges:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        super().rename(source, target, how)


def coarse(st: Stat) -> Stat:
    """What such a disk says."""
    tick = 10_000_000_000
    times = (st.st_mtime_ns // tick * tick, st.st_ctime_ns // tick * tick)
    return Seen(st.st_mode, st.st_size, *times, st.st_ino, st.st_dev)


@pytest.mark.parametrize(("gone", "exchanges"), [(False, True), (False, False), (True, True)])
def test_an_edit_in_the_tick_of_the_look_survives(
    laptop: NewLaptop, gone: bool, exchanges: bool
) -> None:
    """All that lstat says is as before, and so the bytes have to be looked at."""
    one = laptop("one")
    os.utime(one.write("a", "first a"), (10, 10))
    one.sync()
    (one.root.parent / "two").mkdir()
    fs = Coarse(one.root.parent / "two")
    fs.exchanges = exchanges
    two = laptop("two", fs=fs)
    if gone:  # an old copy of it lies there, just made
        one.place("a").unlink()
        one.sync()
        two.write("a", "first a")
    else:
        two.sync()
        with two.state.transaction():
            two.state.tree.restamp([(b"a", stamp_of(fs.lstat(b"a")))])
        one.write("a", "second a")
        one.sync()
        os.utime(two.place("a"))
    fs.victim = b"a"
    two.sync()
    assert fs.victim == b""
    two.sync()
    contents = {two.read(path) for path in two.tree() if two.place(path).is_file()}
    assert b"EDITED!" in contents
    one.sync()
    assert one.tree(times=False) == two.tree(times=False)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSPC])
def test_a_file_stays_until_there_is_room_for_the_directory_in_its_place(
    laptop: NewLaptop, code: int
) -> None:
    class Full(Meddler):
        full = True

        def mkdir(self, path: bytes, mode: int) -> None:
            if self.full and path == b"a":
                raise OSError(code, os.strerror(code))
            super().mkdir(path, mode)

    one, two, fs = pair(laptop)
    one.place("a").unlink()
    one.place("a").mkdir()
    one.sync()
    fs.close()
    two.fs = fs = Full(two.root)
    report = two.sync()
    assert [item.path for item in report.pending] == [b"a"]
    assert two.read("a") == b"first a"
    fs.full = False
    assert two.sync().in_sync
    assert two.tree() == one.tree()


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127])
def test_an_edit_of_a_file_with_a_long_name_goes_beside_it(laptop: NewLaptop, name: str) -> None:
    """Somebody has the old file open, and writes to it when the new one has taken its place."""

    class Late(Meddler):
        def lstat(self, path: bytes) -> os.stat_result:
            if b"/swap-" in path:
                self.more.append(path)
                if len(self.more) == 2:
                    writer.write(b"written late")
            return super().lstat(path)

    one, two, fs = pair(laptop)
    one.write(name, "first")
    one.sync()
    two.sync()
    one.write(name, "second")
    one.sync()
    fs.close()
    two.fs = Late(two.root)
    with two.place(name).open("r+b", buffering=0) as writer:
        assert two.sync().applied == (os.fsencode(name),)
    assert two.read(name) == b"second"
    (late,) = (path for path in two.tree() if "recovered" in path)
    assert two.read(late) == b"written late"
    assert list((two.root / ".dblike" / "tmp").iterdir()) == []


def test_an_edit_comes_back_where_what_took_its_place_is_gone(laptop: NewLaptop) -> None:
    class Deleting(Meddler):
        def rename(self, source: bytes, target: bytes, how: Rename) -> None:
            if how is Rename.EXCHANGE and not self.victim:
                two.place("a").unlink()
            super().rename(source, target, how)

    one, two, fs = pair(laptop)
    one.write("a", "second a")
    one.sync()
    fs.close()
    two.fs = fs = Deleting(two.root)
    fs.victim, fs.when = b"a", "rename"
    two.pull()
    assert list((two.root / ".dblike" / "tmp").iterdir()) == []
    assert two.read("a") == b"edited at that moment"


def test_a_directory_of_which_nothing_is_agreed_any_more(
    laptop: NewLaptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file took its place elsewhere while we looked and sent, and the site went back in time."""
    one, two = laptop("one"), laptop("two")
    one.place("d").mkdir()
    one.sync()
    two.sync()
    two.place("d").rmdir()
    two.write("d", "file")
    hear_again = cycle._hear_again

    def hear_of_it(context: Context, wish: Any, sent: Uploads) -> Any:
        two.sync()
        sent.heard = False
        with one.state.transaction():
            one.state.tree.doubt()
            one.state.tree.unsettle()
        return hear_again(context, wish, sent)

    monkeypatch.setattr(cycle, "_hear_again", hear_of_it)
    one.write("other", "to be sent")
    one.sync()
    monkeypatch.undo()
    for device in (one, two, one):
        device.sync()
    assert one.tree() == two.tree()
    assert one.read("d") == b"file"
