"""Record a terminal session of DBLike at work, and draw docs/demo.svg from it.

Usage: scripts/record [OUTPUT]

A real shell on a real terminal (a pty) is typed into; what it prints, and when, is kept as an
asciicast, which termtosvg draws. Nothing is staged: the times shown are those of this machine.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs" / "demo.svg"
COLUMNS, ROWS = 92, 30
PROMPT = "\x1b[1;34m~/dblike $\x1b[0m "
KEYSTROKE = 0.035  # seconds between keys: as people type
READING = 1.6  # seconds to read what a command printed
RENDERER = ("termtosvg==1.1.0", "setuptools<80")  # it imports pkg_resources, which later ones lack

READY = r"\$\x1b\[0m $"  # the prompt is there again

# What is typed, and what must have been printed before the next line is.
SESSION = (
    ("./quickstart demo &", r"Ctrl-C stops everything"),
    ("clear", READY),
    ("echo 'call Anna' > demo/laptop/todo.txt", READY),
    ("cat demo/desktop/todo.txt", r"call Anna"),
    ("echo 'call Ben, too' >> demo/desktop/todo.txt", READY),
    ("cat demo/laptop/todo.txt", r"Ben"),
    ("rm demo/laptop/todo.txt", READY),
    ("ls demo/desktop", READY),
    ("dblike -C demo/desktop log todo.txt", READY),
    ("dblike -C demo/desktop restore todo.txt", READY),
    ("cat demo/laptop/todo.txt", READY),
    ("dblike -C demo/laptop status", READY),
)


class Recorder:
    """A shell on a terminal, and what it printed so far with the times."""

    def __init__(self, directory: Path) -> None:
        self.events: list[tuple[float, str, str]] = []
        self._begun = time.monotonic()
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            shell = ["bash", "--norc", "--noprofile", "-i"]
            os.execvpe(shell[0], shell, shell_environment())  # noqa: S606 - it is the shell
        termios.tcsetwinsize(self._terminal, (ROWS, COLUMNS))

    def type(self, text: str) -> None:
        for key in text:
            os.write(self._terminal, key.encode())
            self.watch(KEYSTROKE)

    def enter(self) -> None:
        os.write(self._terminal, b"\n")

    def watch(self, seconds: float, until: str | None = None) -> None:
        """Take in what is printed, for so long, or until it matches; late matches are an error."""
        seen, deadline = "", time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._terminal in select.select([self._terminal], [], [], left)[0]:
                seen += self._take()
                if until and re.search(until, seen):
                    return
        if until:
            raise SystemExit(f"{until!r} was not printed within {seconds:.0f} s:\n{seen}")

    def _take(self) -> str:
        text = os.read(self._terminal, 65536).decode(errors="replace")
        self.events.append((time.monotonic() - self._begun, "o", text))
        return text

    def close(self) -> None:
        os.close(self._terminal)
        os.waitpid(self.pid, 0)


def main(arguments: Sequence[str]) -> int:
    output = Path(arguments[0] if arguments else OUTPUT).absolute()
    with tempfile.TemporaryDirectory() as folder:
        # The shell's prompt says where it is; what it runs is found through this directory.
        for name in ("quickstart", "scripts", ".venv"):
            Path(folder, name).symlink_to(ROOT / name)
        cast = Path(folder, "session.cast")
        cast.write_text(asciicast(record(Path(folder))))
        draw(cast, output)
    print(f"{output}: {output.stat().st_size / 1024:.0f} KiB")
    return 0


def record(directory: Path) -> list[tuple[float, str, str]]:
    recorder = Recorder(directory)
    recorder.watch(10, READY)
    for line, answer in SESSION:
        recorder.type(line)
        # The echo of the line itself is no answer.
        recorder.watch(KEYSTROKE * 4)
        recorder.enter()
        recorder.watch(60, answer)
        recorder.watch(READING)
    shown = list(recorder.events)
    recorder.type("kill %1; wait")
    recorder.enter()
    recorder.watch(60, r"(Done|Exit|Terminated)")
    recorder.type("exit")
    recorder.enter()
    recorder.close()
    return shown


def asciicast(events: Sequence[tuple[float, str, str]]) -> str:
    header = {"version": 2, "width": COLUMNS, "height": ROWS}
    return "\n".join(json.dumps(line) for line in [header, *events]) + "\n"


def draw(cast: Path, output: Path) -> None:
    """Render it with termtosvg, from an environment that is made for it and goes again."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "-q", *RENDERER], check=True)
        options = ["-t", "gjm8", "-D", "4000", "-m", "50"]
        subprocess.run(
            [python, "-m", "termtosvg", "render", cast, output, *options],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def shell_environment() -> dict[str, str]:
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DBLIKE_")}
    # Bash must be told which bytes of the prompt take no room.
    prompt = re.sub(r"(\x1b\[[\d;]*m)", r"\\[\1\\]", PROMPT)
    terminal = {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    return kept | terminal | {"PATH": path, "PS1": prompt, "HISTFILE": "/dev/null"}


if __name__ == "__main__":
    if shutil.which("bash") is None:
        sys.exit("This needs bash.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
