"""What goes wrong in a world: networks, crashes, backups, clones, losses."""

from __future__ import annotations

import contextlib

import msgspec

from dblike_cli.errors import ClientError
from dblike_cli.report import Direction
from dblike_delta.errors import DeltaError
from dblike_delta.exchange import ExchangeError, Refused
from dblike_srv import accounts, maintenance
from dblike_srv.devices import revoke_device
from dblike_srv.errors import SiteError
from model.device import UNAUTHORIZED, SimDevice
from model.device import Image as DeviceImage
from model.sim import Crash
from model.site import Image as SiteImage
from model.world import World

FAULTS = (
    "unreachable", "lost reply", "elsewhere", "twice", "cut", "page", "crash before", "crash after",
)  # fmt: skip
PEER_FAULTS = ("unreachable", "lost reply", "twice", "cut", "page")
KINDS = (
    "faults", "crashes", "rollback", "loss", "networks", "site crashes", "clones", "accounts",
    "disasters",
)  # fmt: skip
"""Swarm testing: some kinds of trouble are switched off in each world."""
DIRECTIONS = (Direction.BOTH, Direction.BOTH, Direction.BOTH, Direction.PUSH, Direction.PULL)


class Troubles:
    """The troubles of one world, and what it kept for them."""

    def __init__(self, world: World, kinds: set[str]) -> None:
        self._world, self._rng = world, world.rng
        self._kinds = kinds
        self._devices: dict[str, DeviceImage] = {}
        self._sites: dict[str, SiteImage] = {}

    def _has(self, kind: str, chance: float) -> bool:
        return kind in self._kinds and self._rng.random() < chance

    # --- devices

    def sync(self, device: SimDevice) -> str:
        """A cycle in which something may go wrong; what did."""
        world, fault = self._world, "fine"
        world.actor = f"{device.name}@{device.wire.serving}"
        if self._has("faults", 0.5):
            fault = self._rng.choice(FAULTS)
            start = device.wire.requests + self._rng.choice((1, 2, 3, 5))
            device.wire.fault = lambda number: fault if number == start else ""
        if self._has("crashes", 0.3):
            last = device.fs.changes + self._rng.randrange(1, 40)
            device.fs.hook = lambda _: _crash_after(device, last)
            fault = "crash"
        if self._has("site crashes", 0.1):
            self._arm(self._rng.choice(sorted(world.sites)))
            fault = "site crash"
        try:
            device.sync(self._rng.choice(DIRECTIONS))
        except Crash:
            device.kill()
        except Refused as refused:
            if refused.status == UNAUTHORIZED:
                self._link(device)
        except (ExchangeError, ClientError, DeltaError):
            pass
        finally:
            device.wire.fault = lambda _: ""
            device.fs.hook = lambda _: None
            self._disarm()
        return fault

    def _link(self, device: SimDevice) -> None:
        device.wire.fault, device.fs.hook = (lambda _: ""), (lambda _: None)
        with contextlib.suppress(ExchangeError):
            device.link()  # if the site has heard of the password, and had few wrong ones

    def backup(self, device: SimDevice) -> str:
        """Keep what the device is."""
        self._world.actor = device.name
        self._devices[device.name] = device.image()
        return "backup"

    def roll_back(self, device: SimDevice) -> str:
        """The device returns to an old state.  What was on its disk alone is gone with the disk."""
        self._world.actor = device.name
        image = self._devices.get(device.name)
        if image is None or "rollback" not in self._kinds:
            return "nothing"
        device.roll_back(image, same_inodes=self._rng.random() < 0.5)
        self._world.doubles.add(image.device.id)
        self._come_back(device)
        return "roll back"

    def clone(self, device: SimDevice) -> str:
        """The device becomes a copy of another one of the user's."""
        self._world.actor = device.name
        others = [d for d in self._world.devices if d.user == device.user and d is not device]
        if not others or "clones" not in self._kinds:
            return "nothing"
        image = self._rng.choice(others).image()
        device.clone(image)
        self._world.doubles.add(image.device.id)
        self._come_back(device)
        return "clone"

    def _come_back(self, device: SimDevice) -> None:
        self._world.forget()
        self._world.dead -= device.contents()

    def lose_state(self, device: SimDevice) -> str:
        """The state is gone; whoever links again logs in as a new device."""
        self._world.actor = device.name
        if "loss" not in self._kinds:
            return "nothing"
        device.lose_state()
        device.device = msgspec.structs.replace(device.device, id=self._rng.randbytes(16))
        device.exchange.token = ""
        return "lose state"

    def roam(self, device: SimDevice) -> str:
        """The device goes on at another site."""
        self._world.actor = device.name
        device.wire.move()
        return "roam"

    # --- accounts

    def revoke(self, device: SimDevice) -> str:
        """Somebody ends the device at some site; its user logs in again, as a new device."""
        self._world.actor = device.name
        name = self._rng.choice(sorted(self._world.sites))
        if "accounts" not in self._kinds:
            return "nothing"
        site = self._world.sites[name].site
        try:
            user = accounts.find_user(site, device.user).id
            revoke_device(site, user, device.device.id.hex())
        except SiteError:
            return "nothing"  # the site has not heard of it
        self._world.ended.append(device.exchange.token)
        return "revoke"

    def change_password(self, device: SimDevice) -> str:
        """A new password, set at one site."""
        self._world.actor = device.name
        known = self._world.passwords[device.user]
        if "accounts" not in self._kinds or len(known) > 2:
            return "nothing"
        site = self._world.sites[device.wire.serving].site
        try:
            accounts.set_password(site, device.user, f"password number {len(known)}")
        except SiteError:
            return "nothing"  # the site has not heard of the user
        known.insert(0, f"password number {len(known)}")
        return "password"

    # --- sites

    def follow(self) -> str:
        """A site takes in what another one has, or some of it."""
        world = self._world
        one, other = self._rng.sample(sorted(world.sites), 2)
        world.actor = f"{one} < {other}"
        fault, start = "", 0
        if self._has("faults", 0.4):
            fault, start = self._rng.choice(PEER_FAULTS), self._rng.randrange(1, 12)
        if self._has("site crashes", 0.3):
            self._arm(self._rng.choice((one, other)))
        page = self._rng.choice((1, 3, 5000))
        whole = world.follow(
            one, other, page=page, fault=lambda number: fault if number == start else ""
        )
        self._disarm()
        return "follow" if whole else "follow in part"

    def part(self) -> str:
        """Some ways between sites, and between devices and sites, are cut; others are whole."""
        world = self._world
        if "networks" not in self._kinds:
            return "nothing"
        parties = [*sorted(world.sites), *(device.name for device in world.devices)]
        ways = [(one, site) for one in parties for site in sorted(world.sites) if one != site]
        world.network.cut = {way for way in ways if self._rng.random() < 0.4}
        return "part"

    def heal(self) -> str:
        """All ways are whole."""
        self._world.network.cut = set()
        return "heal"

    def restart(self) -> str:
        """A site's process starts again."""
        self._world.actor = name = self._rng.choice(sorted(self._world.sites))
        self._world.restart(name)
        return "restart"

    def keep_site(self) -> str:
        """Keep what a site is."""
        name = self._rng.choice(sorted(self._world.sites))
        self._world.actor = name
        self._sites[name] = self._world.sites[name].image()
        return "site backup"

    def restore_site(self) -> str:
        """A site returns to a backup; others have all that it accepted."""
        name = self._rng.choice(sorted(self._world.sites))
        self._world.actor = name
        image = self._sites.get(name)
        if image is None or "disasters" not in self._kinds or not self._world.is_held(name):
            return "nothing"
        self.heal()  # nobody can tell a site that its disk went back in time but the others
        self._world.sites[name].restore(image)
        self._world.look_around(name)
        return "restore site"

    def lose_site(self) -> str:
        """A site is lost for good, and an empty one put in its place."""
        name = self._rng.choice(sorted(self._world.sites))
        self._world.actor = name
        if "disasters" not in self._kinds or not self._world.is_held(name):
            return "nothing"
        self._sites.pop(name, None)
        self._world.sites[name].replace()
        return "lose site"

    def tidy(self) -> str:
        """A site collects garbage, or compacts."""
        self._world.actor = name = self._rng.choice(sorted(self._world.sites))
        site = self._world.sites[name].site
        if self._rng.random() < 0.5:
            maintenance.gc(site)
        else:
            maintenance.compact(site)
        return "tidy"

    def _arm(self, name: str) -> None:
        trap = self._rng.choice(("lost", "done"))
        self._world.sites[name].arm(trap, self._rng.choice((1, 1, 2, 3)))

    def _disarm(self) -> None:
        for site in self._world.sites.values():
            site.arm("", 0)


def _crash_after(device: SimDevice, last: int) -> None:
    if device.fs.changes >= last:
        raise Crash
