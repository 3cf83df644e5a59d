"""Recipes: a file's content as extents of packs, and the arithmetic on them.

To apply a delta to a recipe, and to find the delta between two recipes, no content is read: the
cost is in the number of extents, whatever the size of the file.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Final, NamedTuple

from dblike_delta.commands import Copy
from dblike_delta.errors import DeltaError, FormatError, LimitError
from dblike_delta.limits import DEFAULT_LIMITS, Limits
from dblike_delta.varints import put_varint, take_varints

_MAX_END: Final = 2**63 - 1
_LENGTH: Final = itemgetter(2)


class Extent(NamedTuple):
    """A run of bytes of a pack."""

    pack: int
    offset: int
    length: int


Part = Copy | Extent
"""What a delta between recipes is made of: copies from the base, and bytes that lie in packs."""


class Recipe:
    """The extents that spell out a content, in order; immutable.

    Neighbours that continue each other are joined, so equal recipes have equal extents.
    """

    __slots__ = ("ends", "extents")

    def __init__(self, extents: tuple[Extent, ...] = ()) -> None:
        """Takes extents that are known to be joined; use `of` for any others."""
        self.extents = extents
        self.ends: tuple[int, ...] = tuple(accumulate(map(_LENGTH, extents)))
        """Where in the content each extent ends."""

    @classmethod
    def of(cls, extents: Iterable[Extent]) -> Recipe:
        """The recipe of these extents; DeltaError for one that can lie in no pack."""
        return cls(tuple(_joined(extents)))

    @classmethod
    def concat(cls, recipes: Iterable[Recipe]) -> Recipe:
        """One after the other."""
        return cls.of(extent for recipe in recipes for extent in recipe.extents)

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return self.ends[-1] if self.ends else 0

    @property
    def packs(self) -> frozenset[int]:
        """The packs that the content lies in."""
        return frozenset(extent.pack for extent in self.extents)

    def slice(self, offset: int, length: int) -> Recipe:
        """A part of the content; DeltaError where it reaches past the end."""
        return Recipe(tuple(self.pieces(offset, length)))

    def pieces(self, offset: int, length: int) -> list[Extent]:
        """The extents of a part of the content; DeltaError where it reaches past the end."""
        end = offset + length
        if offset < 0 or length < 0 or end > self.size:
            raise DeltaError(f"bytes {offset} to {end} of a content that has {self.size}")
        if not length:
            return []
        first, last = bisect_right(self.ends, offset), bisect_left(self.ends, end)
        found = list(self.extents[first : last + 1])
        pack, start, size = found[-1]
        found[-1] = Extent(pack, start, size - (self.ends[last] - end))
        pack, start, size = found[0]
        skipped = offset - (self.ends[first] - self.extents[first].length)
        found[0] = Extent(pack, start + skipped, size - skipped)
        return found

    def pack(self) -> bytes:
        """As bytes: packs in the order of their first use, then each extent's pack and place.

        An extent's offset is told as the distance from where the last extent of the same pack
        ended, which is a small number in a file that was edited here and there.
        """
        out = bytearray()
        if len(self.extents) == 1:  # what most files have; the same as below
            [(pack, offset, length)] = self.extents
            for number in (1, pack, 0, _folded(offset), length):
                put_varint(out, number)
            return bytes(out)
        places = {pack: at for at, pack in enumerate(_first_uses(self.extents))}
        for number in (len(places), *places):
            put_varint(out, number)
        ends = dict.fromkeys(places, 0)
        for pack, offset, length in self.extents:
            put_varint(out, places[pack])
            put_varint(out, _folded(offset - ends[pack]))
            put_varint(out, length)
            ends[pack] = offset + length
        return bytes(out)

    @classmethod
    def unpack(cls, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Recipe:
        """The recipe that packs to exactly `data`; else FormatError, or LimitError."""
        numbers = take_varints(data, 0)
        if len(numbers) == 5 and numbers[0] == 1 and not numbers[2] and not numbers[3] & 1:
            # What most files have; the same as below.
            offset, length = numbers[3] >> 1, numbers[4]
            if length and length <= limits.max_file_size and offset + length <= _MAX_END:
                return cls((Extent(numbers[1], offset, length),))
        first = numbers[0] + 1 if numbers else 0
        if not numbers or first > len(numbers) or (len(numbers) - first) % 3:
            raise FormatError("a recipe is cut short")
        if len(numbers) - first > 3 * limits.max_extents:
            raise LimitError(f"a recipe of more than {limits.max_extents} extents")
        packs = numbers[1:first]
        recipe = cls(_placed(packs, numbers[first:]))
        if recipe.size > limits.max_file_size:
            raise LimitError(f"a recipe of {recipe.size} bytes", wanted=recipe.size)
        if list(_first_uses(recipe.extents)) != packs:
            raise FormatError("a recipe lists packs otherwise than it uses them")
        return recipe

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.extents == other.extents

    def __hash__(self) -> int:
        return hash(self.extents)

    def __len__(self) -> int:
        return len(self.extents)

    def __repr__(self) -> str:
        return f"Recipe.of({list(self.extents)!r})"


def apply_delta(base: Recipe, commands: Iterable[Part]) -> Recipe:
    """The recipe of what the delta makes of the base; DeltaError for a copy from outside of it.

    The delta's literals are where they were stored: extents.
    """
    extents: list[Extent] = []
    for part in commands:
        if isinstance(part, Copy):
            # Only its ends may continue what is beside them: the rest is joined already.
            _extend(extents, base.pieces(part.offset, part.length))
        else:
            _extend(extents, list(_joined((part,))))
    return Recipe(tuple(extents))


def difference(have: Recipe | Sequence[Recipe], want: Recipe) -> list[Part]:
    """A delta that makes `want` from `have`; `apply_delta` of it gives `want`.

    Whatever lies in an extent of `have` is copied.  Several recipes count as one after the other.
    """
    base = have if isinstance(have, Recipe) else Recipe.concat(have)
    head = _common(base.extents, want.extents)
    tail = _common(base.extents[:head:-1], want.extents[:head:-1])
    middle = want.extents[head : len(want) - tail]
    parts = _Parts()
    if head:
        parts.copy(0, base.ends[head - 1])
    covers = _covers(base, _spans(middle))
    for extent in middle:
        _express(extent, base, covers.get(extent.pack, _NOTHING), parts)
    if tail:
        start = base.ends[-tail] - base.extents[-tail].length
        parts.copy(start, base.size - start)
    return parts.finish()


def literal_bytes(commands: Iterable[Part]) -> int:
    """Bytes that the delta carries itself."""
    return sum(part.length for part in commands if isinstance(part, Extent))


class _Cover(NamedTuple):
    """Where the bytes of one pack are in a recipe: its runs, sorted by offset in the pack.

    `furthest[i]` is the one of the first i + 1 runs that reaches furthest into the pack.
    """

    starts: list[int]
    ends: list[int]
    places: list[int]
    furthest: list[int]


_NOTHING: Final = _Cover([], [], [], [])


class _Parts:
    """Joins the parts of a delta.  `place` is where in the base the last copy ended, else -1."""

    __slots__ = ("_done", "_last", "place")

    def __init__(self) -> None:
        self._done: list[Part] = []
        self._last: Part = Extent(0, 0, 0)
        self.place = -1

    def copy(self, place: int, length: int) -> None:
        """Add a copy from the base."""
        if place == self.place:
            self._last = Copy(self._last.offset, self._last.length + length)
        else:
            self._push(Copy(place, length))
        self.place = place + length

    def literal(self, pack: int, offset: int, length: int) -> None:
        """Add bytes of a pack."""
        last = self._last
        if self.place < 0 and last[:2] == (pack, offset - last.length):
            self._last = Extent(pack, last.offset, last.length + length)
        else:
            self._push(Extent(pack, offset, length))
        self.place = -1

    def finish(self) -> list[Part]:
        """All parts."""
        self._push(Extent(0, 0, 0))
        return self._done

    def _push(self, part: Part) -> None:
        if self._last.length:
            self._done.append(self._last)
        self._last = part


def _express(extent: Extent, base: Recipe, cover: _Cover, parts: _Parts) -> None:
    """Add what makes one wanted extent: copies where the base has its bytes, else literals."""
    pack, at, length = extent
    end = at + length
    while at < end:
        taken = _continued(base, parts.place, pack, at, end)
        if taken:
            parts.copy(parts.place, taken)
        else:
            before = bisect_right(cover.starts, at) - 1
            run = cover.furthest[before] if before >= 0 else -1
            if run >= 0 and at < cover.ends[run]:
                taken = min(cover.ends[run], end) - at
                parts.copy(cover.places[run] + at - cover.starts[run], taken)
            else:
                after = cover.starts[before + 1] if before + 1 < len(cover.starts) else end
                taken = min(after, end) - at
                parts.literal(pack, at, taken)
        at += taken


def _continued(base: Recipe, place: int, pack: int, at: int, end: int) -> int:
    """How many of the pack's bytes from `at` the base has at `place`.

    Asked first: where the base repeats bytes, the copy that continues the last one costs nothing.
    """
    if not 0 <= place < base.size:
        return 0
    index = bisect_right(base.ends, place)
    extent = base.extents[index]
    skipped = place - (base.ends[index] - extent.length)
    if extent.pack != pack or extent.offset + skipped != at:
        return 0
    return min(extent.length - skipped, end - at)


def _common(some: Sequence[Extent], others: Sequence[Extent]) -> int:
    """How many extents both begin with."""
    for index, (one, other) in enumerate(zip(some, others, strict=False)):
        if one != other:
            return index
    return min(len(some), len(others))


def _spans(extents: Iterable[Extent]) -> dict[int, tuple[int, int]]:
    """For each pack, from where to where these extents reach."""
    spans: dict[int, tuple[int, int]] = {}
    for pack, offset, length in extents:
        first, last = spans.get(pack, (offset, offset))
        spans[pack] = min(first, offset), max(last, offset + length)
    return spans


def _covers(base: Recipe, spans: dict[int, tuple[int, int]]) -> dict[int, _Cover]:
    """For each of these packs, where in the base its bytes between two offsets are."""
    runs: dict[int, list[tuple[int, int, int]]] = {}
    for (pack, offset, length), end in zip(base.extents, base.ends, strict=True):
        if pack in spans:
            first, last = spans[pack]
            if offset < last and offset + length > first:
                runs.setdefault(pack, []).append((offset, offset + length, end - length))
    return {pack: _cover(sorted(of_pack)) for pack, of_pack in runs.items()}


def _cover(runs: list[tuple[int, int, int]]) -> _Cover:
    furthest: list[int] = []
    best = reached = 0
    for index, (_, end, _) in enumerate(runs):
        if end > reached:
            best, reached = index, end
        furthest.append(best)
    starts, ends, places = map(list, zip(*runs, strict=True))
    return _Cover(starts, ends, places, furthest)


def _extend(extents: list[Extent], more: list[Extent]) -> None:
    """Add extents that are joined among themselves."""
    if extents and more:
        pack, offset, length = extents[-1]
        if more[0].pack == pack and more[0].offset == offset + length:
            extents[-1] = Extent(pack, offset, length + more[0].length)
            del more[0]
    extents += more


def _joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Without empty ones, and with neighbours that continue each other as one."""
    last, end = Extent(-1, 0, 0), 0
    for extent in extents:
        pack, offset, length = extent
        if pack < 0 or offset < 0 or length < 0 or offset + length > _MAX_END:
            raise DeltaError(f"no extent of a pack: {pack}, {offset}, {length}")
        if not length:
            continue
        if offset == end and pack == last.pack:
            last = Extent(pack, last.offset, last.length + length)
        else:
            if last.length:
                yield last
            last = extent
        end = offset + length
    if last.length:
        yield last


def _first_uses(extents: Iterable[Extent]) -> dict[int, None]:
    return dict.fromkeys(extent.pack for extent in extents)


def _placed(packs: list[int], numbers: list[int]) -> tuple[Extent, ...]:
    """The extents that these numbers tell, three for each; FormatError."""
    ends = [0] * len(packs)
    extents = []
    last = -1
    threes = iter(numbers)
    for which, folded, length in zip(threes, threes, threes, strict=True):
        if which >= len(packs):
            raise FormatError("a recipe names a pack that it does not list")
        offset = ends[which] + (folded >> 1 ^ -(folded & 1))
        end = ends[which] = offset + length
        if offset < 0 or not length or end > _MAX_END:
            raise FormatError("a recipe's extent lies in no pack")
        if which == last and not folded:
            raise FormatError("a recipe's extents are not joined")
        extents.append(Extent(packs[which], offset, length))
        last = which
    return tuple(extents)


def _folded(number: int) -> int:
    """A number of either sign as one of 0 or more, small for small ones."""
    return number << 1 if number >= 0 else ~(number << 1)
