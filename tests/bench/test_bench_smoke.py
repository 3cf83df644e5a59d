"""The benchmark against the peers still runs: every scenario, small, beside rsync."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "sync.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.serial
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is missing: apt-get install rsync")
def test_every_scenario_runs_beside_rsync_with_equal_results(tmp_path: Path) -> None:
    results = tmp_path / "sync.jsonl"
    done = bench("--quick", "--peers", "rsync", "--dir", str(tmp_path), "--results", str(results))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    measured = {(row["scenario"], row["peer"]) for row in rows if row["figures"]}
    one_shot = {"small", "large", "edits", "append", "rename", "unchanged"}
    assert {(name, peer) for name in one_shot for peer in ("dblike", "rsync")} <= measured
    assert {(name, "dblike") for name in ("latency", "idle", "git")} <= measured


def test_an_unknown_scenario_is_a_usage_error_that_names_the_known_ones() -> None:
    done = bench("smal")
    assert done.returncode == 2
    assert "small" in done.stderr
