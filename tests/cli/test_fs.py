"""The file system beneath the folder: what it never leaves, never follows and never replaces."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dblike_cli import realfs as fs_module
from dblike_cli.entries import stamp_of
from dblike_cli.fs import NewFile, Rename, Stat
from dblike_cli.realfs import RealFS
from rig.programs import wait_until


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[RealFS]:
    root = tmp_path / "root"
    root.mkdir()
    opened = RealFS(root)
    yield opened
    opened.close()


def write(fs: RealFS, path: bytes, data: bytes) -> None:
    file = fs.create(path)
    file.write(data)
    file.close()


def read(fs: RealFS, path: bytes) -> bytes:
    file = fs.open_read(path)
    try:
        return file.read(1 << 20)
    finally:
        file.close()


def test_names_are_bytes(fs: RealFS) -> None:
    for name in (b"plain", b"caf\xe9", "é".encode(), b"new\nline", b"x" * 255):
        write(fs, name, name)
    assert {name for name, _ in fs.scandir(b"")} == {
        b"plain", b"caf\xe9", "é".encode(), b"new\nline", b"x" * 255,
    }  # fmt: skip
    assert read(fs, b"caf\xe9") == b"caf\xe9"


def test_a_directory_keeps_what_is_no_permission(fs: RealFS, tmp_path: Path) -> None:
    """Such as that what is made in it belongs to its group."""
    fs.mkdir(b"d", 0o755)
    (tmp_path / "root" / "d").chmod(0o3755)
    fs.chmod(b"d", 0o700)
    assert stat.S_IMODE(fs.lstat(b"d").st_mode) == 0o3700
    write(fs, b"f", b"")
    (tmp_path / "root" / "f").chmod(0o4755)
    fs.chmod(b"f", 0o755)
    assert stat.S_IMODE(fs.lstat(b"f").st_mode) == 0o755


MANY = [
    NewFile(b"empty", b"", 0o600, 0),
    NewFile(b"plain", b"plain", 0o644, 1_790_000_000_123_456_789),
    NewFile(b"caf\xe9", memoryview(b"a view of it")[2:6], 0o755, 1),
    NewFile(b"closed", bytearray(b"closed"), 0o444, -1_500_000_001),
    NewFile(b"large", bytes(3_000_000), 0o777, 999_999_999),
]


def make(fs: RealFS, files: list[NewFile]) -> Sequence[Stat] | None:
    making = fs.make_many(b"", files)
    wait_until(making.done, "files that are made")
    return making.result()


@pytest.mark.skipif(fs_module._files is None, reason="it is not compiled")
def test_many_files_by_one_call(fs: RealFS) -> None:
    made = make(fs, MANY)
    assert made is not None
    for file, seen in zip(MANY, made, strict=True):
        st = fs.lstat(file.name)
        assert stamp_of(seen) == stamp_of(st)
        assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (file.mode, file.mtime_ns)
        assert read(fs, file.name) == bytes(file.data)[: 1 << 20]


@pytest.mark.parametrize("wrong", [
    NewFile(b"taken", b"mine", 0o600, 0),
    NewFile(b"no/such", b"", 0o600, 0),
    NewFile(b"x" * 256, b"", 0o600, 0),
    NewFile(b"late", b"", 0o600, 1 << 100),
])  # fmt: skip
def test_of_many_files_all_are_made_or_none(fs: RealFS, wrong: NewFile) -> None:
    write(fs, b"taken", b"theirs")
    before = os.listdir("/proc/self/fd")
    assert make(fs, [*MANY, wrong]) is None
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert [name for name, _ in fs.scandir(b"")] == [b"taken"]
    assert read(fs, b"taken") == b"theirs"


def test_no_file_is_made_in_a_directory_that_is_gone(fs: RealFS) -> None:
    assert fs.make_many(b"gone", MANY).result() is None


@pytest.mark.skipif(fs_module._files is None, reason="it is not compiled")
def test_files_that_nobody_waits_for_are_made_all_the_same(fs: RealFS) -> None:
    """Of memory that nobody else holds any more; nothing is left open."""
    before = os.listdir("/proc/self/fd")
    for number in range(20):
        name = b"made%d" % number
        fs.make_many(b"", [NewFile(name, bytearray(b"%d" % number) * 100_000, 0o600, 0)])
    assert len(os.listdir("/proc/self/fd")) == len(before)
    for number in range(20):
        assert read(fs, b"made%d" % number) == (b"%d" % number * 100_000)[: 1 << 20]


@pytest.mark.skipif(fs_module._files is None, reason="it is not compiled")
def test_many_files_move_where_their_names_are_free(fs: RealFS) -> None:
    fs.mkdir(b"from", 0o755)
    fs.mkdir(b"to", 0o755)
    for number in range(5):
        write(fs, b"from/%d" % number, b"%d" % number)
    write(fs, b"to/c", b"theirs")
    names = [(b"0", b"a"), (b"absent", b"b"), (b"2", b"c"), (b"3", b"x" * 256), (b"4", b"e")]
    moved = fs.move_many(b"from", b"to", names)
    assert [st is not None for st in moved] == [True, False, False, False, True]
    for (old, new), st in zip(names, moved, strict=True):
        if st is not None:
            assert stamp_of(st) == stamp_of(fs.lstat(b"to/" + new))
            assert read(fs, b"to/" + new) == old
    assert {name for name, _ in fs.scandir(b"from")} == {b"1", b"2", b"3"}
    assert read(fs, b"to/c") == b"theirs"


def test_nothing_moves_into_a_directory_that_is_none(fs: RealFS) -> None:
    fs.mkdir(b"from", 0o755)
    write(fs, b"from/x", b"x")
    write(fs, b"file", b"")
    fs.symlink(b"from", b"link")
    for target in (b"file", b"link", b"gone"):
        assert fs.move_many(b"from", target, [(b"x", b"y")]) == [None]
    assert read(fs, b"from/x") == b"x"


def test_a_path_never_leads_through_a_symlink(fs: RealFS, tmp_path: Path) -> None:
    """4.5: symlink then file through it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (tmp_path / "root" / "link").symlink_to(outside)
    attempts = [
        lambda: fs.open_read(b"link/secret"),
        lambda: fs.read_small(b"link/secret", 100),
        lambda: fs.create(b"link/new"),
        lambda: fs.lstat(b"link/secret"),
        lambda: fs.unlink(b"link/secret"),
        lambda: fs.mkdir(b"link/d", 0o755),
        lambda: fs.scandir(b"link"),
        lambda: fs.chmod(b"link/secret", 0o777),
        lambda: fs.utime(b"link/secret", 0),
        lambda: fs.rename(b"link/secret", b"stolen", Rename.KEEP),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match=r"."):
            attempt()
    assert [p.name for p in outside.iterdir()] == ["secret"]


def test_the_last_part_is_not_followed_either(fs: RealFS, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    outside.chmod(0o600)
    (tmp_path / "root" / "link").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic"):
        fs.open_read(b"link")
    with pytest.raises(OSError, match="symbolic"):
        fs.read_small(b"link", 100)
    with pytest.raises(OSError, match="symbolic"):
        fs.chmod(b"link", 0o777)
    fs.utime(b"link", 0)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert outside.stat().st_mtime_ns > 0
    assert fs.readlink(b"link") == os.fsencode(outside)


def test_fifos_are_not_opened(fs: RealFS, tmp_path: Path) -> None:
    """It would wait for a writer for ever."""
    os.mkfifo(tmp_path / "root" / "pipe")
    for attempt in (lambda: fs.open_read(b"pipe"), lambda: fs.read_small(b"pipe", 100)):
        with pytest.raises(OSError, match="not a regular file") as caught:
            attempt()
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(("size", "limit"), [(0, 0), (10, 10), (70_000, 1 << 20), (11, 10)])
def test_a_small_file_is_read_between_two_looks(fs: RealFS, size: int, limit: int) -> None:
    write(fs, b"d", b"x" * size)
    data, before, after = fs.read_small(b"d", limit)
    assert data == (b"x" * size if size <= limit else b"")
    assert before == after == fs.lstat(b"d")


def test_rename_keeps_what_is_there(fs: RealFS) -> None:
    write(fs, b"a", b"1")
    write(fs, b"b", b"2")
    with pytest.raises(FileExistsError):
        fs.rename(b"a", b"b", Rename.KEEP)
    assert read(fs, b"b") == b"2"
    fs.rename(b"a", b"c", Rename.KEEP)
    assert read(fs, b"c") == b"1"
    fs.rename(b"c", b"b", Rename.EXCHANGE)
    assert (read(fs, b"b"), read(fs, b"c")) == (b"1", b"2")
    fs.rename(b"b", b"c", Rename.REPLACE)
    assert read(fs, b"c") == b"1"


def test_rename_keeps_without_the_kernels_help(fs: RealFS, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(fs_module, "renameat2", refuse)
    write(fs, b"a", b"1")
    write(fs, b"b", b"2")
    with pytest.raises(FileExistsError):
        fs.rename(b"a", b"b", Rename.KEEP)
    assert (read(fs, b"a"), read(fs, b"b")) == (b"1", b"2")
    fs.rename(b"a", b"c", Rename.KEEP)
    assert read(fs, b"c") == b"1"
    fs.mkdir(b"d", 0o755)
    fs.rename(b"d", b"e", Rename.KEEP)
    with pytest.raises(FileExistsError):
        fs.rename(b"e", b"c", Rename.KEEP)
    with pytest.raises(OSError, match=r".") as caught:
        fs.rename(b"b", b"c", Rename.EXCHANGE)
    assert caught.value.errno == errno.ENOTSUP


def test_what_stands_in_the_way_of_our_own_files_is_said_of_the_folder(
    fs: RealFS, tmp_path: Path
) -> None:
    """Their names are made up: with them the same trouble would be another text at each try."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    fs.mkdir(b".dblike", 0o700)
    fs.create(b".dblike/first").close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="open files") as caught:
            fs.create(b".dblike/tick-0123")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert caught.value.filename == os.fsencode(tmp_path / "root")


_FEW = """
import os, resource, sys
from pathlib import Path
from dblike_cli.realfs import RealFS

used = len(os.listdir("/proc/self/fd"))
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (2 * used + 64, hard))
fs = RealFS(Path(sys.argv[1]))
for number in range(300):
    fs.mkdir(b"%d" % number, 0o700)
    fs.create(b"%d/f" % number).close()
assert all(fs.lstat(b"%d/f" % number) for number in range(300))
"""


def test_few_descriptors_are_enough_for_many_directories(tmp_path: Path) -> None:
    """In a process of its own: what other tests left open would count."""
    subprocess.run([sys.executable, "-c", _FEW, tmp_path], check=True)


def test_deep_and_many_directories(fs: RealFS) -> None:
    """Depth, and more directories than descriptors are kept."""
    path = b"/".join([b"d"] * 1000)
    for depth in range(1000):
        fs.mkdir(path[: 2 * depth + 1], 0o755)
    write(fs, path + b"/x", b"deep")
    for number in range(500):
        fs.mkdir(b"m%d" % number, 0o755)
        write(fs, b"m%d/x" % number, b"%d" % number)
    assert all(read(fs, b"m%d/x" % number) == b"%d" % number for number in range(500))
    assert read(fs, path + b"/x") == b"deep"
    assert len(os.listdir("/proc/self/fd")) < 400
    fs.unlink(path + b"/x")
    for depth in range(999, -1, -1):  # pytest's own cleaning up does not go so deep
        fs.rmdir(path[: 2 * depth + 1])


@pytest.mark.parametrize("anew", [RealFS.refresh, RealFS.forget])
def test_a_directory_that_was_replaced_is_seen_anew(
    fs: RealFS, tmp_path: Path, anew: Callable[[RealFS], None]
) -> None:
    fs.mkdir(b"d", 0o755)
    write(fs, b"d/x", b"old")
    (tmp_path / "root" / "d").rename(tmp_path / "moved")
    (tmp_path / "root" / "d").mkdir()
    anew(fs)
    assert fs.scandir(b"d") == []


def test_a_root_that_was_replaced_is_seen_after_refresh_alone(fs: RealFS, tmp_path: Path) -> None:
    """What is under way goes on where it began: the name may be a mount point by now."""
    write(fs, b"x", b"x")
    (tmp_path / "root").rename(tmp_path / "moved")
    (tmp_path / "root").mkdir()
    fs.forget()
    assert read(fs, b"x") == b"x"
    fs.refresh()
    assert fs.scandir(b"") == []


def test_identity_follows_the_name(fs: RealFS, tmp_path: Path) -> None:
    """Another directory in the root's place is another root."""
    before = fs.identity()
    (tmp_path / "root").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        fs.identity()
    (tmp_path / "root").mkdir()
    assert fs.identity() != before


def test_files_are_copied_in_ranges(fs: RealFS) -> None:
    write(fs, b"a", bytes(range(256)) * 100)
    source, target = fs.open_read(b"a"), fs.create(b"b")
    target.write(b"head")
    target.copy_from(source, 256, 512)
    target.copy_from(source, 25_590, 10)
    with pytest.raises(OSError, match="shorter"):
        target.copy_from(source, 25_590, 11)
    source.close()
    target.close()
    data = read(fs, b"b")
    assert data[:4] == b"head"
    assert data[4:516] == bytes(range(256)) * 2
    assert data[516:526] == bytes(range(246, 256))


def test_permissions_and_times(fs: RealFS) -> None:
    write(fs, b"a", b"")
    fs.chmod(b"a", 0o000)
    fs.chmod(b"a", 0o751)
    fs.utime(b"a", 1_234_567_890_123_456_789)
    st = fs.lstat(b"a")
    assert stat.S_IMODE(st.st_mode) == 0o751
    assert st.st_mtime_ns == 1_234_567_890_123_456_789
