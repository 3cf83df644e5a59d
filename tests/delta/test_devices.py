"""Devices around a site: whole histories, in which nothing is lost and all become the same."""

from __future__ import annotations

import random

from tests.strategies import DEVICES, cases, file
from tests.trees import DIRECTORY, Device, Site, act

from dblike_delta import paths
from dblike_delta.plan import Entry, Plan
from dblike_delta.versions import Kind, Version, is_conflict_copy

NAMES = [b"a", b"b", b"c.txt"]
AUTHORS = ("laptop", "phone", "laptop")


def some_devices(number: int) -> list[Device]:
    return [Device(DEVICES[index], AUTHORS[index]) for index in range(number)]


def quiet(site: Site, devices: list[Device]) -> int:
    """Let all go on until nobody has anything to do; the rounds that took."""
    for rounds in range(12):
        plans = [device.cycle(site) for device in devices]
        if all(plan.idle for plan in plans):
            return rounds
    raise AssertionError("the devices go on for ever")


def check_same(site: Site, devices: list[Device]) -> None:
    tree = site.tree()
    for device in devices:
        assert dict(sorted(device.local.items())) == tree
        assert {path for path, known in device.synced.items() if known.entry} == tree.keys()
    for path in tree:
        assert all(tree[above].kind == Kind.DIRECTORY for above in paths.ancestors(path))


def check_nothing_lost(site: Site, committed: list[Version]) -> None:
    """Every acknowledged content lives, or a device that had it put something in its place."""
    live = {entry.hash for entry in site.tree().values()}
    by_devices = [version for version in site.seen.values() if version.dot.device in DEVICES]
    for version in committed:
        if version.kind == Kind.FILE and version.hash not in live:
            same = [other for other in site.seen.values() if other.hash == version.hash]
            assert any(
                other.dot != one.dot and other.path == one.path and other.vector.knows(one.dot)
                for one in same
                for other in by_devices
            )


class Interrupted:
    """A client that is cut off anywhere, hears of half the news, can't read everything."""

    def __init__(self, rng: random.Random, site: Site, contents: list[Entry]) -> None:
        self.rng = rng
        self.site = site
        self.contents = contents
        self.committed: list[Version] = []

    def cycle(self, device: Device) -> None:
        rng = self.rng
        plan = device.plan(
            self.site,
            unknown=rng.sample(sorted(device.synced), rng.randint(0, min(1, len(device.synced)))),
            deaf=[path for path in sorted(self.site.heads) if rng.random() < 0.2],
        )
        whole = rng.random() < 0.6
        uploads = plan.uploads if whole else plan.uploads[: rng.randint(0, len(plan.uploads))]
        self.committed += device.upload(self.site, uploads)
        if not whole:
            return
        for step in plan.applies:
            if rng.random() < 0.1:
                act(rng, device, NAMES, self.contents)
            before = device.local.get(step.path)
            try:
                done = device.apply(step)
            except (AssertionError, KeyError):
                continue  # what a file system refuses is left for the next round
            if done:
                self.check_known(before)
        device.settle_state(plan)

    def check_known(self, overwritten: Entry | None) -> None:
        """No local bytes are replaced that the site does not have."""
        if overwritten and overwritten.kind == Kind.FILE:
            assert any(version.hash == overwritten.hash for version in self.site.seen.values())


def test_devices_converge_and_nothing_is_lost() -> None:
    """All that must hold, with clocks off by years and clients that are cut off anywhere."""
    for rng in cases(1500):
        site, devices = Site(), some_devices(rng.randint(1, 3))
        contents = [file((rng.random(), number)) for number in range(12)]
        client = Interrupted(rng, site, contents)
        for device in devices:
            device.clock = rng.randint(-(10**12), 10**12)
        for _ in range(rng.randint(1, 25)):
            device = rng.choice(devices)
            device.clock += rng.randint(-1000, 60_000)
            if rng.random() < 0.7:
                act(rng, device, NAMES, contents)
            else:
                client.cycle(device)
        quiet(site, devices)
        check_same(site, devices)
        check_nothing_lost(site, client.committed)
        assert all(device.plan(site) == Plan() for device in devices)


def test_who_takes_turns_never_conflicts() -> None:
    """Conflict copies only for real conflicts: each saw all before it acted."""
    for rng in cases(500):
        site, devices = Site(), some_devices(3)
        for number in range(8):
            device = rng.choice(devices)
            device.clock = rng.randint(0, 10**12)
            for _ in range(rng.randint(1, 4)):
                act(rng, device, NAMES, [file((number, rng.random()))])
            expected = dict(sorted(device.local.items()))
            device.cycle(site)
            quiet(site, devices)
            check_same(site, devices)
            assert site.tree() == expected
        assert not any(map(is_conflict_copy, site.heads))


def test_one_device_alone_never_conflicts_however_it_is_cut_off() -> None:
    for rng in cases(500):
        site, (device,) = Site(), some_devices(1)
        contents = [file((rng.random(), number)) for number in range(6)]
        client = Interrupted(rng, site, contents)
        for _ in range(15):
            act(rng, device, NAMES, contents)
            client.cycle(device)
        quiet(site, [device])
        check_same(site, [device])
        assert not any(map(is_conflict_copy, site.heads))


def test_edits_of_one_file_by_k_devices_make_k_minus_1_copies() -> None:
    for rng in cases(200):
        site, devices = Site(), some_devices(3)
        devices[0].write(b"d/f.txt", file("base"))
        quiet(site, devices)
        for number, device in enumerate(devices):
            device.clock = rng.randint(0, 5000)
            device.write(b"d/f.txt", file(number))
        rng.shuffle(devices)
        quiet(site, devices)
        check_same(site, devices)
        live = {entry.hash for path, entry in site.tree().items() if path != b"d"}
        assert live == {file(number).hash for number in range(3)}
        assert len(site.tree()) == 4


def test_an_edit_made_before_the_conflict_was_seen_is_no_answer_to_it() -> None:
    """What a device was told by a commit's result is not yet what its user has seen."""
    site, (one, two) = Site(), some_devices(2)
    one.write(b"f", file("base"))
    quiet(site, [one, two])
    one.write(b"f", file("one"))
    one.clock = 2
    one.cycle(site)
    two.write(b"f", file("two"))
    two.clock = 1
    two.upload(site, two.plan(site).uploads)
    two.write(b"f", file("two again"))
    two.clock = 3
    quiet(site, [one, two])
    check_same(site, [one, two])
    live = {entry.hash for entry in site.tree().values()}
    assert {file("one").hash, file("two again").hash} <= live


def test_a_touch_or_a_change_of_mode_is_no_conflict_with_an_edit() -> None:
    for first in (0, 1):
        site, devices = Site(), some_devices(2)
        devices[0].write(b"f", file("base"))
        quiet(site, devices)
        devices[0].write(b"f", file("base", mtime_ns=8))
        devices[1].write(b"f", file("edited"))
        devices[first].cycle(site)
        devices[1 - first].cycle(site)
        quiet(site, devices)
        check_same(site, devices)
        assert site.tree() == {b"f": file("edited")}


def test_the_first_link_of_two_full_trees_is_their_union() -> None:
    """Equal content is adopted without transfer, other content makes copies."""
    site, (one, two) = Site(), some_devices(2)
    for device, own in ((one, "one"), (two, "two")):
        device.write(b"same/f", file("same"))
        device.write(b"own/" + own.encode(), file(own))
        device.write(b"both", file(own))
    one.cycle(site)
    committed = two.upload(site, two.plan(site).uploads)
    assert {version.path for version in committed} == {b"own/two", b"both"}
    quiet(site, [one, two])
    check_same(site, [one, two])
    assert len(site.tree()) == len([b"same", b"same/f", b"own", b"own/one", b"own/two"]) + 2


def test_a_rename_of_a_directory_and_an_edit_in_it_both_stay() -> None:
    """Every content that was live stays reachable."""
    site, (one, two) = Site(), some_devices(2)
    one.write(b"d/f", file("f"))
    one.write(b"d/g", file("g"))
    quiet(site, [one, two])
    one.rename(b"d", b"e")
    two.write(b"d/f", file("edited"))
    two.write(b"d/new", file("new"))
    quiet(site, [one, two])
    check_same(site, [one, two])
    assert site.tree() == {
        b"d": DIRECTORY,
        b"d/f": file("edited"),
        b"d/new": file("new"),
        b"e": DIRECTORY,
        b"e/f": file("f"),
        b"e/g": file("g"),
    }
