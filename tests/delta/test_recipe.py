"""Recipes: the arithmetic of extents, against the bytes that they stand for."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import cases, extents, recipes

from dblike_delta.commands import Copy
from dblike_delta.errors import DeltaError, FormatError, LimitError
from dblike_delta.limits import Limits
from dblike_delta.recipe import Extent, Part, Recipe, apply_delta, difference, literal_bytes
from dblike_delta.varints import put_varint

Place = tuple[int, int]


def spelled(recipe: Recipe) -> list[Place]:
    """The content, as the place of each of its bytes."""
    return [(pack, offset + at) for pack, offset, length in recipe.extents for at in range(length)]


def random_recipe(rng: random.Random, number: int) -> Recipe:
    return Recipe.of(
        Extent(rng.randint(1, 2), rng.randrange(16), rng.randrange(8)) for _ in range(number)
    )


def encoded(*numbers: int) -> bytes:
    out = bytearray()
    for number in numbers:
        put_varint(out, number)
    return bytes(out)


@given(st.lists(extents, max_size=12))
def test_a_recipe_spells_its_extents_in_the_fewest(given_extents: list[Extent]) -> None:
    recipe = Recipe.of(given_extents)
    plain = [(e.pack, e.offset + at) for e in given_extents for at in range(e.length)]
    assert spelled(recipe) == plain
    assert recipe.size == len(plain)
    breaks = sum(before != (pack, at - 1) for before, (pack, at) in itertools.pairwise(plain))
    assert len(recipe) == (breaks + 1 if plain else 0)
    assert Recipe.of(recipe.extents) == recipe
    assert hash(Recipe.of(recipe.extents)) == hash(recipe)
    assert recipe.packs == {pack for pack, _ in plain}


@given(recipes, st.integers(0, 80), st.integers(0, 80))
def test_a_slice_is_a_slice_of_the_bytes(recipe: Recipe, offset: int, length: int) -> None:
    if offset + length > recipe.size:
        with pytest.raises(DeltaError):
            recipe.slice(offset, length)
    else:
        assert spelled(recipe.slice(offset, length)) == spelled(recipe)[offset : offset + length]


@given(st.lists(recipes, max_size=4))
def test_concat_puts_one_after_the_other(several: list[Recipe]) -> None:
    assert spelled(Recipe.concat(several)) == [place for one in several for place in spelled(one)]


def test_slices_put_together_are_the_whole() -> None:
    for rng in cases(2000):
        recipe = random_recipe(rng, rng.randrange(8))
        cuts = sorted(rng.randint(0, recipe.size) for _ in range(3))
        edges = [0, *cuts, recipe.size]
        pieces = [recipe.slice(a, b - a) for a, b in itertools.pairwise(edges)]
        assert Recipe.concat(pieces) == recipe


def test_a_delta_makes_of_recipes_what_it_makes_of_bytes() -> None:
    for rng in cases(3000):
        base = random_recipe(rng, rng.randint(1, 6))
        parts: list[Part] = []
        expected: list[Place] = []
        for _ in range(rng.randrange(8)):
            if rng.random() < 0.6:
                offset = rng.randint(0, base.size)
                length = rng.randint(0, base.size - offset)
                parts.append(Copy(offset, length))
                expected += spelled(base)[offset : offset + length]
            else:
                extent = Extent(9, rng.randrange(16), rng.randrange(5))
                parts.append(extent)
                expected += spelled(Recipe.of([extent]))
        assert spelled(apply_delta(base, parts)) == expected


@pytest.mark.parametrize("copy", [Copy(0, 11), Copy(10, 1), Copy(-1, 2), Copy(2, -1)])
def test_a_copy_from_outside_of_the_base_is_refused(copy: Copy) -> None:
    with pytest.raises(DeltaError):
        apply_delta(Recipe.of([Extent(1, 5, 10)]), [copy])


def test_the_difference_makes_the_one_of_the_other_with_the_fewest_literals() -> None:
    for rng in cases(20_000):
        have, want = random_recipe(rng, rng.randrange(7)), random_recipe(rng, rng.randrange(7))
        if rng.random() < 0.3:
            want = Recipe.concat([have.slice(0, have.size // 2), want, have])
        parts = difference(have, want)
        assert apply_delta(have, parts) == want
        there = set(spelled(have))
        assert literal_bytes(parts) == sum(place not in there for place in spelled(want))


def test_the_difference_from_several_is_that_from_all_of_them_in_a_row() -> None:
    for rng in cases(1000):
        have = [random_recipe(rng, 3), random_recipe(rng, 3)]
        want = random_recipe(rng, 5)
        assert apply_delta(Recipe.concat(have), difference(have, want)) == want


@given(recipes)
def test_what_is_the_same_is_one_copy(recipe: Recipe) -> None:
    assert difference(recipe, recipe) == ([Copy(0, recipe.size)] if recipe.size else [])
    assert difference(Recipe(), recipe) == list(recipe.extents)


@pytest.mark.parametrize(
    ("have", "want", "parts"),
    [
        pytest.param(
            [Extent(1, 0, 100)],
            [Extent(1, 0, 40), Extent(2, 0, 5), Extent(1, 45, 55)],
            [Copy(0, 40), Extent(2, 0, 5), Copy(45, 55)],
            id="an edit in the middle",
        ),
        pytest.param(
            [Extent(1, 0, 40), Extent(2, 0, 5), Extent(1, 45, 55)],
            [Extent(1, 0, 100)],
            [Copy(0, 40), Extent(1, 40, 5), Copy(45, 55)],
            id="the edit undone",
        ),
        pytest.param(
            [Extent(1, 0, 10), Extent(2, 0, 10), Extent(1, 0, 10), Extent(3, 0, 10)],
            [Extent(4, 0, 1), Extent(1, 0, 10), Extent(3, 0, 10), Extent(4, 1, 1)],
            [Extent(4, 0, 1), Copy(0, 10), Copy(30, 10), Extent(4, 1, 1)],
            id="bytes that the base repeats",
        ),
        pytest.param(
            [Extent(1, 0, 60), Extent(2, 0, 1), Extent(1, 40, 60), Extent(2, 9, 1)],
            [Extent(1, 40, 60)],
            [Copy(61, 60)],
            id="the run that reaches furthest",
        ),
        pytest.param(
            [Extent(1, 10, 10)],
            [Extent(1, 0, 30)],
            [Extent(1, 0, 10), Copy(0, 10), Extent(1, 20, 10)],
            id="more than the base has, on both sides",
        ),
    ],
)
def test_a_difference_is_short(have: list[Extent], want: list[Extent], parts: list[Part]) -> None:
    assert difference(Recipe.of(have), Recipe.of(want)) == parts


def test_every_edit_of_a_fragmented_file_costs_a_few_parts() -> None:
    """Cost depends on the edit, not on the size of the file or how often it was edited."""
    rng = random.Random(1)
    recipe = Recipe.of([Extent(1, 0, 10**10)])
    for edit in range(500):
        at = rng.randrange(recipe.size - 1000)
        parts = [
            Copy(0, at), Extent(2, 1000 * edit, 900), Copy(at + 500, recipe.size - at - 500)
        ]  # fmt: skip
        edited = apply_delta(recipe, parts)
        assert len(edited) <= len(recipe) + 2
        assert len(difference(recipe, edited)) <= 3
        assert len(difference(edited, recipe)) <= 3
        recipe = edited


def test_100_000_extents_cost_as_many_parts_as_they_need() -> None:
    blocks = 50_000
    base = Recipe.of([Extent(1, 0, blocks * 100)])
    parts: list[Part] = []
    for block in range(blocks):
        parts += [Copy(block * 100, 90), Extent(2, block * 10 + block, 10)]
    edited = apply_delta(base, parts)
    assert len(edited) == 2 * blocks
    assert difference(base, edited) == parts
    assert literal_bytes(difference(edited, base)) == blocks * 10
    packed = edited.pack()
    assert len(packed) < 6 * len(edited)
    assert Recipe.unpack(packed) == edited


@given(recipes)
def test_pack_and_unpack_are_opposites(recipe: Recipe) -> None:
    assert Recipe.unpack(recipe.pack()) == recipe


@given(st.binary(max_size=24))
def test_bytes_are_a_recipe_in_one_way_or_in_none(raw: bytes) -> None:
    try:
        recipe = Recipe.unpack(raw)
    except DeltaError:
        return
    assert recipe.pack() == raw


def test_every_cut_and_every_changed_byte_is_a_recipe_or_an_error() -> None:
    packed = Recipe.of([Extent(7, 0, 300), Extent(2, 1000, 5), Extent(7, 200, 1)]).pack()
    for at in range(len(packed)):
        for raw in (
            packed[:at],
            *(packed[:at] + bytes([b]) + packed[at + 1 :] for b in range(256)),
        ):
            try:
                assert Recipe.unpack(raw).pack() == raw
            except DeltaError:
                continue


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        pytest.param(b"", "cut short", id="nothing"),
        pytest.param(encoded(2, 5), "cut short", id="fewer packs than promised"),
        pytest.param(encoded(1, 5, 0, 0), "cut short", id="two thirds of an extent"),
        pytest.param(encoded(1, 5, 1, 0, 9), "does not list", id="a pack that is not listed"),
        pytest.param(encoded(1, 5, 0, 1, 9), "lies in no pack", id="before the pack's start"),
        pytest.param(encoded(1, 5, 0, 0, 0), "lies in no pack", id="an empty extent"),
        pytest.param(encoded(1, 5, 0, 0, 2**63), "lies in no pack", id="past all offsets"),
        pytest.param(encoded(1, 5, 0, 0, 9, 0, 0, 9), "not joined", id="two that are one"),
        pytest.param(encoded(2, 5, 6, 0, 0, 9), "otherwise", id="a pack that is not used"),
        pytest.param(encoded(2, 5, 5, 0, 0, 9, 1, 0, 9), "otherwise", id="a pack listed twice"),
        pytest.param(encoded(2, 5, 6, 1, 0, 9, 0, 0, 9), "otherwise", id="in another order"),
        pytest.param(b"\x80\x00", "longer than it needs", id="a long number"),
        pytest.param(b"\xff" * 9 + b"\x7f", "64 bits", id="a large number"),
        pytest.param(b"\xff" * 11, "no end", id="a number without end"),
        pytest.param(b"\x00\x80", "no end", id="a cut number"),
    ],
)
def test_a_malformed_recipe_is_refused_with_its_fault(raw: bytes, fault: str) -> None:
    with pytest.raises(FormatError, match=fault):
        Recipe.unpack(raw)


def test_limits_are_kept() -> None:
    packed = Recipe.of([Extent(1, 0, 600), Extent(1, 0, 600)]).pack()
    assert Recipe.unpack(packed, Limits(max_extents=2, max_file_size=1200)).size == 1200
    with pytest.raises(LimitError):
        Recipe.unpack(packed, Limits(max_extents=1))
    with pytest.raises(LimitError):
        Recipe.unpack(packed, Limits(max_file_size=1199))


@pytest.mark.parametrize("extent", [Extent(-1, 0, 1), Extent(1, -1, 1), Extent(1, 2**63 - 1, 1)])
def test_what_can_lie_in_no_pack_is_no_extent(extent: Extent) -> None:
    with pytest.raises(DeltaError):
        Recipe.of([extent])
