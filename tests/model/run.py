"""Runs worlds: `python tests/model/run.py --operations 100000 --seed 1`.

Each seed is one world; the same seed does the same again.  A failure prints the command that
replays it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]

from model.operations import OPERATIONS
from model.trouble import KINDS, Troubles
from model.world import World

SETTLE = 150
"""Operations between two checks of all that must be."""


def run_world(seed: int, operations: int, *, devices: int = 4, sites: int = 3) -> Counter[str]:
    """One world of so many operations, checked in between and at the end; what happened in it."""
    world = World(seed, devices, sites)
    done: Counter[str] = Counter(worlds=1)
    kinds = {kind for kind in KINDS if world.rng.random() < 0.6}
    troubles = Troubles(world, kinds)
    try:
        for number in range(operations):
            world.tick()
            done[_step(world, troubles)] += 1
            if number % SETTLE == SETTLE - 1:
                world.settle()
        world.settle()
    finally:
        world.close()
    return done


def _step(world: World, troubles: Troubles) -> str:
    """One operation; its name."""
    device = world.rng.choice(world.devices)
    what = world.rng.random()
    if what < 0.5:
        operation = world.rng.choice(OPERATIONS)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--per-world", type=int, default=300)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--sites", type=int, default=3)
    options = parser.parse_args()
    total: Counter[str] = Counter()
    start, seed, left = time.monotonic(), options.seed, options.operations
    while left > 0:
        size = min(left, options.per_world)
        try:
            total += run_world(seed, size, devices=options.devices, sites=options.sites)
        except BaseException:
            print(
                f"replay: python {sys.argv[0]} --seed {seed} --operations {size} "
                f"--devices {options.devices} --sites {options.sites}",
                file=sys.stderr,
            )
            raise
        seed, left = seed + 1, left - size
        if seed % 100 == 0:
            done = options.operations - left
            print(f"{done} operations in {time.monotonic() - start:.0f} s", flush=True)
    took = time.monotonic() - start
    print(f"{options.operations} operations in {took:.0f} s, no invariant broken: {dict(total)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
