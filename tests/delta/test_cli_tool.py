"""python -m dblike_delta: exit codes, one line of error, no partial output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from dblike_delta.__main__ import main
from edits import noise

OLD = noise(1, 50_000)
NEW = OLD[:20_000] + b"!" + OLD[20_000:]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "new").write_bytes(NEW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "dblike_delta", *arguments],
        input=given,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("kind", ["librsync", "xxh3"])
def test_three_steps_make_the_new_file(files: Path, kind: str) -> None:
    assert main(["signature", "-b", "512", "--format", kind, "old", "sig"]) == 0
    assert main(["delta", "sig", "new", "delta"]) == 0
    assert main(["patch", "old", "delta", "again"]) == 0
    assert (files / "again").read_bytes() == NEW
    assert (files / "delta").stat().st_size < 1000


def test_standard_streams_will_do() -> None:
    signed = run("signature", "-", "-", given=OLD)
    assert signed.returncode == 0
    Path("sig").write_bytes(signed.stdout)
    made = run("delta", "sig", "-", "-", given=NEW)
    again = run("patch", "old", "-", "-", given=made.stdout)
    assert again.stdout == NEW


def test_the_old_file_can_not_be_a_pipe() -> None:
    main(["signature", "old", "sig"])
    main(["delta", "sig", "new", "delta"])
    with subprocess.Popen(["cat", "old"], stdout=subprocess.PIPE) as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "dblike_delta", "patch", "-", "delta", "again"],
            stdin=pipe.stdout,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 1
    assert b"can't be a pipe" in done.stderr


def test_an_output_keeps_its_mode_and_is_replaced_whole(files: Path) -> None:
    (files / "sig").write_bytes(b"before")
    (files / "sig").chmod(0o640)
    assert main(["signature", "old", "sig"]) == 0
    assert (files / "sig").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_output_keeps_its_owner(files: Path) -> None:
    (files / "sig").write_bytes(b"before")
    os.chown("sig", 12345, 23456)
    (files / "sig").chmod(0o640)
    assert main(["signature", "old", "sig"]) == 0
    now = (files / "sig").stat()
    assert (now.st_uid, now.st_gid, now.st_mode & 0o777) == (12345, 23456, 0o640)


def test_where_the_group_can_not_be_kept_it_may_do_nothing(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file would be another group's, with what the old one was allowed."""
    (files / "sig").write_bytes(b"before")
    (files / "sig").chmod(0o664)
    stat = Path.stat

    def of_another_group(path: Path, **options: bool) -> os.stat_result:
        found = stat(path, **options)
        return os.stat_result((*found[:5], found[5] + (path.name == "sig"), *found[6:]))

    def refused(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", of_another_group)
        patched.setattr(os, "chown", refused)
        assert main(["signature", "old", "sig"]) == 0
    assert (files / "sig").stat().st_mode & 0o777 == 0o604


def test_what_replaces_a_content_is_on_the_disk_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may else leave an empty file, and the old content was the only one."""
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace
    main(["signature", "old", "sig"])
    main(["delta", "sig", "new", "delta"])

    def synced(descriptor: int) -> None:
        steps.append("sync")
        sync(descriptor)

    def replaced(path: Path, target: Path) -> Path:
        steps.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    assert main(["patch", "old", "delta", "old"]) == 0
    assert steps == ["sync", "replace"]
    assert Path("old").read_bytes() == NEW


@pytest.mark.parametrize("there", [True, False])
def test_an_output_behind_a_symlink_is_what_is_replaced(files: Path, there: bool) -> None:
    real, link = files / "below" / "real", files / "link"
    real.parent.mkdir()
    if there:
        real.write_bytes(b"before")
        real.chmod(0o640)
    link.symlink_to("below/real")
    assert main(["signature", "old", "sig"]) == 0
    assert main(["signature", "old", "link"]) == 0
    assert link.is_symlink()
    assert real.read_bytes() == (files / "sig").read_bytes()
    assert not there or real.stat().st_mode & 0o777 == 0o640
    assert os.listdir(real.parent) == ["real"]


def test_the_name_of_standard_output_is_written_to(files: Path) -> None:
    """It leads to a file, where that was asked for, and is none of ours to replace."""
    main(["signature", "old", "sig"])
    name = files / "stdout"
    name.symlink_to("/proc/self/fd/1")
    for given in (str(name), "/dev/fd/1"):
        with open("out", "wb") as out:
            command = [sys.executable, "-m", "dblike_delta", "signature", "old", given]
            assert subprocess.run(command, stdout=out, check=False).returncode == 0
        assert Path("out").read_bytes() == Path("sig").read_bytes()
        assert name.is_symlink()
    with tempfile.TemporaryFile() as unnamed:
        command = [sys.executable, "-m", "dblike_delta", "signature", "old", str(name)]
        assert subprocess.run(command, stdout=unnamed, check=False).returncode == 0
        unnamed.seek(0)
        assert unnamed.read() == Path("sig").read_bytes()
    assert not [each for each in os.listdir(files) if "deleted" in each]


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, []),
        (2, ["frobnicate"]),
        (2, ["patch", "old"]),
        (2, ["signature", "-b", "-1", "old", "out"]),
        (2, ["signature", "-b", "x", "old", "out"]),
        (2, ["signature", "-b", "4294967295", "old", "out"]),
        (2, ["signature", "-S", "33", "old", "out"]),
        (2, ["signature", "--format", "xxh3", "-S", "1", "old", "out"]),
        (2, ["signature", "--format", "md5", "old", "out"]),
        (1, ["signature", "absent", "out"]),
        (1, ["signature", "old", "absent/out"]),
        (1, ["signature", ".", "out"]),
        (6, ["delta", "old", "new", "out"]),
        (6, ["delta", "delta", "new", "out"]),
        (6, ["patch", "old", "sig", "out"]),
        (6, ["patch", "old", "new", "out"]),
        (6, ["patch", "short", "delta", "out"]),
        (6, ["patch", "old", "cut", "out"]),
        (6, ["patch", "old", "longer", "out"]),
        (6, ["patch", "--max-size", "50000", "old", "delta", "out"]),
        (6, ["inspect", "new"]),
        (6, ["inspect", "cut"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    files: Path, code: int, arguments: list[str]
) -> None:
    main(["signature", "old", "sig"])
    main(["delta", "sig", "new", "delta"])
    made = Path("delta").read_bytes()
    Path("short").write_bytes(OLD[:100])
    Path("cut").write_bytes(made[:-1])
    Path("longer").write_bytes(made + b"x")
    before = sorted(os.listdir(files))
    done = run(*arguments)
    assert done.returncode == code
    assert done.stderr.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
    assert sorted(os.listdir(files)) == before


def test_help_shows_an_example() -> None:
    for arguments in (["--help"], ["delta", "--help"]):
        assert b"old.sig" in run(*arguments).stdout


def test_version() -> None:
    assert run("--version").stdout == f"python -m dblike_delta {version('dblike')}\n".encode()


@pytest.mark.parametrize("option", ["-b", "-S"])
def test_what_is_no_number_is_said_plainly(option: str) -> None:
    done = run("signature", option, "x", "old", "sig")
    assert done.returncode == 2
    assert b"'x' is not a number of bytes" in done.stderr


def test_names_reach_the_terminal_escaped() -> None:
    for arguments in (["inspect", "\x1b[31m"], ["inspect", "old", "\x1b[31m"]):
        assert b"\\x1b[31m" in run(*arguments).stderr


@pytest.mark.parametrize("kind", ["librsync", "xxh3"])
def test_inspect_says_what_a_signature_holds(kind: str) -> None:
    main(["signature", "-b", "1000", "--format", kind, "old", "sig"])
    fields = json.loads(run("inspect", "--json", "sig").stdout)
    assert (fields["block_size"], fields["blocks"]) == (1000, 50)
    assert fields.get("base_size") == (50_000 if kind == "xxh3" else None)
    assert b"block size:  1000\n" in run("inspect", "sig").stdout


def test_inspect_says_what_a_delta_holds() -> None:
    main(["signature", "-b", "1000", "old", "sig"])
    main(["delta", "sig", "new", "delta"])
    fields = json.loads(run("inspect", "--json", "delta").stdout)
    assert (fields["new_size"], fields["literal"], fields["commands"]) == (50_001, 1, 3)


def test_bench_measures_every_step() -> None:
    rows = [json.loads(line) for line in run("bench", "--json", "old", "new").stdout.splitlines()]
    assert [row["step"] for row in rows] == ["signature", "delta", "patch"] * 3


def test_a_reader_that_leaves_is_no_traceback() -> None:
    command = [sys.executable, "-m", "dblike_delta", "patch", "old", "delta", "-"]
    main(["signature", "old", "sig"])
    Path("big").write_bytes(noise(2, 3_000_000))
    main(["delta", "sig", "big", "delta"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 1


def shell(script: str) -> subprocess.CompletedProcess[bytes]:
    """`script` with $TOOL as a program that keeps its output in Python's buffer while it can."""
    environment = {**os.environ, "TOOL": f"{sys.executable} -m dblike_delta"}
    environment.pop("PYTHONUNBUFFERED", None)
    return subprocess.run(
        ["/bin/sh", "-c", script], input=b"some", capture_output=True, env=environment, check=False
    )


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-", "<&- >&-"])
@pytest.mark.parametrize(
    "command", ["signature - -", "signature old -", "inspect sig", "--version"]
)
def test_a_standard_stream_that_fails_is_one_line(command: str, redirected: str) -> None:
    main(["signature", "old", "sig"])
    done = shell(f"$TOOL {command} {redirected}")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_without_standard_error_the_code_is_the_same(redirected: str) -> None:
    assert shell(f"$TOOL inspect new {redirected}").returncode == 6


def test_a_reader_that_leaves_before_a_short_answer_is_no_traceback() -> None:
    main(["signature", "old", "sig"])
    done = shell("(sleep 0.3; $TOOL inspect sig; echo $? >code) | true; sleep 0.1")
    assert done.stderr == b""
