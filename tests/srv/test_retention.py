"""What retention forgets, as a table and as laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import DEVICES, cases, version
from tests.strategies import history as made

from dblike_delta.versions import Version, VersionVector, heads
from dblike_srv.config import Retention
from dblike_srv.retention import DAY_MS, Seen, aged, forgettable

NOW = 1000 * DAY_MS


def history(*days_ago: int) -> list[Seen]:
    """Versions 1, 2, … that came so many days ago."""
    return [Seen(seq, NOW - days * DAY_MS) for seq, days in enumerate(days_ago, 1)]


def chain(length: int) -> dict[int, Version]:
    """Versions of which each replaces the one before it."""
    device = DEVICES[0]
    knew = [VersionVector.of({device: seq - 1} if seq > 1 else {}) for seq in range(1, length + 1)]
    return {seq: version(device, seq, known) for seq, known in enumerate(knew, 1)}


def forgotten(
    seen: list[Seen],
    standing: frozenset[int],
    rule: Retention,
    *,
    live: bool = False,
    known: dict[int, Version] | None = None,
) -> list[int]:
    old = aged(seen, standing, rule, live=live, now=NOW)
    return forgettable(old, known or chain(len(seen)))


@pytest.mark.parametrize(
    ("days_ago", "rule", "live", "gone"),
    [
        ((90,), Retention(30, 0), True, []),  # the head, however old
        ((90,), Retention(30, 0), False, []),  # a tombstone, too
        ((90, 40), Retention(30, 0), True, [1]),  # replaced 40 days ago
        ((90, 20), Retention(30, 0), True, []),  # replaced 20 days ago: its own age is nothing
        ((90, 80, 70, 60), Retention(30, 2), True, [1]),  # two beside the head
        ((90, 80, 70, 60), Retention(30, 2), False, [1, 2, 3]),  # deleted: only days count
        ((90, 80, 10), Retention(30, 0), True, [1]),
        ((90, 80, 70), Retention(30, 3), True, []),  # fewer than are kept: all of them
        ((90, 80, 70, 60, 50, 40), Retention(30, 10), True, []),
        ((3, 2, 1), Retention(0, 0), True, [1, 2]),
    ],
)
def test_rule(days_ago: tuple[int, ...], rule: Retention, live: bool, gone: list[int]) -> None:
    seen = history(*days_ago)
    assert forgotten(seen, frozenset({len(seen)}), rule, live=live) == gone


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=12),
    st.sets(st.integers(1, 12), min_size=1),
    st.integers(0, 60),
    st.integers(0, 4),
    st.booleans(),
)
def test_heads_are_never_forgotten(
    days_ago: list[int], heads: set[int], days: int, versions: int, live: bool
) -> None:
    """A tombstone that went away would let what it deleted come back."""
    seen = history(*sorted(days_ago, reverse=True))
    rule = Retention(days, versions)
    assert not set(forgotten(seen, frozenset(heads), rule, live=live)) & heads


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12), st.integers(0, 15))
def test_the_newest_of_a_live_path_stay(days_ago: list[int], versions: int) -> None:
    """As many as the rule says beside the head, or all where there are fewer."""
    seen = history(*sorted(days_ago, reverse=True))
    gone = forgotten(seen, frozenset({len(seen)}), Retention(0, versions), live=True)
    assert gone == list(range(1, len(seen) - versions))


def test_what_came_after_the_one_that_replaced_it_is_the_older_one() -> None:
    """As at a site that hears of an edit before it hears of what was edited."""
    first, second, tomb = chain(3).values()
    seen, known = history(60, 50, 0), {1: second, 2: first, 3: tomb}
    assert forgotten(seen, frozenset({3}), Retention(30, 0), known=known) == [2]
    assert forgotten(seen[:2], frozenset({1}), Retention(30, 0), known=known) == [2]


def test_both_sides_of_a_conflict_stay_as_long_after_the_delete_as_each_alone() -> None:
    one, other = version(DEVICES[0], 1), version(DEVICES[1], 1)
    tomb = version(DEVICES[0], 2, one.vector.join(other.vector))
    known = {1: one, 2: other, 3: tomb}
    for days, gone in ((29, []), (31, [1, 2])):
        seen = history(90, 80, days)
        assert forgotten(seen, frozenset({3}), Retention(30, 0), known=known) == gone


def test_what_stays_makes_the_same_of_the_path_on_each_day_that_is_kept() -> None:
    """In whatever order the versions came, and however often they are looked at."""
    for rng in cases(200):
        versions = made(rng, rng.randint(1, 9))
        rng.shuffle(versions)
        seen = history(*sorted((rng.randint(0, 60) for _ in versions), reverse=True))
        known = dict(enumerate(versions, 1))
        ends = heads(versions)
        standing = frozenset(seq for seq, each in known.items() if each in ends)
        gone = set(forgotten(seen, standing, Retention(30, 0), known=known))
        for day in range(31):
            by_then = [s.seq for s in seen if s.accepted <= NOW - day * DAY_MS]
            kept = heads(known[seq] for seq in by_then if seq not in gone)
            assert kept == heads(known[seq] for seq in by_then)
        rest = [each for each in seen if each.seq not in gone]
        assert not forgotten(rest, standing, Retention(30, 0), known=known)
