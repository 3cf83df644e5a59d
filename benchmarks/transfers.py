"""One-shot work: a change is made in A, then brought through the server to B.

Every repetition of a transfer starts from nothing (fresh folders, a fresh server), so no peer
can know the bytes from before; the peers alternate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import corpora
from benchmarks.corpora import Change, differing, snapshot
from benchmarks.measure import BenchmarkError, Sample, touch_memory
from benchmarks.peers import Peer
from benchmarks.plan import Plan, Results, figures_of

MB = 1_000_000
GIB = 1 << 30
_TRIES = 4
_FILLED = 2
"""Files and page cache of a hop, and what lies unused beside them."""

Make = Callable[[Path, float], None]


def nothing(root: Path, scale: float) -> None:
    """An empty folder."""
    del root, scale


@dataclass(frozen=True)
class Transfer:
    """What is there before, and what is done to it."""

    corpus: Make
    """Made once per run; every peer gets a copy."""
    edit: Make | None = None
    """Done to A's copy once all sides have it; without one, the corpus itself is what is sent."""


def _small(root: Path, scale: float) -> None:
    corpora.small_files(root, int(10_000 * scale), int(100 * MB * scale))


def _large(root: Path, scale: float) -> None:
    corpora.write(root / "large.bin", corpora.stream("large", int(GIB * scale)))


def _edit_large(root: Path, scale: float) -> None:
    corpora.scatter_edits(root / "large.bin", max(10, int(200 * scale)), "edits")


def _log(root: Path, scale: float) -> None:
    corpora.write(root / "service.log", corpora.log_lines("log", int(GIB * scale)))


def _append(root: Path, scale: float) -> None:
    del scale
    corpora.append_log(root / "service.log", MB, "appended")


def _project(root: Path, scale: float) -> None:
    corpora.equal_files(root / "project", int(1000 * scale), 100_000, "project")


def _rename(root: Path, scale: float) -> None:
    del scale
    (root / "project").rename(root / "project renamed")


def _many(root: Path, scale: float) -> None:
    corpora.equal_files(root, int(100_000 * scale), 1000, "many")


SMALL = Transfer(_small)
LARGE = Transfer(_large)
EDITS = Transfer(_large, _edit_large)
APPEND = Transfer(_log, _append)
RENAME = Transfer(_project, _rename)
MANY = Transfer(_many)


def run_transfer(plan: Plan, name: str, transfer: Transfer) -> Results:
    """Every peer, every repetition, alternating."""
    results = Results(plan, name)
    with plan.directory("corpus") as corpus:
        transfer.corpus(corpus, plan.scale)
        for _ in range(plan.repeat):
            for kind in plan.one_shot_peers():
                with results.attempt(kind):
                    results.add(kind, figures_of(_undisturbed(plan, kind, corpus, transfer)))
    return results


def _undisturbed(plan: Plan, kind: type[Peer], corpus: Path, transfer: Transfer) -> Sample:
    """A repetition; done again, a few times, where other programs took part of the machine."""
    tries: list[Sample] = []
    for _ in range(_TRIES):
        with plan.bench() as bench, kind(bench) as peer:
            tries.append(_one(plan, peer, corpus, transfer))
        if not plan.is_disturbed(tries[-1]):
            break
    return min(tries, key=lambda sample: sample.disturbed)


def _one(plan: Plan, peer: Peer, corpus: Path, transfer: Transfer) -> Sample:
    a = peer.bench.a
    before = snapshot(a)
    corpora.copy_tree(corpus, a)
    if transfer.edit:
        bring(peer, Change.between(before, snapshot(a)))
        before = snapshot(a)
        transfer.edit(a, plan.scale)
    plan.settle()
    size = sum(entry.size for entry in snapshot(a).values())
    sample = bring(peer, Change.between(before, snapshot(a)), size)
    verify(peer)
    return sample


def bring(peer: Peer, change: Change, size: int = 0) -> Sample:
    """One measured transfer.  The memory that a hop of `size` bytes fills is at hand for each of
    them: what was free for two seconds may be the host's again."""
    touch_memory(2 * _FILLED * size)
    with peer.meter() as meter:
        meter.before_hop = lambda: touch_memory(_FILLED * size)
        peer.transfer(meter, change)
        meter.stop()
    return meter.sample


def verify(peer: Peer) -> None:
    """B has A's paths and bytes, or the measurement is void."""
    if corpora.tree_hash(peer.bench.a) == corpora.tree_hash(peer.bench.b):
        return
    wrong = differing(peer.bench.a, peer.bench.b)
    raise BenchmarkError(f"{peer.name}: {len(wrong)} paths differ in B, such as {wrong[:3]}")


def run_unchanged(plan: Plan, name: str) -> Results:
    """A folder that every peer has synced; then each finds out, in turn, that nothing changed."""
    results = Results(plan, name)
    with contextlib.ExitStack() as stack:
        corpus = stack.enter_context(plan.directory("corpus"))
        MANY.corpus(corpus, plan.scale)
        peers = []
        for kind in plan.one_shot_peers():
            with results.attempt(kind):
                peers.append(_synced(plan, stack, kind, corpus))
        for repetition in range(plan.repeat + 1):
            for peer in peers:
                with results.attempt(type(peer)):
                    plan.settle()
                    sample = _check(peer)
                    # The first look warms everyone's caches.
                    if repetition:
                        results.add(type(peer), figures_of(sample))
    return results


def _synced(plan: Plan, stack: contextlib.ExitStack, kind: type[Peer], corpus: Path) -> Peer:
    peer = stack.enter_context(kind(stack.enter_context(plan.bench())))
    before = snapshot(peer.bench.a)
    corpora.copy_tree(corpus, peer.bench.a)
    bring(peer, Change.between(before, snapshot(peer.bench.a)))
    verify(peer)
    plan.settle()
    return peer


def _check(peer: Peer) -> Sample:
    with peer.meter() as meter:
        peer.check(meter)
        meter.stop()
    return meter.sample
