"""Runs worlds: `python tests/model/run.py --operations 100000 --seed 1`.

Each seed is one world; the same seed does the same again.  A failure prints the command that
replays it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]

from dblike_cli.errors import ClientError
from dblike_cli.report import Direction
from dblike_delta.errors import DeltaError
from dblike_delta.exchange import ExchangeError
from model.world import OPERATIONS, Crash, SimDevice, World

FAULTS = ("unreachable", "lost reply", "twice", "cut", "page", "crash before", "crash after")
DIRECTIONS = (Direction.BOTH, Direction.BOTH, Direction.BOTH, Direction.PUSH, Direction.PULL)


def run_world(seed: int, operations: int, *, devices: int = 3) -> Counter[str]:
    """One world of so many operations, checked in between and at the end; what happened in it."""
    world = World(seed, devices)
    done: Counter[str] = Counter()
    # Swarm testing: some kinds of trouble are switched off in each world.
    trouble = {
        kind for kind in ("faults", "crashes", "rollback", "loss") if world.rng.random() < 0.6
    }
    saved: dict[str, object] = {}
    try:
        for number in range(operations):
            world.tick()
            device = world.rng.choice(world.devices)
            what = world.rng.random()
            if what < 0.6:
                operation = world.rng.choice(OPERATIONS)
                with world.by_user(device):
                    operation(world, device)
                done[operation.__name__] += 1
            elif what < 0.97:
                done[_sync(world, device, trouble)] += 1
            elif what < 0.98:
                saved[device.name] = device.backup()
                done["backup"] += 1
            elif what < 0.985 and "rollback" in trouble and device.name in saved:
                _roll_back(world, device, saved[device.name])
                done["roll back"] += 1
            elif what < 0.988 and "loss" in trouble:
                _lose_state(device)
                done["lose state"] += 1
            if number % 150 == 149:
                world.settle()
        world.settle()
    finally:
        world.close()
    done["worlds"] += 1
    return done


def _sync(world: World, device: SimDevice, trouble: set[str]) -> str:
    """A cycle in which something may go wrong; what did."""
    fault = "fine"
    if "faults" in trouble and world.rng.random() < 0.5:
        fault = world.rng.choice(FAULTS)
        start = device.transport.requests + world.rng.choice((1, 2, 3, 5))
        device.transport.fault = lambda number: fault if number == start else ""
    if "crashes" in trouble and world.rng.random() < 0.3:
        last = device.fs.changes + world.rng.randrange(1, 40)
        device.fs.hook = lambda _: _crash_after(device, last)
        fault = "crash"
    try:
        device.sync(world.rng.choice(DIRECTIONS))
    except Crash:
        device.kill()
    except (ExchangeError, ClientError, DeltaError):
        pass
    finally:
        device.transport.fault = lambda _: ""
        device.fs.hook = lambda _: None
    return fault


def _crash_after(device: SimDevice, last: int) -> None:
    if device.fs.changes >= last:
        raise Crash


def _roll_back(world: World, device: SimDevice, saved: object) -> None:
    """The device returns to an old state.  What was on its disk alone is gone with the disk."""
    device.roll_back(saved, same_inodes=world.rng.random() < 0.5)  # type: ignore[arg-type]
    kept = set().union(*(other.contents() for other in world.devices))
    kept |= {bytes(pack) for pack in _history(world)}
    world.must &= kept


def _history(world: World) -> set[bytes]:
    """All contents that the site holds."""
    from sqlalchemy import select

    from dblike_srv.contents import PackReader, find_contents, pack_names
    from dblike_srv.models import contents

    def work(connection):  # type: ignore[no-untyped-def]
        hashes = [bytes(h) for (h,) in connection.execute(select(contents.c.hash))]
        held = find_contents(connection, 1, hashes)
        names = pack_names(connection, {n for c in held.values() for n in c.recipe.packs})
        return held, names

    held, names = world.site.database.read(work)
    reader = PackReader(world.site, names)
    return {b"".join(reader.pieces(content.recipe.extents)) for content in held.values()}


def _lose_state(device: SimDevice) -> None:
    """The state is gone; whoever links again logs in as a new device."""
    device.lose_state()
    device._renew()
    with device.open().transaction():
        device.open().meta.become(device.device.id, device.fs.lstat(b".dblike").st_ino)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--per-world", type=int, default=300)
    parser.add_argument("--devices", type=int, default=3)
    options = parser.parse_args()
    total: Counter[str] = Counter()
    start, seed, left = time.monotonic(), options.seed, options.operations
    while left > 0:
        size = min(left, options.per_world)
        try:
            total += run_world(seed, size, devices=options.devices)
        except BaseException:
            print(
                f"replay: python {sys.argv[0]} --seed {seed} --operations {size} "
                f"--devices {options.devices}",
                file=sys.stderr,
            )
            raise
        seed, left = seed + 1, left - size
    took = time.monotonic() - start
    print(f"{options.operations} operations in {took:.0f} s, no invariant broken: {dict(total)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
