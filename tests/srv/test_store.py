"""One suite for every pack store: enrol another one by adding a line to STORES."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dblike_srv.store import spool
from dblike_srv.store.base import PackStore
from dblike_srv.store.local import LocalStore
from dblike_srv.store.mem import MemoryStore
from dblike_srv.store.s3 import S3Store
from rig.core_site import SeededRandom
from rig.seaweed import BUCKET

NAME, OTHER = b"\1" * 32, b"\2" * 32
Make = Callable[[Path, pytest.FixtureRequest], PackStore]
STORES: dict[str, Make] = {
    "mem": lambda *_: MemoryStore(),
    "local": lambda directory, _: LocalStore(directory, SeededRandom()),
    "s3": lambda directory, request: s3_store(directory, request.getfixturevalue("seaweed").url),
}


def s3_store(directory: Path, endpoint: str) -> S3Store:
    """A store below a prefix of its own."""
    return S3Store(f"s3://{BUCKET}/{directory.name}", endpoint, directory / "tmp", SeededRandom())


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PackStore:
    return STORES[request.param](tmp_path, request)


def put(store: PackStore, name: bytes, *pieces: bytes) -> None:
    writer = store.writer()
    for piece in pieces:
        writer.write(piece)
    writer.commit(name)


def test_what_was_put_can_be_read_in_ranges(store: PackStore) -> None:
    put(store, NAME, b"hello ", b"", b"world")
    assert store.size(NAME) == 11
    assert store.read(NAME, 0, 11) == b"hello world"
    assert store.read(NAME, 4, 3) == b"o w"
    assert store.read(NAME, 11, 0) == b""
    assert list(store.names()) == [NAME]


def test_a_pack_has_no_name_before_its_commit(store: PackStore) -> None:
    writer = store.writer()
    writer.write(b"x" * (3 << 20))
    assert writer.size == 3 << 20
    assert list(store.names()) == []
    writer.abort()
    assert list(store.names()) == []


def test_a_writer_reads_what_it_wrote(store: PackStore) -> None:
    writer = store.writer()
    writer.write(b"abc")
    writer.write(b"d" * (2 << 20))
    writer.write(memoryview(b"efg"))
    assert writer.read(2, 2) == b"cd"
    assert writer.read(writer.size - 3, 3) == b"efg"
    writer.abort()


def test_the_buffer_written_from_may_change_afterwards(store: PackStore) -> None:
    writer, buffer = store.writer(), bytearray(b"first")
    writer.write(buffer)
    buffer[:] = b"other"
    writer.commit(NAME)
    assert store.read(NAME, 0, 5) == b"first"


def test_the_same_pack_may_come_twice(store: PackStore) -> None:
    put(store, NAME, b"same")
    put(store, NAME, b"same")
    assert store.read(NAME, 0, 4) == b"same"
    assert list(store.names()) == [NAME]


def test_abort_after_commit_undoes_nothing(store: PackStore) -> None:
    writer = store.writer()
    writer.write(b"kept")
    writer.commit(NAME)
    writer.abort()
    assert store.read(NAME, 0, 4) == b"kept"


def test_a_file_of_the_host_can_be_adopted(store: PackStore, tmp_path: Path) -> None:
    source = tmp_path / "upload"
    source.write_bytes(b"adopted")
    store.adopt(source, NAME)
    store.settle(NAME)
    assert store.read(NAME, 0, 7) == b"adopted"
    assert not source.exists()


def test_absent_packs_are_told_from_failures(store: PackStore) -> None:
    put(store, NAME, b"short")
    with pytest.raises(FileNotFoundError):
        store.read(OTHER, 0, 1)
    with pytest.raises(FileNotFoundError):
        store.size(OTHER)
    with pytest.raises(OSError, match="ends"):
        store.read(NAME, 3, 3)
    with pytest.raises(OSError, match="ends"):
        store.read(NAME, 9, 1)


def test_delete_is_final_and_may_be_repeated(store: PackStore) -> None:
    put(store, NAME, b"one")
    put(store, OTHER, b"two")
    assert store.read(NAME, 0, 3) == b"one"
    store.delete(NAME)
    store.delete(NAME)
    with pytest.raises(FileNotFoundError):
        store.read(NAME, 0, 3)
    assert list(store.names()) == [OTHER]


def test_a_store_that_works_says_so(store: PackStore) -> None:
    store.check()


def test_what_a_killed_writer_left_goes(store: PackStore) -> None:
    put(store, NAME, b"kept")
    writer = store.writer()
    writer.write(b"x" * (2 << 20))
    soon = time.time_ns() // 1_000_000 + 60_000
    assert store.tidy(soon - 2 * 3_600_000) == 0
    assert store.tidy(soon) == (0 if isinstance(store, MemoryStore) else 1)
    assert store.read(NAME, 0, 4) == b"kept"
    writer.abort()


def test_a_pack_that_was_replaced_on_disk_is_read_anew(tmp_path: Path) -> None:
    """Another process healed it: what is read must not be the damaged file."""
    store = LocalStore(tmp_path, SeededRandom())
    put(store, NAME, b"sound")
    store.path(NAME).write_bytes(b"rotte")
    assert store.read(NAME, 0, 5) == b"rotte"
    put(LocalStore(tmp_path, SeededRandom(2)), NAME, b"sound")
    assert store.read(NAME, 0, 5) == b"sound"


def test_adopting_works_from_another_file_system(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    source = shm / f"dblike-test-{tmp_path.name}-{SeededRandom().bytes(4).hex()}"
    source.write_bytes(b"from afar")
    store = LocalStore(tmp_path, SeededRandom())
    store.adopt(source, NAME)
    assert store.read(NAME, 0, 9) == b"from afar"
    assert not source.exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_writer_that_gets_no_thread_lets_go_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    monkeypatch.setattr(spool, "_THREADS", threads)
    open_files = len(os.listdir("/proc/self/fd"))
    writer = LocalStore(tmp_path, SeededRandom()).writer()
    with pytest.raises(RuntimeError):
        writer.write(bytes(2 << 20))
    writer.abort()
    assert len(os.listdir("/proc/self/fd")) == open_files
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_pack_is_synced_before_it_has_its_name(tmp_path: Path) -> None:
    """strace sees the order: fsync of the file, rename, fsync of the directory."""
    import shutil
    import subprocess
    import sys

    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    script = (
        "from pathlib import Path\n"
        "from dblike_delta.seams import SystemRandom\n"
        "from dblike_srv.store.local import LocalStore\n"
        f"w = LocalStore(Path({str(tmp_path)!r}), SystemRandom()).writer()\n"
        "w.write(b'x'); w.commit(b'\\1' * 32)\n"
    )
    trace = tmp_path / "trace"
    calls = "trace=fsync,rename,renameat,renameat2"
    command = ["strace", "-f", "-e", calls, "-o", str(trace), sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    names = [
        line.split("(")[0].split()[-1] for line in trace.read_text().splitlines() if "(" in line
    ]
    kinds = ["rename" if name.startswith("rename") else name for name in names]
    # mkdir of the shard is synced first, or in between: what counts is what surrounds the rename.
    at = kinds.index("rename")
    assert "fsync" in kinds[:at]
    assert "fsync" in kinds[at + 1 :]
