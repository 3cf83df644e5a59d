"""`dblike ignore`: the rules are added to as bytes, all or nothing."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from dblike_cli.__main__ import main

Run = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A linked directory; no command here asks its server."""
    own = tmp_path / "files" / ".dblike"
    own.mkdir(parents=True, mode=0o700)
    (own / "config.json").write_text(json.dumps({"servers": ["http://127.0.0.1:9"]}))
    return own.parent


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a full disk: what is longer can't be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_rules_stay_where_more_of_them_can_not_be_written(root: Path) -> None:
    file = root / ".dblikeignore"
    file.write_bytes(b"*.o\n" * 20)
    with files_of_at_most(64):
        assert main(["-C", str(root), "ignore", "add", "*.a"]) == 1
    assert file.read_bytes() == b"*.o\n" * 20
    assert sorted(path.name for path in root.rglob("*")) == [
        ".dblike",
        ".dblikeignore",
        "config.json",
    ]


def test_what_is_no_plain_file_is_left_alone(root: Path, tmp_path: Path, capsys: Run) -> None:
    other = tmp_path / "other"
    other.write_text("*.c\n")
    (root / ".dblikeignore").symlink_to(other)
    for words in (("add", "*.a"), ("list",)):
        assert main(["-C", str(root), "ignore", *words]) == 1
        assert "is not a plain file" in capsys.readouterr().err
    assert other.read_text() == "*.c\n"


def test_rules_that_are_no_utf_8_stay_as_they_are(root: Path, capsys: Run) -> None:
    file = root / ".dblikeignore"
    file.write_bytes(b"caf\xe9\r\nold")
    file.chmod(0o640)
    assert main(["-C", str(root), "ignore", "add", "*.a", "old", "*.a"]) == 0
    assert file.read_bytes() == b"caf\xe9\r\nold\n*.a\n"
    assert file.stat().st_mode & 0o777 == 0o640
    capsys.readouterr()
    assert main(["-C", str(root), "ignore", "list"]) == 0
    assert capsys.readouterr().out == "caf\\xe9\nold\n*.a\n"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("[z-a]", "'[z-a]' is no rule"),
        ("!", "'!' is no rule"),
    ],
)
def test_what_can_be_no_rule_is_refused(root: Path, capsys: Run, pattern: str, why: str) -> None:
    assert main(["-C", str(root), "ignore", "add", "*.o", pattern]) == 2
    assert why in capsys.readouterr().err
    assert not (root / ".dblikeignore").exists()
