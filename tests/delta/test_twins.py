"""Two versions of one dot: whoever sees them, in whatever order, ends with the same versions."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

import strategies as made
from dblike_delta.versions import Dot, Kind, Version, VersionVector, dominates, twins

DOT = Dot(made.DEVICES[0], 3)


def _variant(path: bytes, which: int, time: int, mode: int, known: VersionVector) -> Version:
    others = {d: c for d, c in known.items() if d != DOT.device}
    return Version(
        path=path, dot=DOT, vector=VersionVector.of(others).with_dot(DOT), time=time,
        kind=Kind.FILE, hash=made.content(which), size=which, mode=mode,
    )  # fmt: skip


variants = st.builds(
    _variant,
    st.sampled_from((b"a", b"b")),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from((0o600, 0o644)),
    made.vectors,
)


def taken_in(order: tuple[Version, ...]) -> dict[Dot, Version]:
    """What a site holds that takes these in, and hears of what others make of them."""
    held: dict[Dot, Version] = {}
    queue = list(order)
    while queue:
        version = queue.pop(0)
        known = held.get(version.dot, version)
        held[version.dot], parted = twins(known, version)
        queue += [twin for twin in parted if held.get(twin.dot) != twin]
    return held


def exchanged(orders: list[tuple[Version, ...]]) -> list[dict[Dot, Version]]:
    """Sites that took in versions, each in an order of its own, then what the others made of
    them, until nothing is new."""
    sites, before = [taken_in(order) for order in orders], None
    while sites != before:
        before = sites
        told = [version for site in sites for version in site.values()]
        sites = [taken_in((*site.values(), *told)) for site in sites]
    return sites


@given(variants, variants)
def test_both_sides_decide_alike(one: Version, other: Version) -> None:
    assert twins(one, other) == twins(other, one)
    assert twins(one, one) == (one, ())


@given(st.lists(variants, min_size=2, max_size=3))
def test_any_order_ends_with_the_same_versions(found: list[Version]) -> None:
    ends = exchanged(list(permutations(found)))
    assert all(end == ends[0] for end in ends)


@given(st.lists(variants, min_size=2, max_size=3))
def test_sites_that_saw_some_of_them_end_alike(found: list[Version]) -> None:
    ends = exchanged([(version,) for version in found])
    assert all(end == ends[0] for end in ends)


@given(variants, variants)
def test_nothing_is_lost(one: Version, other: Version) -> None:
    """Each content stays, under a dot that nobody who saw only the other one can have known."""
    keeper, parted = twins(one, other)
    held = {(version.path, version.hash) for version in (keeper, *parted)}
    assert held == {(one.path, one.hash), (other.path, other.hash)}
    for twin in parted:
        edit = keeper.vector.with_dot(Dot(made.DEVICES[1], 2**62))
        assert not twin.vector <= edit


@given(variants, variants)
def test_what_they_replaced_stays_replaced(one: Version, other: Version) -> None:
    keeper, parted = twins(one, other)
    for version in (one, other):
        older = made.version(DOT.device, DOT.counter - 1, path=version.path)
        if dominates(version, older):
            assert any(dominates(each, older) for each in (keeper, *parted))
