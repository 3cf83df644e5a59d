"""Moves of bytes between packs: pure arithmetic on recipes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dblike_delta.recipe import Extent, Recipe
from dblike_srv.relocate import in_line, merged, unseen

SIZE = 40
extents = st.lists(
    st.builds(
        lambda pack, at, length: Extent(pack, at, min(length, SIZE - at)),
        st.integers(1, 3),
        st.integers(0, SIZE - 1),
        st.integers(1, 12),
    ),
    max_size=8,
)


def content(packs: dict[int, bytes], recipe: Recipe) -> bytes:
    return b"".join(packs[pack][at : at + length] for pack, at, length in recipe.extents)


@given(extents, extents)
def test_a_recipe_spells_the_same_after_any_moves(wanted: list[Extent], runs: list[Extent]) -> None:
    """What compaction does to a recipe changes no byte of its content."""
    packs = {pack: bytes(range(pack * SIZE, (pack + 1) * SIZE)) for pack in (1, 2, 3)}
    recipe = Recipe.of(wanted)
    moved = list(unseen(runs, {}))
    packs[9] = b"".join(packs[pack][at : at + length] for pack, at, length in moved)
    after = in_line(moved, 9).relocate(recipe)
    assert content(packs, after) == content(packs, recipe)
    assert in_line(moved, 9).relocate(Recipe.of(moved)) == Recipe.of([Extent(9, 0, len(packs[9]))])
    taken = {(run.pack, at) for run in moved for at in range(run.offset, run.offset + run.length)}
    left = {(pack, o) for pack, at, n in after.extents if pack != 9 for o in range(at, at + n)}
    assert not taken & left


@given(extents, st.integers(0, 8))
def test_unseen_gives_each_byte_once_and_in_order(runs: list[Extent], first: int) -> None:
    """The first place where a byte is wanted is where it goes; also of several recipes."""
    wanted = [(pack, o) for pack, at, length in runs for o in range(at, at + length)]
    had: dict[int, list[tuple[int, int]]] = {}
    told = [*unseen(runs[:first], had), *unseen(runs[first:], had)]
    given_out = [(pack, o) for pack, at, n in told for o in range(at, at + n)]
    assert given_out == list(dict.fromkeys(wanted))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9))))
def test_merged_runs_cover_the_same_bytes_without_overlap(spans: list[tuple[int, int]]) -> None:
    """Runs are sorted, apart from each other, and nothing is added or lost."""
    runs = merged(spans)
    covered = {at for offset, length in spans for at in range(offset, offset + length)}
    assert {at for offset, length in runs for at in range(offset, offset + length)} == covered
    assert all(a + n < b for (a, n), (b, _) in pairwise(runs))
