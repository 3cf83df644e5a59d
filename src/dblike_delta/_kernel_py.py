"""The kernel in plain Python: the definition, and the oracle of the compiled one.

Words: a block's *row* is its weak sum, the place of its anchor and its strong sum.  A position is
*selected* where a keyed value of the 8 bytes there is over the threshold, about 8 times in a block.
A block's *anchor* is one of its selected positions: its weak sum is then that of the bytes
there, and whoever looks for the block needs to look only at selected positions.  A block without
any (zeros, short periods, bad luck) has the rolling sum of all its bytes, and is looked for only
where a whole block's length has no selected position.
"""

from __future__ import annotations

import itertools
from typing import Final

from dblike_delta._sums_py import anchor_sum, selected, strong_sum, weak_roll, weak_sum
from dblike_delta.commands import Data
from dblike_delta.parameters import XXH3, Parameters

__all__ = ["Scanner", "Signer", "bad_place", "name", "strong_sum", "weak_roll", "weak_sum"]

name: Final = "python"

CHAIN_LIMIT: Final = 32
"""Rows with the same weak sum that are looked at; the others are found as neighbours or not at all.
The worst look-up costs as many comparisons, and strong sums until VAIN_FACTOR stops them."""
VAIN_FACTOR: Final = 8
VAIN_SLACK: Final = 1 << 20
"""Bytes hashed in vain for each byte read, and before that counts: over it, candidates are passed
over.  Whoever prepared colliding sums gets a longer delta; the cost stays within ten times."""
ANCHOR_TRIES: Final = 8
SEEN_LOG: Final = 19
SEEN_MAX: Final = 1 << 17

Op = tuple[int, int] | bytes

_NONE = -1


# --- rows -----------------------------------------------------------------------------------------


class Signer:
    """Makes rows.  It remembers which anchors it gave, so that blocks with common parts (headers,
    padding, lines) get one that tells them apart."""

    def __init__(self, parameters: Parameters) -> None:
        self._p = parameters
        self._seen: set[int] = set()
        self._noted = 0
        self._last = b""

    def rows(self, data: Data) -> bytes:
        """The rows of the blocks in `data`; the last one may be short."""
        view, block = memoryview(data), self._p.block_size
        return b"".join(self._row(view[at : at + block]) for at in range(0, len(view), block))

    def _row(self, block: memoryview) -> bytes:
        p, strong = self._p, strong_sum(self._p, block)
        if len(block) == p.block_size and self._last.endswith(strong) and p.strong == XXH3:
            return self._last
        place = self._anchor(block)
        weak = weak_sum(p, block) if place == _NONE else anchor_sum(p, block, place)
        where = (place & (1 << 8 * p.place_size) - 1).to_bytes(p.place_size, "big")
        row = weak.to_bytes(4, "big") + where + strong
        self._last = row if len(block) == p.block_size else b""
        return row

    def _anchor(self, block: memoryview) -> int:
        p, first = self._p, _NONE
        if not p.threshold:
            return _NONE
        places = selected(p, block, 0, len(block) - p.anchor_size + 1)
        for place in itertools.islice(places, ANCHOR_TRIES):
            first = place if first == _NONE else first
            cell = anchor_sum(p, block, place) >> 32 - SEEN_LOG
            if cell not in self._seen:
                self._note(cell)
                return place
        return first

    def _note(self, cell: int) -> None:
        if len(self._seen) == SEEN_MAX:
            self._seen.clear()
        self._seen.add(cell)


def bad_place(p: Parameters, rows: bytes, size: int) -> int | None:
    """The first row whose anchor does not lie in its block."""
    row_size, width = 4 + p.place_size + p.strong_size, p.place_size
    none = (1 << 8 * width) - 1
    for block in range(len(rows) // row_size if width else 0):
        at = block * row_size + 4
        place = int.from_bytes(rows[at : at + width], "big")
        length = min(p.block_size, size - block * p.block_size)
        if place != none and place + p.anchor_size > length:
            return block
    return None


# --- the search -----------------------------------------------------------------------------------


class Scanner:
    """Finds a signature's blocks in a stream.

    `feed` and `finish` give (offset, length) for what is in the base, bytes for what is not.
    `vain_limit`: bytes that may go through the strong sum for nothing; over it, OverflowError.
    """

    def __init__(
        self,
        parameters: Parameters,
        rows: bytes,
        size: int | None,
        capacity: int,
        vain_limit: int | None = None,
    ) -> None:
        self._p = p = parameters
        self._rows, self._capacity, self._vain_limit = rows, capacity, vain_limit
        self._row_size = 4 + p.place_size + p.strong_size
        self._count = len(rows) // self._row_size
        self._size = size
        self._anchored: dict[int, list[int]] = {}
        self._rolled: dict[int, list[int]] = {}
        for block in range(self._count):
            self._enter(block)
        self._buffer = bytearray()
        self._dropped = 0  # bytes of the stream before the buffer
        self._at = 0  # everything before it went out
        self._next = 0  # the first position that was not looked at for an anchor
        self._gap = 0  # the first start that was not tested by rolling
        self._expect = 0 if self._count else _NONE
        self._final = False
        self._ops: list[Op] = []
        self._vain = (_NONE, 0, b"")  # the strong sum computed last: start, length, sum
        self.matches = self.alarms = self.vain = 0
        """Blocks found; weak sums that promised a block and lied; bytes hashed for these."""

    # The index

    def _weak(self, block: int) -> int:
        at = block * self._row_size
        return int.from_bytes(self._rows[at : at + 4], "big")

    def _place(self, block: int) -> int:
        at, size = block * self._row_size + 4, self._p.place_size
        value = int.from_bytes(self._rows[at : at + size], "big")
        return _NONE if value == (1 << 8 * size) - 1 else value

    def _strong(self, block: int) -> bytes:
        end = (block + 1) * self._row_size
        return self._rows[end - self._p.strong_size : end]

    def _length(self, block: int) -> int:
        if self._size is None or block < self._count - 1:
            return self._p.block_size
        return self._size - block * self._p.block_size

    def _enter(self, block: int) -> None:
        place = self._place(block) if self._p.place_size else _NONE
        if place == _NONE and self._length(block) < self._p.block_size:
            return  # found as a neighbour or at the very end
        index = self._rolled if place == _NONE else self._anchored
        chain = index.setdefault(self._weak(block), [])
        if len(chain) == CHAIN_LIMIT:
            return
        begin, end = block * self._row_size, (block + 1) * self._row_size
        row, full = self._rows[begin:end], self._length(block)
        for other in chain:
            there = other * self._row_size
            if self._rows[there : there + self._row_size] == row and self._length(other) == full:
                return
        chain.append(block)

    # The stream

    def feed(self, data: Data) -> list[Op]:
        """Take more of the stream; give what is settled."""
        view = memoryview(data)
        while view:
            room = self._capacity - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]
            if len(self._buffer) == self._capacity:
                self._run()
                self._drop()
        return self._take()

    def finish(self) -> list[Op]:
        """The stream has ended; give the rest."""
        self._final = True
        self._run()
        self._literal(len(self._buffer))
        return self._take()

    def _take(self) -> list[Op]:
        ops, self._ops = self._ops, []
        return ops

    def _run(self) -> None:
        while True:
            if self._expect != _NONE and not self._follow():
                return
            found = self._search()
            if found is None:
                return
            self._accept(*found)

    def _follow(self) -> bool:
        """Take the blocks that follow the last match; False where more bytes are needed."""
        while self._expect != _NONE:
            length = self._length(self._expect)
            if self._at + length > len(self._buffer):
                if not self._final:
                    return False
                break
            if not self._equal(self._at, length, self._expect):
                break
            self._copy(self._expect, length)
            self._expect = self._expect + 1 if self._expect + 1 < self._count else _NONE
        self._expect = _NONE
        self._next = self._gap = self._at
        return True

    def _search(self) -> tuple[int, int] | None:
        """The next match, (start, block); None where more bytes are needed."""
        found = None
        block, end = self._p.block_size, len(self._buffer)
        if self._p.threshold:
            reach = block - self._p.anchor_size
            stop = end - self._p.anchor_size + 1
            for position in selected(self._p, self._buffer, self._next, stop):
                found = self._roll(position - reach) or self._look(position)
                if found is not None:
                    return None if found[1] == _NONE else found
                self._gap = max(self._gap, position + 1)
            self._next = max(self._next, stop)
        found = self._roll(end - block + 1)
        if found is None and self._final:
            found = self._search_tail()
        return found

    def _look(self, position: int) -> tuple[int, int] | None:
        """A block whose anchor is at `position`; block _NONE where more bytes are needed."""
        if self._is_tired(position):
            return None
        for block in self._anchored.get(anchor_sum(self._p, self._buffer, position), ()):
            start, length = position - self._place(block), self._length(block)
            if start < self._at:
                continue
            if start + length > len(self._buffer):
                if self._final:
                    continue
                self._next = position
                return start, _NONE
            if self._equal(start, length, block):
                return start, block
        return None

    def _roll(self, stop: int) -> tuple[int, int] | None:
        """A block without an anchor that starts in range(gap, stop)."""
        p, size, start = self._p, self._p.block_size, max(self._gap, self._at)
        if not self._rolled or start >= stop:
            self._gap = max(self._gap, stop)
            return None
        value = weak_sum(p, self._buffer[start : start + size])
        while True:
            for block in self._rolled.get(value, ()):
                if not self._is_tired(start) and self._equal(start, size, block):
                    return start, block
            start += 1
            if start >= stop:
                self._gap = start
                return None
            out, new = self._buffer[start - 1], self._buffer[start + size - 1]
            value = weak_roll(p, value, size, out, new)

    def _search_tail(self) -> tuple[int, int] | None:
        """The base's short last block at the very end."""
        last, end = self._count - 1, len(self._buffer)
        if last < 0:
            return None
        if self._size is not None:
            start = end - self._length(last)
            return (start, last) if start >= self._at and self._equal_tail(start) else None
        for start in range(end - 1, max(self._at, end - self._p.block_size + 1) - 1, -1):
            tail = self._buffer[start:end]
            if weak_sum(self._p, tail) == self._weak(last) and self._equal_tail(start):
                return start, last
        return None

    def _equal_tail(self, start: int) -> bool:
        return self._equal(start, len(self._buffer) - start, self._count - 1)

    def _is_tired(self, start: int) -> bool:
        return self.vain > VAIN_FACTOR * (self._dropped + start) + VAIN_SLACK

    def _equal(self, start: int, length: int, block: int) -> bool:
        """Whether the strong sums agree.  A chain asks about one start many times."""
        if self._vain[:2] != (start, length):
            data = self._buffer[start : start + length]
            self._vain = (start, length, strong_sum(self._p, data))
            self.vain += length
        if self._vain[2] == self._strong(block):
            self.vain -= length
            return True
        self.alarms += 1
        if self._vain_limit is not None and self.vain > self._vain_limit:
            raise OverflowError
        return False

    # Output

    def _accept(self, start: int, block: int) -> None:
        end = len(self._buffer)
        size, first = self._p.block_size, start
        length = min(self._length(block), end - start)
        # A chain that was capped may have hidden the blocks before this one.
        before = block
        while before and first - size >= self._at and self._equal(first - size, size, before - 1):
            first, before = first - size, before - 1
        self._literal(first)
        for number in range(before, block):
            self._copy(number, size)
        self._copy(block, length)
        self._expect = block + 1 if block + 1 < self._count else _NONE
        self._next = self._gap = self._at

    def _copy(self, block: int, length: int) -> None:
        self.matches += 1
        self._at += length
        offset, last = block * self._p.block_size, self._ops[-1] if self._ops else b""
        if isinstance(last, tuple) and last[0] + last[1] == offset:
            self._ops[-1] = (last[0], last[1] + length)
        else:
            self._ops.append((offset, length))

    def _literal(self, end: int) -> None:
        if end > self._at:
            self._ops.append(bytes(self._buffer[self._at : end]))
            self._at = end

    def _drop(self) -> None:
        """Send out what can't be part of a match any more, and make room."""
        if self._expect == _NONE:
            reach = self._p.block_size - self._p.anchor_size
            self._literal(self._next - reach if self._p.threshold else self._gap)
        shift = max(0, self._at - 1)  # a rolling window still takes one byte out
        self._at -= shift
        self._dropped += shift
        del self._buffer[:shift]
        self._next -= shift
        self._gap -= shift
        self._vain = (_NONE, 0, b"")
