"""The engines of the library's benchmark: the same three steps on the same files, checked."""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from benchmarks.delta_corpora import Corpus
from benchmarks.measure import BenchmarkError
from benchmarks.range_server import serving
from dblike_delta import Signature, librsync, patch, signature
from dblike_delta.delta import write_delta

_PATIENCE = 60
"""CPU seconds after which a step of a slow engine is ended."""
_ROOM = 4 << 30
"""Bytes of memory that a program may take."""
_TICKS = os.sysconf("SC_CLK_TCK")


class GaveUpError(Exception):
    """An engine can't do this pair within the time and memory that it has."""


class Run:
    """One engine on one corpus: times of the steps, bytes, and the check."""

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        self.corpus, self.out = corpus, folder / "out"
        self.out.unlink(missing_ok=True)
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.sizes: dict[str, int] = {}

    def time(self, step: str, work: Callable[[], Any]) -> Any:
        """A step in this process."""
        start, spent = time.perf_counter(), cpu_seconds()
        result = work()
        self.seconds[step] = time.perf_counter() - start
        self.cpu[step] = cpu_seconds() - spent
        return result

    def call(self, step: str, *argv: str | Path) -> str:
        """A step by a program; what it said."""
        limits = ["prlimit", f"--cpu={_PATIENCE}", f"--as={_ROOM}"]
        start = time.perf_counter()
        with subprocess.Popen(
            [*limits, *argv],
            cwd=self.out.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            said = process.stdout.read()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            self.seconds[step] = time.perf_counter() - start
            self.alone = own_cpu(process.pid)
            _, status, spent = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu[step] = spent.ru_utime + spent.ru_stime
        if process.returncode:
            raise GaveUpError(why(argv[0], process.returncode, said))
        return said

    def check(self) -> None:
        wanted = blake3().update_mmap(self.corpus.new)
        if blake3().update_mmap(self.out).digest() != wanted.digest():
            raise BenchmarkError(f"a wrong file was made of {self.corpus.name}")


def why(program: str | Path, code: int, said: str) -> str:
    """Why a program did not finish."""
    if code in {-9, -24}:
        return f"not done after {_PATIENCE} s"
    if "Memory" in said:
        return f"more than {_ROOM >> 30} GiB of memory"
    return f"{Path(program).name} ended with {code}: {said.strip()[-200:]}"


def cpu_seconds() -> float:
    """Of this process and its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def own_cpu(pid: int) -> float:
    """Of a process that ended but was not waited for, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICKS


def ours(corpus: Corpus, folder: Path, block: int | None) -> Run:
    """Our three steps through files."""
    run, made = Run(corpus, folder), folder / "delta"
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
    return run


def kept(corpus: Corpus, folder: Path) -> Run:
    """As devices do: small blocks, the signature stays."""
    return ours(corpus, folder, None)


def sent(corpus: Corpus, folder: Path) -> Run:
    """As rsync does: the signature travels too, so blocks are a power of two up to sqrt(size)."""
    size = corpus.old.stat().st_size
    return ours(corpus, folder, max(512, 1 << (size.bit_length() - 1) // 2))


def rdiff(corpus: Corpus, folder: Path) -> Run:
    """The program; its start is a few milliseconds."""
    run = Run(corpus, folder)
    sums, made = folder / "sums", folder / "delta"
    run.call("signature", "rdiff", "-f", "signature", corpus.old, sums)
    run.call("delta", "rdiff", "-f", "delta", sums, corpus.new, made)
    run.call("patch", "rdiff", "-f", "patch", corpus.old, made, run.out)
    run.sizes = {"signature": sums.stat().st_size, "delta": made.stat().st_size}
    return run


def library(corpus: Corpus, folder: Path) -> Run:
    """Librsync in this process, through the prototypes of dblike_delta.librsync."""
    run, sums, made = Run(corpus, folder), io.BytesIO(), folder / "delta"
    block = max(256, int(corpus.old.stat().st_size ** 0.5) & ~127)
    with corpus.old.open("rb") as base, corpus.new.open("rb") as file:
        run.time("signature", lambda: librsync.signature(base, sums, block_size=block))
        sums.seek(0)
        with made.open("wb") as out:
            run.time("delta", lambda: librsync.delta(sums, file, out))
        with made.open("rb") as change, run.out.open("wb") as out:
            run.time("patch", lambda: librsync.patch(base, change, out))
    run.sizes = {"signature": len(sums.getvalue()), "delta": made.stat().st_size}
    return run


def rsync(corpus: Corpus, folder: Path) -> Run:
    """Between two of its processes: three steps in one time.  The first process is the sender."""
    run = Run(corpus, folder)
    shutil.copyfile(corpus.old, run.out)
    said = run.call(
        "all", "rsync", "--no-whole-file", "--ignore-times", "--stats", corpus.new, run.out
    )
    run.cpu["sender"] = run.alone
    run.sizes = transferred(said)
    return run


def transferred(said: str) -> dict[str, int]:
    """What rsync's --stats say of the line."""
    words = {
        line.partition(":")[0]: int(line.partition(":")[2].replace(",", "").split()[0])
        for line in said.splitlines()
        if line.startswith("Total bytes")
    }
    return {"signature": words["Total bytes received"], "delta": words["Total bytes sent"]}


def xdelta(corpus: Corpus, folder: Path) -> Run:
    """With all of the old file in its window; it compresses, and needs both files at one place."""
    run, made = Run(corpus, folder), folder / "delta"
    window = f"-B{max(1 << 26, 1 << corpus.old.stat().st_size.bit_length())}"
    run.call("delta", "xdelta3", "-e", "-f", "-q", window, "-s", corpus.old, corpus.new, made)
    run.call("patch", "xdelta3", "-d", "-f", "-q", window, "-s", corpus.old, made, run.out)
    run.sizes = {"delta": made.stat().st_size}
    return run


def bsdiff(corpus: Corpus, folder: Path) -> Run:
    """Sorts all suffixes of the old file, and compresses; needs both files at one place."""
    run, made = Run(corpus, folder), folder / "delta"
    code = "import sys, bsdiff4; getattr(bsdiff4, sys.argv[1])(*sys.argv[2:])"
    program = (sys.executable, "-c", code)
    run.call("delta", *program, "file_diff", corpus.old, corpus.new, made)
    run.call("patch", *program, "file_patch", corpus.old, run.out, made)
    run.sizes = {"delta": made.stat().st_size}
    return run


def zsync(corpus: Corpus, folder: Path) -> Run:
    """The one with NEW publishes its sums; the one with OLD searches, and fetches over HTTP."""
    run, sums = Run(corpus, folder), folder / "sums"
    with serving(corpus.new.parent) as server:
        url = server.url(corpus.new.name)
        run.call("signature", "zsyncmake", "-Z", "-u", url, "-o", sums, corpus.new)
        run.call("all", "zsync", "-q", "-i", corpus.old, "-o", run.out.name, sums)
    run.sizes = {"signature": sums.stat().st_size, "delta": server.sent}
    return run


class Engine(NamedTuple):
    """What is measured: how it runs, what it needs, how it says its version."""

    run: Callable[[Corpus, Path], Run]
    program: str = ""
    slow: bool = False
    """Runs once, however often the others do."""

    @property
    def present(self) -> bool:
        if self.program.startswith("python-"):
            return find_spec(self.program.partition("-")[2]) is not None
        return not self.program or shutil.which(self.program) is not None


ENGINES: dict[str, Engine] = {
    "dblike, signature kept": Engine(kept),
    "dblike, signature sent": Engine(sent),
    "librsync": Engine(library, "python-librsync"),
    "rdiff": Engine(rdiff, "rdiff"),
    "rsync": Engine(rsync, "rsync"),
    "zsync": Engine(zsync, "zsync", slow=True),
    "xdelta3": Engine(xdelta, "xdelta3", slow=True),
    "bsdiff4": Engine(bsdiff, "python-bsdiff4", slow=True),
}
