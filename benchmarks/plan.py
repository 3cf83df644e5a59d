"""What a run was asked for, where it works, and what it found."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import BenchmarkError, Sample, calm
from benchmarks.peers import Bench, Lsyncd, Peer
from benchmarks.wire import Wire

Figures = Mapping[str, float]
_DISTURBED = 0.1


def figures_of(sample: Sample) -> dict[str, float]:
    """A sample as named figures: seconds, bytes."""
    return {
        "seconds": sample.seconds,
        "wire": sample.wire_bytes,
        "wire_hop": max(sample.wire.values(), default=0),
        "client_cpu": sample.client_cpu,
        "server_cpu": sample.server_cpu,
        "client_memory": sample.client_memory,
        "server_memory": sample.server_memory,
        "server_read": sample.server_read,
        "disturbed": sample.disturbed,
        **{f"hop_{number}": hop for number, hop in enumerate(sample.hops, 1)},
    }


def storage_of(path: Path) -> str:
    """What kind the mount is that the path is on: tmpfs or disk."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [
        m for m in mounts if path.resolve().is_relative_to(m[1].encode().decode("unicode_escape"))
    ]
    kind = max(inside, key=lambda mount: len(mount[1]), default=["", "", ""])[2]
    return "tmpfs" if kind in {"tmpfs", "ramfs"} else "disk"


@dataclass
class Plan:
    """One run over one directory."""

    parent: Path
    wire: Wire
    peers: Sequence[type[Peer]]
    repeat: int = 3
    scale: float = 1.0
    repository: Path | None = None
    patience: float = 0.0
    """Seconds to wait for a calm machine before a measurement."""
    storage: str = field(init=False)

    def __post_init__(self) -> None:
        self.storage = storage_of(self.parent)

    def one_shot_peers(self) -> list[type[Peer]]:
        """Those that do one round and end."""
        return [kind for kind in self.peers if kind is not Lsyncd]

    def count(self, full: int, least: int) -> int:
        """So many at full size, fewer in a quick run."""
        return max(least, int(full * self.scale))

    @contextlib.contextmanager
    def directory(self, name: str) -> Iterator[Path]:
        """A fresh directory for as long as it is needed."""
        path = Path(tempfile.mkdtemp(prefix=f"bench-{name}-", dir=self.parent))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def bench(self) -> Iterator[Bench]:
        """A fresh place for one peer."""
        with self.directory("peer") as root:
            bench = Bench(root, self.wire, durable=self.storage == "disk")
            bench.make()
            yield bench

    def settle(self) -> None:
        """Write back what the preparation wrote, so that nobody pays for it while measured."""
        if self.storage == "disk":
            os.sync()
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline and not calm():
            pass

    def is_disturbed(self, sample: Sample) -> bool:
        """Whether others took so much of the machine that a sample says little."""
        return self.patience > 0 and sample.disturbed > _DISTURBED


@dataclass
class Results:
    """The figures of one scenario, by peer."""

    plan: Plan
    scenario: str
    samples: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, kind: type[Peer], figures: Figures) -> None:
        self.samples.setdefault(kind.name, []).append(figures)
        shown = ", ".join(f"{key} {value:,.3f}" for key, value in figures.items())
        print(f"  {self.scenario} [{self.plan.storage}] {kind.name}: {shown}", flush=True)

    @contextlib.contextmanager
    def attempt(self, kind: type[Peer]) -> Iterator[None]:
        """A peer that fails is reported; the others go on."""
        try:
            yield
        except BenchmarkError as error:
            self.failures[kind.name] = str(error)
            print(f"  {self.scenario} {kind.name} FAILED: {error}", flush=True)

    def summary(self, peer: str) -> dict[str, float]:
        """Medians of all figures, and the spread of the time."""
        samples = self.samples.get(peer, [])
        if not samples:
            return {}
        names = {name for figures in samples for name in figures}
        found = {
            name: statistics.median([figures[name] for figures in samples if name in figures])
            for name in sorted(names)
        }
        times = self.times(peer)
        if times:
            found |= {"seconds_low": min(times), "seconds_high": max(times)}
        return {**found, **self._pairs(peer), "samples": len(samples)}

    def times(self, peer: str) -> list[float]:
        """The seconds of each repetition."""
        return [each["seconds"] for each in self.samples.get(peer, []) if "seconds" in each]

    def _pairs(self, peer: str) -> dict[str, float]:
        """DBLike's time divided by this peer's, repetition by repetition: the median of that."""
        ours, theirs = self.times("dblike"), self.times(peer)
        if not ours or len(ours) != len(theirs):
            return {}
        pairs = zip(ours, theirs, strict=True)
        return {"ratio": statistics.median(own / other for own, other in pairs)}
