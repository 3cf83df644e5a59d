"""What is not synced by the user's wish: `.dblikeignore` in the root, with gitignore's syntax.

A rule keeps new paths from going up.  It never deletes anything, here or there: what was synced
before stays as it is.
"""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dblike_cli.fs import FileSystem

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE: Final = b".dblikeignore"
_LARGEST: Final = 4 << 20
_NO_FILE: Final = (errno.EINVAL, errno.ELOOP, errno.EISDIR)
_NO_RULE: Final = (ValueError, re.error)
_EVERYTHING: Final = ("*", "!/.dblikeignore")


class Ignore:
    """The rules in force: those of the file, then those of this device's config.

    `wrong` says what is wrong with them.  A line that is no rule matches nothing, as with git.
    """

    def __init__(self, lines: Sequence[str] = (), wrong: str = "") -> None:
        self.lines = tuple(line for line in lines if line.strip() and not line.startswith("#"))
        self.wrong = wrong
        try:
            self._spec = _spec_of(self.lines)
        except _NO_RULE:
            bad = next(line for line in self.lines if not _is_rule(line))
            self.wrong = f"{bad!r} is no rule"
            self.lines = tuple(filter(_is_rule, self.lines))
            self._spec = _spec_of(self.lines)

    def matches(self, path: bytes, *, directory: bool = False) -> bool:
        """Whether a rule keeps the path out."""
        return self._spec is not None and self._spec.match_file(_text(path, directory=directory))

    def rule(self, path: bytes, *, directory: bool = False) -> str:
        """The rule that decides about the path, or an empty text."""
        if self._spec is None:
            return ""
        found = self._spec.check_file(_text(path, directory=directory))
        return self.lines[found.index] if found.include and found.index is not None else ""


def _spec_of(lines: Sequence[str]) -> GitIgnoreSpec | None:
    if not lines:
        return None
    from pathspec import GitIgnoreSpec  # 7 ms, and most folders have no rules

    from dblike_cli.patterns import Pattern

    with warnings.catch_warnings():  # of brackets that may mean something else some day
        warnings.simplefilter("ignore", FutureWarning)
        return GitIgnoreSpec.from_lines(lines, Pattern)


def _is_rule(line: str) -> bool:
    try:
        _spec_of([line])
    except _NO_RULE:
        return False
    return True


def load_ignore(fs: FileSystem, extra: Sequence[str] = ()) -> Ignore:
    """The folder's rules; raises OSError where the file is there and can't be read.

    To go on without it would send what the user wanted to keep here.  So what is no plain file, or
    too large to be one of rules, keeps everything here until it is: that comes from another device,
    perhaps.
    """
    try:
        file = fs.open_read(IGNORE_FILE)
    except FileNotFoundError:
        return Ignore(extra)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        return Ignore(_EVERYTHING, "it is no plain file, and so nothing goes up")
    try:
        data = file.read(_LARGEST + 1)
    finally:
        file.close()
    if len(data) > _LARGEST:
        return Ignore(_EVERYTHING, "it is larger than 4 MiB, and so nothing goes up")
    return Ignore([*data.decode("utf-8", "surrogateescape").splitlines(), *extra])


def _text(path: bytes, *, directory: bool) -> str:
    return path.decode("utf-8", "surrogateescape") + ("/" if directory else "")
