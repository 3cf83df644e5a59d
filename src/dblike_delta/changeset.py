"""The changeset: the one stream in which versions and their content travel, without I/O.

Layout (all integers big-endian):

    header   b"DBLC", format 1, three zero bytes
    block*   codec u8 (0 plain, 1 zstd) | last u8 (0, 1) | zero u16 | length u32 | stored u32
             | XXH3-128 of the stored bytes, 16 bytes | the stored bytes

A block holds whole frames, `kind u8 | length u32 | payload`:

    R  Record, MessagePack        D  a piece of the body of the record before it (librsync delta)
    T  Trailer: the body is whole X  Refusal: a want that can't be served
    C  CursorMark                 J  JournalMark: whose records follow, between sites
    S  Sources: what the records that follow hold, where they don't say it

and the last block ends the stream.

Blocks are the unit of checking, of compression and of resuming: a stream that is cut loses the
unfinished block, and `Decoder.boundary` says where to go on.  The block sum finds accidents; what a
file is, is said by its content hash.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
import xxhash
import zstandard

from dblike_delta.decoding import unpacker
from dblike_delta.errors import FormatError, IntegrityError, LimitError
from dblike_delta.messages import (
    CursorMark,
    JournalMark,
    Record,
    Refusal,
    Sources,
    Trailer,
)

MAGIC: Final = b"DBLC\x01\0\0\0"
BLOCK_TARGET: Final = 1 << 20
"""A block is closed when it holds this much: large enough to compress many small files together."""
BLOCK_LIMIT: Final = 8 << 20
"""No block may hold or unpack to more: the decoder's memory, and what a cut may cost."""
PIECE: Final = 1 << 20
"""The largest body piece that an encoder puts in one frame."""
FRAMES: Final = 10_000
FRAMES_PER_BYTE: Final = 4
"""Frames that are taken from strangers, and for each byte that they send: else a kilobyte, as a
million tiny frames that are compressed, keeps a processor busy.  Empty files come at less than one
frame for each byte."""
UNBOUNDED: Final = 1 << 62
"""Frames that are taken from who is trusted."""

_BLOCK = struct.Struct(">BBHII16s")
_FRAME = struct.Struct(">BI")
_PLAIN, _ZSTD = 0, 1
_PROBE = 16 << 10
_PAYS = 0.9
_TINY = 16 << 10
"""Pieces of a block that are smaller are joined at once: each costs memory of its own."""

_MANY = 32
"""Parts of a block that is sent as it is; more are joined: to pass on each by itself costs more."""
_OVER = 64 << 10
"""What a block may hold beyond its target, rather than to be closed half empty."""

Part = bytes | bytearray | memoryview


class _Tag(enum.IntEnum):
    RECORD = ord("R")
    DATA = ord("D")
    TRAILER = ord("T")
    REFUSAL = ord("X")
    CURSOR = ord("C")
    JOURNAL = ord("J")
    SOURCES = ord("S")


class Body(msgspec.Struct, frozen=True):
    """A piece of a body: part of a librsync delta.

    `packed` is how many bytes of the stream each of its bytes took.
    """

    data: memoryview
    packed: float = 1.0


class End(msgspec.Struct, frozen=True):
    """The stream ended where its sender ended it."""


Event = Record | Body | Trailer | Refusal | CursorMark | JournalMark | Sources | End

_encode = msgspec.msgpack.Encoder().encode
_DATA: Final = int(_Tag.DATA)
_DECODERS: Final[dict[int, Callable[[memoryview], Event]]] = {
    int(_Tag.RECORD): unpacker(Record),
    int(_Tag.TRAILER): unpacker(Trailer),
    int(_Tag.REFUSAL): unpacker(Refusal),
    int(_Tag.CURSOR): unpacker(CursorMark),
    int(_Tag.JOURNAL): unpacker(JournalMark),
    int(_Tag.SOURCES): unpacker(Sources),
}


class Encoder:
    """Builds the stream; each call returns the parts that are ready to be sent, often none.

    `compress` is the zstd level, 0 for never.  A block is compressed only where a probe of it pays.
    Parts may be views of what was passed in: send or copy them before it changes.
    """

    def __init__(self, *, compress: int = 1) -> None:
        self._zstd = zstandard.ZstdCompressor(level=compress) if compress else None
        self._parts: list[Part] = []
        self._size = 0
        self._started = False
        self.sent = 0

    def record(self, record: Record) -> list[Part]:
        """A version; where `record.body` is set its pieces and trailer follow."""
        return self._frame(_Tag.RECORD, _encode(record))

    def data(self, data: Part) -> list[Part]:
        """A piece of the open body, of any length."""
        if len(data) <= PIECE:
            return self._frame(_Tag.DATA, data)
        view = memoryview(data)
        out: list[Part] = []
        for at in range(0, len(view), PIECE):
            out += self._frame(_Tag.DATA, view[at : at + PIECE])
        return out

    def trailer(self, trailer: Trailer) -> list[Part]:
        """The end of the open body."""
        return self._frame(_Tag.TRAILER, _encode(trailer))

    def whole(self, record: Record, body: Sequence[Part], trailer: Trailer) -> list[Part]:
        """A version with all of its body, which is short and goes in one frame: what `record`,
        `data` and `trailer` do, for the many small files of which most changesets are made."""
        head, tail, length = _encode(record), _encode(trailer), sum(map(len, body))
        head = _FRAME.pack(_Tag.RECORD, len(head)) + head + _FRAME.pack(_Tag.DATA, length)
        tail = _FRAME.pack(_Tag.TRAILER, len(tail)) + tail
        return self._add((head, *body, tail), len(head) + length + len(tail))

    def refusal(self, refusal: Refusal) -> list[Part]:
        """A want that can't be served."""
        return self._frame(_Tag.REFUSAL, _encode(refusal))

    def cursor(self, mark: CursorMark) -> list[Part]:
        """The end of a list of changes."""
        return self._frame(_Tag.CURSOR, _encode(mark))

    def journal(self, mark: JournalMark) -> list[Part]:
        """Whose journal the records that follow are of."""
        return self._frame(_Tag.JOURNAL, _encode(mark))

    def sources(self, sources: Sources) -> list[Part]:
        """What the records that follow hold, where they don't say it."""
        return self._frame(_Tag.SOURCES, _encode(sources))

    def flush(self) -> list[Part]:
        """Close the open block, so that all that was passed in can be sent."""
        return self._block(last=False) if self._parts else []

    def finish(self) -> list[Part]:
        """Close the stream."""
        return self._block(last=True)

    def _frame(self, tag: _Tag, payload: Part) -> list[Part]:
        length = len(payload)
        return self._add((_FRAME.pack(tag, length), payload), _FRAME.size + length)

    def _add(self, parts: Sequence[Part], size: int) -> list[Part]:
        """Whole frames."""
        out: list[Part] = []
        if self._size and self._size + size > BLOCK_TARGET + _OVER:
            out = self._block(last=False)
        self._parts += parts
        self._size += size
        if self._size >= BLOCK_TARGET:
            out += self._block(last=False)
        return out

    def _block(self, *, last: bool) -> list[Part]:
        parts, size = self._parts, self._size
        self._parts, self._size = [], 0
        codec = _PLAIN
        zstd = self._zstd if size and self._pays(parts) else None
        if zstd is not None or len(parts) > _MANY:
            parts = [b"".join(parts)]  # which costs less than to hand on each by itself
        if zstd is not None:
            packed = zstd.compress(parts[0])
            if len(packed) < size * _PAYS:
                codec, parts = _ZSTD, [packed]
        stored = sum(map(len, parts))
        digest = xxhash.xxh3_128()
        for part in parts:
            digest.update(part)
        out: list[Part] = [] if self._started else [MAGIC]
        self._started = True
        out += [_BLOCK.pack(codec, last, 0, size, stored, digest.digest()), *parts]
        self.sent += sum(map(len, out))
        return out

    def _pays(self, parts: list[Part]) -> bool:
        """Whether compression is worth trying, judged by a sample of the largest part."""
        if self._zstd is None:
            return False
        largest = memoryview(max(parts, key=len))
        if len(largest) < 4 * _PROBE:
            return True
        middle = len(largest) // 2
        probe = largest[middle : middle + _PROBE]
        return len(self._zstd.compress(probe)) < len(probe) * _PAYS


class Decoder:
    """Reads the stream: bytes in, events out.

    Raises FormatError, IntegrityError or LimitError; after that the decoder is of no more use.
    `frames` is how many frames are taken beyond FRAMES_PER_BYTE of them for each byte received.
    `boundary` is the number of stream bytes whose events have all been given out: where a sender
    that was cut off may go on, to a `Decoder(start=boundary)`.
    """

    def __init__(self, *, start: int = 0, frames: int = FRAMES) -> None:
        self._zstd = zstandard.ZstdDecompressor(max_window_size=BLOCK_LIMIT)
        self._frames_left = frames
        self._head = bytearray()  # of the block, or the stream's own, as far as it came
        self._pieces: list[Part] = []  # of the block, as far as it came
        self._filled = 0
        self.boundary = start
        self.finished = False

    def receive(self, data: Part) -> Iterator[Event]:
        """The events that `data` completes; all must be taken before the next call.

        Bodies may be views of `data`, which must not be changed any more.
        """
        view = memoryview(data)
        at = 0
        if self.boundary == 0:
            at = self._take_head(view, at, len(MAGIC))
            if len(self._head) < len(MAGIC):
                return
            if self._head != MAGIC:
                raise FormatError("not a changeset of format 1", offset=0)
            self.boundary = len(MAGIC)
            self._head.clear()
        while at < len(view) and not self.finished:
            at = self._take_head(view, at, _BLOCK.size)
            if len(self._head) < _BLOCK.size:
                return
            stored, last = self._check_head()
            pieces, at = self._take_block(view, at, stored)
            if pieces is None:
                return
            yield from self._events(pieces)
            self.boundary += _BLOCK.size + stored
            self._head.clear()
            if last:
                self.finished = True
                yield End()
        if at < len(view):
            raise FormatError("bytes after the end of the changeset", offset=self.boundary)

    @property
    def wanted(self) -> int:
        """How many bytes are best received at once: those up to the end of the open block, which
        are not copied if they come alone, and the head of the next one."""
        if len(self._head) < _BLOCK.size or self.boundary == 0:
            return BLOCK_TARGET
        return self._check_head()[0] - self._filled + _BLOCK.size

    def close(self) -> None:
        """Say that no more bytes come; raises where the stream has no end."""
        if not self.finished:
            offset = self.boundary + len(self._head) + self._filled
            raise FormatError("the changeset is cut short", offset=offset)

    def _take_head(self, view: memoryview, at: int, size: int) -> int:
        """Fill the head up to `size` bytes from `view`; where it goes on after that."""
        taken = view[at : at + size - len(self._head)]
        self._head += taken
        return at + len(taken)

    def _check_head(self) -> tuple[int, bool]:
        """How many bytes of block follow, and whether it is the last one."""
        codec, last, zero, length, stored, _ = _BLOCK.unpack(self._head)
        if codec > _ZSTD or last > 1 or zero or (codec == _PLAIN and length != stored):
            raise FormatError("invalid block header", offset=self.boundary)
        if length > BLOCK_LIMIT or stored > BLOCK_LIMIT:
            raise LimitError(f"a block of {max(length, stored)} bytes; the limit is {BLOCK_LIMIT}")
        return stored, bool(last)

    def _take_block(self, view: memoryview, at: int, stored: int) -> tuple[list[Part] | None, int]:
        """The stored bytes, or None while they are not all here; and where `view` goes on."""
        taken = view[at : at + stored - self._filled]
        at += len(taken)
        self._filled += len(taken)
        if self._pieces and len(self._pieces[-1]) < _TINY and self._filled < stored:
            taken = memoryview(b"".join((self._pieces.pop(), taken)))
        if taken:  # a head often comes at the end of what the block before it came in
            self._pieces.append(taken)
        if self._filled < stored:
            return None, at
        pieces, self._pieces, self._filled = self._pieces, [], 0
        return pieces, at

    def _events(self, pieces: list[Part]) -> Iterator[Event]:
        """The events of a block that came in these pieces."""
        codec, _, _, length, _, digest = _BLOCK.unpack(self._head)
        summed = xxhash.xxh3_128()
        for piece in pieces:
            summed.update(piece)
        if summed.digest() != digest:
            raise IntegrityError(f"the block at byte {self.boundary} does not match its sum")
        if codec == _PLAIN and len(pieces) == 2 and len(pieces[0]) == _FRAME.size:
            tag, size = _FRAME.unpack(pieces[0])
            if size == len(pieces[1]):
                # One large frame, received as it was sent: its payload needs no copy.
                yield _event(tag, memoryview(pieces[1]), self.boundary, 1.0)
                return
        raw = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        stored = len(raw)
        if codec != _PLAIN:
            raw = memoryview(self._inflate(raw, length))
        yield from self._frames(raw, stored)

    def _frames(self, raw: memoryview, stored: int) -> Iterator[Event]:
        at, end, offset = 0, len(raw), self.boundary
        packed = stored / end if end else 1.0
        most = self._frames_left + FRAMES_PER_BYTE * stored
        for number in range(most + 1):
            if at == end:
                self._frames_left = most - number
                return
            if end - at < _FRAME.size:
                raise FormatError("a frame is cut short", offset=offset)
            tag, length = _FRAME.unpack_from(raw, at)
            at += _FRAME.size
            if length > end - at:
                raise FormatError("a frame is longer than its block", offset=offset)
            yield _event(tag, raw[at : at + length], offset, packed)
            at += length
        raise LimitError("a block of more frames than its bytes are worth", offset=offset)

    def _inflate(self, stored: memoryview, length: int) -> bytes:
        """One zstd frame that makes exactly `length` bytes; its own claim is checked first."""
        try:
            claim = zstandard.get_frame_parameters(stored).content_size
            if claim != length:
                raise FormatError("a block's length differs from its claim", offset=self.boundary)
            raw = self._zstd.decompress(
                stored, max_output_size=length, read_across_frames=False, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise FormatError(
                f"a block does not decompress: {error}", offset=self.boundary
            ) from None
        if len(raw) != length:
            raise FormatError("a block's length differs from its claim", offset=self.boundary)
        return raw


def _event(tag: int, payload: memoryview, offset: int, packed: float) -> Event:
    if tag == _DATA:
        return Body(payload, packed)
    decoded = _DECODERS.get(tag)
    if decoded is None:
        raise FormatError(f"unknown frame kind {tag}", offset=offset)
    try:
        return decoded(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"invalid {_Tag(tag).name.lower()}: {error}", offset=offset) from None


def decode(chunks: Iterable[Part]) -> Iterator[Event]:
    """All events of a stream that comes in chunks; raises where it has no end."""
    decoder = Decoder()
    for chunk in chunks:
        yield from decoder.receive(chunk)
    decoder.close()
