"""Power cuts at random moments: `python tests/soak/power.py --cuts 50` (as root, on Linux).

A real server and two devices that watch, both writing all the time.  The server's database, its
packs, and one device lie each on a disk of its own: an ext4 whose power is cut, so that whatever
was not made durable is gone.  The programs on it are ended with it, and go on from what it has.

What a user saved and nobody acknowledged may be lost with the power: no program called fsync.  What
the server had acknowledged may not, and neither side may take what the disk lost for an edit or a
delete: each file ends as what was acknowledged, or as something that its user saved after that.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
from blake3 import blake3

from dblike_delta.exchange import Exchange
from dblike_delta.messages import LoginRequest
from dblike_delta.versions import Kind
from dblike_srv.replication.link import SiteTransport
from rig.disk import Disk
from rig.processes import has_ended
from soak.kill import DEVICES, PASSWORD, QUIET_SECONDS, Program, Rig

DISKS = {"server": "server", "store": "server", "one": "one"}
"""Whose disk each is."""
CUTS = (("server",), ("store",), ("server", "store"), ("one",), ("one",), tuple(DISKS))
"""What goes at once; what else the program has then is older or newer than that."""


class PowerRig(Rig):
    """Server and devices, what must be in their folders, and what was there before."""

    def __init__(self, root: Path, rng: random.Random, disks: dict[str, Disk]) -> None:
        places = {name: disks[name].place / "data" for name in DISKS.values()}
        config = {"store": f"file:{disks['store'].place / 'packs'}"}
        super().__init__(root, rng, places, config)
        self._disks = disks
        self._saved: defaultdict[str, list[bytes | None]] = defaultdict(lambda: [None])
        transport = SiteTransport(f"http://127.0.0.1:{self.port}")
        self._site = Exchange(transport)
        self._site.login(LoginRequest(user="ada", password=PASSWORD, device="witness"))

    def change(self) -> str:
        """One edit, which is remembered."""
        name = super().change()
        self._saved[name].append(self.expected.get(name))
        return name

    def cut(self, names: tuple[str, ...]) -> None:
        """Cut the power of these; what their programs were about to do is not done."""
        whose = {DISKS[name] for name in names}
        victims = {program.name: program for program in self.programs if program.name in whose}
        for name in names:
            self._disks[name].cut()
        for victim in victims.values():
            _end(victim)
        for name in names:
            self._disks[name].restart()
        if "server" in victims:
            victims["server"].start()
            self.wait_for_server()
        if "one" in victims:
            acknowledged = self._acknowledged()
            victims["one"].start()
            self._settle("one", acknowledged)

    def _acknowledged(self) -> dict[str, bytes]:
        """The hash of each file that the site has."""
        found, cursor, more = {}, "", True
        while more:
            page = self._site.changes("home", cursor)
            cursor, more = page.cursor, page.more
            found.update({r.path.decode(): r.hash for r in page.records if r.kind == Kind.FILE})
        return found

    def _settle(self, device: str, acknowledged: dict[str, bytes]) -> None:
        """Wait for what the device makes of its disk; that must be, from here on, if it may be."""
        mine = [name for name in self._saved if name.startswith(f"{device}/")]
        deadline = time.monotonic() + QUIET_SECONDS
        while not (self.in_sync(device) and self._agree(mine)):
            assert time.monotonic() < deadline, (
                f"{DEVICES} do not agree on what {device} has: {self.root}"
            )
            time.sleep(0.1)
        for name in mine:
            left = self._read("two", name)
            since = _since(self._saved[name], acknowledged.get(name))
            # Of what nobody acknowledged the disk may have kept the beginning.
            torn = left is not None and any(data and data.startswith(left) for data in since[1:])
            assert left in since or torn, (
                f"{name} is {_told(left)}, and not what was acknowledged or saved since: "
                f"{[_told(data) for data in since]}; {self.root}"
            )
            self._saved[name] = [left]
            self.expected.pop(name, None)
            if left is not None:
                self.expected[name] = left

    def _agree(self, names: list[str]) -> bool:
        return all(self._read("one", name) == self._read("two", name) for name in names)

    def _read(self, device: str, name: str) -> bytes | None:
        try:
            return (self.places[device] / name).read_bytes()
        except FileNotFoundError:
            return None


def _end(program: Program) -> None:
    """All processes of it: none may hold the disk."""
    family = psutil.Process(program.pid).children(recursive=True)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    program.stop(signal.SIGKILL)
    while not all(map(has_ended, family)):
        time.sleep(0.01)  # nobody tells of the end of other people's children


def _since(saved: list[bytes | None], acknowledged: bytes | None) -> list[bytes | None]:
    """What was acknowledged last, and all that was saved after it."""
    hashes = [None if data is None else blake3(data).digest() for data in saved]
    assert acknowledged in hashes, f"the site has what nobody saved: {acknowledged!r}"
    last = len(hashes) - 1 - hashes[::-1].index(acknowledged)
    return saved[last:]


def _told(data: bytes | None) -> str:
    return "absent" if data is None else f"{len(data)} bytes {data[:12]!r}"


def soak(cuts: int, seed: int) -> Counter[str]:
    """Cut the power so often; how often whose.  Raises OSError where there can be no such disks."""
    rng = random.Random(seed)
    root = Path(tempfile.mkdtemp(prefix="dblike-power-"))
    disks = {name: Disk(root, f"disk-{name}") for name in DISKS}
    done: Counter[str] = Counter()
    try:
        for disk in disks.values():
            disk.open()
        rig = PowerRig(root, rng, disks)
        try:
            for _ in range(cuts):
                for _ in range(rng.randrange(1, 12)):
                    rig.change()
                time.sleep(rng.uniform(0, 0.5))  # the random moment
                names = rng.choice(CUTS)
                rig.cut(names)
                done["+".join(names)] += 1
            rig.wait_until_quiet()
            rig.check_store()
        finally:
            rig.close()
    finally:
        for disk in disks.values():
            disk.close()
    shutil.rmtree(root, ignore_errors=True)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()
    done = soak(options.cuts, options.seed)
    print(
        f"{options.cuts} power cuts in {time.monotonic() - start:.0f} s, nothing lost: {dict(done)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
