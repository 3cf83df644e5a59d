#!/usr/bin/env python3
"""Signature, delta and patch beside librsync, rdiff and rsync, on the same bytes in the same run.

Measures: wall and CPU seconds of each step (medians), bytes of signature and delta, ratios to the
rivals, growth of pathological inputs from one size to twice that size, peak memory.  All results
are hash-checked.  JSON lines on stdout: one for each (corpus, engine), then one for each target.
Targets take CPU seconds, so that a busy machine changes them little.

    python benchmarks/delta.py --quick              16 MiB, under 20 seconds
    python benchmarks/delta.py                      512 MiB, three runs
    python benchmarks/delta.py --releases A.tar B.tar    also pairs of releases
    python benchmarks/delta.py --out results.jsonl --chart docs/delta-speed.svg
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import xxhash

from benchmarks.chart import bars
from benchmarks.delta_corpora import MIB, Corpus, colliding, corpora, noise, put
from benchmarks.delta_engines import PEERS, cpu_seconds, sent
from benchmarks.report import machine
from dblike_delta import DeltaEncoder, Literal, Signature, SignatureBuilder, kernel

Row = dict[str, Any]


# --- measuring ------------------------------------------------------------------------------------


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """Of each step, in seconds; never 0."""
    steps = {step: statistics.median(run[step] for run in runs) for step in runs[0]}
    return {step: max(1e-4, round(value, 4)) for step, value in steps.items()}


def measure(corpus: Corpus, folder: Path, runs: int) -> list[Row]:
    """All engines on one corpus."""
    rows = []
    for name, engine in PEERS.items():
        if name in {"rdiff", "rsync"} and shutil.which(name) is None:
            continue
        made = [engine(corpus, folder) for _ in range(runs)]
        seconds, cpu = (median([getattr(run, kind) for run in made]) for kind in ("seconds", "cpu"))
        sizes = corpus.old.stat().st_size, corpus.new.stat().st_size
        rows.append(
            {
                "corpus": corpus.name,
                "engine": made[0].engine,
                "old": sizes[0],
                "new": sizes[1],
                "seconds": seconds,
                "cpu": cpu,
                "mib_per_second": {step: round(sizes[1] / MIB / s) for step, s in seconds.items()},
                "bytes": made[0].sizes,
            }
        )
    return rows


def floors(corpus: Corpus, folder: Path) -> Row:
    """What reading, hashing and copying the same bytes cost by themselves."""
    data = corpus.new.read_bytes()
    copy = bytearray(len(data))
    times = {
        "xxh128": lambda: xxhash.xxh3_128_digest(data),
        "memcpy": lambda: copy.__setitem__(slice(None), data),
        "cp": lambda: shutil.copyfile(corpus.new, folder / "out"),
    }
    speeds = {name: round(len(data) / MIB / best(work)) for name, work in times.items()}
    return {"corpus": corpus.name, "engine": "floor", "mib_per_second": speeds}


def best(work: Callable[[], Any]) -> float:
    """CPU seconds of the best of three runs."""
    spent = []
    for _ in range(3):
        start = cpu_seconds()
        work()
        spent.append(cpu_seconds() - start)
    return max(1e-4, min(spent))


def in_memory(size: int) -> Row:
    """The kernel alone, one core, bytes that are in memory: what the search itself costs."""
    base, other = memoryview(noise("base", size)), memoryview(noise("other", size))
    pieces = [(base[at : at + MIB], other[at : at + MIB]) for at in range(0, size, MIB)]

    def sign() -> Signature:
        builder = SignatureBuilder(4096)
        for piece, _ in pieces:
            builder.update(piece)
        return builder.finish()

    def search(which: int) -> None:
        encoder = DeltaEncoder(signed)
        for piece in pieces:
            encoder.update(piece[which])
        encoder.finish()

    signed = sign()
    speeds = {
        "signature": best(sign),
        "delta, matched": best(lambda: search(0)),
        "delta, unmatched": best(lambda: search(1)),
        "xxh128": best(lambda: xxhash.xxh3_128_digest(base)),
    }
    rounded = {name: round(size / MIB / seconds) for name, seconds in speeds.items()}
    return {"corpus": "in memory", "engine": f"dblike, {kernel.name}", "mib_per_second": rounded}


def pathological(folder: Path, size: int) -> Iterator[Row]:
    """Two sizes: linear work doubles."""
    cases: dict[str, Callable[[int], tuple[bytes, bytes]]] = {
        "Thue-Morse collisions": colliding,
        "zeros, nothing alike": lambda size: (bytes(size), b"\1" * size),
        "short period": lambda size: (b"abc" * (size // 3), b"x" + b"cab" * (size // 3)),
    }
    for name, make in cases.items():
        spent = []
        for wanted in (size, 2 * size):
            corpus = put(folder, name, *make(wanted))
            spent.append(min(sent(corpus, folder).cpu["delta"] for _ in range(3)))
        yield {
            "corpus": name,
            "engine": "dblike, signature sent",
            "bytes_each": [size, 2 * size],
            "seconds": [round(value, 4) for value in spent],
            "growth": round(spent[1] / max(1e-4, spent[0]), 2),
        }


PUBLISHED = {"block": 700, "matches": 33255, "false alarms": 22, "data, %": 5.4}
"""Tridgell and Mackerras, The rsync algorithm, section Results: two kernel sources."""


def published_columns(corpus: Corpus) -> Iterator[Row]:
    """The columns of rsync's paper for two releases, and the paper's own row."""
    yield {"corpus": "the paper's", "engine": "rsync, 1996", **PUBLISHED}
    old, new = corpus.old.read_bytes(), corpus.new.read_bytes()
    for block in (300, 500, 700, 900, 1100):
        builder = SignatureBuilder(block)
        builder.update(old)
        encoder = DeltaEncoder(builder.finish())
        commands = encoder.update(new) + encoder.finish()
        data = sum(len(command.data) for command in commands if isinstance(command, Literal))
        yield {
            "corpus": corpus.name,
            "engine": "dblike",
            "block": block,
            "matches": encoder.matches,
            "false alarms": encoder.alarms,
            "data, %": round(100 * data / len(new), 2),
        }


_STREAM = """
import os, sys
from dblike_delta import signature
from dblike_delta.delta import write_delta

class File:
    def __init__(self, size):
        self.left, self.piece = size, os.urandom(1 << 20)

    def read(self, size):
        part = self.piece[: min(size, self.left)]
        self.left -= len(part)
        return part

made = signature(File(int(sys.argv[1])), block_size=4096)
with open(os.devnull, "wb") as out:
    write_delta(made, File(int(sys.argv[1])), out)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_memory(size: int) -> Row:
    """Of a process that signs `size` bytes and searches as many."""
    path = os.pathsep.join(sys.path[:2])
    done = subprocess.run(
        [sys.executable, "-c", _STREAM, str(size)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    used = int(done.stdout.split()[1]) << 10
    bound = (64 << 20) + 32 * size // 4096
    return {"corpus": "memory", "bytes": size, "peak": used, "bound": bound, "met": used <= bound}


# --- what was aimed at ----------------------------------------------------------------------------


def targets(rows: list[Row]) -> Iterator[Row]:
    """What was aimed at, and what came out."""
    by = {(row["corpus"], row["engine"]): row for row in rows if "block" not in row}
    mine = "dblike, signature kept"
    memory = by["in memory", f"dblike, {kernel.name}"]["mib_per_second"]

    def target(name: str, value: float, least: float) -> Row:
        return {"target": name, "value": round(value, 2), "least": least, "met": value >= least}

    def times(corpus: str, rival: str, step: str, theirs: str | None = None) -> float:
        """Our speed over theirs."""
        spent = by[corpus, rival]["cpu"][theirs or step] / by[corpus, mine]["cpu"][step]
        return float(spent)

    yield target("signature over librsync's", times("identical", "librsync", "signature"), 4)
    yield target("signature in memory over xxh128", memory["signature"] / memory["xxh128"], 0.25)
    for corpus, least in (("200 edits", 4), ("identical", 4), ("unrelated", 10)):
        yield target(f"delta, {corpus}, over librsync's", times(corpus, "librsync", "delta"), least)
    if ("unrelated", "rsync") in by:
        yield target("delta, unrelated, over rsync", times("unrelated", "rsync", "delta", "all"), 4)
    row = by["200 edits", mine]
    patched = row["new"] / MIB / row["cpu"]["patch"]
    yield target("patch over cp", patched / by["200 edits", "floor"]["mib_per_second"]["cp"], 0.5)
    for (corpus, engine), row in by.items():
        if engine == "librsync":
            total = sum(by[corpus, "dblike, signature sent"]["bytes"].values())
            ratio = sum(row["bytes"].values()) / total
            yield target(f"signature + delta, {corpus}, librsync's bytes over ours", ratio, 1)


def main() -> None:
    """Measure, print, and keep where asked to."""
    options = parse()
    size = 16 * MIB if options.quick else options.size * MIB
    runs = 1 if options.quick else options.runs
    rows: list[Row] = []

    def show(row: Row) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    show({"machine": machine(), "kernel": kernel.name, "size": size, "runs": runs})
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        show(in_memory(min(size, 256 * MIB)))
        for corpus in corpora(folder, size, options.releases):
            for row in measure(corpus, folder, runs):
                show(row)
            if corpus.old in options.releases:
                for row in published_columns(corpus):
                    show(row)
            if corpus.name == "200 edits":
                show(floors(corpus, folder))
        for row in pathological(folder, size // 16):
            show(row)
    show(peak_memory(size))
    for row in list(targets([row for row in rows if "engine" in row])):
        show(row)
    if options.out:
        options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if options.chart:
        options.chart.write_text(bars(rows))


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="16 MiB and one run")
    parser.add_argument("--size", type=int, default=512, metavar="MIB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--releases", type=Path, nargs="+", default=[], metavar="TAR")
    parser.add_argument("--folder", type=Path, help="where files are made; a RAM disk is best")
    parser.add_argument("--out", type=Path, help="also write the JSON lines here")
    parser.add_argument("--chart", type=Path, help="also draw the speeds as SVG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
