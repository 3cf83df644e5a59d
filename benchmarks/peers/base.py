"""What every peer can do: keep A, the server and B the same, in hops or by watching."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from benchmarks.corpora import Arrival, Change
from benchmarks.measure import BenchmarkError, Meter, launch, stop, wait_until
from benchmarks.wire import Place, Wire

ARRIVAL_SECONDS = 300.0
_PROBE = "bench-awake.txt"


@dataclass(frozen=True)
class Bench:
    """A fresh place for one peer: two client folders, a server directory, a wire."""

    root: Path
    wire: Wire
    durable: bool

    @property
    def a(self) -> Path:
        return self.root / "a"

    @property
    def b(self) -> Path:
        return self.root / "b"

    @property
    def s(self) -> Path:
        return self.root / "s"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def make(self) -> None:
        for path in (self.a, self.b, self.s, self.work):
            path.mkdir(parents=True)


class Peer(ABC):
    """One sync program; `with Peer(bench) as peer:` starts and ends what it needs to run."""

    name: ClassVar[str]
    package: ClassVar[str] = ""
    program: ClassVar[str] = ""
    one_way: ClassVar[bool] = False
    """Whether it only carries A to one other place: then a single hop is all that is measured."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._running: list[tuple[Place, subprocess.Popen[bytes]]] = []

    @classmethod
    def missing(cls) -> str:
        """Why it can't run here, in words that say what to do; empty when it can."""
        if shutil.which(cls.program):
            return ""
        return (
            f"{cls.name} is not installed: skipped (to include it: apt-get install {cls.package})"
        )

    @classmethod
    def version(cls) -> str:
        """Its own words about its version, one line."""
        said = subprocess.run(
            [cls.program, "--version"], capture_output=True, text=True, check=False
        )
        lines = (said.stdout or said.stderr).strip().splitlines()
        return lines[0] if lines else "unknown"

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def open(self) -> None:
        """Start the server and whatever comes before the first transfer; not measured."""

    def transfer(self, meter: Meter, change: Change) -> None:
        """Bring what A has to B, as a user would who does not watch."""
        del change
        self.run(meter, "a", self.up())
        self.run(meter, "b", self.down())

    def up(self) -> Sequence[str]:
        raise BenchmarkError(f"{self.name} has no one-shot form")

    def down(self) -> Sequence[str]:
        raise BenchmarkError(f"{self.name} has no one-shot form")

    def check(self, meter: Meter) -> None:
        """Find out, from A, that nothing has changed."""
        self.run(meter, "a", self.up())

    def watch(self) -> None:
        """Start what keeps both sides the same from now on; returns when it is ready."""
        raise BenchmarkError(f"{self.name} does not watch")

    def awake(self, tries: int = 30) -> None:
        """Until a file saved in A shows in B: from then on both sides watch."""
        here, there = self.bench.a / _PROBE, self.bench.b / _PROBE
        for number in range(tries):
            self.alive()
            here.write_text(f"awake {number}")
            if self._within(4.0, lambda: there.exists() and there.read_text() == here.read_text()):
                break
        here.unlink()
        if not self._within(20.0, lambda: not there.exists()):
            raise BenchmarkError(f"{self.name}: does not watch")

    @staticmethod
    def _within(seconds: float, condition: Callable[[], bool]) -> bool:
        try:
            wait_until(condition, "", seconds, 0.01)
        except BenchmarkError:
            return False
        return True

    def arrived(self, change: Change, timeout: float = ARRIVAL_SECONDS) -> None:
        """Wait until B's disk shows the change."""
        wait_until(
            Arrival(change, self.bench.a, self.bench.b), f"{self.name}: arrival", timeout, 0.001
        )

    # --- processes --------------------------------------------------------------------------------

    def environment(self, place: Place) -> Mapping[str, str]:
        """Nothing of the user's own settings may matter."""
        home = self.bench.work / f"home-{place}"
        home.mkdir(exist_ok=True)
        return {"HOME": str(home), "LC_ALL": "C.UTF-8"}

    def log(self, place: Place) -> Path:
        return self.bench.work / f"{place}.log"

    def run(self, meter: Meter, place: Place, argv: Sequence[str]) -> None:
        meter.run(argv, place, self.log(place), self.environment(place))

    def setup(self, place: Place, argv: Sequence[str], words: str = "") -> str:
        """A command of the preparation: its output, or an error that shows it."""
        with self.bench.wire.inside(place):
            done = subprocess.run(
                list(argv),
                input=words,
                capture_output=True,
                text=True,
                env={**os.environ, **self.environment(place)},
                check=False,
            )
        if done.returncode:
            raise BenchmarkError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stderr[-800:]}")
        return done.stdout

    def start(self, place: Place, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """A program that stays until the peer is closed."""
        process = launch(self.bench.wire, argv, place, self.log(place), self.environment(place))
        self._running.append((place, process))
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        self._running = [item for item in self._running if item[1] is not process]
        stop(process)

    def alive(self) -> None:
        """A program that ended by itself is an error, and its last words say which."""
        for place, process in self._running:
            if process.poll() is not None:
                words = self.log(place).read_text(errors="replace")[-800:]
                raise BenchmarkError(
                    f"{self.name} ended at {place} ({process.returncode})\n{words}"
                )

    def wait_for_port(self, place: Place, port: int, timeout: float = 20.0) -> None:
        """Until somebody listens there."""

        def listening() -> bool:
            self.alive()
            with self.bench.wire.inside(place), socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listening, f"{self.name}: port {port}", timeout, 0.01)

    def pids(self, *places: Place) -> list[int]:
        return [process.pid for place, process in self._running if place in places]

    def meter(self) -> Meter:
        """Measures this peer's processes from now on."""
        self.alive()
        return Meter(self.bench.wire, servers=self.pids("s"), clients=self.pids("a", "b"))

    def close(self) -> None:
        while self._running:
            stop(self._running.pop()[1])
