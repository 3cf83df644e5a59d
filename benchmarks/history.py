"""A git repository's last commits, to be replayed as edits.

By default this repository's own history if it is long enough, else one made from a seed with git
fast-import; `--git DIR` names another.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.measure import BenchmarkError

_HERE = Path(__file__).resolve().parent.parent
_WORDS = [
    "path",
    "folder",
    "version",
    "dot",
    "heads",
    "winner",
    "journal",
    "cursor",
    "pack",
    "recipe",
]


@dataclass(frozen=True)
class Checkout:
    """A work tree without its repository inside, as the synced folder is."""

    environment: dict[str, str]

    def switch(self, commit: str) -> None:
        """Make the work tree this commit's, touching only what differs, as git does."""
        _git("read-tree", "--reset", "-u", commit, environment=self.environment)


@dataclass(frozen=True)
class History:
    """A first commit and those that follow it."""

    repository: Path
    start: str
    commits: tuple[str, ...]
    description: str

    @classmethod
    def find(cls, asked: Path | None, place: Path, count: int) -> Self:
        """The asked one, ours, or one made in `place`."""
        if not shutil.which("git"):
            raise BenchmarkError(
                "git is not installed: skipped (to include it: apt-get install git)"
            )
        if asked:
            return cls._of(asked, _changes(asked), count, f"{asked}")
        ours = _changes(_HERE)
        if len(ours) > count:
            return cls._of(_HERE, ours, count, "this repository")
        _make(place, count + 1)
        return cls._of(place, _changes(place), count, "a synthetic repository, from a seed")

    @classmethod
    def _of(cls, repository: Path, commits: list[str], count: int, words: str) -> Self:
        last = commits[-count - 1 :]
        if len(last) < 2:
            raise BenchmarkError(f"{repository} has no history to replay")
        words = f"the last {len(last) - 1} commits of {words}"
        return cls(repository, last[0], tuple(last[1:]), words)

    def checkout(self, tree: Path) -> Checkout:
        """The first commit, in this directory; the index stays outside."""
        index = tree.parent / "work" / "git-index"
        environment = {
            "GIT_DIR": _git_directory(self.repository),
            "GIT_WORK_TREE": str(tree),
            "GIT_INDEX_FILE": str(index),
        }
        found = Checkout(environment)
        found.switch(self.start)
        return found


def _git_directory(repository: Path) -> str:
    return _git("-C", str(repository), "rev-parse", "--absolute-git-dir").strip()


def _changes(repository: Path) -> list[str]:
    """Commits of the first-parent line, oldest first; those that change no file are left out."""
    try:
        said = _git("-C", str(repository), "log", "--first-parent", "--reverse", "--format=%H %T")
    except BenchmarkError:
        return []
    found: list[str] = []
    previous = ""
    for line in said.splitlines():
        commit, tree = line.split()
        if tree != previous:
            found.append(commit)
        previous = tree
    return found


def _git(*arguments: str, environment: dict[str, str] | None = None, words: str = "") -> str:
    done = subprocess.run(
        ["git", *arguments],
        input=words,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"git {' '.join(arguments)}: {done.stderr.strip()[-400:]}")
    return done.stdout


# --- a made one -----------------------------------------------------------------------------------


def _make(place: Path, count: int) -> None:
    """A repository of source-like files in which each commit edits a few, adds and removes some."""
    _git("init", "-q", str(place))
    chance = random.Random("history")
    files = {f"src/part{n % 12}/file{n}.py": _lines(chance, 120) for n in range(300)}
    parts = [_commit(1, files, [])]
    parts += [_commit(number, *_edit(chance, files, number)) for number in range(2, count + 1)]
    _git("-C", str(place), "fast-import", "--quiet", words="".join(parts))
    _git("-C", str(place), "symbolic-ref", "HEAD", "refs/heads/made")


def _lines(chance: random.Random, count: int) -> str:
    return "".join(" ".join(chance.choices(_WORDS, k=8)) + "\n" for _ in range(count))


def _edit(
    chance: random.Random, files: dict[str, str], number: int
) -> tuple[dict[str, str], list[str]]:
    """Change some of the files in place: what was written, and what was removed."""
    written = {path: _touched(chance, files[path]) for path in chance.sample(sorted(files), 3)}
    if number % 4 == 0:
        written[f"src/part{number % 12}/new{number}.py"] = _lines(chance, 80)
    files |= written
    removed = [path for path in chance.sample(sorted(files), 1) if number % 10 == 0]
    for path in removed:
        del files[path]
        written.pop(path, None)
    return written, removed


def _touched(chance: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    lines[chance.randrange(len(lines))] = _lines(chance, 1)
    return "".join(lines)


def _commit(number: int, written: dict[str, str], removed: list[str]) -> str:
    """One commit in fast-import's words."""
    who = f"committer Maker <maker@example.org> {number} +0000"
    head = f"commit refs/heads/made\n{who}\ndata 4\nedit\n"
    edits = [
        f"M 100644 inline {path}\ndata {len(text)}\n{text}\n" for path, text in written.items()
    ]
    return head + "".join(edits) + "".join(f"D {path}\n" for path in removed) + "\n"
