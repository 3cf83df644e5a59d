"""What the library's benchmark measures: each function gives rows, which become JSON lines."""

from __future__ import annotations

import io
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

from benchmarks.delta_corpora import MIB, Corpus, colliding, noise, put
from benchmarks.delta_engines import ENGINES, GaveUpError, Run, ours
from dblike_delta import (
    Copy,
    DeltaEncoder,
    Extent,
    Literal,
    Recipe,
    Signature,
    SignatureBuilder,
    choose_block_size,
    delta,
    kernel,
)
from dblike_delta.recipe import Part, apply_delta, difference

Row = dict[str, Any]

PAPER_BLOCKS = (300, 500, 700, 900, 1100)
BLOCKS = [1 << log for log in range(8, 17)]


def engines(corpus: Corpus, folder: Path, runs: int) -> Iterator[Row]:
    """All engines on one pair, taking turns so that a slow minute hits all of them."""
    done: dict[str, list[Run]] = {name: [] for name, one in ENGINES.items() if one.present}
    failures: dict[str, str] = {}
    for turn in range(runs):
        for name, finished in done.items():
            if name in failures or (turn and ENGINES[name].slow):
                continue
            try:
                run = ENGINES[name].run(corpus, folder)
                run.check()
                finished.append(run)
            except GaveUpError as reason:
                failures[name] = str(reason)
    for name, made in done.items():
        yield {
            "kind": "engine",
            "corpus": corpus.name,
            "engine": name,
            "old": corpus.old.stat().st_size,
            "new": corpus.new.stat().st_size,
            "runs": len(made),
            "seconds": median([run.seconds for run in made]),
            "cpu": median([run.cpu for run in made]),
            "bytes": made[0].sizes if made else {},
            "failure": failures.get(name, ""),
        }


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """Of each step, in seconds; never 0."""
    steps = runs[0] if runs else {}
    middle = {step: statistics.median(run[step] for run in runs) for step in steps}
    return {step: max(1e-4, round(value, 4)) for step, value in middle.items()}


def floor(corpus: Corpus, folder: Path, runs: int) -> Row:
    """What reading, hashing and copying the same bytes cost by themselves."""
    data = corpus.new.read_bytes()
    room = memoryview(bytearray(len(data)))

    def copy() -> None:
        room[:] = data

    made = []
    for _ in range(runs):
        run = Run(corpus, folder)
        run.time("xxh128", lambda: xxhash.xxh3_128_digest(data))
        run.time("memcpy", copy)
        if shutil.which("xxh128sum"):
            run.call("xxh128sum", "xxh128sum", corpus.new)
        run.call("cp", "cp", corpus.new, run.out)
        made.append(run)
    return {
        "kind": "floor",
        "corpus": corpus.name,
        "new": len(data),
        "seconds": median([run.seconds for run in made]),
        "cpu": median([run.cpu for run in made]),
    }


def best(work: Callable[[], Any], runs: int = 5) -> float:
    """Seconds of the best of some runs, on one core."""
    spent = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return max(1e-6, min(spent))


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
    return {"kind": "kernel", "kernel": kernel.name, "new": size, "mib_per_second": rounded}


def growth(folder: Path, size: int) -> Iterator[Row]:
    """Two sizes: linear work doubles."""
    cases: dict[str, Callable[[int], tuple[bytes, bytes]]] = {
        "Thue-Morse collisions": colliding,
        "zeros, nothing alike": lambda size: (bytes(size), b"\1" * size),
        "short period": lambda size: (b"abc" * (size // 3), b"x" + b"cab" * (size // 3)),
        "unrelated noise": lambda size: (noise("base", size), noise("other", size)),
    }
    for name, make in cases.items():
        spent = []
        for wanted in (size, 2 * size):
            corpus = put(folder, name, *make(wanted))
            spent.append(min(ours(corpus, folder, 4096).cpu["delta"] for _ in range(7)))
        ratio = round(spent[1] / max(1e-4, spent[0]), 2)
        seconds = [round(value, 4) for value in spent]
        yield {
            "kind": "growth",
            "corpus": name,
            "sizes": [size, 2 * size],
            "seconds": seconds,
            "growth": ratio,
        }


def searched(old: bytes, new: bytes, block: int) -> tuple[Signature, DeltaEncoder, int]:
    """A search with blocks of this size, and the literal bytes that it left."""
    builder = SignatureBuilder(block)
    builder.update(old)
    made = builder.finish()
    encoder = DeltaEncoder(made)
    commands = encoder.update(new) + encoder.finish()
    return made, encoder, sum(len(each.data) for each in commands if isinstance(each, Literal))


def blocks(corpus: Corpus) -> Iterator[Row]:
    """Bytes of signature and delta for each block size."""
    old, new = corpus.old.read_bytes(), corpus.new.read_bytes()
    for block in BLOCKS:
        made, _, literal = searched(old, new, block)
        yield {
            "kind": "blocks",
            "corpus": corpus.name,
            "old": len(old),
            "block": block,
            "chosen": choose_block_size(len(old)),
            "bytes": {"signature": len(made.rows), "literals": literal},
        }


def paper(corpus: Corpus) -> Iterator[Row]:
    """The columns of rsync's paper for two releases."""
    old, new = corpus.old.read_bytes(), corpus.new.read_bytes()
    for block in PAPER_BLOCKS:
        made, encoder, literal = searched(old, new, block)
        with delta(made, io.BytesIO(new)) as found:
            written = found.encoded
        yield {
            "kind": "paper",
            "corpus": corpus.name,
            "new": len(new),
            "block": block,
            "matches": encoder.matches,
            "alarms": encoder.alarms,
            "data": literal,
            "written": written,
            "read": len(made.pack()),
        }


def recipes(extents: int = 100_000) -> Row:
    """Arithmetic on a recipe of so many extents."""
    half = extents // 2
    base = Recipe.of([Extent(1, 0, half * 100)])
    every: list[Part] = []
    for block in range(half):
        every += [Copy(block * 100, 90), Extent(2, block * 11, 10)]
    large = apply_delta(base, every)
    edit = one_edit(large, large.size // 2, 0)
    after = apply_delta(large, edit)
    packed = large.pack()
    work: dict[str, Callable[[], Any]] = {
        "apply one edit": lambda: apply_delta(large, edit),
        "difference after one edit": lambda: difference(large, after),
        "apply a delta of as many parts": lambda: apply_delta(base, every),
        "difference of as many parts": lambda: difference(base, large),
        "pack": large.pack,
        "unpack": lambda: Recipe.unpack(packed),
        "compose 1,000 edits": lambda: composed(1000),
    }
    spent = {name: round(1000 * best(run), 2) for name, run in work.items()}
    return {"kind": "recipes", "extents": len(large), "milliseconds": spent}


def one_edit(recipe: Recipe, at: int, number: int) -> list[Part]:
    """500 bytes replaced by 900."""
    rest = Copy(at + 500, recipe.size - at - 500)
    return [Copy(0, at), Extent(3, 1000 * number, 900), rest]


def composed(edits: int) -> Recipe:
    """A content after so many edits at random places."""
    chance, recipe = random.Random(1), Recipe.of([Extent(1, 0, 10**9)])
    for number in range(edits):
        recipe = apply_delta(recipe, one_edit(recipe, chance.randrange(recipe.size - 1000), number))
    return recipe


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


def memory(size: int) -> Row:
    """The most that a process holds which signs so many bytes and searches as many."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[:2])}
    done = subprocess.run(
        [sys.executable, "-c", _STREAM, str(size)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    used = int(done.stdout.split()[1]) << 10
    return {"kind": "memory", "new": size, "peak": used, "bound": (64 << 20) + 32 * size // 4096}
