"""Devices: real `dblike` programs in directories of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rig.releases import environment

PATIENCE = 60.0
"""Seconds after which what should happen is not going to."""
PROGRAM = (sys.executable, "-m", "dblike_cli")


@dataclass
class Watch:
    """A running `dblike watch --json`, and what it said so far."""

    process: subprocess.Popen[bytes]
    said: list[dict[str, Any]] = field(default_factory=list)
    _heard: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._heard:
                self.said.append(json.loads(line))
                self._heard.notify_all()

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """The first event of that kind with these fields, also from before."""

        def find() -> dict[str, Any] | None:
            for said in self.said:
                if said["event"] == event and fields.items() <= said.items():
                    return said
            return None

        with self._heard:
            found = self._heard.wait_for(find, PATIENCE)
        assert found, f"no {event} {fields} in {self.said[-20:]}"
        return found

    def forget(self) -> None:
        """Only what comes from here on counts."""
        with self._heard:
            self.said.clear()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@dataclass
class Program:
    """A linked directory and the commands in it."""

    root: Path
    spawn: Callable[..., subprocess.Popen[bytes]]
    release: Path | None = None

    @classmethod
    def link(
        cls,
        root: Path,
        url: str,
        user: str,
        password: str,
        spawn: Callable[..., subprocess.Popen[bytes]],
        release: Path | None = None,
    ) -> Program:
        """Log in on a new device that is called as its directory."""
        made = cls(root, spawn, release)
        words = ("init", url, str(root), "--user", user, "--password-stdin", "--device", root.name)
        done = run(*words, text=f"{password}\n", env=environment(release))
        assert done.returncode == 0, done.stderr
        return made

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command in this directory."""
        options.setdefault("env", environment(self.release))
        return run("-C", str(self.root), *words, **options)

    def ok(self, *words: str) -> str:
        """The output of a command that has to succeed."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def json(self, *words: str, code: int = 0) -> Any:
        """The document of a command."""
        done = self.run(*words, "--json")
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def json_lines(self, *words: str) -> list[Any]:
        """What a command that streams said."""
        return [json.loads(line) for line in self.ok(*words, "--json").splitlines()]

    def watch(self, *words: str) -> Watch:
        """Start watching; returns once the folder is in sync."""
        watch = self.start_watch(*words)
        watch.wait_for("status", in_sync=True)
        return watch

    def start_watch(self, *words: str) -> Watch:
        """Start watching."""
        with (self.root.parent / f"{self.root.name}.log").open("ab") as log:
            command = (*PROGRAM, "-C", str(self.root), "watch", "--json", *words)
            given = environment(self.release)
            return Watch(self.spawn(*command, stdout=subprocess.PIPE, stderr=log, env=given))

    def write(self, path: str, content: bytes | str) -> None:
        """Save a file, as an editor that writes in place does."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def tree(self) -> dict[str, Any]:
        """All that is here: path to content, to link target, or to None for a directory."""
        found: dict[str, Any] = {}
        for directory, names, files in os.walk(self.root):
            place = Path(directory).relative_to(self.root)
            for name in (*names, *files):
                path, full = place / name, Path(directory) / name
                if path.parts[0] != ".dblike":
                    found[str(path)] = _content(full)
        return found


def run(*words: str, text: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """`dblike` with these words."""
    return subprocess.run(
        [*PROGRAM, *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **options,
    )


def wait_until(true: Callable[[], object], what: str = "it") -> None:
    """Wait for what another process does to a disk."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


def same(*programs: Program) -> bool:
    """Whether all these directories hold the same."""
    trees = [program.tree() for program in programs]
    return all(tree == trees[0] for tree in trees)


def wait_until_same(
    *programs: Program, also: Callable[[dict[str, Any]], object] | None = None
) -> None:
    """Wait until all these directories hold the same (and `also` holds of it)."""
    wait_until(
        lambda: _quietly_same(programs) and (also is None or also(programs[0].tree())),
        f"sameness of {[program.tree().keys() for program in programs]}",
    )


def _quietly_same(programs: tuple[Program, ...]) -> bool:
    try:
        return same(*programs)
    except FileNotFoundError:  # something went away while we looked
        return False


def _content(full: Path) -> Any:
    if full.is_symlink():
        return ("link", os.readlink(full))
    return None if full.is_dir() else full.read_bytes()
