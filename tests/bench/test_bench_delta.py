"""The library's benchmark still runs, and its page is that of its results."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.chart import Curve, bars, curves
from benchmarks.delta_report import PAGE, RESULTS, page
from benchmarks.report import read

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> list[dict[str, object]]:
    command = [sys.executable, str(ROOT / "benchmarks" / "delta.py"), "--quick", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_engines_are_measured_and_checked(tmp_path: Path) -> None:
    rows = bench("--folder", str(tmp_path), "--only", "appended", "growth")
    engines = {row["engine"]: row for row in rows if row["kind"] == "engine"}
    assert {"dblike, signature kept", "dblike, signature sent", "librsync"} <= engines.keys()
    assert not any(row["failure"] for row in engines.values())
    assert {row["kind"] for row in rows} == {"floor", "engine", "growth"}


def test_the_page_is_that_of_the_results() -> None:
    assert "\n".join(page(read(RESULTS))) == PAGE.read_text()


def test_charts_are_drawn_of_any_numbers() -> None:
    drawn = bars("a & b", {"one": {"x": 1, "y": 1e7}, "two": {"x": 0.5}}, {"one": 2e8})
    assert "a &amp; b" in drawn
    assert drawn.count("<rect") == 1 + 2 + 3
    plot = curves("t", "across", "up", [Curve("c", [(256, 10), (512, 1e6)], (512,))])
    assert plot.count("<circle") == 2
