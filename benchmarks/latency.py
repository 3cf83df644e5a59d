"""From a save to the other device's disk: both watch, one saves, the other's file is awaited.

Starts `dblike-server run` and two `dblike watch` on fresh directories (`--dir`: where), saves 4 KB
`--saves` times in turn on either side, and measures until the other side has its bytes.  With
`--files N` both folders hold N other files, and the CPU and memory of idle watching are measured.

    python -m benchmarks.latency --saves 200
    python -m benchmarks.latency --files 100000 --dir /dev/shm
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil

USER: Final = "bench"
PASSWORD: Final = "benchmark"
SIZE: Final = 4096
PATIENCE: Final = 10.0


def dblike(*words: str | Path) -> None:
    """A client command that has to succeed."""
    command = [sys.executable, "-m", "dblike_cli", *map(str, words)]
    subprocess.run(command, input=PASSWORD, text=True, check=True, capture_output=True)


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The URL of a fresh server with the user."""
    program = [sys.executable, "-m", "dblike_srv"]
    data = ["--data", str(directory)]
    subprocess.run([*program, "init", *data], check=True, capture_output=True)
    add = [*program, "user", "add", USER, "--password-stdin", *data]
    subprocess.run(add, input=PASSWORD, text=True, check=True, capture_output=True)
    run = [*program, "run", *data, "--bind", "127.0.0.1:0", "--workers", "2"]
    with subprocess.Popen(
        run, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().rpartition(" ")[2].strip()
        finally:
            server.terminate()


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[psutil.Process]:
    """A running watch that is in sync."""
    run = [sys.executable, "-m", "dblike_cli", "-C", str(folder), "watch", "--json"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        for line in watch.stdout:
            if json.loads(line).get("in_sync"):
                break
        threading.Thread(target=watch.stdout.read, daemon=True).start()
        try:
            yield psutil.Process(watch.pid)
        finally:
            watch.terminate()


def save(file: Path, arrival: Path) -> float:
    """Milliseconds from a save until its bytes are at `arrival`."""
    content = os.urandom(SIZE)
    file.write_bytes(content)
    saved = time.perf_counter()
    while time.perf_counter() - saved < PATIENCE:
        with contextlib.suppress(FileNotFoundError):
            if arrival.read_bytes() == content:
                return (time.perf_counter() - saved) * 1000
        time.sleep(0.0005)
    raise SystemExit(f"{file.name} did not arrive")


def fill(folder: Path, files: int) -> None:
    """Small files, a hundred in a directory."""
    for number in range(files):
        directory = folder / f"d{number // 10_000}" / f"e{number // 100 % 100}"
        if number % 100 == 0:
            directory.mkdir(parents=True, exist_ok=True)
        (directory / str(number)).write_bytes(b"%d" % number)


def idle(watch: psutil.Process, seconds: float) -> dict[str, float]:
    """CPU share and memory of a watch that has nothing to do."""
    before = sum(watch.cpu_times()[:2])
    time.sleep(seconds)
    used = sum(watch.cpu_times()[:2]) - before
    return {
        "cpu_percent": round(used / seconds * 100, 2),
        "memory_mib": round(watch.memory_full_info().pss / 2**20, 1),
    }


def measure(directory: Path, saves: int, files: int, seconds: float) -> dict[str, Any]:
    """All figures."""
    one, two = directory / "one", directory / "two"
    fill(one, files)
    with serving(directory / "site") as url:
        for action, folder in (("init", one), ("clone", two)):
            if action == "clone":
                dblike("-C", one, "push")
            dblike(action, url, folder, "--user", USER, "--password-stdin")
        with watching(one) as first, watching(two):
            for number in range(10):  # the first ones also warm everything up
                save(one / f"warm{number}", two / f"warm{number}")
            times = []
            for number in range(saves):
                here, there = (one, two) if number % 2 else (two, one)
                times.append(save(here / f"s{number % 20}", there / f"s{number % 20}"))
                time.sleep(0.1)
            rest = idle(first, seconds) if seconds else {}
    times.sort()
    return {
        "saves": saves,
        "files": files,
        "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(times[int(len(times) * 0.95)], 1),
        "max_ms": round(times[-1], 1),
        "idle": rest,
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--saves", type=int, default=200)
    parser.add_argument("--files", type=int, default=0, help="other files in the folders")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of idleness to measure")
    parser.add_argument("--dir", type=Path, help="where to work")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        result = measure(Path(directory), options.saves, options.files, options.idle)
    print(json.dumps({"benchmark": "latency", **result}))


if __name__ == "__main__":
    main()
