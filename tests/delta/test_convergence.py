"""Sites that hear of the same versions show the same tree, and settling ends."""

from __future__ import annotations

import random

from tests.strategies import AUTHORS, DEVICES, cases, content, shuffled, version
from tests.trees import Site

from dblike_delta import paths
from dblike_delta.versions import (
    Dot,
    Kind,
    Version,
    VersionVector,
    conflict_copy,
    context,
    heads,
    is_conflict_copy,
    losers,
    settle,
    winner,
)

NAMES = (b"a", b"b", b"c.txt")


def some_path(rng: random.Random) -> bytes:
    return b"/".join(rng.choice(NAMES) for _ in range(rng.randint(1, 3)))


def folder_history(rng: random.Random, number: int) -> list[Version]:
    """Versions of several paths, above and below each other, each made knowing some of its own."""
    made: dict[bytes, list[Version]] = {}
    known: dict[tuple[bytes, bytes], VersionVector] = {}
    for counter in range(1, number + 1):
        path, device = some_path(rng), rng.choice(DEVICES)
        before = made.setdefault(path, [])
        seen = context(rng.sample(before, rng.randint(0, len(before))))
        mine = known.get((device, path), VersionVector()).join(seen)
        known[device, path] = mine.with_dot(Dot(device, counter))
        kind = rng.choice((Kind.FILE, Kind.FILE, *Kind))
        before.append(
            version(
                device,
                counter,
                known[device, path],
                path=path,
                kind=kind,
                # Few times and names: then names of copies meet.
                time=rng.randint(0, 1) * 1000,
                author=rng.choice(AUTHORS[:2]),
                hash=content(rng.choice((counter, counter, "shared")))
                if kind == Kind.FILE
                else b"",
            )
        )
    return [each for versions in made.values() for each in versions]


def check_shape(site: Site) -> None:
    """No live file is an ancestor of a live path, and every parent is there."""
    tree = site.tree()
    for path in tree:
        for above in paths.ancestors(path):
            assert tree[above].kind == Kind.DIRECTORY


def check_nothing_lost(site: Site, versions: list[Version]) -> None:
    """Every content lives, or someone who had seen it put something in its place."""
    live = {entry.hash for entry in site.tree().values()}
    for each in versions:
        if each.kind == Kind.FILE and each.hash not in live:
            assert any(other.dot != each.dot and other.vector.knows(each.dot) for other in versions)


def batches(rng: random.Random, versions: list[Version]) -> list[list[Version]]:
    cuts = sorted(rng.randint(0, len(versions)) for _ in range(rng.randint(0, 4)))
    edges = zip([0, *cuts], [*cuts, len(versions)], strict=True)
    return [versions[a:b] for a, b in edges]


def told(rng: random.Random, versions: list[Version]) -> Site:
    site = Site()
    for batch in batches(rng, shuffled(rng, versions)):
        site.add(batch)
    return site


def exchanged(rng: random.Random, sites: list[Site]) -> int:
    """Each tells each all that it has, until nobody learns any more; the rounds that took."""
    rounds = 0
    known = 0
    while (total := sum(len(site.seen) for site in sites)) != known:
        known = total
        rounds += 1
        for reader in sites:
            for writer in sites:
                reader.add(shuffled(rng, list(writer.seen.values())))
    return rounds


def test_sites_converge_whatever_they_saw_first() -> None:
    """All converge, through whichever site they saw the versions."""
    for rng in cases(1000):
        versions = folder_history(rng, rng.randint(2, 14))
        sites = [told(rng, versions) for _ in range(3)]
        assert exchanged(rng, sites) <= 5
        first = sites[0]
        assert all(site.seen == first.seen and site.heads == first.heads for site in sites)
        check_shape(first)
        check_nothing_lost(first, versions)


def test_one_batch_is_the_same_in_every_order() -> None:
    """Without an exchange: who is told everything at once makes the same copies."""
    for rng in cases(500):
        versions = [
            version(device, 1, path=rng.choice(NAMES), time=rng.randint(0, 1), author="same")
            for device in DEVICES
        ]
        sites = []
        for _ in range(3):
            site = Site()
            for each in shuffled(rng, versions):
                site.add([each])
            sites.append(site)
        assert sites[0].heads == sites[1].heads == sites[2].heads


def test_settling_ends_and_is_settled() -> None:
    for rng in cases(500):
        site = told(rng, folder_history(rng, rng.randint(2, 20)))
        assert site.settled < 60 * len(site.seen)
        for path, found in site.heads.items():
            for derived in settle(path, found, site.has_live_children(path)):
                assert derived.dot in site.seen
        check_shape(site)


def test_two_devices_of_one_name_in_one_second_make_two_copies() -> None:
    """Exactly k - 1 copies, also where their names are the same."""
    for rng in cases(50):
        concurrent = [
            version(device, 1, path=b"f.txt", time=1000 + number, author="laptop")
            for number, device in enumerate(DEVICES)
        ]
        site = told(rng, concurrent)
        live = site.tree()
        assert len(live) == 5
        assert {entry.hash for entry in live.values()} == {each.hash for each in concurrent}
        assert live[b"f.txt"].hash == concurrent[-1].hash
        assert sum(map(is_conflict_copy, live)) == 4


def test_a_copy_that_lands_on_a_file_conflicts_with_it_in_turn() -> None:
    a, b = version(DEVICES[0], 1), version(DEVICES[1], 2)
    copy = conflict_copy(a)
    in_the_way = version(DEVICES[2], 1, path=copy.path, time=0)
    below = version(DEVICES[3], 1, path=copy.path + b"/below")
    for others in ([in_the_way], [below], [in_the_way, below]):
        for rng in cases(20):
            site = told(rng, [a, b, *others])
            contents = {entry.hash for entry in site.tree().values() if entry.kind == Kind.FILE}
            assert contents == {each.hash for each in (a, b, *others)}
            check_shape(site)


def test_a_deleted_copy_stays_deleted_while_its_conflict_lasts() -> None:
    """Deleting a copy never brings it back, on a site that has yet to make it, too."""
    a, b = version(DEVICES[0], 1), version(DEVICES[1], 2)
    copy = conflict_copy(a)
    delete = version(DEVICES[2], 1, copy.vector, path=copy.path, kind=Kind.DELETED)
    for rng in cases(50):
        site = told(rng, [a, b, delete])
        assert list(site.tree()) == [b"f"]
        assert losers(site.heads[b"f"]) == (a,)
        assert winner(site.heads[copy.path]) == delete


def test_an_edit_in_a_directory_beats_the_delete_of_the_directory() -> None:
    """Every content that was live stays reachable; what was deleted around it stays so."""
    made = version(DEVICES[0], 1, path=b"d", kind=Kind.DIRECTORY, mode=0o700)
    file = version(DEVICES[0], 2, path=b"d/f")
    other = version(DEVICES[0], 3, path=b"d/g")
    gone = [
        version(DEVICES[1], number, one.vector, path=one.path, kind=Kind.DELETED)
        for number, one in enumerate((other, file, made), 1)
    ]
    edit = version(DEVICES[2], 1, file.vector, path=b"d/f")
    for rng in cases(50):
        site = told(rng, [made, file, other, *gone, edit])
        assert list(site.tree()) == [b"d", b"d/f"]
        assert site.tree()[b"d/f"].hash == edit.hash


def test_heads_of_a_path_do_not_depend_on_derived_versions_elsewhere() -> None:
    for rng in cases(300):
        versions = folder_history(rng, 8)
        site = told(rng, versions)
        for path in {each.path for each in versions}:
            here = [each for each in site.seen.values() if each.path == path]
            assert site.heads[path] == heads(here)
