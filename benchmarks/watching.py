"""Continuous work: both sides watch, edits are made in A, and B's disk is looked at."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import corpora
from benchmarks.corpora import Arrival, Change, content_hash, differing, snapshot
from benchmarks.history import History
from benchmarks.measure import BenchmarkError, Meter, memory, percentile, usage
from benchmarks.peers import Bench, Peer, Rsync
from benchmarks.plan import Figures, Plan, Results
from benchmarks.transfers import MANY, bring, verify

PATIENCE = 5.0
"""Seconds after which an edit counts as missed."""

_SAVED = 4096
_WATCHED_FILES = 100


def watchers(plan: Plan) -> list[type[Peer]]:
    """Peers that watch: all but rsync."""
    return [kind for kind in plan.peers if not issubclass(kind, Rsync)]


def _populate(peer: Peer, corpus: Path) -> None:
    """The same files on all sides before watching starts."""
    before = snapshot(peer.bench.a)
    corpora.copy_tree(corpus, peer.bench.a)
    if peer.one_way:
        corpora.copy_tree(corpus, peer.bench.b)
        return
    bring(peer, Change.between(before, snapshot(peer.bench.a)))


# --- latency --------------------------------------------------------------------------------------


def run_latency(plan: Plan, name: str) -> Results:
    """A 4 KB file is saved in A every now and then; the milliseconds until B's disk has it."""
    results = Results(plan, name)
    with plan.directory("corpus") as corpus:
        corpora.equal_files(corpus, _WATCHED_FILES, _SAVED, "latency")
        for repetition in range(plan.repeat):
            for kind in watchers(plan):
                with results.attempt(kind), plan.bench() as bench, kind(bench) as peer:
                    _populate(peer, corpus)
                    peer.watch()
                    peer.awake()
                    plan.settle()
                    results.add(kind, _saves(peer, plan.count(60, 5), f"{repetition}"))
    return results


def _saves(peer: Peer, count: int, seed: str) -> Figures:
    chance = random.Random(seed)
    files = sorted(path for path in corpora.walk(peer.bench.a))
    taken: list[float] = []
    with peer.meter() as meter:
        for _ in range(count):
            time.sleep(chance.uniform(0.15, 0.35))
            taken.append(_save(peer, chance.choice(files), chance.randbytes(_SAVED)))
        meter.stop()
    missed = sum(1 for each in taken if each >= PATIENCE)
    return {
        "p50_ms": percentile(taken, 0.5) * 1000,
        "p95_ms": percentile(taken, 0.95) * 1000,
        "missed": missed,
        "disturbed": meter.sample.disturbed,
        "wire": meter.sample.wire_bytes / count,
        "client_cpu": meter.sample.client_cpu / count,
        "server_cpu": meter.sample.server_cpu / count,
    }


def _save(peer: Peer, path: str, content: bytes) -> float:
    """Seconds from the end of the write to the same bytes in B."""
    (peer.bench.a / path).write_bytes(content)
    start = time.perf_counter()
    there = peer.bench.b / path
    while time.perf_counter() - start < PATIENCE:
        with contextlib.suppress(OSError):
            if there.read_bytes() == content:
                return time.perf_counter() - start
        time.sleep(0.0005)
    peer.alive()
    return PATIENCE


# --- idle -----------------------------------------------------------------------------------------


def run_idle(plan: Plan, name: str) -> Results:
    """A's watcher with a large folder in which nothing happens."""
    results = Results(plan, name)
    with plan.directory("corpus") as corpus:
        MANY.corpus(corpus, plan.scale)
        for kind in watchers(plan):
            with results.attempt(kind), plan.bench() as bench, kind(bench) as peer:
                _populate(peer, corpus)
                peer.watch()
                peer.awake()
                results.add(kind, _rest(peer, plan))
    return results


def _rest(peer: Peer, plan: Plan) -> Figures:
    """Use of a client that has come to rest."""
    time.sleep(plan.count(10, 1))
    seconds = plan.count(60, 3)
    pids = peer.pids("a")
    before = usage(pids)
    wire = peer.bench.wire.count()["a"]
    time.sleep(seconds)
    return {
        "idle_cpu": (usage(pids).cpu - before.cpu) / seconds * 100,
        "idle_memory": memory(pids, peak=False),
        "client_memory": memory(pids),
        "wire": peer.bench.wire.count()["a"] - wire,
    }


# --- a git repository's history -------------------------------------------------------------------


def run_git(plan: Plan, name: str) -> Results:
    """The last commits of a repository, checked out one after the other in A."""
    results = Results(plan, name)
    with plan.directory("history") as place:
        history = History.find(plan.repository, place, plan.count(200, 10))
        print(f"  history: {history.description}", flush=True)
        for _ in range(max(1, plan.repeat // 2)):
            for kind in plan.peers:
                with results.attempt(kind), plan.bench() as bench, kind(bench) as peer:
                    results.add(kind, _replay(plan, peer, history))
    return results


def _replay(plan: Plan, peer: Peer, history: History) -> Figures:
    checkout = history.checkout(peer.bench.a)
    _begin(peer)
    plan.settle()
    taken: list[float] = []
    missed = 0
    now = snapshot(peer.bench.a)
    with peer.meter() as meter:
        for commit in history.commits:
            before = now
            checkout.switch(commit)
            start = time.perf_counter()
            now = snapshot(peer.bench.a)
            change = Change.between(before, now)
            _bring_commit(peer, meter, change, start)
            taken.append(time.perf_counter() - start)
            missed += _unequal(peer.bench, change)
        meter.stop()
    wrong = differing(peer.bench.a, peer.bench.b)
    return {
        "seconds": sum(taken) / len(taken),
        "p50_ms": percentile(taken, 0.5) * 1000,
        "p95_ms": percentile(taken, 0.95) * 1000,
        "missed": missed,
        "wrong": len(wrong),
        "disturbed": meter.sample.disturbed,
        "wire": meter.sample.wire_bytes / len(taken),
        "client_cpu": meter.sample.client_cpu / len(taken),
        "server_cpu": meter.sample.server_cpu / len(taken),
    }


def _begin(peer: Peer) -> None:
    """All sides have the first commit; who can watch does."""
    if peer.one_way:
        corpora.copy_tree(peer.bench.a, peer.bench.b)
    else:
        bring(peer, Change.between({}, snapshot(peer.bench.a)))
        verify(peer)
    if not isinstance(peer, Rsync):
        peer.watch()
        peer.awake()


def _bring_commit(peer: Peer, meter: Meter, change: Change, start: float) -> None:
    if isinstance(peer, Rsync):
        peer.transfer(meter, change)
        return
    arrival = Arrival(change, peer.bench.a, peer.bench.b)
    while not arrival():
        if time.perf_counter() - start > PATIENCE:
            peer.alive()
            return
        time.sleep(0.0005)


def _unequal(bench: Bench, change: Change) -> int:
    """How many of a commit's paths are not in B as they are in A."""
    paths: Sequence[str] = [path for path, _ in change.present]
    stale = sum(1 for path in change.gone if (bench.b / path).exists())
    return stale + sum(1 for path in paths if not _same(bench.a / path, bench.b / path))


def _same(left: Path, right: Path) -> bool:
    try:
        return content_hash(left) == content_hash(right)
    except FileNotFoundError:
        return False


def refuse_wrong(results: Results, peer: str) -> None:
    """DBLike may miss nothing: that is an error, whatever the time was."""
    figures = results.summary(peer)
    lost = figures.get("missed", 0) + figures.get("wrong", 0)
    if lost:
        raise BenchmarkError(f"{peer} missed {lost:g} changes in {results.scenario}")
