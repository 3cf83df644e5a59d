#!/usr/bin/env python3
"""DBLike beside rsync, unison, syncthing and lsyncd: same bytes, same machine, same run.

A (a client), the server and B (another client) are three places with a counted wire between them.
Each scenario brings what was done in A through the server to B, and compares B's paths and bytes
with A's. Reported: seconds (median and spread), bytes on the wire, CPU and peak memory of clients
and server, bytes that the server read, and DBLike's ratio to each peer.

    python benchmarks/sync.py                       everything, on tmpfs and on the disk
    python benchmarks/sync.py small edits --peers rsync --dir /srv/scratch --repeat 5
    python benchmarks/sync.py --quick               small sizes: does it all still run?
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report, scenarios, watching
from benchmarks.measure import BenchmarkError
from benchmarks.peers import ALL as ALL_PEERS
from benchmarks.peers import UNLESS_ASKED, Peer
from benchmarks.plan import Plan, Results, storage_of
from benchmarks.wire import Wire, open_wire

QUICK = 0.05
_MEMORY_DISK = Path("/dev/shm")
RESULTS = Path(__file__).resolve().parent / "results" / "sync.jsonl"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n    ")[0],
        epilog=(__doc__ or "").partition("\n\n    ")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [scenario.name for scenario in scenarios.ALL]
    parser.add_argument("scenario", nargs="*", help=f"which of: {' '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the sizes, once")
    parser.add_argument("--peers", help="only these, such as rsync,unison (dblike always)")
    parser.add_argument("--without-dblike", action="store_true", help="the peers alone")
    parser.add_argument("--dir", action="append", type=Path, help="where to work; may be repeated")
    parser.add_argument("--repeat", type=int, help="repetitions (default 3; --quick 1)")
    parser.add_argument(
        "--calm",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait so long for a calm machine, and repeat what others disturbed",
    )
    parser.add_argument("--git", type=Path, metavar="REPOSITORY", help="whose history to replay")
    parser.add_argument("--wire", choices=("auto", "proxy"), default="auto")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON lines to add to")
    found = parser.parse_args(arguments)
    unknown = sorted(set(found.scenario) - set(names))
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(names)}")
    return found


def choose_peers(options: argparse.Namespace) -> list[type[Peer]]:
    """Those asked for that can run here; a word about each that can't."""
    asked = (
        set(options.peers.split(","))
        if options.peers
        else {kind.name for kind in ALL_PEERS} - UNLESS_ASKED
    )
    asked = asked - {"dblike"} if options.without_dblike else asked | {"dblike"}
    chosen = []
    for kind in ALL_PEERS:
        if kind.name not in asked:
            continue
        reason = kind.missing()
        print(reason or f"{kind.name}: {kind.version()}", flush=True)
        if not reason:
            chosen.append(kind)
    return chosen


def directories(options: argparse.Namespace) -> list[Path]:
    """The given ones, else memory and the temporary directory's disk (--quick: the first)."""
    if options.dir:
        return list(options.dir)
    found = [Path(tempfile.gettempdir())]
    if storage_of(_MEMORY_DISK) == "tmpfs":
        found.insert(0, _MEMORY_DISK)
    return found[:1] if options.quick else found


def plans(options: argparse.Namespace, wire: Wire) -> Iterator[Plan]:
    """One per directory."""
    peers = choose_peers(options)
    for parent in directories(options):
        yield Plan(
            parent=parent,
            wire=wire,
            peers=peers,
            repeat=options.repeat or (1 if options.quick else 3),
            scale=QUICK if options.quick else 1.0,
            repository=options.git,
            patience=options.calm,
        )


def run(plan: Plan, scenario: scenarios.Scenario, options: argparse.Namespace) -> list[str]:
    """One scenario; what went wrong in it."""
    print(f"{scenario.name}: {scenario.title} [{plan.storage}]", flush=True)
    results = scenario.run(plan, scenario.name)
    report.add(options.results, results)
    print(report.text_of(scenario, results), flush=True)
    if plan.scale != 1.0:
        print("(sizes are scaled down: the limits are for the full ones)\n", flush=True)
    return _wrongs(results)


def _wrongs(results: Results) -> list[str]:
    found = [f"{results.scenario}: {words}" for words in results.failures.values()]
    try:
        watching.refuse_wrong(results, "dblike")
    except BenchmarkError as error:
        found.append(str(error))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for; 1 if a result was wrong or missing."""
    options = parse(arguments)
    # An end that was asked for is an exception, so that servers, folders and networks go with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [scenarios.BY_NAME[name] for name in options.scenario] or list(scenarios.ALL)
    wrong: list[str] = []
    with closing(open_wire(options.wire)) as wire:
        print(f"wire: {wire.kind}", flush=True)
        for plan in plans(options, wire):
            for scenario in chosen:
                wrong += run(plan, scenario, options)
    for words in wrong:
        print(f"FAILED {words}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
