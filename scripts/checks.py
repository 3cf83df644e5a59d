"""Every check of the project, one after the other, with a summary at the end.

Usage: ./test [fast] [pytest arguments]

`fast` leaves out what takes longer than a few seconds, and tries fewer random cases.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"


class Check(NamedTuple):
    """One program to run; it passes when it exits with 0."""

    name: str
    command: tuple[str, ...]


class Outcome(NamedTuple):
    """How a check went; `line` is the last one that it printed."""

    name: str
    passed: bool
    seconds: float
    line: str


def main(arguments: Sequence[str]) -> int:
    fast = arguments[:1] == ["fast"]
    outcomes = [perform(check) for check in checks(fast, arguments[1:] if fast else arguments)]
    summarise(outcomes)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def checks(fast: bool, pytest_arguments: Sequence[str]) -> list[Check]:
    # Three workers for two cores: the tests start servers and clients of their own, and wait for
    # them often enough.  Each begins with a third of the tests and takes from the others' when it
    # has none left, so that tests of one file mostly share what is started for it.
    pytest = ["pytest", "--numprocesses=3", "--dist=worksteal", "-rfEs"]
    if fast:
        pytest += ["-m", "not slow and not long", "--hypothesis-profile=fast"]
    else:
        pytest += ["-m", "not long", "--durations=15"]
    return [
        Check("format", ("ruff", "format", "--check", "--quiet", ".")),
        Check("lint", ("ruff", "check", "--quiet", ".")),
        Check("types", ("mypy",)),
        Check("imports", ("lint-imports", "--no-cache", "--no-logo")),
        Check("tests", (*pytest, *pytest_arguments)),
    ]


def perform(check: Check) -> Outcome:
    """Run it with its output going through us as it comes."""
    print(f"=== {check.name}: {' '.join(check.command)}", flush=True)
    environment = os.environ | {"PATH": f"{BIN}:{os.environ.get('PATH', '')}"}
    begun = time.monotonic()
    last = ""
    with subprocess.Popen(
        [BIN / check.command[0], *check.command[1:]],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() if re.search(r"\w", line) else last
    return Outcome(check.name, process.returncode == 0, time.monotonic() - begun, last)


def summarise(outcomes: Sequence[Outcome]) -> None:
    print("\n=== summary")
    for outcome in outcomes:
        verdict = "ok    " if outcome.passed else "FAILED"
        print(f"{verdict} {outcome.name:8}{outcome.seconds:7.1f} s  {outcome.line}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
