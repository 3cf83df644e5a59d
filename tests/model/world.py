"""A whole system in one process: sites and devices, all that happens from one seed.

The model of what must be is small.  Every content that a user writes is unique.  It *must live*
from then on, somewhere, until a user who has it on disk overwrites or deletes it there.  When all
is quiet every device shows the same tree as every site, with every content that must live in it;
and what is in no tree then is *dead*: it does not come back.
"""

from __future__ import annotations

import contextlib
import operator
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from dblike_cli.report import Report
from dblike_delta.exchange import Refused
from dblike_srv import accounts
from dblike_srv.replication.arrival import Fault
from dblike_srv.replication.follower import FAILURES, Follower, healing
from dblike_srv.replication.link import Link
from model.check import check
from model.device import UNAUTHORIZED, SimDevice
from model.memfs import MemFS
from model.sim import SimClock, SimRandom, SiteCrash
from model.site import SimSite
from model.wires import Network, Wire

PASSWORD = "correct horse battery staple"
USERS = ("ada", "bob")
YEAR_MS = 365 * 24 * 3600 * 1000
_DEVICE_SKEWS = (0, 0, 3_600_000, -3_600_000, 50 * YEAR_MS, -50 * YEAR_MS)
_SITE_SKEWS = (0, 0, 0, 2_000, -2_000, 600_000, -7_200_000)
_ROUNDS = 40
_LATELY_NS = 60_000_000_000
"""Sites that are followed are asked at least so often."""
_TRIES = 3
"""What a device is told first may be that it has to log in again."""
_LONGEST_WAIT_NS = 1_000_000_000_000
"""More than what a device waits between two offers."""

Trouble = Callable[[int], str]


def _no_fault(_: int) -> str:
    return ""


class World:
    """The sites, the devices, the time, and what must live."""

    def __init__(self, seed: int, devices: int = 3, sites: int = 1) -> None:
        self.rng = random.Random(seed)
        self.now_ns = 1_800_000_000_000_000_000
        self.directory = Path(tempfile.mkdtemp(prefix="dblike-world-"))
        self.random = SimRandom(self.rng)
        self.copies = self.rng.choice((1, 1, 2, 3)) if sites > 1 else 1
        self.sites = {name: self._new_site(name) for name in (f"s{n}" for n in range(sites))}
        self.network = Network(self.sites)
        self._heard: dict[tuple[str, str], tuple[object, int]] = {}
        self.must: set[bytes] = set()
        self.contents: set[bytes] = set()
        self.dead: set[bytes] = set()
        self.ended: list[str] = []
        self.doubles: set[bytes] = (
            set()
        )  # devices that were two at a time, or are again what they were
        self.unseen: set[bytes] = (
            set()
        )  # contents that such a device replaced without having seen them
        self.written = 0
        self.actor = ""
        self.look: Callable[[str], None] = lambda _: None
        self.users = USERS[: 2 if sites > 1 and self.rng.random() < 0.3 else 1]
        self.passwords: dict[str, list[str]] = {}
        first = self.sites["s0"]
        for user in self.users:
            accounts.create_user(first.site, user, PASSWORD)
            self.passwords[user] = [PASSWORD]
        self._meet()
        self.devices = [self._new_device(f"dev{n}") for n in range(devices)]

    def _new_site(self, name: str) -> SimSite:
        first = name == "s0"
        skew = 0 if first else self.rng.choice(_SITE_SKEWS)
        clock = SimClock(self, skew)
        return SimSite(name, clock, self.random, self.directory, self.copies)

    def _new_device(self, name: str) -> SimDevice:
        user = self.users[-1] if name.endswith("3") else self.users[0]
        names = sorted(self.sites)
        self.rng.shuffle(names)
        return SimDevice(
            name,
            user,
            self.passwords[user],
            SimClock(self, self.rng.choice(_DEVICE_SKEWS)),
            self.random,
            Wire(self.network, name, names),
            MemFS(self.disk_ns),
        )

    def close(self) -> None:
        for device in self.devices:
            device.kill()
        for site in self.sites.values():
            site.end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def disk_ns(self) -> int:
        """A disk's clock: it moves in ticks of 4 ms, as a kernel's does."""
        return self.now_ns // 4_000_000 * 4_000_000

    def tick(self) -> None:
        """Time passes: a moment, a while or long."""
        self.now_ns += self.rng.choice((0, 1_000_000, 7_000_000, 900_000_000, 90_000_000_000))

    def groups(self) -> list[tuple[str, list[SimDevice]]]:
        """The users, each with the devices."""
        return [(u, [d for d in self.devices if d.user == u]) for u in self.users]

    # --- contents

    def fresh(self) -> bytes:
        """A content that never was before; a few are long enough to travel as deltas."""
        self.written += 1
        mark = b"content %d." % self.written
        return mark * self.rng.choice((1, 1, 1, 2, 30, 120))

    def edited(self, old: bytes) -> bytes:
        """A new content that has much of an old one in it."""
        self.written += 1
        at = self.rng.randrange(len(old) + 1)
        return old[:at] + b"[%d]" % self.written + old[at:]

    @contextlib.contextmanager
    def by_user(self, device: SimDevice) -> Iterator[None]:
        """What a user removes from a disk, having it there, need not live any more: also where
        another path has it, since somebody else may remove that one likewise.

        What a user moves, copies or touches is not dead: a site that went back in time may show it
        once more to a device that lost its state, and then somebody has made it anew."""
        was = _faces(device)
        before = Counter(data for data, *_ in was.values())
        yield
        now = _faces(device)
        after = Counter(data for data, *_ in now.values())
        self.must -= (before - after).keys()
        fresh = {data for data in after - before if data not in before}
        self.must |= fresh
        self.contents |= fresh
        self.dead -= {face[0] for path, face in now.items() if was.get(path) != face}

    def forget(self) -> None:
        """Something was lost that nobody else had: it need not live."""
        kept = set[bytes]().union(*(device.contents() for device in self.devices))
        self.must &= kept.union(*(site.history() for site in self.sites.values()))

    # --- sites that follow each other

    def follow(
        self,
        one: str,
        other: str,
        *,
        page: int = 5000,
        fault: Trouble = _no_fault,
        first: bool = False,
    ) -> bool:
        """A site takes in what another one has, or (before its first answer) only looks whether
        something happened to it; whether it got to the end."""
        here = self.sites[one]
        wire = Wire(self.network, one, [other])
        wire.fault = fault
        link = Link(here.site, f"http://{other}", wire)
        try:
            with healing(here.site):
                compared = here.compared.setdefault(other, {})
                follower = Follower(here.site, link, compared=compared, page=page)
                follower.connect()
                if first:
                    follower.rows.take()
                    follower.look_back()
                elif error := follower.catch_up():
                    raise error
        except SiteCrash:
            self.restart(one)
            return False
        except Fault as error:
            raise AssertionError(f"{one} does not believe {other}") from error
        except FAILURES:
            return False
        return True

    def restart(self, name: str) -> None:
        """A site's process starts again."""
        self.sites[name].restart()
        self.look_around(name)

    def look_around(self, name: str) -> None:
        """What a site does before its first answer."""
        for other in self.sites:
            if other != name:
                self.follow(name, other, first=True)

    def is_held(self, name: str) -> bool:
        """Whether some other site has all that this one has: of whatever journal, and of accounts.
        A revocation that nobody else has heard of is lost with the site."""
        return any(
            _covers(site, self.sites[name]) for other, site in self.sites.items() if other != name
        )

    def _meet(self) -> None:
        """All sites hear of each other, until nothing is new."""
        for _ in range(_ROUNDS):
            asked = [self._hear(one, other) for one in self.sites for other in self.sites]
            if not any(asked):
                break
        else:
            raise AssertionError("sites that never hear all of each other")
        self.actor = "sites"
        self.look("meet")

    def _hear(self, one: str, other: str) -> bool:
        """A site hears of another one, unless it has lately heard all that there is; whether there
        was anything to be heard."""
        here, there = self.sites[one], self.sites[other].standing()
        heard, at = self._heard.get((one, other), (None, 0))
        new = one != other and heard != (here.incarnation(), there)
        late = one != other and self.now_ns - at > _LATELY_NS
        if (new or late) and self.follow(one, other):
            self._heard[one, other] = (here.incarnation(), there), self.now_ns
        return new

    # --- quiet

    def settle(self) -> None:
        """Let everything be well until nothing happens any more; then check all that must be."""
        self.network.cut.clear()
        for site in self.sites.values():
            site.arm("", 0)
        for device in self.devices:
            device.wire.fault = _no_fault
            device.fs.hook = lambda _: None
        for _ in range(_ROUNDS):
            self._meet()
            reports = [self._settled(device) for device in self.devices]
            if not any(map(_did_something, reports)):
                break
        else:
            raise AssertionError(f"no end of it: {reports}")
        self._meet()
        self._offer()
        check(self)

    def _offer(self) -> None:
        """Now that all sites have everything, devices that are still offering find that out."""
        for device in self.devices:
            for _ in range(_TRIES):
                if device.open().offers.short():
                    self.now_ns += _LONGEST_WAIT_NS
                    self._settled(device)
            assert not device.open().offers.short(), f"{device.name} offers for ever"

    def _settled(self, device: SimDevice) -> Report:
        self.now_ns += 3_000_000_000
        self.actor = device.name
        try:
            return device.sync()
        except Refused as refused:
            if refused.status != UNAUTHORIZED:
                raise
            self._link(device)
            return device.sync()
        finally:
            self.look("settle")

    def _link(self, device: SimDevice) -> None:
        """The user logs in again, and waits where wrong passwords were tried too often."""
        while True:
            try:
                return device.link()
            except Refused as refused:
                if not refused.retry_after:
                    raise
                self.now_ns += int(refused.retry_after * 1e9)


def _faces(device: SimDevice) -> dict[bytes, tuple[bytes, int, int]]:
    """Each file's content, mode and time."""
    return {p: (bytes(i.data), i.mode, i.mtime_ns) for p, i in device.files().items()}


def _covers(site: SimSite, other: SimSite) -> bool:
    """Whether one site has all that another one has."""
    mine, accounts = site.numbers(), site.accounts()
    return all(
        mine.get(folder, {}).get(origin, 0) >= number
        for folder, journals in other.numbers().items()
        for origin, number in journals.items()
    ) and all(
        uid in accounts and all(map(operator.ge, accounts[uid], known))
        for uid, known in other.accounts().items()
    )


def _did_something(report: Report) -> bool:
    done = report.uploaded or report.applied or report.adopted or report.deleted
    return bool(done or not report.in_sync)
