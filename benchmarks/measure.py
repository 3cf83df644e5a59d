"""Wall time, CPU, peak memory, bytes read and bytes on the wire of one piece of work.

Processes are followed by their tree in /proc. CPU and bytes read of children that ended are in
their parent's totals once it has waited for them, as all servers here do. Peak memory of a side
is the most that its processes held together, looked at every few milliseconds (proportional set
size, so that pages which workers share count once), or the largest high-water mark of one of
them if that is more.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.wire import Place, Wire

_TICKS = os.sysconf("SC_CLK_TCK")
_INTERVAL = 0.03


class BenchmarkError(Exception):
    """A peer failed, or its result is not what was asked for."""


@dataclass(frozen=True)
class Usage:
    """What a set of process trees has used so far."""

    cpu: float = 0.0
    read: int = 0


@dataclass(frozen=True)
class Sample:
    """One measured piece of work."""

    seconds: float
    hops: tuple[float, ...] = ()
    wire: Mapping[Place, int] = field(default_factory=dict)
    client_cpu: float = 0.0
    server_cpu: float = 0.0
    client_memory: int = 0
    server_memory: int = 0
    server_read: int = 0
    disturbed: float = 0.0
    """The share of all cores that processes which are not measured took meanwhile."""

    @property
    def wire_bytes(self) -> int:
        return sum(self.wire.values())


def descendants(pid: int) -> list[int]:
    """The process and all below it that live."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting.extend(_children(current))
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for task in tasks:
        found.extend(map(int, _text(f"/proc/{pid}/task/{task}/children").split()))
    return found


def _text(path: str) -> str:
    """A /proc file, or nothing when its process is gone."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _cpu(pid: int) -> float:
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS if fields else 0.0


def _labelled(text: str, label: str) -> int:
    for line in text.splitlines():
        if line.startswith(label):
            return int(line.split()[1])
    return 0


def usage(pids: Iterable[int]) -> Usage:
    """Totals over the trees below these processes."""
    everyone = [pid for root in pids for pid in descendants(root)]
    return Usage(
        cpu=sum(map(_cpu, everyone)),
        read=sum(_labelled(_text(f"/proc/{pid}/io"), "rchar:") for pid in everyone),
    )


def memory(roots: Iterable[int], *, peak: bool = True) -> int:
    """Bytes that the trees below these processes hold now, or that one of them held at its peak."""
    pids = [pid for root in roots for pid in descendants(root)]
    now = sum(_labelled(_text(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in pids)
    if not peak:
        return now * 1024
    most = max((_labelled(_text(f"/proc/{pid}/status"), "VmHWM:") for pid in pids), default=0)
    return max(now, most) * 1024


def _busy() -> float:
    """Seconds of CPU that the whole machine used so far, without this program's own."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    idle = int(fields[3]) + int(fields[4])
    own = os.times()
    return (sum(map(int, fields[:8])) - idle) / _TICKS - own.user - own.system


def calm(share: float = 0.1, window: float = 0.3) -> bool:
    """Whether the machine has nearly nothing to do just now."""
    before = _busy()
    time.sleep(window)
    return (_busy() - before) / window / (os.cpu_count() or 1) < share


def _nothing() -> None:
    pass


class Meter:
    """`with Meter(...) as meter:` do the work; then `meter.sample`."""

    def __init__(self, wire: Wire, servers: Sequence[int], clients: Sequence[int]) -> None:
        self._wire, self._servers, self._clients = wire, list(servers), list(clients)
        self._once: set[int] = set()
        self._once_cpu = 0.0
        self._peak = {"client": 0, "server": 0}
        self._hops: list[float] = []
        self._paused = 0.0
        self.before_hop: Callable[[], None] = _nothing
        """What is to be done before each command, and is not measured."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.sample = Sample(0.0)

    def __enter__(self) -> Self:
        self._before = (usage(self._servers), usage(self._clients), self._wire.count())
        self._busy = _busy()
        self._thread.start()
        self._start = time.perf_counter()
        self._stopped: float | None = None
        return self

    def stop(self) -> None:
        """The work is done now; what follows (a server ending its child) is only accounting."""
        self._stopped = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        end = self._stopped or time.perf_counter()
        busy = _busy() - self._busy
        self._settle()
        self._done.set()
        self._thread.join()
        server, client, counted = self._before
        server_now, client_now = usage(self._servers), usage(self._clients)
        wire_now = self._wire.count()
        ours = server_now.cpu - server.cpu + client_now.cpu - client.cpu + self._once_cpu
        self.sample = Sample(
            seconds=end - self._start - self._paused,
            hops=tuple(self._hops),
            wire={place: wire_now[place] - counted[place] for place in wire_now},
            client_cpu=client_now.cpu - client.cpu + self._once_cpu,
            server_cpu=server_now.cpu - server.cpu,
            client_memory=self._peak["client"],
            server_memory=self._peak["server"],
            server_read=server_now.read - server.read,
            disturbed=max(0.0, busy - ours) / (end - self._start) / (os.cpu_count() or 1),
        )

    def run(self, argv: Sequence[str], place: Place, log: Path, env: Mapping[str, str]) -> None:
        """One hop: a command that a user would run, to its end."""
        asked = time.perf_counter()
        self.before_hop()
        start = time.perf_counter()
        self._paused += start - asked
        process = launch(self._wire, argv, place, log, env)
        self._once.add(process.pid)
        try:
            _, status, spent = os.wait4(process.pid, 0)
        finally:
            self._once.discard(process.pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._hops.append(time.perf_counter() - start)
        self._once_cpu += spent.ru_utime + spent.ru_stime
        if process.returncode:
            tail = log.read_text(errors="replace")[-800:]
            raise BenchmarkError(f"{' '.join(argv)}: exit {process.returncode}\n{tail}")

    def _settle(self) -> None:
        """Servers that fork per connection count a child's use when it has ended: wait for that."""
        deadline = time.monotonic() + 0.3
        before = -1.0
        while time.monotonic() < deadline:
            now = usage(self._servers).cpu
            if now == before:
                return
            before = now
            time.sleep(0.03)

    def _watch(self) -> None:
        while not self._done.wait(_INTERVAL):
            self._look("client", [*self._clients, *self._once])
            self._look("server", self._servers)

    def _look(self, side: str, roots: Sequence[int]) -> None:
        self._peak[side] = max(self._peak[side], memory(roots))


def launch(
    wire: Wire, argv: Sequence[str], place: Place, log: Path, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a program at a place of the wire; its words go to the log."""
    with log.open("ab") as sink, wire.inside(place):
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**os.environ, **env},
            start_new_session=True,
        )


def touch_memory(size: int) -> None:
    """Use this much of the free memory once, or a third of it where that is less.

    The host of a virtual machine takes back what was free for some seconds, and whoever uses it
    first waits for it: up to 3 s a GiB, which hits one peer and spares the next.
    """
    free = _labelled(_text("/proc/meminfo"), "MemAvailable:") * 1024
    length = min(size, free // 3)
    if length:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, length, flags=flags).close()


def stop(process: subprocess.Popen[bytes], patience: float = 8.0) -> None:
    """End a process that we started: politely, then surely."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def wait_until(condition: Callable[[], bool], what: str, timeout: float, pause: float) -> None:
    """Poll until it holds; say what did not happen otherwise."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{what} did not happen within {timeout:g} s")
        time.sleep(pause)


def percentile(values: Sequence[float], part: float) -> float:
    """The value that this part of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
