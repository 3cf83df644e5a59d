"""The file system beneath the folder: what it never leaves, never follows and never replaces."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dblike_cli import realfs as fs_module
from dblike_cli.fs import Rename
from dblike_cli.realfs import RealFS


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
    """I26: it would wait for a writer for ever."""
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


def test_deep_and_many_directories(fs: RealFS) -> None:
    """I26: depth, and more directories than descriptors are kept."""
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


def test_a_directory_that_was_replaced_is_seen_after_refresh(fs: RealFS, tmp_path: Path) -> None:
    fs.mkdir(b"d", 0o755)
    write(fs, b"d/x", b"old")
    (tmp_path / "root" / "d").rename(tmp_path / "moved")
    (tmp_path / "root" / "d").mkdir()
    fs.refresh()
    assert fs.scandir(b"d") == []


def test_identity_follows_the_name(fs: RealFS, tmp_path: Path) -> None:
    """F10: another directory in the root's place is another root."""
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
