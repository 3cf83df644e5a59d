#!/usr/bin/env python3
"""Results as JSON lines, and the tables made of them.

python benchmarks/report.py          rewrite docs/benchmarks.md from benchmarks/results/
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import scenarios
from benchmarks.peers import ALL as ALL_PEERS
from benchmarks.plan import Results

_ROOT = Path(__file__).resolve().parent.parent
_PAGE = _ROOT / "docs" / "benchmarks.md"
_RESULTS = Path(__file__).resolve().parent / "results"
_ORDER = [kind.name for kind in ALL_PEERS]

_NOTEWORTHY = 0.1

Row = dict[str, Any]


# --- keeping --------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(_ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def add(path: Path, results: Results) -> None:
    """One line per peer, replacing what the file held for the same scenario, storage and scale."""
    plan = results.plan
    key = {"scenario": results.scenario, "storage": plan.storage, "scale": plan.scale}
    known = {kind.name: kind for kind in plan.peers}
    fresh = [
        {
            "benchmark": "sync",
            **key,
            "peer": name,
            "version": known[name].version(),
            "wire_counted_by": plan.wire.kind,
            "figures": {name: round(value, 6) for name, value in results.summary(name).items()},
            "failure": results.failures.get(name, ""),
            "machine": machine(),
        }
        for name in _ORDER
        if name in known and (name in results.samples or name in results.failures)
    ]
    replaced = {row["peer"] for row in fresh}
    kept = [
        row
        for row in read(path)
        if row.get("peer") not in replaced or any(row.get(name) != key[name] for name in key)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in kept + fresh))


def read(path: Path) -> list[Row]:
    """The lines of a results file; none when there is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


# --- tables ---------------------------------------------------------------------------------------

_COLUMNS = (
    "peer",
    "time",
    "DBLike ÷ it",
    "on the wire",
    "÷",
    "CPU client + server",
    "÷",
    "memory client / server",
    "server read",
)


def _number(value: float, digits: int = 3) -> str:
    """Three significant digits, without an exponent."""
    if math.isnan(value):
        return "-"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def _bytes(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= size:
            return f"{_number(value / size)} {unit}"
    return f"{value:.0f} B"


def _time(figures: Mapping[str, float]) -> str:
    if "idle_cpu" in figures:
        return f"{_number(figures['idle_cpu'], 2)} % of a core"
    if "p50_ms" in figures:
        missed = figures.get("missed", 0)
        mean = f"mean {_number(figures['seconds'] * 1000)}, " if "seconds" in figures else ""
        words = f"{mean}p50 {_number(figures['p50_ms'])}, p95 {_number(figures['p95_ms'])} ms"
        return words + (f", missed {missed:g}" if missed else "")
    if "seconds" in figures:
        low, high = figures["seconds_low"], figures["seconds_high"]
        return f"{_number(figures['seconds'])} s ({_number(low)} to {_number(high)})"
    return "-"


def _ratio(own: Mapping[str, float], theirs: Mapping[str, float], *names: str) -> str:
    for name in names:
        if own.get(name) is not None and theirs.get(name):
            return f"{own[name] / theirs[name]:.2f}"
    return "-"


def _cpu_ratio(own: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """Of all the CPU that both sides used: hardly moved by what else the machine did."""
    ours, others = (each.get("client_cpu", 0) + each.get("server_cpu", 0) for each in (own, theirs))
    return f"{ours / others:.2f}" if "server_cpu" in own and others else "-"


def _time_ratio(own: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """Of repetitions that followed each other, where there were pairs."""
    if own and "ratio" in theirs:
        return f"{theirs['ratio']:.2f}"
    return _ratio(own, theirs, "idle_cpu", "seconds", "p50_ms")


def _cells(name: str, figures: Mapping[str, float], own: Mapping[str, float]) -> list[str]:
    memory = figures.get("idle_memory", figures.get("client_memory"))
    cpu = "-"
    if "server_cpu" in figures:
        cpu = f"{_number(figures['client_cpu'], 2)} + {_number(figures['server_cpu'], 2)} s"
    same = name == "dblike"
    return [
        name,
        _time(figures),
        "" if same else _time_ratio(own, figures),
        _bytes(figures.get("wire")),
        "" if same else _ratio(own, figures, "wire"),
        cpu,
        "" if same else _cpu_ratio(own, figures),
        f"{_bytes(memory)} / {_bytes(figures.get('server_memory'))}",
        _bytes(figures.get("server_read")),
    ]


def table(
    by_peer: Mapping[str, Mapping[str, float]], failures: Mapping[str, str]
) -> list[list[str]]:
    """Rows of cells, DBLike first."""
    own = by_peer.get("dblike", {})
    rows = [_cells(name, by_peer[name], own) for name in _ORDER if by_peer.get(name)]
    gone = [name for name in _ORDER if name in failures and not by_peer.get(name)]
    return rows + [[name, "failed", *[""] * (len(_COLUMNS) - 2)] for name in gone]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def verdicts(
    scenario: scenarios.Scenario, by_peer: Mapping[str, Mapping[str, float]]
) -> Iterable[str]:
    """Each target with the figure and whether it was met."""
    own = by_peer.get("dblike", {})
    for target in scenario.targets:
        value = target.value(own, by_peer)
        if math.isnan(value):
            yield f"{target.words()}: not measured"
        else:
            met = "met" if value <= target.limit else "MISSED"
            yield f"{target.words()}: {_number(value)}, {met}"


def text_of(scenario: scenarios.Scenario, results: Results) -> str:
    """For the terminal, after a scenario."""
    by_peer = {name: results.summary(name) for name in results.samples}
    rows = table(by_peer, results.failures)
    return "\n".join([_aligned([_COLUMNS, *rows]), *verdicts(scenario, by_peer), ""])


# --- the page -------------------------------------------------------------------------------------

_INTRODUCTION = """\
# Benchmarks

Generated by `python benchmarks/report.py` from the JSON lines in `benchmarks/results/`; do not
edit. How it is measured, and how to run it: [benchmarks/README.md](../benchmarks/README.md).

Times are medians (smallest to largest) of both hops together, A to the server to B. "DBLike ÷ it"
is DBLike's figure divided by the peer's: below 1, DBLike used less. For saved files and commits,
CPU and wire are per edit. Every result's paths and bytes were compared by BLAKE3. On disk rsync
runs with `--fsync`, and syncthing flushes as it always does; unison does not.
"""


def page(rows: Sequence[Row]) -> str:
    """The whole of docs/benchmarks.md."""
    full = [row for row in rows if row.get("benchmark") == "sync" and row["scale"] == 1.0]
    parts = [_INTRODUCTION]
    for storage in ("tmpfs", "disk"):
        chosen = [row for row in full if row["storage"] == storage]
        if chosen:
            parts.append(f"## On {'tmpfs' if storage == 'tmpfs' else 'a disk'}\n")
            parts.append(_about(chosen))
            parts += [_section(each, chosen) for each in scenarios.ALL]
    return "\n".join(part for part in parts if part)


def _about(rows: Sequence[Row]) -> str:
    about = rows[-1]["machine"]
    versions = {row["peer"]: row["version"] for row in rows}
    peers = "; ".join(f"{name}: {versions[name]}" for name in _ORDER if name in versions)
    commits = ", ".join(
        sorted({row["machine"]["commit"] for row in rows if row["peer"] == "dblike"})
    )
    return (
        f"{about['cores']} cores of {about['cpu']}, Linux {about['kernel']}, "
        f"Python {about['python']}, commit {commits or 'none'}. {peers}. "
        f"Wire: {rows[-1]['wire_counted_by']}.\n"
    )


def _section(scenario: scenarios.Scenario, rows: Sequence[Row]) -> str:
    mine = [row for row in rows if row["scenario"] == scenario.name]
    if not mine:
        return ""
    by_peer = {row["peer"]: row["figures"] for row in mine if row["figures"]}
    failures = {row["peer"]: row["failure"] for row in mine if row["failure"]}
    cells = [_COLUMNS, *table(by_peer, failures)]
    asked = "; ".join(verdicts(scenario, by_peer))
    words = f"{scenario.why} Asked: {asked}.{_neighbours(by_peer)}"
    return f"### {scenario.title}\n\n{_markdown(cells)}\n\n{words}\n"


def _neighbours(by_peer: Mapping[str, Mapping[str, float]]) -> str:
    """A warning where the machine was not ours alone."""
    share = max((figures.get("disturbed", 0.0) for figures in by_peer.values()), default=0.0)
    if share < _NOTEWORTHY:
        return ""
    return f" Other programs took up to {share:.0%} of the cores meanwhile: trust ratios only."


def main() -> int:
    """Write the page."""
    rows = [row for path in sorted(_RESULTS.glob("*.jsonl")) for row in read(path)]
    _PAGE.parent.mkdir(exist_ok=True)
    _PAGE.write_text(page(rows))
    print(f"wrote {_PAGE.relative_to(_ROOT)} from {len(rows)} results")
    return 0


if __name__ == "__main__":
    sys.exit(main())
