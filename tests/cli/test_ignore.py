"""Ignore rules: gitignore's syntax on names that are bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore.base import GitIgnorePatternError

from dblike_cli.ignore import Ignore, load_ignore
from dblike_cli.realfile import RealFile
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
        (["*.o"], b"a\nb/c.o", False, True),
        (["a/**/c"], b"a/x\ny/c", False, True),
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


def test_a_rule_with_many_stars_holds() -> None:
    ignore = Ignore(["*p*a*s*s*w*o*r*d*"])
    assert ignore.matches(b"my-password.txt")
    assert ignore.matches(b"a/my-password.txt/b")
    assert not ignore.matches(b"my-pass/word")
    assert ignore.rule(b"password") == "*p*a*s*s*w*o*r*d*"


def test_no_name_takes_hours() -> None:
    """As pathspec says it these would go on for longer than anyone waits."""
    ignore = Ignore(["*a" * 30 + "*b", "**/y" * 12 + "/*.o"])
    assert not ignore.matches(b"a" * 255)
    assert not ignore.matches(b"y/" * 2000 + b"y")
    assert ignore.matches(b"y/" * 2000 + b"y.o")


_PIECES = ["a", "b", "*", "?", "**", "[ab]", "/", "/**/", r"\*", "*a", "*b*", "(", "|"]


@given(
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8).map("".join),
    st.lists(st.text("ab*(", min_size=1, max_size=6), min_size=1, max_size=5).map("/".join),
)
def test_rules_mean_what_pathspec_says(rule: str, path: str) -> None:
    try:
        plain = GitIgnoreSpec.from_lines([rule])
    except GitIgnorePatternError:
        return
    assert Ignore([rule]).matches(path.encode()) is plain.match_file(path)


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
    fs = Unreadable(tmp_path)
    with pytest.raises(PermissionError):
        load_ignore(fs)
    fs.close()


class Unreadable(RealFS):
    def open_read(self, path: bytes) -> RealFile:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_rules_that_are_too_many_keep_everything_here(tmp_path: Path) -> None:
    """The last of them would be left out, and what they name would go up."""
    rule = b"secret-%06d\n"
    most = (4 << 20) // len(rule % 0)
    place = tmp_path / ".dblikeignore"
    fs = RealFS(tmp_path)
    place.write_bytes(b"#" * ((4 << 20) - 7) + b"\nsecret")
    assert load_ignore(fs).matches(b"secret")
    assert not load_ignore(fs).wrong
    place.write_bytes(b"".join(rule % number for number in range(most + 2)))
    ignore = load_ignore(fs)
    assert "4 MiB" in ignore.wrong
    assert ignore.matches(rule.strip() % (most + 1))
    fs.close()


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
def test_rules_that_are_no_file_keep_everything_here(tmp_path: Path, kind: str) -> None:
    """But for the rules themselves, once they are one."""
    place = tmp_path / ".dblikeignore"
    match kind:
        case "directory":
            place.mkdir()
        case "symlink":
            place.symlink_to("elsewhere")
        case _:
            os.mkfifo(place)
    fs = RealFS(tmp_path)
    ignore = load_ignore(fs)
    assert "no plain file" in ignore.wrong
    assert ignore.matches(b"a")
    assert ignore.matches(b"a/b")
    assert not ignore.matches(b".dblikeignore")
    fs.close()


@pytest.mark.parametrize("line", ["[z-a]", "foo\\", "\\", "!", "!\\", "[9-0]x"])
def test_a_line_that_is_no_rule_takes_nothing_from_the_others(line: str) -> None:
    ignore = Ignore(["*.o", line, "*.tmp", "[[:alpha:]]x"])
    assert ignore.wrong == f"{line!r} is no rule"
    assert (ignore.rule(b"a.o"), ignore.rule(b"a.tmp"), ignore.rule(b"foo")) == ("*.o", "*.tmp", "")
