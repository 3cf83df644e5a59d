"""Ignore rules: gitignore's syntax on names that are bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dblike_cli.ignore import Ignore, load_ignore
from dblike_cli.realfs import RealFS


@pytest.mark.parametrize(
    ("rules", "path", "directory", "ignored"),
    [
        (["*.o"], b"a/b.o", False, True),
        (["*.o"], b"a/b.c", False, False),
        (["/top"], b"top", False, True),
        (["/top"], b"a/top", False, False),
        (["build/"], b"build", True, True),
        (["build/"], b"build", False, False),
        (["build/"], b"x/build/deep/file", False, True),
        (["*.log", "!keep.log"], b"keep.log", False, False),
        (["doc/**/tmp"], b"doc/a/b/tmp", False, True),
        (["# *.o", ""], b"a.o", False, False),
        ([r"\#x"], b"#x", False, True),
        (["caf*"], b"caf\xff", False, True),
        (["[ab].txt"], b"a.txt", False, True),
    ],
)
def test_rules(rules: list[str], path: bytes, directory: bool, ignored: bool) -> None:
    ignore = Ignore(rules)
    assert ignore.matches(path, directory=directory) is ignored
    assert bool(ignore.rule(path, directory=directory)) is ignored


def test_the_rule_that_decides_is_named() -> None:
    ignore = Ignore(["*.o", "*.tmp", "!keep.tmp"])
    assert ignore.rule(b"x.tmp") == "*.tmp"
    assert ignore.rule(b"keep.tmp") == ""


def test_a_pattern_that_would_take_minutes_is_left_out() -> None:
    """4.4: catastrophic patterns."""
    ignore = Ignore(["*a*a*a*a*a*a*a*a*b", "**/x/**/y/**/z/**/w/*.o", "*.o"])
    assert ignore.dropped == ("*a*a*a*a*a*a*a*a*b",)
    assert not ignore.matches(b"a" * 250)
    assert ignore.matches(b"q.o")


def test_the_file_is_read_from_the_root(tmp_path: Path) -> None:
    fs = RealFS(tmp_path)
    assert load_ignore(fs).lines == ()
    (tmp_path / ".dblikeignore").write_bytes(b"*.o\r\n# text\n\n\xff*\n")
    ignore = load_ignore(fs, ["mine"])
    assert ignore.matches(b"x.o")
    assert ignore.matches(b"mine")
    assert ignore.matches(b"\xffz")
    fs.close()


def test_rules_that_cannot_be_read_stop_everything(tmp_path: Path) -> None:
    """Going on without them would send what was to stay here."""
    (tmp_path / ".dblikeignore").mkdir()
    fs = RealFS(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        load_ignore(fs)
    fs.close()
