"""Several sites: how fast, and at what cost, what one accepts is at the others.

Real `dblike-server run` processes on loopback, real devices.

    python -m benchmarks.replication            # all of it, a few minutes
    python -m benchmarks.replication latency relay edits catchup growth

latency   a write of 4 KB at one site, until `dblike watch` at another one has it on disk
relay     the same through a site in between
edits     200 edits of a large file: bytes between the sites, CPU of both, beside rsync's
catchup   versions of small files that came while a site was away: versions a second of CPU, and the
          time beside `rsync -a` of the same files
growth    the CPU of a commit in a folder of 1,000 to 1,000,000 files, and of a path of 1 to 10,000
          versions; `--charts DIR` draws it
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
from blake3 import blake3

from benchmarks.chart import Curve, curves
from benchmarks.measure import stop, usage, wait_until
from benchmarks.wire import Relay
from dblike_delta.changeset import Encoder
from dblike_delta.delta import delta
from dblike_delta.exchange import Exchange
from dblike_delta.formats import DELTA_MAGIC, END, encode_literal_header
from dblike_delta.messages import CommitResult, LoginRequest, Record, Trailer
from dblike_delta.signature import signature
from dblike_delta.versions import Kind
from dblike_srv.replication.link import SiteTransport

KEY: Final = "benchmark " * 4
USER, PASSWORD = "ada", "benchmark"
PATIENCE: Final = 300.0
COMMITS: Final = 300


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Site:
    """A real site."""

    def __init__(self, directory: Path, port: int, relay: Relay, peers: Sequence[int]) -> None:
        """`relay` counts what its followers ask of it."""
        self.data, self.port, self.relay = directory, port, relay
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir()
        config = {
            "data": ".", "cluster_key": KEY, "bind": f"127.0.0.1:{port}",
            "site": {"name": directory.name, "url": self.url}, "log": {"level": "error"},
            "peers": [{"url": f"http://127.0.0.1:{peer}"} for peer in peers],
            "replication": {"follow": "peers"},
        }  # fmt: skip
        (directory / "config.json").write_text(json.dumps(config))
        (directory / "config.json").chmod(0o600)

    def command(self, *words: str, text: str = "") -> str:
        """A command of the server's program."""
        program = [sys.executable, "-m", "dblike_srv", *words, "--data", str(self.data)]
        return subprocess.run(
            program, input=text, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def start(self) -> None:
        """Serve."""
        program = [sys.executable, "-m", "dblike_srv", "run", "--data", str(self.data)]
        self.process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def stop(self) -> None:
        """End."""
        if self.process is not None:
            stop(self.process)
            self.process = None

    def cpu(self) -> float:
        """Seconds of CPU of all its processes so far."""
        assert self.process is not None
        return usage([self.process.pid]).cpu

    def serving_cpu(self) -> float:
        """The same of those that answer requests: without following and housekeeping."""
        assert self.process is not None
        workers = psutil.Process(self.process.pid).children()
        return sum(sum(worker.cpu_times()[:2]) for worker in workers)

    def device(self) -> Device:
        """A device that speaks the protocol itself."""
        return Device(self)


class Device:
    """Commits, with dots and contexts as a client keeps them."""

    def __init__(self, site: Site) -> None:
        self.exchange = Exchange(SiteTransport(site.url))
        reply = self.exchange.login(LoginRequest(USER, PASSWORD, "bench"))
        self._id = bytes.fromhex(reply.device_id)
        self.folder = self.exchange.folders()[0].id
        self._counter = 0
        self._contexts: dict[bytes, bytes] = {}

    def record(self, path: bytes, data: bytes, base: bytes = b"") -> Record:
        """The next version of a path."""
        self._counter += 1
        return Record(
            path=path, device=self._id, counter=self._counter, time=int(time.time() * 1000),
            kind=int(Kind.FILE), hash=blake3(data, max_threads=2).digest(), size=len(data),
            mode=0o644, mtime_ns=time.time_ns(), author="bench", body=True, base=base,
            context=self._contexts.get(path, b""),
        )  # fmt: skip

    def put(self, files: Sequence[tuple[bytes, bytes]]) -> list[CommitResult]:
        """Whole small files in one commit."""
        encoder, parts = Encoder(), []
        for path, data in files:
            record = self.record(path, data)
            parts += encoder.record(record)
            body = DELTA_MAGIC + encode_literal_header(len(data)) + data + END
            parts += encoder.data(body if data else DELTA_MAGIC + END)
            parts += encoder.trailer(Trailer(record.hash, len(data)))
        reply = self.exchange.commit(self.folder, parts + encoder.finish())
        assert all(result.status == "accepted" for result in reply.results)
        for (path, _), result in zip(files, reply.results, strict=True):
            self._contexts[path] = result.context
        return reply.results

    def edit(self, path: bytes, old: Path, new: Path) -> None:
        """A large file as a delta against what the site has."""
        with old.open("rb") as before, new.open("rb") as after:
            made = io.BytesIO()
            delta(signature(before), after).dump(made)
        encoder = Encoder()
        record = self.record(path, new.read_bytes(), blake3(old.read_bytes()).digest())
        parts = [*encoder.record(record), *encoder.data(made.getvalue())]
        parts += encoder.trailer(Trailer(record.hash, record.size))
        reply = self.exchange.commit(self.folder, parts + encoder.finish())
        assert reply.results[0].status == "accepted", reply.results[0]
        self._contexts[path] = reply.results[0].context

    def numbers(self) -> str:
        """Where the folder stands at the site."""
        return self.exchange.folders()[0].cursor


@contextlib.contextmanager
def sites(directory: Path, links: Sequence[Sequence[int]]) -> Iterator[list[Site]]:
    """Sites that follow those of the given indices, with one user."""
    ports = free_ports(len(links))
    relays = [Relay(port) for port in ports]
    made = [
        Site(directory / f"s{n}", ports[n], relays[n], [relays[p].port for p in peers])
        for n, peers in enumerate(links)
    ]
    try:
        made[0].command("user", "add", USER, "--password-stdin", text=PASSWORD)
        for site in made:
            site.start()
        for site in made[1:]:
            wait_until(lambda s=site: USER in s.command("user", "list"), "the user", PATIENCE, 0.2)  # type: ignore[misc]
        yield made
    finally:
        for site in made:
            site.stop()
            site.relay.close()


def say(name: str, **figures: Any) -> None:
    """One line of JSON."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps({"scenario": name} | rounded), flush=True)


def latency(directory: Path, name: str, links: Sequence[Sequence[int]]) -> None:
    """From a commit at the first site to the disk of a device at the last one."""
    with sites(directory, links) as made:
        folder = directory / "watched"
        folder.mkdir()
        program = [sys.executable, "-m", "dblike_cli"]
        link = [*program, "init", made[-1].url, str(folder), "--user", USER, "--password-stdin"]
        subprocess.run(link, input=PASSWORD.encode(), check=True, capture_output=True)
        quiet = subprocess.DEVNULL
        watch = subprocess.Popen([*program, "-C", str(folder), "watch"], stdout=quiet, stderr=quiet)
        try:
            device, taken = made[0].device(), []
            for number in range(45):
                path, data = folder / f"f{number}", os.urandom(4096)
                began = time.perf_counter()
                device.put([(path.name.encode(), data)])
                wait_until(path.exists, "the file", PATIENCE, 0.001)
                taken.append((time.perf_counter() - began) * 1000)
                assert path.read_bytes() == data
            taken = sorted(taken[5:])  # the first ones wait for the watch to begin
            say(name, median_ms=statistics.median(taken), p95_ms=taken[int(len(taken) * 0.95)])
        finally:
            stop(watch)


def catchup(directory: Path, count: int) -> None:
    """Versions that came while the second site was away."""
    with sites(directory, [[], [0]]) as (one, two):
        device = one.device()
        two.stop()
        plain = directory / "plain"
        plain.mkdir()
        for start in range(0, count, 2000):
            numbers = range(start, min(start + 2000, count))
            files = [(b"d%d/f%d" % (n % 100, n), os.urandom(1500)) for n in numbers]
            if not start:
                device.put([])
            device.put(files)
            for path, data in files:
                where = plain / os.fsdecode(path)
                where.parent.mkdir(exist_ok=True)
                where.write_bytes(data)
        wanted, before = device.numbers(), one.cpu()
        began = time.perf_counter()
        two.start()
        other = two.device()
        idle = two.cpu()
        wait_until(lambda: other.numbers() == wanted, "the versions", PATIENCE, 0.3)
        seconds = time.perf_counter() - began
        cpu = one.cpu() - before + two.cpu() - idle
        rsync, rsync_cpu = _rsync(plain, directory / "copy", "-a")
        say(
            "catchup", versions=count, seconds=seconds, versions_per_cpu_second=count / cpu,
            rsync_seconds=rsync, ratio_to_rsync=seconds / rsync, cpu=cpu, rsync_cpu=rsync_cpu,
        )  # fmt: skip


def _rsync(source: Path, target: Path, *options: str) -> tuple[float, float]:
    """Wall and CPU seconds of an rsync between two directories over a daemon's pipe."""
    began, before = time.perf_counter(), os.times()
    subprocess.run(["rsync", *options, f"{source}/", str(target)], check=True)
    after = os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return time.perf_counter() - began, cpu


def edits(directory: Path, size: int = 1 << 30) -> None:
    """200 edits of a large file."""
    old, new = directory / "old", directory / "new"
    with old.open("wb") as out:
        for _ in range(size >> 20):
            out.write(random.randbytes(1 << 20))
    shutil.copyfile(old, new)
    with new.open("r+b") as out:
        for _ in range(200):
            out.seek(random.randrange(size - 100))
            out.write(random.randbytes(100))
    with sites(directory, [[], [0]]) as (one, two):
        device, other = one.device(), two.device()
        whole = {"Content-Type": "application/octet-stream"}
        target = f"/v1/folders/{device.folder}/files/large"
        subprocess.run(
            ["curl", "-sf", "-T", str(old), "-H", f"Authorization: Bearer {device.exchange.token}",
             *(word for pair in whole.items() for word in ("-H", ": ".join(pair))),
             one.url + target], check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        caught = lambda: other.numbers() == device.numbers()  # noqa: E731
        wait_until(caught, "the whole file", PATIENCE, 0.2)
        _edit_and_measure(one, two, device, caught, (old, new))


def _edit_and_measure(
    one: Site, two: Site, device: Device, caught: Callable[[], bool], files: tuple[Path, Path]
) -> None:
    records = device.exchange.changes(device.folder)
    device._contexts.update((r.path, r.context) for r in records.records)  # noqa: SLF001
    cpu, wire = one.cpu() + two.cpu(), one.relay.bytes
    device.edit(b"large", *files)
    wait_until(caught, "the edit", PATIENCE, 0.02)
    between = one.relay.bytes - wire
    copy = files[0].with_name("rsynced")
    shutil.copyfile(files[0], copy)
    stats = subprocess.run(
        ["rsync", "--no-whole-file", "--inplace", "--stats", str(files[1]), str(copy)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    theirs = sum(
        int("".join(c for c in line.partition(":")[2] if c.isdecimal()))
        for line in stats.splitlines()
        if line.startswith("Total bytes")
    )
    both = one.cpu() + two.cpu() - cpu
    say(
        "edits", bytes_between=between, rsync_bytes=theirs, ratio=between / theirs, cpu_of_both=both
    )


def growth(directory: Path, charts: Path | None) -> None:
    """What a commit of one file costs, as the folder and the path's history grow."""
    with sites(directory, [[]]) as (site,):
        device, held, written = site.device(), 0, 0
        files, versions = dict[int, int](), dict[int, int]()
        for most in (1_000, 10_000, 100_000, 1_000_000):
            for start in range(held, most, 1000):
                step = [(b"d%d/f%d" % (n % 1000, n), b"%d" % n) for n in range(start, start + 1000)]
                device.put(step)
            held = most
            files[most] = _commit_us(site, device, b"d1/f1")
        for most in (1, 100, 1_000, 10_000):
            for _ in range(written, most):
                device.put([(b"one", os.urandom(10))])
            versions[most] = _commit_us(site, device, b"one")
            written = most + COMMITS
    for name, costs in (("files", files), ("versions", versions)):
        say(f"growth {name}", us=costs, ratio=costs[max(costs)] / costs[min(costs)])
    if charts:
        drawn = [Curve("files in the folder", [*files.items()])]
        drawn.append(Curve("versions of the path", [*versions.items()]))
        text = curves(
            "A commit, by what is there already", "of them", "microseconds of the site's CPU", drawn
        )
        (charts / "growth.svg").write_text(text)


def _commit_us(site: Site, device: Device, path: bytes) -> int:
    """Microseconds of the site's CPU for a commit of one file."""
    before = site.serving_cpu()
    for _ in range(COMMITS):
        device.put([(path, os.urandom(1000))])
    return round((site.serving_cpu() - before) / COMMITS * 1e6)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = ("latency", "relay", "edits", "catchup", "growth")
    parser.add_argument("scenario", nargs="*", choices=[*names, []], help="which; all by default")
    parser.add_argument("--dir", type=Path, help="where the sites and files are")
    parser.add_argument("--charts", type=Path, help="a folder for the pictures")
    parser.add_argument("--versions", type=int, default=100_000, help="of which to catch up")
    arguments = parser.parse_args()
    work: dict[str, Callable[[Path], None]] = {
        "latency": lambda d: latency(d, "latency", [[], [0]]),
        "relay": lambda d: latency(d, "relay", [[], [0], [1]]),
        "edits": edits,
        "catchup": lambda d: catchup(d, arguments.versions),
        "growth": lambda d: growth(d, arguments.charts),
    }
    for name in arguments.scenario or names:
        with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
            work[name](Path(directory))


if __name__ == "__main__":
    main()
