"""`dblike watch`: real clients that watch, servers that come and go, processes that are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Spawn
from rig.programs import PROGRAM, Program, run, same, wait_until, wait_until_same
from rig.proxy import Proxy
from rig.servers import PASSWORD, Server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may kill."""
    made = Server(tmp_path / "site")
    yield made
    made.stop()


@pytest.fixture
def pair(own_server: Server, tmp_path: Path, spawn: Spawn) -> tuple[Program, Program]:
    """Two devices of one user at that server."""
    user = own_server.add_user()
    one, two = (
        Program.link(tmp_path / name, own_server.url, user, PASSWORD, spawn)
        for name in ("one", "two")
    )
    return one, two


def test_what_is_saved_here_appears_there(laptop: Program, desktop: Program) -> None:
    first, second = laptop.watch(), desktop.watch()
    laptop.write("a", "from the laptop")
    second.wait_for("download", path="a")
    desktop.write("docs/b", "from the desktop")
    first.wait_for("download", path="docs/b")
    assert same(laptop, desktop)
    (laptop.root / "docs").rename(laptop.root / "papers")
    wait_until_same(laptop, desktop, also=lambda tree: "papers/b" in tree and "docs" not in tree)
    (laptop.root / "a").unlink()
    second.wait_for("delete-local", path="a")
    assert (first.end(), second.end()) == (0, 0)
    assert laptop.json("status")["in_sync"]


def test_a_renamed_directory_is_a_rename_there(laptop: Program, desktop: Program) -> None:
    names = [f"{number}/{file}" for number in range(200) for file in "ab"]
    for name in names:
        laptop.write(f"old/{name}", name)
    first = laptop.watch()
    desktop.watch()
    wait_until_same(laptop, desktop)
    inodes = [(desktop.root / "old" / name).stat().st_ino for name in names]
    first.forget()
    (laptop.root / "old").rename(laptop.root / "new")
    wait_until_same(laptop, desktop, also=lambda tree: "new" in tree and "old" not in tree)
    first.wait_for("delete-remote", path="old")
    events = [said["event"] for said in first.said]
    assert "upload" not in events[events.index("delete-remote") :]
    assert inodes == [(desktop.root / "new" / name).stat().st_ino for name in names]


def test_all_kinds_of_edits(laptop: Program, desktop: Program, tmp_path: Path) -> None:
    laptop.watch()
    desktop.watch()
    root = laptop.root
    (root / "empty" / "deep" / "er").mkdir(parents=True)
    (root / "link").symlink_to("elsewhere")
    os.close(os.open(os.path.join(os.fsencode(root), b"caf\xe9"), os.O_CREAT))
    wait_until_same(laptop, desktop, also=lambda tree: len(tree) == 5)
    (root / "link").unlink()
    (root / "link").mkdir()
    (root / "empty" / "deep" / "er").rmdir()
    (root / "empty" / "deep" / "er").write_text("now a file")
    (root / "new").write_text("1")
    (root / "new").rename(root / "link" / "moved")
    outside = tmp_path / "outside" / "sub"
    outside.mkdir(parents=True)
    (outside / "file").write_text("2")
    outside.parent.rename(root / "inside")
    wait_until_same(laptop, desktop, also=lambda tree: "inside/sub/file" in tree)
    shutil.rmtree(root / "inside")
    (root / "link" / "moved").chmod(0o640)
    mode = desktop.root / "link" / "moved"
    wait_until(lambda: mode.exists() and mode.stat().st_mode & 0o777 == 0o640, "the chmod")
    wait_until_same(laptop, desktop, also=lambda tree: "inside" not in tree)


def test_a_file_that_is_still_written_arrives_whole(laptop: Program, desktop: Program) -> None:
    laptop.watch()
    desktop.watch()
    whole = os.urandom(1 << 20)
    with (laptop.root / "growing").open("wb") as file:
        for at in range(0, len(whole), 1 << 16):
            file.write(whole[at : at + (1 << 16)])
            file.flush()
    wait_until_same(laptop, desktop, also=lambda tree: tree.get("growing") == whole)


def test_an_open_file_goes_up_without_being_closed(laptop: Program, desktop: Program) -> None:
    laptop.watch()
    desktop.watch()
    with (laptop.root / "log").open("wb") as file:
        file.write(b"a line\n")
        file.flush()
        wait_until_same(laptop, desktop, also=lambda tree: tree.get("log") == b"a line\n")
        file.write(b"another\n")
        file.flush()
        wait_until_same(laptop, desktop, also=lambda tree: tree["log"].endswith(b"another\n"))


def test_two_edits_of_one_file_leave_a_copy_on_both(laptop: Program, desktop: Program) -> None:
    laptop.write("a.txt", "base")
    laptop.ok("sync")
    desktop.ok("sync")
    laptop.write("a.txt", "laptop's")
    desktop.write("a.txt", "desktop's")
    laptop.watch()
    desktop.watch()
    wait_until_same(laptop, desktop, also=lambda tree: len(tree) == 2)
    assert sorted(laptop.tree().values()) == [b"desktop's", b"laptop's"]


def test_own_writes_are_no_news(laptop: Program, desktop: Program) -> None:
    """What a device took comes back to it as events, and goes nowhere from there."""
    first, second = laptop.watch(), desktop.watch()
    for number in range(20):
        laptop.write(f"f{number}", os.urandom(1000))
    wait_until_same(laptop, desktop, also=lambda tree: len(tree) == 20)
    laptop.write("last", "x")
    second.wait_for("download", path="last")
    first.end()
    second.end()
    assert not [said for said in second.said if said["event"] == "upload"]
    assert not [said for said in first.said if said["event"] == "download"]


def test_the_server_goes_and_comes(own_server: Server, pair: tuple[Program, Program]) -> None:
    one, two = pair
    first, second = one.watch(), two.watch()
    own_server.stop()
    one.write("a", "1")
    first.wait_for("paused", exit_code=5)
    two.write("b", "2")
    second.wait_for("paused", exit_code=5)
    own_server.start()
    first.wait_for("resumed")
    second.wait_for("resumed")
    wait_until_same(one, two, also=lambda tree: set(tree) == {"a", "b"})


def test_the_server_is_killed_under_load(own_server: Server, pair: tuple[Program, Program]) -> None:
    one, two = pair
    one.watch()
    two.watch()
    for number in range(200):
        one.write(f"d{number % 7}/f{number}", os.urandom(2000))
        if number in (50, 120):
            own_server.kill()
        if number in (80, 150):
            own_server.start()
    wait_until_same(one, two, also=lambda tree: len(tree) == 207)


@pytest.mark.parametrize("round_", range(3))
def test_a_killed_watch_goes_on(laptop: Program, desktop: Program, round_: int) -> None:
    desktop.watch()
    first = laptop.watch()
    for number in range(60):
        laptop.write(f"f{number}", os.urandom(5000))
        if number == 10 + 15 * round_:
            first.end(signal.SIGKILL)
    laptop.watch()
    wait_until_same(laptop, desktop, also=lambda tree: len(tree) == 60)


def test_a_taker_that_is_killed_goes_on(laptop: Program, desktop: Program) -> None:
    for number in range(100):
        laptop.write(f"f{number}", os.urandom(20_000))
    laptop.ok("push")
    second = desktop.start_watch()
    second.wait_for("download")
    second.end(signal.SIGKILL)
    desktop.watch()
    wait_until_same(laptop, desktop)
    assert desktop.json("status")["in_sync"]


def test_a_machine_that_slept(own_server: Server, pair: tuple[Program, Program]) -> None:
    """Its connections are gone when it wakes up, and all that happened meanwhile crosses."""
    one, two = pair
    sleeper, other = one.watch(), two.watch()
    sleeper.process.send_signal(signal.SIGSTOP)
    own_server.kill()
    other.wait_for("paused")
    own_server.start()
    two.write("there", "while one slept")
    one.write("here", "as it fell asleep")
    other.wait_for("upload", path="there")
    sleeper.process.send_signal(signal.SIGCONT)
    wait_until_same(one, two, also=lambda tree: {"here", "there"} <= tree.keys())
    assert (sleeper.end(), other.end()) == (0, 0)


def test_the_second_watch_hears_of_the_first(laptop: Program) -> None:
    first = laptop.watch()
    for words in (("watch",), ("sync",), ("push",)):
        done = laptop.run(*words)
        assert done.returncode == 11
        assert f"process {first.process.pid}," in done.stderr
    assert laptop.json("status")["busy"] == f"dblike watch, process {first.process.pid},"
    first.end()
    laptop.ok("sync")


def test_a_conflict_is_settled_beside_a_watch(laptop: Program, desktop: Program) -> None:
    laptop.write("a.txt", "laptop's")
    desktop.write("a.txt", "desktop's")
    laptop.ok("sync")
    watch = desktop.start_watch()
    wait_until(lambda: len(desktop.tree()) == 2, "the conflict copy")
    watch.wait_for("status", in_sync=True)
    theirs = next(text for path, text in desktop.tree().items() if path != "a.txt")
    laptop.watch()
    desktop.ok("resolve", str(desktop.root / "a.txt"), "--theirs")
    wait_until_same(laptop, desktop, also=lambda tree: tree == {"a.txt": theirs})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_watch_ends_when_asked(laptop: Program, number: int) -> None:
    assert laptop.watch().end(number) == 0


def test_a_watch_ends_when_asked_in_the_middle(laptop: Program) -> None:
    """An upload that the limit makes last for minutes."""
    laptop.write("big", os.urandom(4 << 20))
    watch = laptop.start_watch("--bwlimit", "100k")
    wait_until(lambda: laptop.json("status", code=3)["busy"], "the lock")
    assert watch.end() == 0
    laptop.ok("sync")


def test_a_push_that_is_interrupted(laptop: Program) -> None:
    laptop.write("big", os.urandom(4 << 20))
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        command = ("-C", str(laptop.root), "push", "--bwlimit", "100k")
        process = laptop.spawn(*PROGRAM, *command, stderr=-1)
        wait_until(lambda: laptop.json("status", code=3)["busy"], "the lock")
        process.send_signal(number)
        assert process.wait(30) == code
    laptop.ok("push")


def test_revoked_while_watching_and_back(
    laptop: Program, desktop: Program, server: Server, user: str
) -> None:
    watch = laptop.watch()
    mine = next(d["id"] for d in laptop.json("devices") if d["current"])
    desktop.ok("devices", "--revoke", mine)
    laptop.write("a", "1")
    watch.wait_for("paused", exit_code=10)
    words = ("init", server.url, str(laptop.root), "--user", user, "--password-stdin")
    assert run(*words, text=PASSWORD).returncode == 0
    watch.wait_for("resumed")
    desktop.ok("sync")
    assert desktop.tree() == {"a": b"1"}


def test_a_full_disk_pauses_and_resumes(
    laptop: Program, server: Server, user: str, spawn: Spawn, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        other = Program.link(small / "files", server.url, user, PASSWORD, spawn)
        watch = other.watch()
        (small / "ballast").write_bytes(bytes(2_000_000))
        laptop.write("big", os.urandom(1_500_000))
        laptop.ok("push")
        watch.wait_for("pending", path="big", code="no-space")
        assert "big" not in other.tree()
        (small / "ballast").unlink()
        wait_until_same(laptop, other)
        assert watch.end() == 0
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_disk_that_goes_and_comes(laptop: Program, desktop: Program, tmp_path: Path) -> None:
    """The mount point stays, empty; what is there in the end is another directory to the kernel."""
    watch = laptop.watch()
    laptop.write("a", "1")
    watch.wait_for("upload", path="a")
    root, away, back = laptop.root, tmp_path / "away", tmp_path / "back"
    root.rename(away)
    root.mkdir()
    watch.wait_for("paused", exit_code=8)
    assert list(root.iterdir()) == []
    shutil.copytree(away, back)
    back.rename(root)
    watch.wait_for("resumed")
    watch.forget()
    laptop.write("b", "2")
    watch.wait_for("upload", path="b")
    busy = laptop.json("status", code=0)["busy"]
    assert busy == f"dblike watch, process {watch.process.pid},"
    desktop.ok("sync")
    assert desktop.tree() == {"a": b"1", "b": b"2"}
    assert watch.end() == 0


def test_no_websocket_costs_only_time(
    own_server: Server, tmp_path: Path, spawn: Spawn, pair: tuple[Program, Program]
) -> None:
    """A proxy that cuts every WebSocket: changes still come, by asking."""
    one, two = pair
    host, _, port = own_server.url[7:].partition(":")
    proxy = Proxy((host, int(port)))
    two.ok("config", "servers", proxy.url)
    watch = two.watch()
    one.write("a", "1")
    one.ok("push")
    watch.wait_for("download", path="a")
    watch.end()
    proxy.close()
