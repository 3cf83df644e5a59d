"""A real server, which can be killed and started again."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from conftest import end

PASSWORD = "correct horse"


class Server:
    """`dblike-server run`, which can be killed and started again on its port."""

    def __init__(
        self, directory: Path, *options: str, bind: str = "127.0.0.1:0", **environment: str
    ) -> None:
        self.data = directory / "data"
        self.log = directory / "server.log"
        self._options = options
        self._environment = {**os.environ, **environment}
        self._bind = bind
        self._users = itertools.count(1)
        self.process: subprocess.Popen[bytes] | None = None
        self.command("init")
        self.start()

    @property
    def url(self) -> str:
        return f"http://{self._bind}"

    def command(self, *words: str, text: str = "") -> None:
        """A command of the server's program."""
        program = [sys.executable, "-m", "dblike_srv", *words, "--data", str(self.data)]
        subprocess.run(
            program, input=text.encode(), check=True, capture_output=True, env=self._environment
        )

    def add_user(self) -> str:
        """A new account."""
        name = f"user{next(self._users)}"
        self.command("user", "add", name, "--password-stdin", text=PASSWORD)
        return name

    def start(self) -> None:
        """Serve, on the same port as before."""
        with self.log.open("ab") as errors:
            program = [sys.executable, "-m", "dblike_srv", "run", "--data", str(self.data)]
            self.process = subprocess.Popen(
                [*program, "--bind", self._bind, *self._options],
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=self._environment,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("DBLike serves at "), self.log.read_text()
        self._bind = line.rpartition("//")[2].strip()
        self._drain = threading.Thread(target=self.process.stdout.read, daemon=True)
        self._drain.start()

    def kill_workers(self) -> None:
        """SIGKILL to the processes that serve; the one above them starts others."""
        assert self.process is not None
        pid = self.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and wait."""
        assert self.process is not None
        end(self.process)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        assert self.process is not None
        with self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self._drain.join()
