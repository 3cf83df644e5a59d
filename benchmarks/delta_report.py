#!/usr/bin/env python3
"""The page and the charts of the library's benchmark, made of its results.

python benchmarks/delta_report.py        rewrite docs/benchmarks-delta.md and docs/charts/
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.chart import Curve, bars, curves, short
from benchmarks.delta_targets import Target, targets
from benchmarks.report import read

_ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results" / "delta.jsonl"
PAGE = _ROOT / "docs" / "benchmarks-delta.md"
CHARTS = _ROOT / "docs" / "charts"

Row = Mapping[str, Any]

MIB = 1 << 20
_STEPS = ("signature", "delta", "patch", "all")
_PUBLISHED = {
    300: (64_247, 3_817_434, 948, 5_312_200, 5_629_158, 1_632_284),
    500: (46_989, 620_013, 64, 1_091_900, 1_283_906, 979_384),
    700: (33_255, 571_970, 22, 1_307_800, 1_444_346, 699_564),
    900: (25_686, 525_058, 24, 1_469_500, 1_575_438, 544_124),
    1100: (20_848, 496_844, 21, 1_654_500, 1_740_838, 445_204),
}
"""Matches, tag hits, false alarms, data, written, read: Tridgell and Mackerras, "Results"."""
_PUBLISHED_SIZE = 24_587_000


def key_of(row: Row) -> tuple[Any, ...]:
    """What a later result has to agree in to take a row's place."""
    names = ("benchmark", "kind", "corpus", "engine", "block")
    size = row.get("new") if row.get("kind") == "memory" else None
    return (*(row.get(name) for name in names), size)


def write_page(rows: Sequence[Row]) -> None:
    """The page and its charts."""
    CHARTS.mkdir(exist_ok=True)
    for name, drawn in charts(rows):
        (CHARTS / f"delta-{name}.svg").write_text(drawn)
    PAGE.write_text("\n".join(page(rows)))


_PAPER = """\
Tridgell and Mackerras, *The rsync algorithm*, section Results: tars of two kernel sources, 1.99.10
and 2.0.0, five patch levels apart, 24 MB. Beside it {}, five patch levels apart as well, packed
without what only says who packed them and when. Matches: blocks found. Data: bytes of the
new file sent as they are. Written: the delta. Read: the signature. Tag hits are look-ups in rsync's
table of 16-bit sums, which this search does not have. False alarms: rsync's are weak sums that
agreed by chance. Ours nearly all agreed for a reason: an anchor's sum is over three eighths of its
block, and there are blocks that share these and differ in the rest (licences, common lines). Each
costs at most a strong sum, and their number is bounded.
"""

# --- charts ---------------------------------------------------------------------------------------


def of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    """The rows of one kind, in order."""
    return [row for row in rows if row["kind"] == kind]


def charts(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Name and drawing of each comparison."""
    floors = {row["corpus"]: row for row in of_kind(rows, "floor")}
    for step, floor in (("signature", "xxh128sum"), ("delta", "xxh128sum"), ("patch", "cp")):
        groups: dict[str, dict[str, float]] = {}
        for row in of_kind(rows, "engine"):
            spent = row["cpu"].get(step, row["cpu"].get("all") if step == "delta" else None)
            if spent:
                groups.setdefault(row["corpus"], {})[row["engine"]] = row["new"] / MIB / spent
        lines = {
            name: row["new"] / MIB / row["cpu"][floor]
            for name, row in floors.items()
            if floor in row["cpu"]  # the program may not have been there
        }
        whole = ", all three steps for rsync and zsync" if step == "delta" else ""
        title = f"{step}{whole}: MiB per CPU second, logarithmic; line: {floor}"
        yield step, bars(title, groups, lines)
    sizes: dict[str, dict[str, float]] = {}
    for row in of_kind(rows, "engine"):
        if row["bytes"]:
            sizes.setdefault(row["corpus"], {})[row["engine"]] = sum(row["bytes"].values())
    yield "bytes", bars("bytes of signature and delta together, logarithmic", sizes, {})
    drawn = list(block_curves(rows))
    if drawn:
        title = "signature and literals by block size; large: choose_block_size, and sqrt(size)"
        yield "blocks", curves(title, "bytes of a block", "bytes", drawn)


def block_curves(rows: Sequence[Row]) -> Iterator[Curve]:
    """Bytes of signature and literals, for each pair."""
    found: dict[str, list[Row]] = {}
    for row in of_kind(rows, "blocks"):
        found.setdefault(row["corpus"], []).append(row)
    for name, those in found.items():
        points = [(row["block"], sum(row["bytes"].values())) for row in those]
        root = 1 << (those[0]["old"].bit_length() - 1) // 2
        yield Curve(name, points, (those[0]["chosen"], root))


# --- the page -------------------------------------------------------------------------------------

_HEAD = """\
# Benchmarks of the library

Generated by `python benchmarks/delta.py` from `benchmarks/results/delta.jsonl`; do not edit. How to
run it, and how it is measured: [benchmarks/README.md](../benchmarks/README.md).

Speeds are MiB of the new file per second of CPU (user and system, all threads and processes), as a
busy machine changes that little; wall seconds are beside them. Medians of rounds in which the
engines took turns. Each result was compared with the new file by BLAKE3. "signature kept": the
block size of `choose_block_size`, as for a signature that stays where it was made. "signature
sent": blocks of about sqrt(size), as for one that travels. librsync is in the same process, through
`dblike_delta.librsync`; rdiff is its program. rsync and zsync do all steps in one. xdelta3 and
bsdiff4 compress, and need both files at one place; zsync compares with the old file and fetches
over HTTP. "gave up": more than 60 CPU seconds, or 4 GiB of memory.
"""


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown, and an empty line."""
    rule = ["---"] * len(head)
    return [f"| {' | '.join(line)} |" for line in (head, rule, *lines)] + [""]


def page(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of docs/benchmarks-delta.md."""
    yield _HEAD
    about = rows[-1]["machine"]
    yield (
        f"{about['cores']} cores of {about['cpu']}, Linux {about['kernel']}, "
        f"Python {about['python']}. Each result has its commit.\n"
    )
    yield "## What was aimed at\n"
    yield from table(("what", "aim", "measured", ""), [verdict(each) for each in targets(rows)])
    yield from (f"{each.remark}\n" for each in targets(rows) if each.remark and not each.met)
    yield "## Charts\n"
    for name in ("signature", "delta", "patch", "bytes"):
        yield f"![{name}](charts/delta-{name}.svg)\n"
    for corpus in dict.fromkeys(row["corpus"] for row in of_kind(rows, "engine")):
        yield from section(rows, corpus)
    yield from (
        *trees(rows),
        *growth(rows),
        *memory(rows),
        *blocks(rows),
        *paper(rows),
        *recipes(rows),
    )


def verdict(target: Target) -> tuple[str, ...]:
    """A line of the table of aims."""
    met = "met" if target.met else "**missed**"
    return target.name, target.aim, f"{target.value:.2f}", met


def section(rows: Sequence[Row], corpus: str) -> Iterator[str]:
    """One pair of files, all engines."""
    those = [row for row in of_kind(rows, "engine") if row["corpus"] == corpus]
    first = those[0]
    yield f"## {corpus}: {first['old'] / MIB:,.1f} to {first['new'] / MIB:,.1f} MiB\n"
    own = {row["engine"]: row for row in those}
    lines = [engine_line(row, own) for row in those]
    head = ("engine", "signature", "delta", "patch", "wall", "signature", "delta", "÷ librsync's")
    yield from table(head, lines)
    floors = [row for row in of_kind(rows, "floor") if row["corpus"] == corpus]
    for row in floors:
        speeds = (f"{name} {short(row['new'] / MIB / s)}" for name, s in row["cpu"].items())
        yield f"Floors, MiB per CPU second: {', '.join(speeds)}.\n"


def engine_line(row: Row, own: Mapping[str, Row]) -> tuple[str, ...]:
    """An engine's speeds, wall seconds, bytes, and bytes beside librsync's."""
    if row["failure"]:
        return row["engine"], f"gave up: {row['failure']}", *[""] * 6
    speeds = {step: short(row["new"] / MIB / spent) for step, spent in row["cpu"].items()}
    if "all" in speeds:
        speeds["delta"] = f"{speeds['all']} (all)"
    sizes, rival = row["bytes"], own.get("librsync", row)["bytes"]
    ratio = sum(sizes.values()) / max(1, sum(rival.values()))
    took = row["seconds"]
    wall = " + ".join(f"{took[step]:.2f}" for step in _STEPS if step in took)
    return (
        row["engine"],
        *(speeds.get(step, "") for step in _STEPS[:3]),
        f"{wall} s",
        *(f"{sizes[part]:,}" if part in sizes else "" for part in ("signature", "delta")),
        f"{ratio:.2f}",
    )


def trees(rows: Sequence[Row]) -> Iterator[str]:
    """A whole directory at once."""
    found = of_kind(rows, "tree")
    if found:
        yield f"## {found[0]['corpus']} as trees of {found[0]['paths']:,} paths\n"
        lines = []
        for row in found:
            spent = [f"{row['cpu'][step]:.2f} s" if step in row["cpu"] else "" for step in _STEPS]
            sizes = [f"{row['bytes'][part]:,}" for part in ("delta", "signature")]
            lines.append((row["engine"], *spent, *sizes))
        head = ("", "sign_tree", "delta_tree", "patch_tree", "all", "delta or sent", "signature")
        yield "CPU seconds, and bytes; ours are compressed.\n"
        yield from table(head, lines)


def growth(rows: Sequence[Row]) -> Iterator[str]:
    """Linear work."""
    yield "## Twice the size\n"
    yield "CPU time of the delta for inputs made to be slow, and for twice as much of them.\n"
    lines = [
        (
            row["corpus"],
            " → ".join(f"{size // MIB} MiB" for size in row["sizes"]),
            " → ".join(f"{1000 * value:.0f} ms" for value in row["seconds"]),
            f"{row['growth']:.2f}",
        )
        for row in of_kind(rows, "growth")
    ]
    yield from table(("input", "size", "time", "growth"), lines)


def memory(rows: Sequence[Row]) -> Iterator[str]:
    """Peaks."""
    yield "## Memory\n"
    yield "Of a process that signs a stream and searches another, blocks of 4 KiB.\n"
    lines = [
        (f"{row['new'] // MIB:,} MiB", f"{row['peak'] / MIB:.1f}", f"{row['bound'] / MIB:.1f}")
        for row in of_kind(rows, "memory")
    ]
    yield from table(("stream", "peak, MiB", "64 MiB + 32 bytes a block"), lines)
    for row in of_kind(rows, "kernel"):
        speeds = ", ".join(f"{name} {value:,}" for name, value in row["mib_per_second"].items())
        yield f"The kernel alone ({row['kernel']}), bytes in memory, one core, MiB/s: {speeds}.\n"


def blocks(rows: Sequence[Row]) -> Iterator[str]:
    """Bytes by block size."""
    if not of_kind(rows, "blocks"):
        return
    yield "## Block size\n"
    yield "![bytes by block size](charts/delta-blocks.svg)\n"
    yield (
        "A signature of a file of n bytes takes r * n / B bytes for blocks of B bytes (r = 22: "
        "weak sum, place, strong sum), and each of E separate edits about a block of literals. The "
        "sum r * n / B + E * B is least at **B = sqrt(r * n / E)**. `choose_block_size` takes "
        "sqrt(n) / 8, right for E = 22 * 64 = 1,400 edits, as a signature that a device keeps "
        "costs no line; rsync's sqrt(n) is right for 22. What is drawn is the sum, also where the "
        "signature is kept, in powers of two. Least, and what the two rules give:\n"
    )
    lines = []
    for curve in block_curves(rows):
        total = dict(curve.points)
        least = min(total, key=lambda block: total[block])
        picks = [f"{block:,}: {total[block]:,.0f}" for block in (least, *curve.marked)]
        lines.append((curve.name, *picks))
    yield from table(("pair", "least", "sqrt(n) / 8", "sqrt(n)"), lines)


def paper(rows: Sequence[Row]) -> Iterator[str]:
    """The published table and ours."""
    mine = of_kind(rows, "paper")
    yield "## The columns of rsync's paper\n"
    about = f"{mine[0]['corpus']}, {mine[0]['new'] / 1e6:.0f} MB" if mine else "nothing"
    yield _PAPER.format(about)
    head = (
        "",
        "block",
        "matches",
        "tag hits",
        "false alarms",
        "data",
        "data, %",
        "written",
        "read",
    )
    lines = [
        paper_line("rsync, 1996", block, values, _PUBLISHED_SIZE)
        for block, values in _PUBLISHED.items()
    ]
    for row in mine:
        values = (row["matches"], None, row["alarms"], row["data"], row["written"], row["read"])
        lines.append(paper_line("dblike_delta", row["block"], values, row["new"]))
    yield from table(head, lines)


def paper_line(name: str, block: int, values: Sequence[int | None], size: int) -> tuple[str, ...]:
    """One block size."""
    cells = ["-" if value is None else f"{value:,}" for value in values]
    data = values[3] or 0
    return name, str(block), *cells[:4], f"{100 * data / size:.1f}", *cells[4:]


def recipes(rows: Sequence[Row]) -> Iterator[str]:
    """Arithmetic."""
    for row in of_kind(rows, "recipes"):
        yield f"## Recipes of {row['extents']:,} extents\n"
        lines = [(name, f"{value:,.1f}") for name, value in row["milliseconds"].items()]
        yield from table(("what", "milliseconds"), lines)


def main() -> int:
    """Write the page."""
    write_page(read(RESULTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
