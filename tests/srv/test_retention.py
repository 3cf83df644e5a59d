"""What retention forgets, as a table and as laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblike_srv.config import Retention
from dblike_srv.retention import DAY_MS, Seen, forgettable

NOW = 1000 * DAY_MS


def history(*days_ago: int) -> list[Seen]:
    """Versions 1, 2, … that came so many days ago."""
    return [Seen(seq, NOW - days * DAY_MS) for seq, days in enumerate(days_ago, 1)]


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
    assert forgettable(seen, frozenset({len(seen)}), rule, live=live, now=NOW) == gone


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
    assert not set(forgettable(seen, frozenset(heads), rule, live=live, now=NOW)) & heads


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12), st.integers(0, 15))
def test_the_newest_of_a_live_path_stay(days_ago: list[int], versions: int) -> None:
    """As many as the rule says beside the head, or all where there are fewer."""
    seen = history(*sorted(days_ago, reverse=True))
    gone = forgettable(seen, frozenset({len(seen)}), Retention(0, versions), live=True, now=NOW)
    assert gone == list(range(1, len(seen) - versions))
