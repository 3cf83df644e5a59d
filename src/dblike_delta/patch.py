"""Patch: the base and a delta make the new file, checked while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from blake3 import blake3

from dblike_delta.commands import Copy, Data, Event, Literal
from dblike_delta.delta import Delta
from dblike_delta.errors import BaseMismatch, IntegrityError
from dblike_delta.formats import DeltaDecoder
from dblike_delta.limits import DEFAULT_LIMITS, Limits
from dblike_delta.streams import (
    FIRST,
    Progress,
    Readable,
    Seekable,
    Writable,
    read_pieces,
    reader,
    size_of,
    write_all,
)

_PIECE: Final = 1 << 20
_LARGE: Final = 64 << 10
"""A literal of this size is written as it is."""


class PatchResult(msgspec.Struct, frozen=True):
    """What was written: its size and BLAKE3-256, and where the bytes came from."""

    size: int
    hash: bytes
    copied: int
    literal: int


def patch(
    base_file: Seekable,
    delta: Delta | Readable,
    out_file: Writable,
    *,
    max_size: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> PatchResult:
    """Write the new file to `out_file`: the delta (or a file that holds one) applied to the base.

    LimitError before a byte over `max_size` is written; FormatError for what is no delta of this
    base; BaseMismatch or IntegrityError where the result is not what the delta was made from.
    After an error, what `out_file` holds is of no use.  `progress`: is told the bytes written.
    """
    size = size_of(base_file)
    if isinstance(delta, Delta) and delta.base_size not in {None, size}:
        raise BaseMismatch(f"the base has {size} bytes; the delta is for one of {delta.base_size}")
    pieces = delta.pieces() if isinstance(delta, Delta) else read_pieces(delta)
    decoder = DeltaDecoder(limits, base_size=size, max_size=max_size)
    result = _apply(base_file, _events(pieces, decoder), out_file, progress)
    if isinstance(delta, Delta) and delta.hash and delta.hash != result.hash:
        raise IntegrityError("the result differs from the file that the delta was made from")
    return result


def _events(pieces: Iterable[memoryview], decoder: DeltaDecoder) -> Iterator[Event]:
    for piece in pieces:
        yield from decoder.feed(piece)
    decoder.finish()


def _apply(
    base: Seekable, events: Iterable[Event], out: Writable, progress: Progress | None
) -> PatchResult:
    gathered, copied, literal = _Output(base, out, progress), 0, 0
    for event in events:
        if isinstance(event, Copy):
            gathered.copy(event.offset, event.length)
            copied += event.length
        elif isinstance(event, Literal):
            gathered.literal(event.data)
            literal += len(event.data)
    return PatchResult(copied + literal, gathered.finish(), copied, literal)


class _Output:
    """Gathers what is written, so that many small commands are hashed and written at once."""

    def __init__(self, base: Seekable, out: Writable, progress: Progress | None) -> None:
        self._read, self._seek, self._out, self._progress = reader(base), base.seek, out, progress
        self._room = memoryview(bytearray(FIRST))
        self._filled = self._done = 0
        self._hasher = blake3()

    def copy(self, offset: int, length: int) -> None:
        """Add bytes of the base."""
        self._seek(offset)
        while length:
            if self._filled == len(self._room):
                self._flush()
            got = self._read(self._room[self._filled : self._filled + length])
            if not got:
                raise BaseMismatch("the base became shorter while it was read")
            self._filled += got
            length -= got

    def literal(self, data: Data) -> None:
        """Add bytes of the delta; many are not copied."""
        if len(data) > len(self._room) - self._filled or len(data) >= _LARGE:
            self._flush()
        if len(data) >= _LARGE:
            self._put(data)
        else:
            self._room[self._filled : self._filled + len(data)] = data
            self._filled += len(data)

    def finish(self) -> bytes:
        """Write the rest; the hash of all."""
        self._flush()
        return self._hasher.digest()

    def _flush(self) -> None:
        part, self._filled = self._room[: self._filled], 0
        if part:
            self._put(part)
            if len(part) == len(self._room) == FIRST:
                self._room = memoryview(bytearray(_PIECE))

    def _put(self, part: Data) -> None:
        self._hasher.update(part)
        write_all(self._out, part)
        self._done += len(part)
        if self._progress is not None:
            self._progress(self._done)
