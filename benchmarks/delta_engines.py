"""The engines of the library's benchmark: the same three steps on the same files, checked."""

from __future__ import annotations

import io
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from benchmarks.delta_corpora import Corpus
from benchmarks.measure import BenchmarkError
from dblike_delta import Signature, librsync, patch, signature
from dblike_delta.delta import write_delta


class Run:
    """One engine on one corpus: times of the steps, bytes, and the check."""

    def __init__(self, engine: str, corpus: Corpus, folder: Path) -> None:
        self.engine, self.corpus, self.out = engine, corpus, folder / "out"
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.sizes: dict[str, int] = {}

    def time(self, step: str, work: Callable[[], Any]) -> Any:
        start, spent = time.perf_counter(), cpu_seconds()
        result = work()
        self.seconds[step] = time.perf_counter() - start
        self.cpu[step] = cpu_seconds() - spent
        return result

    def check(self) -> None:
        made, wanted = (blake3().update_mmap(path) for path in (self.out, self.corpus.new))
        if made.digest() != wanted.digest():
            raise BenchmarkError(f"{self.engine} made a wrong file of {self.corpus.name}")


def cpu_seconds() -> float:
    """Of this process, its threads and the children that ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def ours(corpus: Corpus, folder: Path, block: int | None, engine: str) -> Run:
    """Our three steps through files."""
    run, made = Run(engine, corpus, folder), folder / "delta"
    with corpus.old.open("rb", buffering=0) as file:
        signed: Signature = run.time("signature", lambda: signature(file, block_size=block))
    with corpus.new.open("rb", buffering=0) as file, made.open("wb") as out:
        run.time("delta", lambda: write_delta(signed, file, out))
    with (
        corpus.old.open("rb", buffering=0) as base,
        made.open("rb", buffering=0) as change,
        run.out.open("wb", buffering=0) as out,
    ):
        run.time("patch", lambda: patch(base, change, out))
    run.sizes = {"signature": len(signed.pack()), "delta": made.stat().st_size}
    run.check()
    return run


def kept(corpus: Corpus, folder: Path) -> Run:
    """As devices do: small blocks, the signature stays."""
    return ours(corpus, folder, None, "dblike, signature kept")


def sent(corpus: Corpus, folder: Path) -> Run:
    """As rsync does: the signature travels too, so blocks are a power of two up to sqrt(size)."""
    size = corpus.old.stat().st_size
    block = max(512, 1 << (size.bit_length() - 1) // 2)
    return ours(corpus, folder, block, "dblike, signature sent")


def rdiff(corpus: Corpus, folder: Path) -> Run:
    """The program; its start is a few milliseconds."""
    run = Run("rdiff", corpus, folder)
    sums, made = folder / "rdiff.sig", folder / "rdiff.delta"

    def call(*arguments: str | Path) -> None:
        subprocess.run(["rdiff", "-f", *arguments], check=True)

    run.time("signature", lambda: call("signature", corpus.old, sums))
    run.time("delta", lambda: call("delta", sums, corpus.new, made))
    run.time("patch", lambda: call("patch", corpus.old, made, run.out))
    run.sizes = {"signature": sums.stat().st_size, "delta": made.stat().st_size}
    run.check()
    return run


def library(corpus: Corpus, folder: Path) -> Run:
    """Librsync in this process, through the prototypes of dblike_delta.librsync."""
    run, sums, made = Run("librsync", corpus, folder), io.BytesIO(), folder / "delta"
    block = max(256, int(corpus.old.stat().st_size ** 0.5) & ~127)
    with corpus.old.open("rb") as base, corpus.new.open("rb") as file:
        run.time("signature", lambda: librsync.signature(base, sums, block_size=block))
        sums.seek(0)
        with made.open("wb") as out:
            run.time("delta", lambda: librsync.delta(sums, file, out))
        with made.open("rb") as change, run.out.open("wb") as out:
            run.time("patch", lambda: librsync.patch(base, change, out))
    run.sizes = {"signature": len(sums.getvalue()), "delta": made.stat().st_size}
    run.check()
    return run


def rsync(corpus: Corpus, folder: Path) -> Run:
    """Rsync's delta between two of its processes; all three steps are one time."""
    run = Run("rsync", corpus, folder)
    shutil.copyfile(corpus.old, run.out)
    command = ["rsync", "--no-whole-file", "--ignore-times", "--stats", corpus.new, run.out]
    done = run.time(
        "all", lambda: subprocess.run(command, check=True, capture_output=True, text=True)
    )
    words = {
        line.partition(":")[0]: int(line.partition(":")[2].replace(",", "").split()[0])
        for line in done.stdout.splitlines()
        if line.startswith("Total bytes")
    }
    run.sizes = {
        "signature": words["Total bytes received"],
        "delta": words["Total bytes sent"],
    }
    run.check()
    return run


PEERS: dict[str, Callable[[Corpus, Path], Run]] = {
    "dblike kept": kept,
    "dblike sent": sent,
    "librsync": library,
    "rdiff": rdiff,
    "rsync": rsync,
}
