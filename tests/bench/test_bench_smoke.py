"""The benchmark against the peers still runs: every scenario, small, beside rsync."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "sync.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def measured(place: Path, results: Path, *scenarios: str) -> set[tuple[str, str]]:
    """Which scenario was measured with which peer."""
    words = ("--quick", "--peers", "rsync", "--dir", str(place), "--results", str(results))
    done = bench(*scenarios, *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    return {(row["scenario"], row["peer"]) for row in rows if row["figures"]}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, where there is one: rsync --fsync of ten thousand files takes long."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as d:
        yield Path(d)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is missing: apt-get install rsync")
def test_every_scenario_runs_beside_rsync_with_equal_results(tmp_path: Path, memory: Path) -> None:
    found = measured(memory, tmp_path / "memory.jsonl")
    one_shot = {"small", "large", "edits", "append", "rename", "unchanged"}
    assert {(name, peer) for name in one_shot for peer in ("dblike", "rsync")} <= found
    assert {(name, "dblike") for name in ("latency", "idle", "git")} <= found
    on_disk = measured(tmp_path, tmp_path / "disk.jsonl", "large", "append")
    assert {(name, peer) for name in ("large", "append") for peer in ("dblike", "rsync")} <= on_disk


def test_an_unknown_scenario_is_a_usage_error_that_names_the_known_ones() -> None:
    done = bench("smal")
    assert done.returncode == 2
    assert "small" in done.stderr
