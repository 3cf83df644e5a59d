"""Runs worlds: `python tests/model/run.py --operations 100000 --seed 1`.

Each seed is one world; the same seed does the same again.  A world that breaks is told of with the
command that replays it, and the others go on; run by itself, it fails with a traceback.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]

from argon2 import PasswordHasher

from dblike_srv.auth import simple
from model.operations import OPERATIONS
from model.trace import Trace
from model.trouble import KINDS, Troubles
from model.world import World

SETTLE = 150
"""Operations between two checks of all that must be."""
_WORLDS_A_LINE = 50
_LONGEST_LINE = 300
_LONGEST_OPERATION = 0.3
"""Seconds of CPU, on average."""


def run_world(
    seed: int, operations: int, *, devices: int = 4, sites: int = 3, trace: str = ""
) -> Counter[str]:
    """One world of so many operations, checked in between and at the end; what happened in it.

    `trace` names a path or content: what becomes of it is printed.
    """
    world = World(seed, devices, sites)
    done: Counter[str] = Counter(worlds=1)
    kinds = {kind for kind in KINDS if world.rng.random() < 0.6}
    troubles = Troubles(world, kinds)
    if trace:
        world.look = Trace(world, trace, print).step
    try:
        for number in range(operations):
            world.tick()
            what = _step(world, troubles)
            done[what] += 1
            world.look(what)
            if number % SETTLE == SETTLE - 1:
                world.settle()
        world.settle()
        done["replaced by a double"] += len(world.unseen)
    finally:
        world.close()
    return done


def _step(world: World, troubles: Troubles) -> str:
    """One operation; its name."""
    device = world.rng.choice(world.devices)
    what = world.rng.random()
    if what < 0.5:
        operation = world.rng.choice(OPERATIONS)
        world.actor = device.name
        with world.by_user(device):
            operation(world, device)
        return operation.__name__
    if what < 0.8:
        return troubles.sync(device)
    several = len(world.sites) > 1
    if what < 0.9:
        return troubles.follow() if several else troubles.sync(device)
    return _trouble(world, troubles, several)


def _trouble(world: World, troubles: Troubles, several: bool) -> str:
    device = world.rng.choice(world.devices)
    of_devices: list[Callable[..., str]] = [
        troubles.backup, troubles.roll_back, troubles.lose_state,
    ]  # fmt: skip
    if several:
        of_devices += [troubles.roam, troubles.roam, troubles.clone]
        of_devices += [troubles.revoke, troubles.change_password]
    of_sites: list[Callable[..., str]] = [troubles.restart, troubles.tidy]
    if several:
        of_sites += [troubles.part, troubles.part, troubles.heal, troubles.keep_site]
        of_sites += [troubles.restore_site, troubles.lose_site]
    chosen = world.rng.choice(of_devices + of_sites)
    return chosen(device) if chosen in of_devices else chosen()


class Endless(BaseException):
    """A world that takes so much time that it may not end."""


@dataclasses.dataclass(frozen=True)
class _Task:
    """A world to be run: what decides everything in it."""

    seed: int
    operations: int
    devices: int
    sites: int

    @property
    def replay(self) -> str:
        """The command that does the same again."""
        return (
            f"python {sys.argv[0]} --seed {self.seed} --operations {self.operations} "
            f"--devices {self.devices} --sites {self.sites}"
        )


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What happened in a world, and what was wrong where it broke."""

    task: _Task
    done: Counter[str]
    wrong: str = ""


def _run(task: _Task) -> _Outcome:
    """A world in a process that runs many; one that breaks is told of, and no more."""
    logging.disable(logging.CRITICAL)  # a site has much to say about what is done to it here
    signal.signal(signal.SIGVTALRM, _end)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_OPERATION * task.operations + 10)
    try:
        done = run_world(task.seed, task.operations, devices=task.devices, sites=task.sites)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the seed tells of it
        said = (str(error).splitlines() or [""])[0]
        return _Outcome(task, Counter(), f"{type(error).__name__}: {said}"[:_LONGEST_LINE])
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return _Outcome(task, done)


def _hash_fast() -> None:
    """Passwords of worlds are no secrets, and to hash them well takes a tenth of all the time."""
    simple.HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # type: ignore[misc]


def _end(*_: object) -> None:
    raise Endless("".join(traceback.format_stack(limit=12)[:-1]).replace("\n", " "))


def _outcomes(tasks: list[_Task], jobs: int) -> Iterator[_Outcome]:
    """Of all of them, in the order in which they end."""
    if jobs == 1:
        yield from map(_run, tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(_run, task) for task in tasks]):
            yield future.result()


def run_worlds(tasks: list[_Task], jobs: int) -> int:
    """All of them, however many break; how many did."""
    total: Counter[str] = Counter()
    broken = operations = 0
    start = time.monotonic()
    for number, outcome in enumerate(_outcomes(tasks, jobs), 1):
        total += outcome.done
        operations += outcome.task.operations
        if outcome.wrong:
            broken += 1
            print(f"{outcome.wrong}\n  replay: {outcome.task.replay}", flush=True)
        if number % _WORLDS_A_LINE == 0:
            took = time.monotonic() - start
            print(f"{operations} operations in {took:.0f} s, {broken} worlds broke", flush=True)
    took, verdict = time.monotonic() - start, "no invariant broken"
    if broken:
        verdict = f"{broken} of {len(tasks)} worlds broke"
    print(f"{operations} operations in {took:.0f} s, {verdict}: {dict(total)}")
    return broken


def _tasks(options: argparse.Namespace) -> list[_Task]:
    """The worlds that have so many operations together."""
    starts = range(0, options.operations, options.per_world)
    return [
        _Task(seed, min(options.per_world, options.operations - at), options.devices, options.sites)
        for seed, at in enumerate(starts, options.seed)
    ]


def main() -> int:
    """Run what is asked for; a single world fails with all that is known about it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first world's")
    parser.add_argument("--operations", type=int, default=10_000, help="of all worlds together")
    parser.add_argument("--per-world", type=int, default=300)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="processes that run worlds")
    parser.add_argument("--trace", default="", metavar="WHAT", help="a path or content to follow")
    options = parser.parse_args()
    _hash_fast()
    tasks = _tasks(options)
    if len(tasks) > 1:
        return 1 if run_worlds(tasks, options.jobs) else 0
    (task,) = tasks
    done = run_world(
        task.seed,
        task.operations,
        devices=task.devices,
        sites=task.sites,
        trace=options.trace,
    )
    print(f"{task.operations} operations, no invariant broken: {dict(done)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
