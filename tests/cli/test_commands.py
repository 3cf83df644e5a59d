"""The command line: help, wrong usage, places that can't be linked, one line for each failure."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dblike_cli import __main__, __version__
from dblike_cli.__main__ import cli, main
from dblike_cli.credentials import Credential, read_credential, write_credential, write_private
from dblike_cli.errors import Damaged, Failed, LoggedOut, NotFound, Usage
from dblike_cli.options import Common
from dblike_cli.service import unit_name
from dblike_cli.session import find_root, inside, open_session
from dblike_cli.views import moment, short, version_of, view_line
from dblike_delta.messages import VersionView

NAMES = sorted(__main__._COMMANDS)
Run = pytest.CaptureFixture[str]


def commands() -> dict[str, click.Command]:
    """Every command that runs, by what one types."""
    context = click.Context(cli)
    found: dict[str, click.Command] = {}
    for name in NAMES:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            for below, inner in command.commands.items():
                found[f"{name} {below}"] = inner
        else:
            found[name] = command
    return found


@pytest.fixture
def dead_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def linked(tmp_path: Path, dead_url: str) -> Path:
    """A linked directory whose server is not there."""
    own = tmp_path / "files" / ".dblike"
    own.mkdir(parents=True, mode=0o700)
    (own / "config.json").write_text(json.dumps({"servers": [dead_url]}))
    write_credential(
        own / "credential",
        Credential(token="t", user="ann", device_id="a1" * 16, folder="home", folder_id="f" * 32),
    )
    return own.parent


def said(capsys: Run, code: int, *words: str | Path) -> str:
    """What a command that fails says: one line on stderr, and nothing on stdout."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == code, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dblike: ")
    assert err.count("\n") == 1, err
    return err


def test_what_has_no_time_of_its_own_is_not_said_to_have_never_been() -> None:
    view = VersionView(path="d", version="1" * 32 + ".1", kind="directory", time=0, device="")
    assert "never" not in view_line(view)


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_with_an_example(name: str, capsys: Run) -> None:
    command = commands()[name]
    with click.Context(command, info_name=f"dblike {name}", max_content_width=100) as context:
        text = command.get_help(context)
    assert re.search(r"Example:\n +dblike ", text), text
    if name != "delta":
        for flag in ("-C DIR", "--json", "-v, --verbose", "-q, --quiet", "--no-progress"):
            assert flag in text


def test_the_promised_commands_are_there() -> None:
    promised = (
        "init clone push pull sync watch status ls cat log restore conflicts resolve why devices "
        "logout passwd ignore doctor config bundle delta service completion"
    )
    assert set(promised.split()) <= set(NAMES)


def test_version(capsys: Run) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dblike {__version__}\n"


def test_help(capsys: Run) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert [name for name in NAMES if f"\n  {name} " not in text] == []


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("push", "--nonsense"),
        ("watch", "extra"),
        ("init",),
        ("init", "https://a", "--user"),
        ("completion", "powershell"),
        ("ignore", "add"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], capsys: Run) -> None:
    assert "--help" in said(capsys, 2, *words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("sync", "--max-delete", "lots"), "'lots' is neither a number nor a share"),
        (("sync", "--max-delete", "-1"), "--max-delete"),
        (("pull", "--bwlimit", "fast"), "is not a rate"),
        (("log", "--limit", "-1"), "--limit"),
        (("log", "../outside"), "is not in the linked folder"),
        (("cat", ".dblike/config.json"), "the client's own directory"),
        (("restore", "a", "--at", "yesterday-ish"), "is not a time"),
        (("restore", "a", "--at", "2h", "--version", "x.1"), "one of them is enough"),
        (("resolve", "a"), "--ours, --theirs or --both"),
        (("config", "limits.up", "fast"), "Expected `int`"),
        (("config", "limit.up", "5"), ""),
    ],
)
def test_wrong_values(words: tuple[str, ...], text: str, linked: Path, capsys: Run) -> None:
    code = 4 if words[1:2] == ("limit.up",) else 2
    assert text in said(capsys, code, "-C", linked, *words)


@pytest.mark.parametrize("name", ["push", "status", "ls", "config", "watch", "doctor", "logout"])
def test_outside_of_a_linked_folder(name: str, tmp_path: Path, capsys: Run) -> None:
    assert "is not in a linked folder" in said(capsys, 2, "-C", tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["push", "pull", "sync", "ls", "log", "devices"])
def test_no_server_is_exit_5(name: str, linked: Path, capsys: Run) -> None:
    assert "Connection refused" in said(capsys, 5, "-C", linked, name)


def test_status_without_a_server(linked: Path, capsys: Run) -> None:
    assert main(["-C", str(linked), "status", "--json"]) == 5
    document = json.loads(capsys.readouterr().out)
    assert document["in_sync"] is False
    assert "Connection refused" in document["reason"]


def test_flags_before_and_after_the_command(linked: Path, capsys: Run) -> None:
    for words in (
        ["-C", str(linked), "--json", "config", "folder"],
        ["config", "folder", "-C", str(linked), "--json"],
        ["-C", str(linked.parent), "config", "folder", "-C", linked.name, "--json"],
    ):
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out) == "home"


def test_a_command_works_from_any_folder_below(linked: Path) -> None:
    deep = linked / "a" / "b"
    deep.mkdir(parents=True)
    assert find_root(deep) == linked
    assert inside(linked, deep, "c") == b"a/b/c"
    assert inside(linked, deep, "../x") == b"a/x"
    assert inside(linked, deep, str(linked)) == b""
    assert inside(linked, linked, "caf\udce9") == b"caf\xe9"
    with pytest.raises(Usage):
        inside(linked, deep, "../../..")


def test_the_directory_of_a_command_may_lead_up(
    linked: Path, capsys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (linked / "a").mkdir()
    monkeypatch.chdir(linked / "a")
    assert find_root(Path("..")) == find_root(Path("../a/./..")) == linked
    with open_session(Common(directory=Path(".."))) as session:
        assert session.path("b") == b"b"
        assert session.path("a/../b") == b"b"
    assert main(["-C", "..", "service", "status", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["unit"] == unit_name(linked)
    for absent in (linked / "no" / "such", Path("/no/such")):
        assert f"there is no directory {absent}" in said(capsys, 2, "-C", absent, "status")


def test_files_are_those_of_the_directory_of_a_command(
    linked: Path, capsys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the command had been started there."""
    monkeypatch.chdir(linked.parent)
    (linked / "b").mkdir()
    assert "b is a directory" in said(capsys, 2, "-C", "files", "bundle", "create", "b")
    assert main(["-C", "files", "bundle", "create", "files"]) == 0, "a directory here alone"
    assert main(["-C", "files", "bundle", "create", "b.bundle"]) == 0
    assert main(["-C", "files", "delta", "signature", "b.bundle", "b.sig"]) == 0
    assert {"b.bundle", "b.sig"} <= {path.name for path in linked.iterdir()}
    assert list(Path().iterdir()) == [Path("files")]
    said(capsys, 5, "-C", "files", "bundle", "apply", "b.bundle")
    assert f"{linked}/none: No such" in said(capsys, 2, "-C", linked, "bundle", "apply", "none")
    assert "Is a directory" in said(capsys, 2, "-C", linked, "bundle", "apply", "../files")
    assert "no directory no" in said(capsys, 2, "-C", "no", "delta", "signature", "a", "b")
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    words = ("init", "https://127.0.0.1:1", "new", "--user", "ann", "--password-stdin")
    err = said(capsys, 2, "-C", "files/..", *words, "--ca", "files/none.pem")
    assert f"{linked}/none.pem" in err


def test_a_config_that_can_not_be_right_is_named(linked: Path, capsys: Run) -> None:
    file = linked / ".dblike" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"nonsense": 1}))
    err = said(capsys, 2, "-C", linked, "config", "limits.up", "5")
    assert f"{file}: unknown key 'nonsense'" in err


def test_config_is_shown_and_set(linked: Path, capsys: Run) -> None:
    assert main(["-C", str(linked), "config", "limits.up", "500000"]) == 0
    assert main(["-C", str(linked), "config", "limits.up"]) == 0
    assert capsys.readouterr().out == "500000\n"
    assert main(["-C", str(linked), "config"]) == 0
    assert json.loads(capsys.readouterr().out)["limits"]["up"] == 500_000


# --- linking


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://sync.example.org", "not encrypted"),
        ("https://ann:secret@sync.example.org", "can't carry a user or a password"),
        ("file:///etc/passwd", "is not an http"),
        ("sync.example.org", "is not an http"),
        ("https://a,https://a:99999", "is not a URL"),
    ],
)
def test_urls_that_are_refused(url: str, text: str, tmp_path: Path, capsys: Run) -> None:
    err = said(capsys, 2, "init", url, tmp_path / "new", "--user", "ann", "--password-stdin")
    assert text in err
    assert "secret" not in err
    assert not (tmp_path / "new").exists()


def test_places_that_can_not_be_linked(
    linked: Path, tmp_path: Path, capsys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for place, text in {
        linked / "sub": "is linked already",
        linked.parent: "is linked already",
        linked / ".dblike": "client's own directory",
        tmp_path / ".DBLIKE" / "x": "client's own directory",
        file: "is not a directory",
        home: "your home directory",
    }.items():
        err = said(capsys, 2, "init", "https://a", place, "--user", "ann", "--password-stdin")
        assert text in err
    assert not (linked / "sub").exists()


def test_no_terminal_no_password(tmp_path: Path, capsys: Run) -> None:
    err = said(capsys, 2, "init", "https://a", tmp_path / "new", "--user", "ann")
    assert "--password-stdin" in err


def test_nothing_is_made_where_no_server_is(
    tmp_path: Path, dead_url: str, capsys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    words = ("init", dead_url, tmp_path / "new", "--user", "ann", "--password-stdin")
    said(capsys, 5, *words)
    assert not (tmp_path / "new").exists()


def test_a_link_is_to_the_folder_of_the_environment_too(
    linked: Path, tmp_path: Path, capsys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that came after would refuse another one."""
    monkeypatch.setenv("DBLIKE_FOLDER", "work")
    words = ("--user", "ann", "--password-stdin")
    assert "linked to the folder 'home'" in said(capsys, 2, "init", "https://a", linked, *words)
    place = (tmp_path / "new", "--folder", "home")
    assert "DBLIKE_FOLDER is 'work'" in said(capsys, 2, "init", "https://a", *place, *words)
    assert not (tmp_path / "new").exists()


# --- the credential


def test_the_credential_is_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "credential"
    credential = Credential(
        token="secret", user="ann", device_id="a1" * 16, folder="home", folder_id="f" * 32
    )
    write_credential(file, credential)
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_credential(file) == credential
    assert "secret" not in repr(credential)
    assert [path.name for path in tmp_path.iterdir()] == ["credential"]
    file.chmod(0o644)
    with pytest.raises(Damaged, match="others could read it"):
        read_credential(file)


def test_a_credential_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "credential"
    with pytest.raises(LoggedOut):
        read_credential(file)
    file.symlink_to("/etc/hostname")
    with pytest.raises(Damaged):
        read_credential(file)
    file.unlink()
    file.touch(0o600)
    with pytest.raises(Damaged, match="not a credential"):
        read_credential(file)


def test_a_credential_of_another_user_is_no_damage(tmp_path: Path) -> None:
    file = tmp_path / "credential"
    file.touch(0)
    former = os.geteuid()
    os.seteuid(former or 65534)  # root can read everything
    try:
        with pytest.raises(Failed, match="as the user who linked"):
            read_credential(file)
    finally:
        os.seteuid(former)


def test_an_error_names_the_file_and_no_temporary(tmp_path: Path) -> None:
    file = tmp_path / "absent" / "config.json"
    with pytest.raises(FileNotFoundError) as caught:
        write_private(file, b"")
    assert caught.value.filename == str(file)


def test_a_planted_file_does_not_get_the_credential(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text("")
    (tmp_path / f"credential.{os.getpid()}").symlink_to(trap)
    write_credential(
        tmp_path / "credential",
        Credential(token="secret", user="a", device_id="b", folder="c", folder_id="d"),
    )
    assert trap.read_text() == ""


# --- ends


def test_nobody_reads_our_output(linked: Path) -> None:
    """`dblike config | head -0` ends without a word."""
    command = [sys.executable, "-m", "dblike_cli", "-C", str(linked), "config"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.mark.parametrize("words", [("--help",), ("config", "--json")])
def test_a_reader_may_go_before_the_end(linked: Path, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "dblike_cli", "-C", str(linked), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, ("-C", "\x1b[31m", "status")),
        (2, ("cat", "../\x1b[31m")),
        (2, ("init", "https://a", "\x1b[31m", "--user", "ann")),
        (4, ("resolve", "\x1b[31m", "--ours")),
        (2, ("completion", "\x1b[31m")),
        (4, ("config", "\x1b[31m")),
    ],
)
def test_what_is_typed_is_said_escaped(
    code: int, words: tuple[str, ...], linked: Path, capsys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(linked.parent if words[0] == "init" else linked)
    assert "\x1b" not in said(capsys, code, *words)


def test_why_says_a_name_escaped(linked: Path, capsys: Run) -> None:
    (linked / "a\x1b[31m\nb").touch()
    assert main(["-C", str(linked), "why", str(linked / "a\x1b[31m\nb")]) == 3
    assert capsys.readouterr().out.startswith("a\\x1b[31m\\nb: ")


def test_a_choice_is_said_in_one_line(capsys: Run) -> None:
    assert "\\n" not in said(capsys, 2, "completion")


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(linked: Path, closing: str) -> None:
    command = f'"$0" -m dblike_cli -C "$1" config {closing}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, str(linked)], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_without_the_characters_gets_escapes(linked: Path, capsys: Run) -> None:
    assert main(["-C", str(linked), "config", "device", "Büro"]) == 0
    command = [sys.executable, "-m", "dblike_cli", "-C", str(linked), "config", "device"]
    given = os.environ | {"PYTHONIOENCODING": "ascii"}
    for words, text in (([], b"B\\xfcro\n"), (["--json"], b'"B\\u00fcro"\n')):
        done = subprocess.run([*command, *words], capture_output=True, check=False, env=given)
        assert (done.returncode, done.stdout) == (0, text)


def test_a_bug_is_one_line_unless_debugged(linked: Path, tmp_path: Path) -> None:
    os.unlink(linked / ".dblike" / "credential")
    os.mkdir(linked / ".dblike" / "credential")
    command = [sys.executable, "-m", "dblike_cli", "-C", str(linked), "push"]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert plain.stderr.count("\n") == 1
    loud = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"DBLIKE_DEBUG": "1"}
    )
    assert "Traceback" in loud.stderr


def test_interrupted_at_the_prompt(capsys: Run) -> None:
    assert __main__._fail(click.Abort()) == 130
    assert __main__._fail(KeyboardInterrupt()) == 130


# --- completion, versions, times


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: Run) -> None:
    assert main(["completion", shell]) == 0
    assert "_DBLIKE_COMPLETE" in capsys.readouterr().out


def test_completion_completes() -> None:
    environment = os.environ | {
        "_DBLIKE_COMPLETE": "bash_complete",
        "COMP_WORDS": "dblike st",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dblike_cli"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "status" in done.stdout


@pytest.mark.parametrize("command", ["cat", "ls", "push", "resolve", "restore --to", "why"])
def test_paths_are_completed_by_the_shell(command: str) -> None:
    words = f"dblike {command} a"
    environment = os.environ | {
        "_DBLIKE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    asked = [sys.executable, "-m", "dblike_cli"]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("file,")


def _view(version: str) -> VersionView:
    return VersionView(path="a", version=version, kind="file", time=1, device="d")


def test_versions_by_their_short_names() -> None:
    views = [_view("ab" * 16 + ".12"), _view("ac" * 16 + ".12"), _view("ab" * 16 + ".1")]
    assert short(views[0].version) == "abababab.12"
    assert version_of("abababab.12", views) == views[0].version
    assert version_of(views[2].version, []) == views[2].version
    with pytest.raises(Usage, match="several"):
        version_of("a.12", views)
    for wrong in ("abababab", "zz.1", "", "abababab.2"):
        with pytest.raises(NotFound):
            version_of(wrong, views)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2h", 1_000_000 - 7_200_000),
        ("3 d ago", 1_000_000 - 259_200_000),
        ("90 s", 1_000_000 - 90_000),
        ("@1700000000", 1_700_000_000_000),
        ("2023-11-14T22:13:20+00:00", 1_700_000_000_000),
    ],
)
def test_moments(text: str, said: int) -> None:
    assert moment(text, 1_000_000) == said


@pytest.mark.parametrize("text", ["", "soon", "@", "@nan", "@1e400", "2h2", "-5m", "9999-99-99"])
def test_no_moments(text: str) -> None:
    with pytest.raises(Usage):
        moment(text, 0)
