"""Words that can't be meant so: what is said of them, and that nothing is done."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from dblike_cli.__main__ import main
from dblike_cli.credentials import read_credential
from dblike_cli.errors import Damaged

Said = pytest.CaptureFixture[str]
NO_TEXT = "caf\udce9"
"""What Python makes of a byte that is no UTF-8."""


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A linked directory whose server is not there."""
    own = tmp_path / "files" / ".dblike"
    own.mkdir(parents=True, mode=0o700)
    (own / "config.json").write_text('{"servers": ["http://127.0.0.1:1"]}')
    return own.parent


def refused(capsys: Said, *words: str) -> str:
    """What a command says that was called wrongly: one line, exit code 2."""
    code = main([*words])
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("dblike: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "words",
    [
        ("config", "device", NO_TEXT),
        ("config", "ignore", f'["{NO_TEXT}"]'),
        ("config", NO_TEXT),
        ("cat", "a", "--version", NO_TEXT),
        ("log", "--limit", NO_TEXT),
        ("devices", "--revoke", NO_TEXT),
        ("ignore", "add", "*.o", NO_TEXT),
        ("init", "http://127.0.0.1:1", "--user", NO_TEXT, "--password-stdin"),
        ("init", "http://127.0.0.1:1", "--user", "a", "--device", NO_TEXT, "--password-stdin"),
        ("init", "http://127.0.0.1:1", "--user", "a", "--ca", NO_TEXT, "--password-stdin"),
    ],
)
def test_words_are_utf8(linked: Path, capsys: Said, words: tuple[str, ...]) -> None:
    before = (linked / ".dblike" / "config.json").read_bytes()
    assert "caf\\udce9" in refused(capsys, "-C", str(linked), *words)
    assert (linked / ".dblike" / "config.json").read_bytes() == before
    assert not (linked / ".dblikeignore").exists()


def test_a_password_is_utf8(tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(NO_TEXT + "\n"))
    words = ("init", "http://127.0.0.1:1", str(tmp_path), "--user", "ann", "--password-stdin")
    assert refused(capsys, *words) == "dblike: a password has to be UTF-8\n"


def test_a_config_is_utf8(linked: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("DBLIKE_DEVICE", NO_TEXT)
        assert "DBLIKE_DEVICE" in refused(capsys, "-C", str(linked), "status")
    half = {"servers": ["http://127.0.0.1:1"], "device": "half \ud83d"}
    (linked / ".dblike" / "config.json").write_text(json.dumps(half))
    assert "config.json" in refused(capsys, "-C", str(linked), "status")


def test_what_is_wrong_in_the_environment_is_not_sought_in_the_file(
    linked: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBLIKE_LIMITS_UP", "fast")
    said = refused(capsys, "-C", str(linked), "status")
    assert said == "dblike: DBLIKE_LIMITS_UP: Expected `int`, got `str` - at `$.limits.up`\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("restore", "", "--at", "2h"), "path is empty"),
        (("sync", ""), "path is empty"),
        (("cat", ""), "path is empty"),
        (("restore", "a", "--at", "2h", "--to", ""), "path is empty"),
        (("restore", "a", "--at", "2h", "--to", "."), "--to: "),
        (("restore", "a", "--at", ""), "'' is not a time"),
        (("restore", "a", "--version", ""), "--version"),
        (("restore", "a", "--version", "", "--at", "2h"), "one of them is enough"),
        (("cat", "a", "--version", ""), "--version"),
        (("ls", "--at", ""), "'' is not a time"),
        (("bundle", "create", "x", "--since", ""), "'' is not a time"),
        (("devices", "--revoke", ""), "--revoke"),
        (("init", "http://127.0.0.1:1", "", "--user", "ann"), "DIR is empty"),
        (("resolve", "a", "--ours", "--theirs"), "one of --ours, --theirs and --both"),
    ],
)
def test_an_empty_word_is_not_taken_for_none(
    linked: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    """As a script has it whose variable is empty: `restore a --to "$WHERE"` would replace `a`."""
    monkeypatch.chdir(linked)
    assert told in refused(capsys, *words)


@pytest.mark.parametrize(
    "words", [("status",), ("config",), ("init", "http://127.0.0.1:1", "x", "--user", "ann")]
)
def test_a_directory_that_is_gone_is_named(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert refused(capsys, *words) == "dblike: the current directory is not there any more\n"


def test_a_credential_that_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "credential").mkdir()
    with pytest.raises(Damaged, match="credential: not a credential; `dblike init`"):
        read_credential(tmp_path / "credential")
