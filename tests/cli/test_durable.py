"""What is remembered as agreed is durable here first, whoever saved it."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dblike_cli.context import Settings
from dblike_cli.durable import sync_names
from dblike_cli.fs import OWN, File, Rename, Stat
from dblike_cli.hashing import disk_time
from dblike_cli.realfs import RealFS
from dblike_cli.recover import recover
from dblike_delta.exchange import Request, Response
from rig.devices import Laptop
from rig.permissions import permissions
from rig.wsgi import WsgiTransport

DURABLE = Settings(durable=True, segment=4 << 20)


class Recorded:
    """A file that says when it is made durable."""

    def __init__(self, file: File, said: Callable[[], object]) -> None:
        self._file, self._said = file, said

    def sync(self) -> None:
        self._file.sync()
        self._said()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Recording(RealFS):
    """Writes down what is made durable."""

    log: list[str]

    def open_read(self, path: bytes) -> Any:
        said = f"content of {path.decode()}"
        return Recorded(super().open_read(path), lambda: self.log.append(said))

    def sync_directory(self, path: bytes) -> None:
        super().sync_directory(path)
        self.log.append(f"names in {path.decode() or 'the root'}")

    def sync_all(self) -> None:
        super().sync_all()
        self.log.append("all")


class Told:
    """Writes down when the site can have heard of a version."""

    def __init__(self, inner: WsgiTransport, log: list[str]) -> None:
        self._inner, self._log = inner, log

    def request(self, request: Request) -> Response:
        whole = request.target.partition("?")[0].endswith("/commit")
        if whole or dict(request.headers).get("Upload-Complete") == "?1":
            self._log.append("commit")
        return self._inner.request(request)


@pytest.fixture
def recorded(laptop: Callable[..., Laptop], wire: WsgiTransport) -> tuple[Laptop, list[str]]:
    """A device, and what becomes durable and is told, in order."""
    log: list[str] = []
    made = laptop("one", transport=Told(wire, log), settings=DURABLE)
    made.fs.close()
    made.fs = Recording(made.root)
    made.fs.log = log
    return made, log


def _before_commit(log: list[str]) -> set[str]:
    assert log.count("commit") == 1
    return set(log[: log.index("commit")])


@pytest.mark.parametrize("size", [10, 3 << 20, 9 << 20])
def test_a_file_before_it_is_told(recorded: tuple[Laptop, list[str]], size: int) -> None:
    one, log = recorded
    one.write("d/f", os.urandom(size))
    one.sync(paths=(b"d",))
    log.clear()
    one.write("d/f", os.urandom(size))
    assert one.sync().uploaded == (b"d/f",)
    assert {"content of d/f", "names in d"} <= _before_commit(log)


def test_a_delete_a_rename_and_a_symlink_before_they_are_told(
    recorded: tuple[Laptop, list[str]],
) -> None:
    one, log = recorded
    for name in ("a/gone", "b/before"):
        one.write(name, "here")
    one.sync()
    log.clear()
    one.place("a/gone").unlink()
    one.place("c").mkdir()
    one.place("b/before").rename(one.place("c/after"))
    one.place("link").symlink_to("a")
    one.sync()
    assert {f"names in {d}" for d in ("a", "b", "c", "the root")} <= _before_commit(log)


def test_a_directory_that_is_gone_is_gone_from_the_one_above(
    recorded: tuple[Laptop, list[str]],
) -> None:
    """As where a batch ends between what was in it and the directory itself."""
    one, log = recorded
    one.write("a/b/f", "here")
    one.sync()
    shutil.rmtree(one.place("a"))
    log.clear()
    one.fs.refresh()  # as each cycle begins
    sync_names(one.context, [b"a/b/f"])
    assert log == ["names in the root"]


def test_many_at_once(recorded: tuple[Laptop, list[str]]) -> None:
    """One barrier for all of them."""
    one, log = recorded
    for number in range(100):
        one.write(f"f{number}", f"{number}")
    one.sync()
    assert _before_commit(log) == {"all"}


def test_what_is_found_equal_before_it_is_agreed(
    recorded: tuple[Laptop, list[str]], laptop: Callable[..., Laptop]
) -> None:
    """A directory that was full when it was linked."""
    one, log = recorded
    other = laptop("other")
    for device in (other, one):
        device.write("d/f", "the same")
    other.sync()
    assert b"d/f" in one.sync().adopted
    assert {"content of d/f", "names in d"} <= set(log)


def test_a_file_that_goes_away_meanwhile_stops_nothing(
    recorded: tuple[Laptop, list[str]],
) -> None:
    one, _ = recorded
    one.write("f", "short-lived")
    one.write("g", "stays")
    fs = one.fs

    class Losing(Recording):
        def open_read(self, path: bytes) -> Any:
            if path == b"f":
                one.place("f").unlink()
            return super().open_read(path)

    one.fs = Losing(one.root)
    one.fs.log = []
    fs.close()
    report = one.sync()
    assert report.uploaded == (b"g",)
    assert [item.path for item in report.pending] == [b"f"]
    assert one.sync().in_sync


class Mapped:
    """A program that has a file mapped, and stores in a page of it that it has stored in before."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())
            self._map = mmap.mmap(opened.fileno(), 0)

    def store(self, data: bytes) -> int:
        """Store something; when the file says that it changed last."""
        self._map[100 : 100 + len(data)] = data
        return self._file.stat().st_mtime_ns


class Storing(RealFS):
    """Lets a program store something as soon as anything of a file was read."""

    store: Callable[[], object]

    def read_small(self, path: bytes, limit: int) -> tuple[bytes, Stat, Stat]:
        found = super().read_small(path, limit)
        self.store()
        return found

    def open_read(self, path: bytes) -> Any:
        file = super().open_read(path)
        return file if path.startswith(OWN) else Shared(file, self.store)


class Shared(Recorded):
    """A file in which somebody stores something as soon as anything of it was read."""

    def sync(self) -> None:
        self._file.sync()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._said()
        return data


def _pass(device: Laptop, time: int) -> None:
    """Let that time of the disk be over: what is looked at in the same tick is looked at again."""
    while disk_time(device.context) <= time:
        pass


@pytest.fixture
def shared(laptop: Callable[..., Laptop], tmp_path: Path) -> Laptop:
    """A device on a disk whose files' times move with a store through a map, once per writing
    out."""
    probe = tmp_path / "probe"
    probe.write_bytes(bytes(4096))
    mapped, before = Mapped(probe), probe.stat().st_mtime_ns
    made = laptop("one", settings=DURABLE)
    made.sync()
    _pass(made, before)
    if mapped.store(b"x") == before:
        pytest.skip("this disk does not tell of stores through a map, as tmpfs")
    made.fs.close()
    made.fs = Storing(made.root)
    made.fs.store = bool
    return made


@pytest.mark.parametrize("size", [4096, 9 << 20])
def test_what_is_stored_through_a_map_while_it_is_read_goes_up(
    shared: Laptop, laptop: Callable[..., Laptop], size: int
) -> None:
    """No time tells of a store in a page that waits to be written out."""
    assert isinstance(shared.fs, Storing)
    shared.write("db", bytes(size))
    shared.sync()
    program = Mapped(shared.place("db"))
    stored = program.store(b"first")
    _pass(shared, stored)
    shared.fs.store = lambda: program.store(b"later")
    shared.sync()
    shared.fs.store = bool
    shared.sync()
    other = laptop("other")
    other.sync()
    assert other.read("db")[100:105] == b"later"


def test_what_is_stored_through_a_map_while_it_is_compared_goes_up(
    shared: Laptop, laptop: Callable[..., Laptop]
) -> None:
    """As where the site has the same."""
    assert isinstance(shared.fs, Storing)
    other = laptop("other")
    content = bytes(100) + b"first" + bytes(5000)
    other.write("db", content)
    other.sync()
    program = Mapped(shared.write("db", bytes(len(content))))
    stored = program.store(b"first")
    _pass(shared, stored)
    shared.fs.store = lambda: program.store(b"later")
    shared.sync()
    shared.fs.store = bool
    shared.sync()
    other.sync()
    assert other.read("db")[100:105] == b"later"


def test_what_nobody_may_read_here_comes_with_all_else(laptop: Callable[..., Laptop]) -> None:
    """It is made durable like any other: with the mode that it came with it can't be opened."""
    one, two = laptop("one"), laptop("two", settings=DURABLE)
    for path, size, mode in (("a", 1, 0o644), ("b", 1, 0o200), ("c", 5 << 20, 0), ("d", 1, 0o644)):
        os.utime(one.write(path, path * size, mode), (1, 1))
    one.sync()
    with permissions():
        assert two.sync().in_sync
        assert two.sync().in_sync
    assert two.tree() == one.tree()


@pytest.mark.parametrize("count", [1, 20])
def test_what_had_taken_its_place_when_the_end_came(
    laptop: Callable[..., Laptop], count: int
) -> None:
    """It is durable before the next start takes it for agreed."""

    class Ending(RealFS):
        placed = 0

        def rename(self, source: bytes, target: bytes, how: Rename) -> None:
            super().rename(source, target, how)
            self.placed += not target.startswith(OWN)
            self._end()

        def sync_directory(self, path: bytes) -> None:
            self._end()
            super().sync_directory(path)

        def sync_all(self) -> None:
            self._end()
            super().sync_all()

        def _end(self) -> None:
            if self.placed == count:
                raise KeyboardInterrupt

    class Asking(Recording):
        def sync_directory(self, path: bytes) -> None:
            assert two.state.tree.empty()
            super().sync_directory(path)

        def sync_all(self) -> None:
            assert two.state.tree.empty()
            super().sync_all()

    one, two = laptop("one"), laptop("two", settings=DURABLE)
    for number in range(count):
        one.write(f"{number}", f"{number}")
    one.sync()
    two.fs.close()
    two.fs = Ending(two.root)
    with pytest.raises(KeyboardInterrupt):
        two.sync()
    two.restart()
    assert two.state.tree.empty()
    two.fs.close()
    two.fs = Asking(two.root)
    two.fs.log = []
    recover(two.context)
    assert len(two.state.tree.stamps()) == count
    assert two.fs.log == (["all"] if count > 16 else ["content of 0", "names in the root"])
