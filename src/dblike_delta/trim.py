"""Where the base is at hand: copies are extended byte by byte into the literals beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from dblike_delta.commands import Coalescer, Command, Copy, Data
from dblike_delta.streams import Seekable, read_up_to, size_of

_REACH: Final = 64 << 10
"""Bytes of a literal's ends that are compared: what a block around an edit may add."""


def trim(commands: Iterable[Command], base: Seekable) -> Iterator[Command]:
    """The same new file with as few literal bytes as the neighbours of each literal allow.

    A search by blocks sends whole blocks around an edit.  What follows a copy in the base often is
    what the literal begins with, and what comes before the next copy is what it ends with.  Up to
    64 KiB are compared at each end of a literal.
    """
    trimmer = _Trimmer(base)
    for command in commands:
        if isinstance(command, Copy):
            trimmer.copy(command)
        else:
            trimmer.literal(command.data)
        yield from trimmer.out.take()
    # The ends of both files lie side by side, as their beginnings did.
    trimmer.copy(Copy(trimmer.size, 0))
    yield from trimmer.out.finish()


class _Trimmer:
    """The literal that is being looked at, and the copy before it."""

    def __init__(self, base: Seekable) -> None:
        self.out, self.size = Coalescer(), size_of(base)
        self._base = base
        self._last: Copy | None = Copy(0, 0)  # until the literal's front was compared
        self._literal = bytearray()

    def copy(self, then: Copy) -> None:
        self._extend_last()
        back = self._backward(then.offset)
        self.out.literal(self._literal[: len(self._literal) - back])
        self.out.copy(then.offset - back, then.length + back)
        self._literal, self._last = bytearray(), then

    def literal(self, data: Data) -> None:
        self._literal += data
        if len(self._literal) < 2 * _REACH:
            return
        self._extend_last()
        settled = max(0, len(self._literal) - _REACH)
        self.out.literal(self._literal[:settled])
        del self._literal[:settled]

    def _extend_last(self) -> None:
        """What follows the last copy in the base may be what the literal begins with."""
        last, self._last = self._last, None
        if last is None or not self._literal:
            return
        end = last.offset + last.length
        there = self._read(end, min(_REACH, len(self._literal), self.size - end))
        front = _common(there, self._literal)
        self.out.copy(end, front)
        del self._literal[:front]

    def _backward(self, end: int) -> int:
        """How many bytes before `end` in the base are what the literal ends with."""
        length = min(_REACH, len(self._literal), end)
        if not length:
            return 0
        there = self._read(end - length, length)
        return _common(there[::-1], self._literal[-length:][::-1])

    def _read(self, offset: int, length: int) -> bytes:
        if length <= 0:
            return b""
        self._base.seek(offset)
        return read_up_to(self._base, length)


def _common(one: bytes | bytearray, other: bytes | bytearray) -> int:
    """The length of the common beginning, by halving."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
