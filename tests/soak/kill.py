"""kill -9 of client and server at random moments: `python tests/soak/kill.py --points 200`.

A real server and two devices that watch, both writing all the time.  At random moments one of the
three is killed without a word and started again.  In the end everything written must be in both
folders, byte for byte, and the server's store must be whole.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

DEVICES = ("one", "two")
PASSWORD = "correct horse battery"
QUIET_SECONDS = 120


class Program:
    """A process of ours that is killed and started again."""

    def __init__(self, name: str, words: list[str], log: Path) -> None:
        self.name, self._words, self._log = name, words, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The first process of it."""
        assert self._process is not None
        return self._process.pid

    def stop(self, how: signal.Signals) -> None:
        """Signal the whole group and wait for its end."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, how)
        self._process.wait(timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None


class Rig:
    """Server, two linked folders, and what must be in them."""

    def __init__(
        self,
        root: Path,
        rng: random.Random,
        places: Mapping[str, Path] | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """`places` are other directories than those below `root`, by the programs' names; `config`
        has values for the server's."""
        self.root, self.rng = root, rng
        self.places = {name: root / name for name in ("server", *DEVICES)} | dict(places or {})
        self.expected: dict[str, bytes] = {}
        self._written = 0
        self.port = _free_port()
        data = str(self.places["server"])
        bind = f"127.0.0.1:{self.port}"
        _run("dblike_srv", "init", "--data", data)
        file = self.places["server"] / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | dict(config or {})))
        _run("dblike_srv", "user", "add", "ada", "--password-stdin", "--data", data, say=PASSWORD)
        serve = ["dblike_srv", "run", "--data", data, "--bind", bind]
        self.programs = [Program("server", serve, root / "server.log")]
        self.programs[0].start()
        self.wait_for_server()
        for name in DEVICES:
            place = str(self.places[name])
            words = ["init", f"http://{bind}", place, "--user", "ada", "--device", name]
            _run("dblike_cli", *words, "--password-stdin", say=PASSWORD)
            watch = ["dblike_cli", "-C", place, "watch"]
            self.programs.append(Program(name, watch, root / f"{name}.log"))
            self.programs[-1].start()

    def change(self) -> str:
        """One edit, and the name of what was edited; each device keeps to names of its own, so what
        must be is known exactly."""
        device = self.rng.choice(DEVICES)
        name = f"{device}/{self.rng.randrange(4)}/{self.rng.randrange(8)}"
        path = self.places[device] / name
        if self.rng.random() < 0.15 and name in self.expected:
            path.unlink()
            del self.expected[name]
            return name
        self._written += 1
        data = b"%d " % self._written * self.rng.choice((1, 10, 1000))
        old = self.expected.get(name, b"")
        if self.rng.random() < 0.2:
            data = self.rng.randbytes(1 << 20) + data
        elif len(old) > 1 << 20:
            at = self.rng.randrange(len(old))
            data = old[:at] + data + old[at:]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(data)
        temporary.rename(path)
        self.expected[name] = data
        return name

    def kill_one(self) -> str:
        """Kill one of the three without a word, and start it again."""
        victim = self.rng.choice(self.programs)
        victim.stop(signal.SIGKILL)
        if self.rng.random() < 0.5:
            self.change()
        victim.start()
        return victim.name

    def wait_until_quiet(self) -> None:
        """Until both folders are what they must be; an assertion where that never comes."""
        deadline = time.monotonic() + QUIET_SECONDS
        while True:
            wrong = [device for device in DEVICES if self._differences(device)]
            if not wrong and all(self.in_sync(device) for device in DEVICES):
                return
            if time.monotonic() > deadline:
                found = {d: self._differences(d)[:10] for d in wrong}
                raise AssertionError(f"not in sync after {QUIET_SECONDS} s: {found}; {self.root}")
            time.sleep(0.2)

    def check_store(self) -> None:
        """The server finds every pack and content whole."""
        _run("dblike_srv", "scrub", "--data", str(self.places["server"]))

    def close(self) -> None:
        for program in reversed(self.programs):
            program.stop(signal.SIGTERM)

    def _differences(self, device: str) -> list[str]:
        root = self.places[device]
        seen = {
            str(path.relative_to(root)): path
            for path in root.rglob("*")
            if path.is_file() and ".dblike" not in path.parts
        }
        wrong = sorted(seen.keys() ^ self.expected.keys())
        for name, data in self.expected.items():
            with contextlib.suppress(FileNotFoundError):
                if name in seen and seen[name].read_bytes() != data:
                    wrong.append(name)
        return wrong

    def in_sync(self, device: str) -> bool:
        done = subprocess.run(
            [sys.executable, "-m", "dblike_cli", "-C", self.places[device], "status", "--json"],
            capture_output=True,
            check=False,
        )
        with contextlib.suppress(ValueError):
            json.loads(done.stdout)
        return done.returncode == 0

    def wait_for_server(self) -> None:
        import urllib.request

        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2).close()
                return
            time.sleep(0.05)
        raise AssertionError((self.root / "server.log").read_text())


def soak(points: int, seed: int) -> dict[str, int]:
    """Kill at so many points; how often each was hit."""
    rng = random.Random(seed)
    root = Path(tempfile.mkdtemp(prefix="dblike-kill-"))
    hit: dict[str, int] = {}
    rig = Rig(root, rng)
    try:
        for _ in range(points):
            for _ in range(rng.randrange(1, 6)):
                rig.change()
            time.sleep(rng.uniform(0, 0.4))  # the random moment
            name = rig.kill_one()
            hit[name] = hit.get(name, 0) + 1
        rig.wait_until_quiet()
        rig.check_store()
    finally:
        rig.close()
    shutil.rmtree(root, ignore_errors=True)
    return hit


def _run(module: str, *words: str, say: str = "") -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        input=f"{say}\n".encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(
            f"{module} {words} ended with {done.returncode}: {done.stderr.decode()}"
        )


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()
    hit = soak(options.points, options.seed)
    print(f"{options.points} kills in {time.monotonic() - start:.0f} s, nothing lost: {hit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
