"""Scan: what counts as a change, what is unknown, and what is never taken for deleted."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dblike_cli.fs import Seen, Stat
from dblike_cli.ignore import Ignore
from dblike_cli.realfile import RealFile
from dblike_cli.realfs import RealFS
from dblike_cli.recover import recover
from dblike_cli.report import Code
from dblike_cli.scan import Look, Scan, scan
from dblike_delta.plan import UNKNOWN, Entry
from dblike_delta.versions import Kind
from rig.devices import Laptop

NewLaptop = Callable[..., Laptop]


@pytest.fixture
def one(laptop: NewLaptop) -> Laptop:
    """A device with a few synced files, none of them of this very moment."""
    device = laptop("one")
    for path in ("a", "d/b", "d/e/c"):
        place = device.write(path, f"content of {path}")
        os.utime(place, (1, 1))
    (device.root / "link").symlink_to("a")
    settle(device)
    return device


def settle(device: Laptop) -> None:
    """Sync until every stamp is trusted: until the clock's tick is over."""
    device.sync()
    while any(not stamp for stamp in device.state.tree.stamps().values()):
        device.sync()


def look(device: Laptop, *rules: str, **how: Any) -> Scan:
    return scan(device.context, Ignore(rules), {}, Look(**how))


class FailingFS(RealFS):
    """Says no for some paths."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.failing: dict[bytes, int] = {}

    def _check(self, path: bytes) -> None:
        if path in self.failing:
            raise OSError(self.failing[path], os.strerror(self.failing[path]))

    def scandir(self, path: bytes) -> list[tuple[bytes, Stat | None]]:
        self._check(path)
        return super().scandir(path)

    def lstat(self, path: bytes) -> Stat:
        self._check(path)
        return super().lstat(path)

    def open_read(self, path: bytes) -> Any:
        self._check(path)
        return super().open_read(path)

    def read_small(self, path: bytes, limit: int) -> tuple[bytes, Stat, Stat]:
        self._check(path)
        return super().read_small(path, limit)


def test_nothing_changed(one: Laptop) -> None:
    """An unchanged folder is lstat and nothing else."""
    found = look(one)
    assert (found.local, found.same, found.pending) == ({}, {}, {})
    assert found.looked == 7  # with .dblike


def test_what_links_another_folder_is_left_out(one: Laptop) -> None:
    """Its credential is good for that one; also where the kernel says that just that changed."""
    one.write("x/inner/.dblike/credential", "a token")
    one.write("x/inner/.dblikeignore", "*.tmp")
    wanted = {b"x", b"x/inner", b"x/inner/.dblikeignore"}
    assert set(look(one).local) == wanted
    assert set(look(one).pending) == {b"x/inner/.dblike"}
    below = b"x/inner/.dblike/credential"
    assert below not in look(one, paths=frozenset({below})).local


def test_a_line_that_is_no_rule_is_said(one: Laptop) -> None:
    one.write(".dblikeignore", "[z-a]\n*.o\n")
    one.write("a.o", "ignored")
    report = one.sync()
    assert [(item.path, item.code) for item in report.pending] == [(b".dblikeignore", Code.RULE)]
    assert report.uploaded == (b".dblikeignore",)
    one.write(".dblikeignore", "*.o\n")
    assert one.sync().in_sync


def test_new_changed_and_gone(one: Laptop) -> None:
    one.write("new", "n")
    one.write("a", "other content")
    one.place("d/b").unlink()
    found = look(one)
    assert set(found.local) == {b"new", b"a", b"d/b"}
    assert found.local[b"d/b"] is None
    new = found.local[b"new"]
    assert isinstance(new, Entry)
    assert (new.kind, new.hash, new.size) == (Kind.FILE, b"", 1)  # read when it is sent
    found = look(one, defer=False)
    changed = found.local[b"a"]
    assert isinstance(changed, Entry)
    assert len(changed.hash) == 32


def test_same_size_and_mtime_is_no_proof(one: Laptop) -> None:
    """Times that were set back are found by ctime."""
    place = one.place("a")
    st = place.stat()
    with place.open("r+b") as file:
        file.write(b"CONTENT")
    os.utime(place, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert place.stat().st_size == st.st_size
    assert set(look(one).local) == {b"a"}


def test_an_edit_in_the_tick_of_its_recording_is_found(laptop: NewLaptop) -> None:
    """Racily clean: the content was read in the tick in which it was written."""
    one = laptop("one")
    one.write("x", "first")
    one.sync()
    known = one.state.tree.get(b"x")
    assert known is not None
    with one.state.transaction():
        # As on a kernel whose ticks are long: lstat says the same before and after.
        one.state.tree.restamp([(b"x", b"")])
    with one.place("x").open("r+b") as file:
        file.write(b"FIRST")
    assert one.push().uploaded == (b"x",)


def test_touched_files_are_read_and_found_the_same(one: Laptop) -> None:
    place = one.place("a")
    os.link(place, one.root.parent / "other-name")  # moves nothing but ctime
    found = look(one, defer=False)
    assert found.local == {}
    assert set(found.same) == {b"a"}
    report = one.sync()
    assert report.uploaded == ()
    assert report.in_sync


def test_checksum_reads_everything_and_calls_rot_damage(one: Laptop) -> None:
    """Bytes that differ though nothing wrote to them are never sent as an edit."""
    known = one.state.tree.get(b"a")
    assert known is not None
    stamp = known.stamp
    with one.place("a").open("r+b") as file:
        file.write(b"rotten")
    # The disk pretends that nothing happened: the stamp is made to be what lstat says.
    from dblike_cli.entries import stamp_of

    now = stamp_of(one.place("a").lstat())
    assert now != stamp
    with one.state.transaction():
        one.state.tree.restamp([(b"a", now)])
    assert look(one).local == {}
    found = look(one, checksum=True)
    assert found.local == {b"a": UNKNOWN}
    assert found.pending[b"a"].code is Code.DAMAGED


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOTCONN])
def test_what_cannot_be_read_is_unknown_with_all_below(laptop: NewLaptop, code: int) -> None:
    root = laptop("one").root
    fs = FailingFS(root)
    one = laptop("two", fs=fs)
    one.root = root
    one.write("d/e/c", "c")
    one.write("d/b", "b")
    one.write("a", "a")
    one.sync()
    fs.failing = {b"d": code}
    found = look(one)
    assert found.local.get(b"d") is UNKNOWN
    assert b"d/b" not in found.local
    assert b"d/e/c" not in found.local
    assert found.pending[b"d"].code is Code.UNREADABLE
    report = one.sync()
    assert report.deleted == ()
    assert not report.in_sync
    fs.failing = {}
    assert one.sync().in_sync
    assert one.read("d/e/c") == b"c"


def test_a_file_that_cannot_be_read_is_unknown(laptop: NewLaptop) -> None:
    root = laptop("one").root
    fs = FailingFS(root)
    one = laptop("two", fs=fs)
    one.root = root
    one.write("a", "1")
    one.write("b", "2")
    fs.failing = {b"a": errno.EIO}
    report = one.push()
    assert report.uploaded == (b"b",)
    assert [item.code for item in report.pending] == [Code.UNREADABLE]
    assert report.exit_code == 3
    fs.failing = {}
    assert one.push().uploaded == (b"a",)


def test_special_files_are_listed_and_never_opened(one: Laptop) -> None:
    os.mkfifo(one.root / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(one.root / "sock"))
        found = look(one)
    assert found.local == {}
    assert {p: i.code for p, i in found.pending.items()} == {
        b"pipe": Code.SPECIAL, b"sock": Code.SPECIAL,
    }  # fmt: skip
    report = one.sync()
    assert report.in_sync
    assert report.exit_code == 0


def test_a_file_that_became_a_fifo_is_not_deleted_at_the_site(one: Laptop) -> None:
    one.place("a").unlink()
    os.mkfifo(one.root / "a")
    report = one.sync()
    assert report.deleted == ()
    assert one.state.tree.get(b"a") is not None


def test_names_that_can_be_no_paths_are_listed(one: Laptop) -> None:
    (one.root / ".DBLike").mkdir()
    (one.root / ".DBLike" / "x").write_text("x")
    found = look(one)
    assert found.local == {}
    assert found.pending[b".DBLike"].code is Code.NAME


def test_ignored_paths_stay_here_and_as_they_were(one: Laptop) -> None:
    """Ignoring never deletes remotely: a synced path that is ignored now stays as agreed."""
    one.write("x.o", "object")
    one.write("build/y", "y")
    one.place("a").unlink()
    one.write("d/b", "edited")
    found = look(one, "*.o", "build/", "a", "b")
    assert found.local == {}


def test_hints_look_at_some_places_only(one: Laptop) -> None:
    one.write("a", "edited")
    one.write("d/b", "edited too")
    one.write("new/dir/file", "x")
    assert set(look(one, paths=[b"a"]).local) == {b"a"}
    assert set(look(one, paths=[b"d"]).local) == {b"d/b"}
    found = look(one, paths=[b"new/dir/file"])
    assert set(found.local) == {b"new", b"new/dir", b"new/dir/file"}
    assert look(one, paths=[b"nowhere", b"no/where"]).local == {}
    assert look(one, paths=[b"a"]).looked == 0  # nothing was listed


def test_a_hint_below_what_is_no_directory_any_more_looks_above(one: Laptop) -> None:
    (one.place("d")).rename(one.root / "moved")
    one.write("d", "a file now")
    found = look(one, paths=[b"d/e/c"])
    assert isinstance(found.local[b"d"], Entry)
    assert found.local[b"d/b"] is None
    assert found.local[b"d/e/c"] is None


def test_a_change_of_the_rules_looks_everywhere(one: Laptop) -> None:
    one.write("x.o", "object")
    one.write(".dblikeignore", "*.c")
    found = look(one, paths=[b".dblikeignore"])
    assert set(found.local) == {b".dblikeignore", b"x.o"}


class ClearedFS(RealFS):
    """Another process recovers whenever a file was made."""

    other: Laptop | None = None

    def create(self, path: bytes, mode: int = 0o600) -> RealFile:
        file = super().create(path, mode)
        if self.other is not None:
            recover(self.other.context)
        return file


def test_a_look_does_not_mind_who_clears_up(laptop: NewLaptop) -> None:
    one = laptop("one")
    one.sync()
    fs = ClearedFS(one.root)
    status = laptop("status", fs=fs)
    fs.other = one
    one.write("a", "1")
    assert list(look(status).local) == [b"a"]


class WritingFile(RealFile):
    """Somebody appends to it whenever it is read."""

    def read(self, size: int) -> bytes:
        data = super().read(size)
        with open(f"/proc/self/fd/{self.fd}", "ab") as other:
            other.write(b"more")
        return data


class WritingFS(RealFS):
    """Hands out such files while `writing` is set."""

    writing = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.place = root

    def open_read(self, path: bytes) -> RealFile:
        file = super().open_read(path)
        return WritingFile(file.fd) if self.writing and path == b"x" else file

    def read_small(self, path: bytes, limit: int) -> tuple[bytes, Stat, Stat]:
        data, before, after = super().read_small(path, limit)
        if self.writing and path == b"x":
            with (self.place / "x").open("ab") as other:
                other.write(b"more")
            after = self.lstat(path)
        return data, before, after


@pytest.mark.parametrize("size", [10, 5 << 20])
def test_a_file_that_is_being_written_is_left_for_later(laptop: NewLaptop, size: int) -> None:
    """Stat before is stat after, or it was not one state of the file."""
    root = laptop("one").root
    fs = WritingFS(root)
    one = laptop("two", fs=fs)
    one.root = root
    one.write("x", b"x" * size)
    report = one.push()
    assert report.uploaded == ()
    assert [item.code for item in report.pending] == [Code.WRITING]
    assert report.exit_code == 3
    fs.writing = False
    assert one.push().uploaded == (b"x",)
    assert one.state.outbox.all() == []


class Mounted(RealFS):
    """An empty disk is mounted at `where`."""

    where = b""

    def scandir(self, path: bytes) -> list[tuple[bytes, Stat | None]]:
        if path == self.where:
            return []
        return [
            (name, self._on_it(st) if path + name == self.where and st else st)
            for name, st in super().scandir(path)
        ]

    def lstat(self, path: bytes) -> Stat:
        if path.startswith(self.where + b"/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        st = super().lstat(path)
        return self._on_it(st) if path == self.where else st

    @staticmethod
    def _on_it(st: Stat) -> Stat:
        seen = (st.st_mode, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino)
        return Seen(*seen, st_dev=st.st_dev + 1)


@pytest.mark.parametrize("place", [b"", b"d", b"d/b", b"d/e/c"])
def test_what_a_mount_covers_is_not_gone(one: Laptop, place: bytes) -> None:
    """Wherever the look begins."""
    one.fs.close()
    one.fs = fs = Mounted(one.root)
    fs.where = b"d"
    found = look(one, paths=(place,))
    assert found.local == {b"d": UNKNOWN}
    assert found.gone == {}
    assert one.push(paths=(place,)).deleted == ()


class Listing(RealFS):
    """A list of a directory leaves out one of its names, as that of btrfs does with what takes the
    place of another file meanwhile."""

    left_out = b""
    above = b""

    def scandir(self, path: bytes) -> list[tuple[bytes, Stat | None]]:
        found = super().scandir(path)
        if self.left_out and path == self.above:
            found = [entry for entry in found if entry[0] != self.left_out]
            self.left_out = b""
        return found


@pytest.mark.parametrize("path", [b"a", b"d/b", b"d/e", b"link"])
def test_what_a_list_leaves_out_is_not_gone(one: Laptop, path: bytes) -> None:
    one.fs.close()
    one.fs = fs = Listing(one.root)
    fs.above, fs.left_out = os.path.split(path)
    found = look(one)
    assert found.local == {path: UNKNOWN}
    assert found.pending[path].code is Code.WRITING
    fs.left_out = os.path.basename(path)
    report = one.sync()
    assert report.deleted == ()
    assert not report.in_sync
    assert one.sync().in_sync
