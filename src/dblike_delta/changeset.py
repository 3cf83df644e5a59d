"""The changeset: the one stream in which versions and their content travel, without I/O.

Layout (all integers big-endian):

    header   b"DBLC", format 1, three zero bytes
    block*   codec u8 (0 plain, 1 zstd) | last u8 (0, 1) | zero u16 | length u32 | stored u32
             | XXH3-128 of the stored bytes, 16 bytes | the stored bytes

A block holds whole frames, `kind u8 | length u32 | payload`:

    R  Record, MessagePack        D  a piece of the body of the record before it (librsync delta)
    T  Trailer: the body is whole X  Refusal: a want that can't be served
    C  CursorMark                 and the last block ends the stream

Blocks are the unit of checking, of compression and of resuming: a stream that is cut loses the
unfinished block, and `Decoder.boundary` says where to go on.  The block sum finds accidents; what a
file is, is said by its content hash.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import xxhash
import zstandard

from dblike_delta.errors import FormatError, IntegrityError, LimitError
from dblike_delta.messages import CursorMark, Record, Refusal, Trailer

MAGIC: Final = b"DBLC\x01\0\0\0"
BLOCK_TARGET: Final = 1 << 20
"""A block is closed when it holds this much: large enough to compress many small files together."""
BLOCK_LIMIT: Final = 8 << 20
"""No block may hold or unpack to more: the decoder's memory, and what a cut may cost."""
PIECE: Final = 1 << 20
"""The largest body piece that an encoder puts in one frame."""

_BLOCK = struct.Struct(">BBHII16s")
_FRAME = struct.Struct(">BI")
_PLAIN, _ZSTD = 0, 1
_PROBE = 16 << 10
_PAYS = 0.9

Part = bytes | bytearray | memoryview


class _Tag(enum.IntEnum):
    RECORD = ord("R")
    DATA = ord("D")
    TRAILER = ord("T")
    REFUSAL = ord("X")
    CURSOR = ord("C")


class Body(msgspec.Struct, frozen=True):
    """A piece of a body: part of a librsync delta."""

    data: memoryview


class End(msgspec.Struct, frozen=True):
    """The stream ended where its sender ended it."""


Event = Record | Body | Trailer | Refusal | CursorMark | End

_encode = msgspec.msgpack.Encoder().encode
_record = msgspec.msgpack.Decoder(Record).decode
_trailer = msgspec.msgpack.Decoder(Trailer).decode
_refusal = msgspec.msgpack.Decoder(Refusal).decode
_cursor = msgspec.msgpack.Decoder(CursorMark).decode


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

    def refusal(self, refusal: Refusal) -> list[Part]:
        """A want that can't be served."""
        return self._frame(_Tag.REFUSAL, _encode(refusal))

    def cursor(self, mark: CursorMark) -> list[Part]:
        """The end of a list of changes."""
        return self._frame(_Tag.CURSOR, _encode(mark))

    def flush(self) -> list[Part]:
        """Close the open block, so that all that was passed in can be sent."""
        return self._block(last=False) if self._parts else []

    def finish(self) -> list[Part]:
        """Close the stream."""
        return self._block(last=True)

    def _frame(self, tag: _Tag, payload: Part) -> list[Part]:
        out: list[Part] = []
        if self._size and self._size + len(payload) > BLOCK_TARGET + (64 << 10):
            out = self._block(last=False)
        self._parts += (_FRAME.pack(tag, len(payload)), payload)
        self._size += _FRAME.size + len(payload)
        if self._size >= BLOCK_TARGET:
            out += self._block(last=False)
        return out

    def _block(self, *, last: bool) -> list[Part]:
        parts, size = self._parts, self._size
        self._parts, self._size = [], 0
        codec = _PLAIN
        if self._zstd is not None and size and self._pays(parts):
            packed = self._zstd.compress(b"".join(parts))
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
        assert self._zstd is not None
        largest = memoryview(max(parts, key=len))
        if len(largest) < 4 * _PROBE:
            return True
        middle = len(largest) // 2
        probe = largest[middle : middle + _PROBE]
        return len(self._zstd.compress(probe)) < len(probe) * _PAYS


class Decoder:
    """Reads the stream: bytes in, events out.

    Raises FormatError, IntegrityError or LimitError; after that the decoder is of no more use.
    `boundary` is the number of stream bytes whose events have all been given out: where a sender
    that was cut off may go on, to a `Decoder(start=boundary)`.
    """

    def __init__(self, *, start: int = 0) -> None:
        self._buffer = bytearray()
        self._zstd = zstandard.ZstdDecompressor(max_window_size=BLOCK_LIMIT)
        self.boundary = start
        self.finished = False

    def receive(self, data: Part) -> Iterator[Event]:
        """The events that `data` completes.  Use them up before the next call."""
        if self.finished and len(data):
            raise FormatError("bytes after the end of the changeset", offset=self.boundary)
        self._buffer += data
        return self._events()

    def close(self) -> None:
        """Say that no more bytes come; raises where the stream has no end."""
        if not self.finished:
            raise FormatError(
                "the changeset is cut short", offset=self.boundary + len(self._buffer)
            )

    def _events(self) -> Iterator[Event]:
        at = 0
        if self.boundary == 0:
            if len(self._buffer) < len(MAGIC):
                return
            if not self._buffer.startswith(MAGIC):
                raise FormatError("not a changeset of format 1", offset=0)
            at = self.boundary = len(MAGIC)
        while (end := self._block_end(at)) is not None:
            last = self._buffer[at + 1]
            raw = self._unpack(at, end)
            yield from _frames(raw, self.boundary)
            self.boundary += end - at
            at = end
            if last:
                self.finished = True
                yield End()
                if len(self._buffer) > at:
                    raise FormatError("bytes after the end of the changeset", offset=self.boundary)
                break
        del self._buffer[:at]

    def _block_end(self, at: int) -> int | None:
        """Where the block at `at` ends, or None while it is not all here."""
        if len(self._buffer) - at < _BLOCK.size:
            return None
        codec, last, zero, length, stored, _ = _BLOCK.unpack_from(self._buffer, at)
        if codec > _ZSTD or last > 1 or zero or (codec == _PLAIN and length != stored):
            raise FormatError("invalid block header", offset=self.boundary)
        if length > BLOCK_LIMIT or stored > BLOCK_LIMIT:
            raise LimitError(f"a block of {max(length, stored)} bytes; the limit is {BLOCK_LIMIT}")
        end: int = at + _BLOCK.size + stored
        return end if len(self._buffer) >= end else None

    def _unpack(self, at: int, end: int) -> memoryview:
        codec, _, _, length, _, digest = _BLOCK.unpack_from(self._buffer, at)
        # A copy, so that events may be kept while the buffer is shifted under them.
        stored = bytes(memoryview(self._buffer)[at + _BLOCK.size : end])
        if xxhash.xxh3_128_digest(stored) != digest:
            raise IntegrityError(f"the block at byte {self.boundary} does not match its sum")
        if codec == _PLAIN:
            return memoryview(stored)
        return memoryview(self._inflate(stored, length))

    def _inflate(self, stored: bytes, length: int) -> bytes:
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


def _frames(raw: memoryview, offset: int) -> Iterator[Event]:
    at, end = 0, len(raw)
    while at < end:
        if end - at < _FRAME.size:
            raise FormatError("a frame is cut short", offset=offset)
        tag, length = _FRAME.unpack_from(raw, at)
        at += _FRAME.size
        if length > end - at:
            raise FormatError("a frame is longer than its block", offset=offset)
        yield _event(tag, raw[at : at + length], offset)
        at += length


def _event(tag: int, payload: memoryview, offset: int) -> Event:
    try:
        match tag:
            case _Tag.RECORD:
                return _record(payload)
            case _Tag.DATA:
                return Body(payload)
            case _Tag.TRAILER:
                return _trailer(payload)
            case _Tag.REFUSAL:
                return _refusal(payload)
            case _Tag.CURSOR:
                return _cursor(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"invalid {_Tag(tag).name.lower()}: {error}", offset=offset) from None
    raise FormatError(f"unknown frame kind {tag}", offset=offset)


def decode(chunks: Iterable[Part]) -> Iterator[Event]:
    """All events of a stream that comes in chunks; raises where it has no end."""
    decoder = Decoder()
    for chunk in chunks:
        yield from decoder.receive(chunk)
    decoder.close()
