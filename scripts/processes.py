"""Start programs, know when they are ready, and end those that were started, by their id."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

GRACE = 15.0  # seconds between SIGTERM and SIGKILL: a server may finish the requests it has
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A step did not work; the message is for people, `logs` are worth showing with it."""

    def __init__(self, message: str, *logs: Path) -> None:
        super().__init__(message)
        self.logs = logs


Command = Sequence[str | Path]


class Program:
    """One running program in a session of its own, with its output in a log."""

    def __init__(self, name: str, command: Command, log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the scripts have one thread
            )

    def check(self) -> None:
        """Raise when it has ended."""
        status = self._process.poll()
        if status is not None:
            raise Failed(f"{self.name} ended by itself (status {status}).", self.log)

    def ask_to_end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> bool:
        """Wait for the end, then make one; whether it ended by itself."""
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._kill_session()
            return False
        self._kill_session()
        return True

    def _kill_session(self) -> None:
        # Its session has its process id, and holds whatever it started and left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _die_with_parent() -> None:
    """Runs in the child: when we are killed without a chance to end it, it ends, too."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def environment() -> dict[str, str]:
    """Ours, without settings that would reach into the programs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DBLIKE_")}
    return kept | {"PYTHONUNBUFFERED": "1"}


def run(name: str, command: Command, log: Path, *, stdin: str = "") -> None:
    """Run to the end; what it printed is in the log. Raises Failed unless it exits with 0."""
    with log.open("wb") as out:
        done = subprocess.run(
            command,
            input=stdin.encode(),
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(),
            check=False,
        )
    if done.returncode:
        raise Failed(f"{name} failed with exit code {done.returncode}.", log)


def free_port(wanted: int = 0) -> int:
    """The wanted port where it is free, else any free one."""
    for port in dict.fromkeys((wanted, 0)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise Failed("There is no free port on 127.0.0.1.")


def wait_for_server(url: str, server: Program, *, seconds: float = 60) -> None:
    """Until the server says that it is ready."""
    # Not through a proxy: the address is our own machine's.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        server.check()
        try:
            with opener.open(f"{url}/readyz", timeout=5) as reply:
                if reply.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.02)
    raise Failed(f"The server at {url} was not ready within {seconds:.0f} seconds.", server.log)
