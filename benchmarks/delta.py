#!/usr/bin/env python3
"""Signature, delta and patch beside librsync, rdiff, rsync, zsync, xdelta3 and bsdiff4.

Measures, on the same bytes: wall and CPU seconds of each step (medians of repetitions that take
turns), bytes of signature and delta, the floors (xxh128, memcpy, cp), growth of pathological inputs
from one size to twice that size, bytes by block size, the columns of rsync's paper, arithmetic on
recipes, peak memory.  Every result is compared with the new file by BLAKE3; a difference ends it.

    python benchmarks/delta.py --quick                 4 MiB, seconds, nothing kept
    python benchmarks/delta.py                         512 MiB, three rounds; results, charts, page
    python benchmarks/delta.py --only unrelated zeros  these parts; the other results stay
    python benchmarks/delta.py --list                  the parts
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import delta_measures as measures
from benchmarks.delta_corpora import MIB, Corpus, far_apart, made, releases
from benchmarks.delta_engines import ENGINES
from benchmarks.delta_measures import Row
from benchmarks.delta_report import RESULTS, key_of, write_page
from benchmarks.delta_trees import trees
from benchmarks.report import machine, read

_STUDIED = {"log", "sqlite, 1 % of rows"}
"""Pairs whose bytes are measured for each block size, besides the releases."""


def parts(
    folder: Path, fetched_to: Path, size: int, runs: int
) -> dict[str, Callable[[], list[Row]]]:
    """What can be measured, by name."""

    def pair(make: Callable[[], Corpus]) -> list[Row]:
        corpus = make()
        rows = [measures.floor(corpus, folder, runs), *measures.engines(corpus, folder, runs)]
        if corpus.name in _STUDIED or corpus.old.parent == fetched_to:
            rows += list(measures.blocks(corpus))
        return rows

    every = {**made(folder, size), **releases(fetched_to)}
    measured: dict[str, Callable[[], list[Row]]] = {
        name: lambda make=make: pair(make)  # type: ignore[misc]
        for name, make in every.items()
    }
    return {
        **measured,
        "kernel": lambda: [measures.in_memory(min(size, 256 * MIB))],
        "growth": lambda: list(measures.growth(folder, size // 16)),
        "paper": lambda: list(measures.paper(far_apart(fetched_to))),
        "tree": lambda: list(trees(folder, fetched_to)),
        "recipes": lambda: [measures.recipes()],
        "memory": lambda: [measures.memory(size), measures.memory(12 * size)],
    }


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """The rows of all parts that were asked for."""
    size = 4 * MIB if options.quick else options.size * MIB
    runs = 1 if options.quick else options.runs
    about = machine()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        fetched_to = options.fetched or Path(name) / "releases"
        for part, work in parts(Path(name), fetched_to, size, runs).items():
            if options.only and part not in options.only:
                continue
            try:
                rows = work()
            except subprocess.CalledProcessError as error:
                print(f"{part}: left out: {error} {error.stderr}", file=sys.stderr)
                continue
            for row in rows:
                yield {"benchmark": "delta", "size": size, **row, "machine": about}


def add(path: Path, fresh: list[Row]) -> None:
    """Keep the rows; they take the place of those that said the same."""
    replaced = {key_of(row) for row in fresh}
    rows = [row for row in read(path) if key_of(row) not in replaced] + fresh
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def main() -> None:
    """Measure, print, keep, draw."""
    options = parse()
    if options.list:
        print("\n".join(parts(Path(), Path(), MIB, 1)))
        return
    for name, engine in ENGINES.items():
        if not engine.present:
            print(f"{name} is missing, see benchmarks/README.md: left out", file=sys.stderr)
    rows = []
    for row in measure(options):
        rows.append(row)
        print(json.dumps({name: row[name] for name in row if name != "machine"}), flush=True)
    if not options.quick:
        add(options.results, rows)
        if options.results == RESULTS:
            write_page(read(RESULTS))


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 MiB, one round, nothing kept")
    parser.add_argument("--size", type=int, default=512, metavar="MIB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="PART", help="see --list")
    parser.add_argument("--list", action="store_true", help="name the parts, and end")
    parser.add_argument("--folder", type=Path, help="where files are made; a RAM disk is best")
    parser.add_argument("--fetched", type=Path, help="where releases stay, to be fetched once")
    parser.add_argument("--results", type=Path, default=RESULTS, help="elsewhere: no page is made")
    return parser.parse_args()


if __name__ == "__main__":
    main()
