"""One-shot commands: real clients and a real server, round after round."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from conftest import Spawn
from rig.programs import PROGRAM, Program, run, same
from rig.proxy import FINE, Fault, proxied
from rig.servers import PASSWORD, Server

LOST_RESTORE = Fault(lose_reply_to=(b"/restore ",))


def test_init_push_clone(laptop: Program, tmp_path: Path, server: Server, user: str) -> None:
    laptop.write("docs/report.txt", "one")
    laptop.write("empty", b"")
    (laptop.root / "none").mkdir()
    (laptop.root / "link").symlink_to("docs/report.txt")
    os.mkdir(os.path.join(os.fsencode(laptop.root), b"caf\xe9"))
    laptop.ok("push")
    clone = tmp_path / "clone"
    done = run("clone", server.url, str(clone), "--user", user, "--password-stdin", text=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert Program(clone, laptop.spawn).tree() == laptop.tree()


def test_a_terminal_shows_how_far_it_is(laptop: Program, desktop: Program) -> None:
    laptop.write("large", os.urandom(3_000_000))
    laptop.ok("push")
    seen = on_a_terminal("-C", str(desktop.root), "pull", "--bwlimit", "1M")
    assert b"download" in seen
    assert desktop.tree() == laptop.tree()


def on_a_terminal(*words: str) -> bytes:
    """What a command that ends well shows there."""
    ours, theirs = pty.openpty()
    command, env = [*PROGRAM, *words], {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = bytearray()
        with contextlib.suppress(OSError):  # as a terminal ends
            while piece := os.read(ours, 4096):
                seen += piece
    os.close(ours)
    assert process.returncode == 0, seen
    return bytes(seen)


def test_changes_travel_both_ways(laptop: Program, desktop: Program) -> None:
    laptop.write("a", "1")
    laptop.write("gone", "1")
    laptop.ok("sync")
    desktop.ok("sync")
    assert same(laptop, desktop)
    laptop.write("a", "2")
    (laptop.root / "gone").unlink()
    desktop.write("b", "3")
    laptop.ok("push")
    desktop.ok("sync")
    laptop.ok("pull")
    assert laptop.tree() == desktop.tree() == {"a": b"2", "b": b"3"}


def test_push_only_sends_and_pull_only_takes(laptop: Program, desktop: Program) -> None:
    laptop.write("a", "1")
    desktop.write("b", "2")
    laptop.ok("push")
    desktop.ok("push")
    assert "b" not in laptop.tree()
    desktop.ok("pull")
    assert desktop.tree() == {"a": b"1", "b": b"2"}
    laptop.write("c", "3")
    laptop.ok("pull")
    desktop.ok("pull")
    assert "c" not in desktop.tree()


def test_a_dry_run_changes_nothing(laptop: Program, desktop: Program) -> None:
    laptop.write("a", "1")
    planned = laptop.json("push", "--dry-run")["planned"]
    assert [(step["action"], step["path"]) for step in planned] == [("upload", "a")]
    assert desktop.json("ls") == []
    laptop.ok("push")
    planned = desktop.json("pull", "-n")["planned"]
    assert [(step["action"], step["path"]) for step in planned] == [("download", "a")]
    assert desktop.tree() == {}


def test_a_path_alone(laptop: Program, desktop: Program) -> None:
    laptop.write("docs/a", "1")
    laptop.write("b", "2")
    laptop.ok("push", str(laptop.root / "docs"))
    desktop.ok("pull")
    assert desktop.tree() == {"docs": None, "docs/a": b"1"}


def test_a_conflict_makes_a_copy_on_both(laptop: Program, desktop: Program) -> None:
    laptop.write("report.txt", "base")
    laptop.ok("sync")
    desktop.ok("sync")
    laptop.write("report.txt", "from the laptop")
    desktop.write("report.txt", "from the desktop")
    laptop.ok("sync")
    assert desktop.run("sync").returncode == 3
    laptop.run("sync")
    assert same(laptop, desktop)
    tree = laptop.tree()
    assert sorted(tree.values()) == [b"from the desktop", b"from the laptop"]
    pairs = laptop.json("conflicts", code=3)
    assert [pair["ours"]["path"] for pair in pairs] == ["report.txt"]
    copy = pairs[0]["theirs"]["path"]
    assert copy.startswith("report (conflicted copy from ")

    theirs = tree[copy]
    laptop.ok("resolve", str(laptop.root / "report.txt"), "--theirs")
    desktop.ok("sync")
    assert laptop.tree() == desktop.tree() == {"report.txt": theirs}
    assert laptop.json("conflicts") == []


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("--ours", "kept that of {winner}, .*; dropped that of {copy}, "),
        ("--theirs", "kept that of {copy}, .*; dropped that of {winner}, "),
        ("--both", "kept both, that of {winner}, .* and that of {copy}, "),
    ],
)
def test_whose_edit_is_dropped_is_said(
    laptop: Program, desktop: Program, choice: str, said: str
) -> None:
    laptop.write("a.txt", "laptop")
    desktop.write("a.txt", "desktop")
    laptop.ok("sync")
    desktop.run("sync")
    tree = desktop.tree()
    winner = tree["a.txt"].decode()
    copy = next(content.decode() for path, content in tree.items() if path != "a.txt")
    done = desktop.ok("resolve", str(desktop.root / "a.txt"), choice)
    assert re.search("a.txt: " + said.format(winner=winner, copy=copy), done), done


def test_a_copy_does_not_replace_a_directory(laptop: Program, desktop: Program) -> None:
    laptop.write("a", "1")
    desktop.write("a", "2")
    laptop.ok("sync")
    desktop.run("sync")
    (desktop.root / "a").unlink()
    desktop.write("a/inside", "3")
    desktop.run("sync")
    done = desktop.run("resolve", str(desktop.root / "a"), "--theirs")
    assert done.returncode == 1
    assert "rename or remove it, or" in done.stderr
    desktop.ok("resolve", str(desktop.root / "a"), "--both")
    assert sorted(desktop.tree()) == ["a", "a (2)", "a/inside"]


@pytest.mark.parametrize(
    ("choice", "kept"), [("--ours", ["a.txt"]), ("--both", ["a (2).txt", "a.txt"])]
)
def test_other_ways_to_settle(
    laptop: Program, desktop: Program, choice: str, kept: list[str]
) -> None:
    laptop.write("a.txt", "1")
    desktop.write("a.txt", "2")
    laptop.ok("sync")
    desktop.run("sync")
    copy = next(path for path in desktop.tree() if path != "a.txt")
    desktop.ok("resolve", str(desktop.root / copy), choice)
    laptop.ok("sync")
    assert sorted(laptop.tree()) == sorted(desktop.tree()) == kept


def test_resolve_drops_nothing_that_the_server_lacks(laptop: Program, desktop: Program) -> None:
    laptop.write("a.txt", "1")
    desktop.write("a.txt", "2")
    laptop.ok("sync")
    desktop.run("sync")
    copy = next(path for path in desktop.tree() if path != "a.txt")
    desktop.write(copy, "edited since")
    done = desktop.run("resolve", str(desktop.root / copy), "--ours")
    assert done.returncode == 1
    assert "sync` first" in done.stderr
    assert desktop.tree()[copy] == b"edited since"


def test_history_and_restore(laptop: Program, desktop: Program) -> None:
    laptop.write("docs/a", "one")
    laptop.ok("sync")
    laptop.write("docs/a", "two")
    laptop.ok("sync")
    (laptop.root / "docs" / "a").unlink()
    laptop.ok("sync")
    path = str(laptop.root / "docs" / "a")
    history = laptop.json_lines("log", path)
    assert [version["kind"] for version in history] == ["deleted", "file", "file"]
    assert laptop.ok("cat", path, "--version", history[2]["version"]) == "one"
    short = f"{history[1]['version'][:8]}.{history[1]['version'].partition('.')[2]}"
    assert laptop.ok("cat", path, "--version", short) == "two"
    laptop.ok("restore", path)
    assert laptop.tree()["docs/a"] == b"two"
    laptop.ok("restore", path, "--version", history[2]["version"], "--to", f"{path}.old")
    assert laptop.tree()["docs/a.old"] == b"one"
    desktop.ok("pull")
    assert same(laptop, desktop)


def test_ls_and_cat(laptop: Program) -> None:
    laptop.write("docs/a", "one")
    laptop.write("b", "two")
    laptop.ok("push")
    assert [entry["path"] for entry in laptop.json("ls")] == ["b", "docs"]
    assert [entry["path"] for entry in laptop.json("ls", "-R")] == ["b", "docs", "docs/a"]
    assert [entry["path"] for entry in laptop.json("ls", str(laptop.root / "docs"))] == ["docs/a"]
    assert laptop.ok("cat", str(laptop.root / "b")) == "two"
    assert laptop.run("cat", str(laptop.root / "none")).returncode == 4


def test_the_brake_holds_a_mass_delete(laptop: Program, desktop: Program) -> None:
    for number in range(120):
        laptop.write(f"f{number}", str(number))
    laptop.ok("sync")
    desktop.ok("sync")
    for number in range(100):
        (laptop.root / f"f{number}").unlink()
    done = laptop.run("sync")
    assert done.returncode == 8
    assert "--max-delete" in done.stderr
    desktop.ok("sync")
    assert len(desktop.tree()) == 120
    laptop.ok("sync", "--max-delete", "100")
    assert desktop.run("sync").returncode == 8, "nor are they taken without a word"
    desktop.ok("sync", "--max-delete", "90%")
    assert len(desktop.tree()) == 20


def test_what_is_ignored_stays_here(laptop: Program, desktop: Program) -> None:
    laptop.ok("ignore", "add", "*.o", "tmp/")
    laptop.write("a.o", "1")
    laptop.write("tmp/b", "2")
    laptop.write("c", "3")
    laptop.ok("sync")
    desktop.ok("sync")
    assert set(desktop.tree()) == {".dblikeignore", "c"}
    said = laptop.json("why", str(laptop.root / "a.o"))
    assert "*.o" in said["verdict"]
    assert "tmp/" in laptop.json("why", str(laptop.root / "tmp" / "b"))["verdict"]


def test_what_a_symlink_points_to_is_not_in_sync(laptop: Program, tmp_path: Path) -> None:
    """Else it would be believed to be safe."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a").write_text("precious")
    (laptop.root / "photos").symlink_to(photos)
    laptop.ok("sync")
    said = laptop.json("why", str(laptop.root / "photos" / "a"))
    assert said["verdict"] == "left out: photos is a symlink, and what it points to is not synced"
    assert said["local"] == ""
    assert laptop.run("why", str(laptop.root / "photos" / "b")).returncode == 4
    assert laptop.json("why", str(laptop.root / "photos"))["verdict"] == "in sync"


def test_why(laptop: Program, desktop: Program) -> None:
    laptop.write("a", "1")
    path = str(laptop.root / "a")
    assert "sends it" in laptop.json("why", path, code=3)["verdict"]
    laptop.ok("sync")
    said = laptop.json("why", path)
    assert said["verdict"] == "in sync"
    assert [event["action"] for event in said["events"]] == ["upload"]
    assert "brings it" in desktop.json("why", str(desktop.root / "a"), code=3)["verdict"]
    assert laptop.run("why", str(laptop.root / "none")).returncode == 4
    os.mkfifo(laptop.root / "pipe")
    assert "neither file" in laptop.json("why", str(laptop.root / "pipe"))["verdict"]


def test_what_is_never_synced_is_no_failure(laptop: Program) -> None:
    """A FIFO is listed, and that is all: a script would stop at it for ever."""
    os.mkfifo(laptop.root / "pipe")
    laptop.write("a", "1")
    assert "left out: pipe" in laptop.run("push", "--dry-run").stderr
    for words in (("push", "--dry-run"), ("sync",), ("status",), ("doctor",)):
        laptop.ok(*words)


def test_what_is_nowhere_is_exit_4(laptop: Program) -> None:
    laptop.write("a", "1")
    laptop.ok("sync")
    for words in (
        ("cat", "a", "--version", "zzz"),
        ("restore", "a", "--version", "12345678.1"),
        ("sync", "nope"),
        ("push", "--dry-run", "a", "typo/"),
    ):
        done = run(*words, cwd=laptop.root)
        assert done.returncode == 4, (words, done.stderr)
    (laptop.root / "a").unlink()
    assert laptop.json("sync", str(laptop.root / "a"))["deleted"] == [{"path": "a"}]


def test_a_path_that_is_on_the_server_alone_is_pulled(laptop: Program, desktop: Program) -> None:
    laptop.write("docs/a", "1")
    laptop.ok("sync")
    desktop.ok("pull", str(desktop.root / "docs" / "a"))
    assert desktop.tree() == laptop.tree()


def test_cat_shows_files_alone(laptop: Program) -> None:
    laptop.write("docs/versions", "of a poem")
    (laptop.root / "link").symlink_to("docs/versions")
    laptop.ok("sync")
    assert laptop.ok("cat", str(laptop.root / "docs/versions")) == "of a poem"
    for path in ("docs", "link"):
        done = laptop.run("cat", str(laptop.root / path))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{path} is a directory or a symlink" in done.stderr


def test_restore_of_what_is_there_says_so(laptop: Program) -> None:
    laptop.write("docs/a", "1")
    laptop.ok("sync")
    for path in ("docs", "docs/a"):
        done = laptop.run("restore", str(laptop.root / path))
        assert done.returncode == 2
        assert "is there" in done.stderr
        assert "--version" in done.stderr
    assert laptop.run("restore", str(laptop.root / "none")).returncode == 4


@pytest.mark.parametrize("how", ["", "--version", "--at", "--to"])
def test_a_restore_whose_answer_is_lost_is_brought_here(
    laptop: Program, server: Server, how: str
) -> None:
    """The client asks again, and by then all of it is there."""
    laptop.write("docs/a", "1")
    laptop.ok("sync")
    a, docs, copy = (str(laptop.root / path) for path in ("docs/a", "docs", "copy"))
    made = laptop.json_lines("log", a)[0]
    shutil.rmtree(docs)
    laptop.ok("sync")
    words = {
        "": (docs,),
        "--version": (a, how, made["version"]),
        "--at": (docs, how, f"@{(made['time'] + 1) / 1000}"),
        "--to": (docs, how, copy),
    }[how]
    with proxied(server.url, lambda _: FINE if proxy.lost else LOST_RESTORE) as proxy:
        laptop.ok("config", "servers", proxy.url)
        assert laptop.ok("restore", *words) == "it is so already\n"
        assert proxy.lost == 1
        if how == "--to":
            assert laptop.tree() == {"copy": None, "copy/a": b"1"}
            return
        assert laptop.tree() == {"docs": None, "docs/a": b"1"}
        again = laptop.run("restore", *words)
        assert (again.returncode, "is there" in again.stderr) == ((0, False) if how else (2, True))


def test_what_a_restore_did_not_bring_the_next_one_does(laptop: Program, desktop: Program) -> None:
    """As where it was killed between the answer and the pull."""
    laptop.write("docs/a", "1")
    laptop.write("docs/b", "2")
    laptop.ok("sync")
    desktop.ok("sync")
    (laptop.root / "docs" / "a").unlink()
    laptop.ok("sync")
    desktop.ok("sync")
    desktop.ok("restore", str(desktop.root / "docs"))
    laptop.ok("restore", str(laptop.root / "docs"))
    assert laptop.tree() == desktop.tree() == {"docs": None, "docs/a": b"1", "docs/b": b"2"}


def test_status_has_one_shape_also_where_no_server_is_reached(laptop: Program) -> None:
    """A program that asks for `pending` asks whatever the network is like."""
    os.mkfifo(laptop.root / "pipe")
    laptop.write("a", "1")
    laptop.ok("sync")
    near = laptop.json("status")
    laptop.ok("config", "servers", "http://127.0.0.1:1")
    away = laptop.json("status", code=5)
    assert away.keys() == near.keys()
    assert away["pending"] == near["pending"] != []
    assert (away["planned"], away["refused"], away["brake"]) == ([], [], None)
    assert (near["waiting"], away["waiting"]) == (0, 0)


def test_status(laptop: Program) -> None:
    laptop.write("a", "1")
    before = laptop.json("status", code=3)
    assert not before["in_sync"]
    assert [step["path"] for step in before["planned"]] == ["a"]
    laptop.ok("sync")
    assert laptop.json("status")["in_sync"]
    assert "in sync" in laptop.ok("status")


def test_a_bundle_carries_the_contents(laptop: Program, desktop: Program, tmp_path: Path) -> None:
    big = os.urandom(3 << 20)
    laptop.write("big", big)
    laptop.write("docs/a", "one")
    laptop.ok("sync")
    bundle = str(tmp_path / "files.bundle")
    assert laptop.json("bundle", "create", bundle)["files"] == 2
    said = desktop.json("bundle", "apply", bundle)
    assert desktop.tree() == laptop.tree()
    assert said["bytes"]["received"] < 100_000, "the contents did not come over the network"


def test_a_bundle_is_used_by_the_next_try(
    laptop: Program, desktop: Program, server: Server, tmp_path: Path
) -> None:
    """Where there are more sites, what one left half said is asked once more."""
    for number in range(400):
        laptop.write(f"f{number}", os.urandom(2000))
    laptop.ok("sync")
    bundle = str(tmp_path / "files.bundle")
    laptop.ok("bundle", "create", bundle)
    with proxied(server.url, lambda n: FINE if n else Fault(cut_reply=10_000)) as proxy:
        desktop.ok("config", "servers", f"{proxy.url},{server.url}")
        said = desktop.json("bundle", "apply", bundle)
        assert proxy.connections > 1
    assert desktop.tree() == laptop.tree()
    assert said["bytes"]["received"] < 100_000, "the contents did not come over the network"


def test_a_bundle_is_written_whole_or_not_at_all(laptop: Program, tmp_path: Path) -> None:
    laptop.write("a", os.urandom(100_000))
    laptop.ok("sync")
    target = tmp_path / "out" / "files.bundle"
    target.parent.mkdir()
    target.write_bytes(b"before")
    own = target.with_name("files.bundle.part")
    own.write_bytes(b"own")
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (50_000, 50_000))
    assert laptop.run("bundle", "create", str(target), preexec_fn=full).returncode == 1
    assert (target.read_bytes(), own.read_bytes()) == (b"before", b"own")
    laptop.ok("bundle", "create", str(target))
    assert target.stat().st_size > 100_000
    assert sorted(target.parent.iterdir()) == [target, own]
    assert laptop.run("bundle", "create", "").returncode == 2


def test_a_bundle_goes_into_a_pipe_and_to_standard_output(
    laptop: Program, desktop: Program, tmp_path: Path
) -> None:
    laptop.write("a", "one")
    laptop.ok("sync")
    bundle = tmp_path / "files.bundle"
    command = [*PROGRAM, "-C", str(laptop.root), "bundle", "create", "-"]
    with bundle.open("wb") as target:
        assert subprocess.run(command, check=True, stdout=target, stderr=subprocess.PIPE).stderr
    desktop.ok("bundle", "apply", str(bundle))
    assert desktop.tree() == {"a": b"one"}
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        laptop.ok("bundle", "create", str(pipe))
        assert len(reader.read()) == bundle.stat().st_size
    assert pipe.is_fifo()


def test_a_damaged_bundle_harms_nobody(laptop: Program, desktop: Program, tmp_path: Path) -> None:
    laptop.write("a", os.urandom(100_000))
    laptop.ok("sync")
    bundle = tmp_path / "files.bundle"
    laptop.ok("bundle", "create", str(bundle))
    raw = bytearray(bundle.read_bytes())
    raw[len(raw) // 2] ^= 1
    bundle.write_bytes(raw)
    assert desktop.run("bundle", "apply", str(bundle)).returncode == 6
    assert desktop.tree() == {}
    desktop.ok("pull")
    assert same(laptop, desktop)


def test_devices_logout_and_passwd(
    laptop: Program, link: Callable[[str], Program], server: Server, user: str
) -> None:
    other = link("phone")
    names = {device["name"]: device["id"] for device in laptop.json("devices")}
    assert set(names) == {"laptop", "phone"}
    laptop.ok("devices", "--revoke", names["phone"][:12])
    assert other.run("push").returncode == 10
    done = laptop.run("passwd", "--password-stdin", text=f"{PASSWORD}\nnew password\n")
    assert done.returncode == 0
    laptop.ok("sync")
    laptop.ok("logout")
    assert laptop.run("sync").returncode == 10
    words = ("init", server.url, str(laptop.root), "--user", user, "--password-stdin")
    assert run(*words, text="new password\n").returncode == 0
    laptop.write("a", "1")
    laptop.ok("sync")


def test_a_lost_state_loses_nothing(
    laptop: Program, desktop: Program, server: Server, user: str
) -> None:
    laptop.write("a", "1")
    laptop.ok("sync")
    desktop.ok("sync")
    for file in (laptop.root / ".dblike").glob("state.db*"):
        file.unlink()
    laptop.write("b", "2")
    laptop.ok("sync")
    desktop.ok("sync")
    assert laptop.tree() == desktop.tree() == {"a": b"1", "b": b"2"}


def test_a_damaged_state_is_said_and_mended(laptop: Program, server: Server, user: str) -> None:
    laptop.write("a", "1")
    laptop.ok("sync")
    (laptop.root / ".dblike" / "state.db").write_bytes(b"not a database" * 1000)
    done = laptop.run("sync")
    assert done.returncode == 7
    assert "doctor" in done.stderr
    findings = laptop.json("doctor", code=7)
    assert any("dblike init" in finding["remedy"] for finding in findings)
    words = ("init", server.url, str(laptop.root), "--user", user, "--password-stdin")
    assert run(*words, text=PASSWORD).returncode == 0
    laptop.ok("sync")
    assert laptop.tree() == {"a": b"1"}


def test_logging_in_again_keeps_the_config(laptop: Program, server: Server, user: str) -> None:
    """What is ignored here must not go up because a token had ended."""
    laptop.ok("config", "ignore", "private/")
    laptop.write("private/key", "secret")
    laptop.ok("logout")
    assert log_in(laptop, server, user).returncode == 0
    laptop.ok("sync")
    assert laptop.json("ls") == []
    assert laptop.json("config", "device") == laptop.root.name


def test_a_folder_that_is_linked_to_another_account(
    laptop: Program, desktop: Program, server: Server
) -> None:
    """What is remembered of the other one means nothing there: all of it goes up."""
    laptop.write("a", "1")
    laptop.ok("sync")
    desktop.ok("sync")
    watch = laptop.watch()
    user = server.add_user()
    assert log_in(laptop, server, user).returncode == 11
    watch.end()
    desktop.ok("logout")
    for device in (laptop, desktop):
        assert log_in(device, server, server.add_user()).returncode == 0
        assert device.json("status", code=3)["in_sync"] is False
        device.ok("sync")
        assert [entry["path"] for entry in device.json("ls")] == ["a"]


def log_in(
    device: Program, server: Server, user: str, *more: str, command: str = "init", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Link the directory, which may be linked already."""
    words = (command, server.url, str(device.root), "--user", user, "--password-stdin")
    return run(*words, *more, text=PASSWORD, env=os.environ | variables)


def test_the_environment_says_what_is_linked(
    tmp_path: Path, server: Server, user: str, spawn: Spawn
) -> None:
    """What no flag says; and a second login makes nothing of it permanent."""
    device, ca = Program(tmp_path / "device", spawn), str(tmp_path / "ca.pem")
    file = device.root / ".dblike" / "config.json"
    variables = {"DBLIKE_TLS_PLAIN": "true", "DBLIKE_TLS_CA": ca, "DBLIKE_DEVICE": "box"}
    done = log_in(device, server, user, DBLIKE_FOLDER="work", **variables)
    assert done.returncode == 0, done.stderr
    first = json.loads(file.read_text())
    assert (first["folder"], first["device"]) == ("work", "box")
    assert first["tls"] == {"ca": ca, "plain": True}
    variables |= {"DBLIKE_DEVICE": "other", "DBLIKE_LIMITS_UP": "7", "DBLIKE_IGNORE": "*.o"}
    done = log_in(device, server, user, **variables)
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text()) == first
    device.ok("sync")


def test_a_second_folder(tmp_path: Path, server: Server, user: str, spawn: Spawn) -> None:
    """Whoever links the first directory to it makes it; `clone` wants one that is there."""
    one, two = Program(tmp_path / "one", spawn), Program(tmp_path / "two", spawn)
    done = log_in(two, server, user, "--folder", "photos", command="clone")
    assert (done.returncode, two.root.exists()) == (4, False)
    assert "there is no folder 'photos', only home; `dblike init` makes one" in done.stderr
    done = log_in(one, server, user, "--folder", "photos")
    assert (done.returncode, "made the folder 'photos'" in done.stderr) == (0, True)
    one.write("a", "picture")
    one.ok("push")
    ended = [device.get("revoked", False) for device in one.json("devices")]
    assert sorted(ended) == [False, True], "the token of whoever could not clone"
    done = log_in(two, server, user, "--folder", "photos", command="clone")
    assert (done.returncode, two.tree(), "made" in done.stderr) == (0, {"a": b"picture"}, False)
    done = log_in(Program(tmp_path / "three", spawn), server, user, "--folder", "x" * 65)
    assert (done.returncode, "--folder: up to 64 letters" in done.stderr) == (2, True)


def test_links_inside_each_other(laptop: Program, server: Server, user: str) -> None:
    inner = Program(laptop.root / "inner", laptop.spawn)
    (laptop.root / "way").symlink_to(".")
    assert log_in(laptop, server, user).returncode == 0  # no other folder is there
    away = laptop.root.parent / "away"
    away.symlink_to(laptop.root / "inner")
    for place in (inner.root, away):
        done = log_in(Program(place, laptop.spawn), server, user)
        assert (done.returncode, "is linked already" in done.stderr) == (2, True)


def test_a_copied_folder_goes_on_as_another_device(
    laptop: Program, desktop: Program, tmp_path: Path
) -> None:
    laptop.write("a", "1")
    laptop.ok("sync")
    twin = Program(tmp_path / "twin", laptop.spawn)
    subprocess.run(["cp", "-a", laptop.root, twin.root], check=True)
    laptop.write("b", "2")
    twin.write("c", "3")
    laptop.ok("sync")
    twin.ok("sync")
    laptop.ok("sync")
    desktop.ok("sync")
    assert laptop.tree() == twin.tree() == desktop.tree()
    assert set(laptop.tree()) == {"a", "b", "c"}
    assert len(laptop.json("devices")) == 3


def test_doctor_finds_what_the_disk_did(laptop: Program) -> None:
    laptop.write("a", "1" * 1000)
    laptop.ok("sync")
    laptop.ok("sync")
    assert {finding["level"] for finding in laptop.json("doctor", "--full")} == {"good"}
