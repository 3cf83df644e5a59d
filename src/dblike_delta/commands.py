"""Copy, Literal, End: the one vocabulary of delta, patch and recipe; and how runs are joined."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

LITERAL_LIMIT: Final = 1 << 20
"""The longest literal that leaves the library in one piece."""
_LARGE: Final = 64 << 10
"""A literal of this size is left as it is: joining would copy it to save a few bytes."""

Data = bytes | bytearray | memoryview


def bytes_of(data: Data) -> memoryview:
    """A view of what a caller passed in; ValueError where its items are no bytes in one piece."""
    view = memoryview(data)
    if view.format != "B" or view.ndim != 1 or not view.c_contiguous:
        raise ValueError("data must be bytes in one piece")
    return view


class Copy(NamedTuple):
    """`length` bytes of the base from `offset` on."""

    offset: int
    length: int


class Literal(NamedTuple):
    """Bytes that are not in the base."""

    data: Data


class End(NamedTuple):
    """The delta is whole."""


Command = Copy | Literal
Event = Copy | Literal | End


class Coalescer:
    """Joins copies that continue each other, and literals up to LITERAL_LIMIT.

    Commands go in one by one; those that can't grow any more are in `take()`, and after the last
    one everything is in `finish()`.  Order is kept.
    """

    def __init__(self) -> None:
        self._ready: list[Command] = []
        self._copy: Copy | None = None
        self._literal = bytearray()

    def copy(self, offset: int, length: int) -> None:
        """Add a copy; an empty one is dropped."""
        if not length:
            return
        self._flush_literal()
        last = self._copy
        if last is not None and last.offset + last.length == offset:
            self._copy = Copy(last.offset, last.length + length)
            return
        self._flush_copy()
        self._copy = Copy(offset, length)

    def literal(self, data: Data) -> None:
        """Add literal bytes of any length."""
        if not len(data):
            return
        self._flush_copy()
        if not self._literal and _LARGE <= len(data) <= LITERAL_LIMIT:
            self._ready.append(Literal(bytes(data)))
            return
        view = memoryview(data)
        while view:
            room = LITERAL_LIMIT - len(self._literal)
            self._literal += view[:room]
            view = view[room:]
            if len(self._literal) == LITERAL_LIMIT:
                self._flush_literal()

    def take(self) -> list[Command]:
        """Commands that nothing can join any more."""
        ready, self._ready = self._ready, []
        return ready

    def finish(self) -> list[Command]:
        """All that is left."""
        self._flush_literal()
        self._flush_copy()
        return self.take()

    def _flush_copy(self) -> None:
        if self._copy is not None:
            self._ready.append(self._copy)
            self._copy = None

    def _flush_literal(self) -> None:
        if self._literal:
            self._ready.append(Literal(bytes(self._literal)))
            self._literal = bytearray()


def coalesce(commands: Iterable[Command]) -> list[Command]:
    """The same commands with neighbours joined.

    >>> coalesce([Copy(0, 4), Copy(4, 4), Literal(b"a"), Literal(b"b")])
    [Copy(offset=0, length=8), Literal(data=b'ab')]
    """
    joined = Coalescer()
    for command in commands:
        if isinstance(command, Copy):
            joined.copy(*command)
        else:
            joined.literal(command.data)
    return joined.finish()
