"""What is measured, what is asked of DBLike there, and why its figures are what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks import transfers, watching
from benchmarks.plan import Plan, Results
from benchmarks.transfers import Transfer

MB = 1_000_000


@dataclass(frozen=True)
class Target:
    """A figure that must not be over a limit: an absolute one, or a multiple of a peer's."""

    figure: str
    limit: float
    peer: str = ""
    unit: float = 1.0

    def words(self) -> str:
        if self.peer:
            return f"{self.figure} ≤ {self.limit:g} of {self.peer}'s"
        return f"{self.figure} ≤ {self.limit:g}{_UNITS.get((self.figure, self.unit), '')}"

    def value(self, own: Mapping[str, float], peers: Mapping[str, Mapping[str, float]]) -> float:
        """What the limit is compared with; not a number where it was not measured."""
        nan = float("nan")
        figure = own.get(self.figure, nan)
        if not self.peer:
            return figure / self.unit
        if self.figure == "seconds" and "ratio" in peers.get(self.peer, {}):
            return peers[self.peer]["ratio"]
        theirs = peers.get(self.peer, {}).get(self.figure, nan)
        return figure / theirs if theirs else nan


_UNITS = {
    ("wire_hop", MB): " MB",
    ("wire", MB): " MB",
    ("client_memory", MB): " MB",
    ("server_memory", MB): " MB",
    ("idle_memory", MB): " MB",
    ("server_cpu", 1.0): " s",
    ("p50_ms", 1.0): "",
    ("idle_cpu", 1.0): " %",
}


@dataclass(frozen=True)
class Scenario:
    """One row of the table."""

    name: str
    title: str
    run: Callable[[Plan, str], Results]
    targets: tuple[Target, ...]
    why: str


def _transfer(transfer: Transfer) -> Callable[[Plan, str], Results]:
    return lambda plan, name: transfers.run_transfer(plan, name, transfer)


ALL: tuple[Scenario, ...] = (
    Scenario(
        "small",
        "10,000 new small files, 100 MB",
        _transfer(transfers.SMALL),
        (Target("seconds", 1.0, "rsync"),),
        "All files travel in one changeset and reach the server's disk as a few packs and one "
        "transaction; the client writes them, then makes them durable together.",
    ),
    Scenario(
        "large",
        "a new incompressible file, 1 GiB",
        _transfer(transfers.LARGE),
        (Target("seconds", 1.3, "rsync"),),
        "Reading, hashing, sending and writing overlap; each side passes the bytes once.",
    ),
    Scenario(
        "edits",
        "200 small edits scattered over 1 GiB",
        _transfer(transfers.EDITS),
        (
            Target("seconds", 0.6, "rsync"),
            Target("wire", 0.2, "rsync"),
            Target("server_cpu", 0.2),
            Target("client_memory", 150, unit=MB),
            Target("server_memory", 150, unit=MB),
        ),
        "The sender keeps the signature, so none travels, and the server computes with extents: it "
        "reads nothing of the file in either hop.",
    ),
    Scenario(
        "append",
        "1 MB appended to a log of 1 GiB",
        _transfer(transfers.APPEND),
        (Target("wire_hop", 1.3, unit=MB), Target("seconds", 0.6, "rsync")),
        "One copy command and the new lines, compressed.",
    ),
    Scenario(
        "rename",
        "a directory of 1,000 files, 100 MB, renamed",
        _transfer(transfers.RENAME),
        (Target("wire", 0.1, unit=MB), Target("seconds", 0.5, "unison")),
        "Content is known by its hash on both sides, so only names travel.",
    ),
    Scenario(
        "unchanged",
        "100,000 files, nothing changed: finding that out",
        transfers.run_unchanged,
        (Target("seconds", 1.5, "rsync"),),
        "One stat per file against the state database, and one cursor for the server's side.",
    ),
    Scenario(
        "latency",
        "a saved 4 KB file, until it is on the other device's disk, both watching",
        watching.run_latency,
        (Target("p50_ms", 30), Target("p95_ms", 100)),
        "A file event starts the upload, the commit's notice starts the other side's fetch; "
        "nobody polls.",
    ),
    Scenario(
        "idle",
        "watching 100,000 files in which nothing happens",
        watching.run_idle,
        (Target("idle_cpu", 0.5), Target("idle_memory", 150, unit=MB)),
        "Events wake the watcher; without any it sleeps.",
    ),
    Scenario(
        "git",
        "a git repository's last 200 commits, each checked out in A and brought to B",
        watching.run_git,
        (Target("seconds", 0.5, "rsync"), Target("missed", 0)),
        "No process starts and no tree is walked per commit; content is compared by hash, so an "
        "edit of the same size in the same second is seen.",
    ),
)

BY_NAME = {scenario.name: scenario for scenario in ALL}
