"""Moves of bytes between packs, and what they make of recipes; pure.

A move is a function of where a byte lies.  Applied to all recipes alike, it keeps what they share
shared, so that the difference of two versions is after a compaction what it was before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from dblike_delta.recipe import Extent, Recipe


class Move(NamedTuple):
    """A run of bytes, from an offset on in its old pack, and where it lies now."""

    offset: int
    length: int
    pack: int
    place: int


class Moves:
    """Moves by old pack.  Runs of one pack must not overlap."""

    def __init__(self, moves: Iterable[tuple[int, Move]]) -> None:
        self._moves: dict[int, list[Move]] = {}
        for pack, move in moves:
            self._moves.setdefault(pack, []).append(move)
        for found in self._moves.values():
            found.sort()
        self._starts = {pack: [m.offset for m in found] for pack, found in self._moves.items()}

    @property
    def packs(self) -> frozenset[int]:
        """The packs that bytes are moved out of."""
        return frozenset(self._moves)

    @property
    def targets(self) -> frozenset[int]:
        """The packs that bytes are moved into."""
        return frozenset(move.pack for found in self._moves.values() for move in found)

    def relocate(self, recipe: Recipe) -> Recipe:
        """The recipe of the same bytes after the moves; what was not moved stays."""
        return Recipe.of(part for extent in recipe.extents for part in self._parts(extent))

    def _parts(self, extent: Extent) -> Iterator[Extent]:
        pack, at, length = extent
        moves = self._moves.get(pack)
        if not moves:
            yield extent
            return
        end = at + length
        index = max(bisect_right(self._starts[pack], at) - 1, 0)
        while at < end:
            move = moves[index] if index < len(moves) else None
            if move is None or move.offset >= end:
                yield Extent(pack, at, end - at)
                return
            index += 1
            if move.offset > at:
                yield Extent(pack, at, move.offset - at)
                at = move.offset
            stop = min(move.offset + move.length, end)
            if stop > at:
                yield Extent(move.pack, move.place + at - move.offset, stop - at)
                at = stop


def in_line(runs: Sequence[Extent], pack: int) -> Moves:
    """Moves of these runs into a new pack, one after the other."""
    places = accumulate((run.length for run in runs), initial=0)
    moves = zip(runs, places, strict=False)
    return Moves((run.pack, Move(run.offset, run.length, pack, place)) for run, place in moves)


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """(offset, length) runs, sorted, with those joined that touch or overlap."""
    runs: list[tuple[int, int]] = []
    for offset, length in sorted(spans):
        if runs and offset <= sum(runs[-1]):
            start, held = runs[-1]
            runs[-1] = (start, max(held, offset + length - start))
        else:
            runs.append((offset, length))
    return runs


def unseen(spans: Iterable[Extent], had: dict[int, list[tuple[int, int]]]) -> Iterator[Extent]:
    """The spans in their order, without bytes that an earlier one had, or that `had` says were:
    (offset, length) runs by pack, sorted, to which these are added."""
    for pack, offset, length in spans:
        runs = had.setdefault(pack, [])
        end = offset + length
        at = bisect_right(runs, (offset, 1 << 63)) - 1
        if at >= 0 and sum(runs[at]) > offset:
            offset = min(sum(runs[at]), end)  # noqa: PLW2901 - what is left of it
        following = at + 1
        while offset < end:
            stop = min(runs[following][0], end) if following < len(runs) else end
            if stop > offset:
                yield Extent(pack, offset, stop - offset)
                runs.insert(following, (offset, stop - offset))
                following += 1
            if following >= len(runs):
                break
            offset = max(stop, min(sum(runs[following]), end))  # noqa: PLW2901
            following += 1
