"""Counters in Prometheus' text format, summed over the workers of a host.

Each worker keeps its counts in a small file of its own; whoever is asked adds up the files.
"""

from __future__ import annotations

import contextlib
import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from dblike_delta.decoding import unpack
from dblike_srv.config import Config

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds of request times in seconds."""
SAVE_EVERY: Final = 1.0


class Sample(msgspec.Struct):
    """All that one worker counted.  Keys are a metric's name with its labels."""

    counts: dict[str, float] = {}
    gauges: dict[str, float] = {}


class Meter(Protocol):
    """Counts what happens; `name` is a metric's with its labels."""

    def count(self, name: str, amount: float = 1) -> None:
        """Add to a counter."""


class Unmetered:
    """Counts nothing."""

    def count(self, name: str, amount: float = 1) -> None:
        pass


class Metrics:
    """One process's counters."""

    def __init__(
        self, directory: Path, gauges: Mapping[str, Callable[[], float]] | None = None
    ) -> None:
        self._directory = directory
        self._gauges = gauges or {}
        self._sample = Sample(counts={}, gauges={})
        self._lock = threading.Lock()
        self._saved = 0.0

    def request(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        labels = f'endpoint="{endpoint}",method="{method}"'
        with self._lock:
            self._add(f'dblike_requests_total{{{labels},status="{status}"}}', 1)
            self._add(f"dblike_request_seconds_sum{{{labels}}}", seconds)
            self._add(f"dblike_request_seconds_count{{{labels}}}", 1)
            for bound in BUCKETS[bisect_left(BUCKETS, seconds) :]:
                self._add(f'dblike_request_seconds_bucket{{{labels},le="{bound}"}}', 1)
            self._add(f'dblike_request_seconds_bucket{{{labels},le="+Inf"}}', 1)

    def count(self, name: str, amount: float = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._add(name, amount)

    def _add(self, key: str, amount: float) -> None:
        self._sample.counts[key] = self._sample.counts.get(key, 0.0) + amount

    def save(self, now: float, *, force: bool = False) -> None:
        """Let the other workers see the counts, at most once a second."""
        with self._lock:
            if now - self._saved < SAVE_EVERY and not force:
                return
            self._saved = now
            for name, measure in self._gauges.items():
                self._sample.gauges[name] = measure()
            packed = msgspec.msgpack.encode(self._sample)
        with contextlib.suppress(OSError):  # a full disk must not fail requests
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self._directory / str(os.getpid())
            fresh = path.with_suffix(".new")
            fresh.write_bytes(packed)
            fresh.replace(path)

    def render(self) -> str:
        """The sum over all workers; of those that ended the counts are kept, the gauges not."""
        total = Sample(counts={}, gauges={})
        for path, sample in _samples(self._directory):
            for key, value in sample.counts.items():
                total.counts[key] = total.counts.get(key, 0.0) + value
            if _running(path.name):
                for key, value in sample.gauges.items():
                    total.gauges[key] = total.gauges.get(key, 0.0) + value
        return "".join(_lines(total))


def _samples(directory: Path) -> Iterable[tuple[Path, Sample]]:
    for path in sorted(directory.glob("[0-9]*")):
        if path.suffix:
            continue
        try:
            yield path, unpack(path.read_bytes(), Sample)
        except (OSError, msgspec.DecodeError):
            continue  # being written, or gone


def metrics_directory(config: Config) -> Path:
    """Where the processes of a host keep their counts."""
    return Path(config.data) / "run" / "metrics"


def forget_ended(directory: Path) -> None:
    """Begin anew: remove the counts of workers that ended."""
    for path in directory.glob("[0-9]*"):
        if not _running(path.stem):
            path.unlink(missing_ok=True)


def _running(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


_KINDS: Final = {
    "dblike_requests_total": "counter",
    "dblike_request_seconds": "histogram",
    "dblike_versions_total": "counter",
    "dblike_conflicts_total": "counter",
    "dblike_content_bytes_total": "counter",
    "dblike_literal_bytes_total": "counter",
}


def _lines(total: Sample) -> Iterable[str]:
    for name, kind in _KINDS.items():
        yield f"# TYPE {name} {kind}\n"
        for key in sorted(total.counts):
            if key.startswith(name):
                yield f"{key} {exact(total.counts[key])}\n"
    for key in sorted(total.gauges):
        yield f"# TYPE {key} gauge\n{key} {exact(total.gauges[key])}\n"


def exact(value: float) -> str:
    """A number with all its digits: rates are made of the differences of large ones."""
    return str(int(value)) if value == int(value) else repr(value)
