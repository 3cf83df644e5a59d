"""Patch: the base and a delta make the new file, checked while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from blake3 import blake3

from dblike_delta.commands import Copy, Data, End, Event
from dblike_delta.delta import Delta
from dblike_delta.errors import BaseMismatch, IntegrityError
from dblike_delta.formats import DeltaDecoder
from dblike_delta.limits import DEFAULT_LIMITS, Limits
from dblike_delta.streams import (
    Progress,
    Readable,
    Seekable,
    Writable,
    read_pieces,
    size_of,
    write_all,
)

_PIECE: Final = 1 << 20


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
    hasher, copied, literal, done = blake3(), 0, 0, 0
    for event in events:
        if isinstance(event, End):
            continue
        if isinstance(event, Copy):
            copied += event.length
            parts: Iterable[Data] = _read_range(base, event)
        else:
            literal += len(event.data)
            parts = (event.data,)
        for part in parts:
            hasher.update(part)
            write_all(out, part)
            done += len(part)
            if progress is not None:
                progress(done)
    return PatchResult(copied + literal, hasher.digest(), copied, literal)


def _read_range(base: Seekable, copy: Copy) -> Iterator[memoryview]:
    base.seek(copy.offset)
    missing = copy.length
    while missing:
        data = base.read(min(missing, _PIECE))
        if not data:
            raise BaseMismatch("the base became shorter while it was read")
        missing -= len(data)
        yield memoryview(data)
