"""Signatures' headers and deltas, to bytes and back: the only file with magic numbers.

Byte by byte in docs/formats-delta.md.  All integers are big-endian.  What comes in is checked field
by field before anything is allocated for it; errors name the field and where it begins.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import Final

import msgspec

from dblike_delta.commands import LITERAL_LIMIT, Copy, Data, End, Event, Literal, bytes_of
from dblike_delta.errors import FormatError, LimitError
from dblike_delta.limits import DEFAULT_LIMITS, Limits


class Magic(enum.IntEnum):
    """The first four bytes of a signature or a delta."""

    MD4 = 0x72730136
    BLAKE2 = 0x72730137
    RK_MD4 = 0x72730146
    RK_BLAKE2 = 0x72730147
    XXH3 = 0x44424C53  # "DBLS"
    DELTA = 0x72730236


DELTA_MAGIC: Final = Magic.DELTA.to_bytes(4, "big")
END: Final = b"\0"

STRONG_SIZES: Final = {Magic.MD4: 16, Magic.BLAKE2: 32, Magic.RK_MD4: 16, Magic.RK_BLAKE2: 32}
"""Of librsync's signatures: the bytes of a strong sum that is not cut short."""
XXH3_STRONG_MIN: Final = 8
XXH3_STRONG: Final = 16
SEED_BYTES: Final = 16
ANCHORED_BLOCK: Final = 128
"""Smaller blocks have no anchors: too few positions to find one."""
CHECK_BYTES: Final = 8
"""XXH3-64 over everything before it ends our own signatures."""

_HAS_HASH = 1
_LIBRSYNC = struct.Struct(">II")
_XXH3 = struct.Struct(">BBBBI16sQ")


# --- signatures -----------------------------------------------------------------------------------


class SignatureHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature says before its rows.

    `size` and `hash` are those of the base: always and where known in our own format, never in
    librsync's.
    """

    magic: Magic
    block_size: int
    strong_size: int
    seed: bytes = b""
    size: int | None = None
    hash: bytes = b""

    @property
    def place_size(self) -> int:
        """Bytes of an anchor's place in a row."""
        if self.magic != Magic.XXH3 or self.block_size < ANCHORED_BLOCK:
            return 0
        return 2 if self.block_size < 1 << 16 else 4

    @property
    def row_size(self) -> int:
        """Bytes of a block's row: weak sum, place, strong sum."""
        return 4 + self.place_size + self.strong_size

    @property
    def rows_size(self) -> int | None:
        """Bytes of all rows, where the header tells."""
        return None if self.size is None else -(-self.size // self.block_size) * self.row_size


def pack_signature_header(header: SignatureHeader) -> bytes:
    """The bytes before a signature's rows."""
    magic = header.magic.to_bytes(4, "big")
    if header.magic != Magic.XXH3:
        return magic + _LIBRSYNC.pack(header.block_size, header.strong_size)
    assert header.size is not None
    flags = _HAS_HASH if header.hash else 0
    fields = (1, flags, header.strong_size, header.place_size)
    return magic + _XXH3.pack(*fields, header.block_size, header.seed, header.size) + header.hash


def signature_header_size(head: bytes) -> int:
    """How long the header is whose first 8 bytes (or all there are) are given."""
    magic = _signature_magic(head)
    if magic != Magic.XXH3:
        return 12
    if len(head) < 6:
        raise FormatError("the signature's header is cut short", offset=len(head))
    if head[4] != 1:
        raise FormatError(f"signature of unknown version {head[4]}", offset=4)
    if head[5] > _HAS_HASH:
        raise FormatError(f"unknown flags {head[5]:#x} in a signature", offset=5)
    return 4 + _XXH3.size + 32 * head[5]


def unpack_signature_header(data: bytes, limits: Limits = DEFAULT_LIMITS) -> SignatureHeader:
    """The header at the beginning of `data`, checked."""
    size = signature_header_size(data)
    if len(data) < size:
        raise FormatError("the signature's header is cut short", offset=len(data))
    magic = _signature_magic(data)
    if magic == Magic.XXH3:
        return _unpack_xxh3(data[:size], limits)
    block, strong = _LIBRSYNC.unpack_from(data, 4)
    _check_block(block, 4, limits)
    if not 1 <= strong <= STRONG_SIZES[magic]:
        raise FormatError(f"strong sums of {strong} bytes in a {magic.name} signature", offset=8)
    return SignatureHeader(magic=magic, block_size=block, strong_size=strong)


def _signature_magic(data: bytes) -> Magic:
    if len(data) < 4:
        raise FormatError("not a signature: too short for a magic number", offset=0)
    value = int.from_bytes(data[:4], "big")
    if value == Magic.DELTA:
        raise FormatError(f"a delta (magic {value:#010x}) where a signature should be", offset=0)
    try:
        return Magic(value)
    except ValueError:
        raise FormatError(f"not a signature: magic number {value:#010x}", offset=0) from None


def _unpack_xxh3(data: bytes, limits: Limits) -> SignatureHeader:
    _, _, strong, place, block, seed, size = _XXH3.unpack_from(data, 4)
    if not XXH3_STRONG_MIN <= strong <= XXH3_STRONG:
        raise FormatError(f"strong sums of {strong} bytes in an XXH3 signature", offset=6)
    _check_block(block, 8, limits)
    if size > limits.max_file_size:
        raise LimitError(f"a signature of {size} bytes of content", wanted=size, offset=28)
    header = SignatureHeader(
        magic=Magic.XXH3,
        block_size=block,
        strong_size=strong,
        seed=seed,
        size=size,
        hash=data[4 + _XXH3.size :],
    )
    if place != header.place_size:
        raise FormatError(f"places of {place} bytes for blocks of {block}", offset=7)
    return header


def _check_block(block: int, offset: int, limits: Limits) -> None:
    if not 1 <= block <= limits.max_block_size:
        raise FormatError(f"invalid block size {block}", offset=offset)


# --- deltas: to bytes -----------------------------------------------------------------------------

_WIDTHS = (1, 2, 4, 8)
_LITERAL_N1 = 0x41
_COPY_N1_N1 = 0x45
_SHORT_LITERAL = 0x40
_RESERVED = 0x55


def _width(value: int) -> int:
    """Index of the narrowest width that holds the value."""
    return (value > 0xFF) + (value > 0xFFFF) + (value > 0xFFFFFFFF)


def encode_copy(offset: int, length: int) -> bytes:
    """A copy command, as short as can be."""
    wide, long = _width(offset), _width(length)
    opcode = _COPY_N1_N1 + 4 * wide + long
    return (
        bytes((opcode,))
        + offset.to_bytes(_WIDTHS[wide], "big")
        + length.to_bytes(_WIDTHS[long], "big")
    )


def encode_literal_header(length: int) -> bytes:
    """What goes before `length` literal bytes; the bytes themselves need not be copied."""
    if length <= _SHORT_LITERAL:
        return bytes((length,))
    width = _width(length)
    return bytes((_LITERAL_N1 + width,)) + length.to_bytes(_WIDTHS[width], "big")


def encode_command(command: Event) -> bytes:
    """One command with its literal bytes."""
    if isinstance(command, Copy):
        return encode_copy(*command)
    if isinstance(command, Literal):
        return encode_literal_header(len(command.data)) + bytes(command.data)
    return END


def encode_commands(commands: Iterable[Event]) -> bytes:
    """A whole delta: magic, the commands, END (whether or not it is among the commands)."""
    parts = [DELTA_MAGIC]
    parts += [encode_command(command) for command in commands if not isinstance(command, End)]
    parts.append(END)
    return b"".join(parts)


# --- deltas: from bytes ---------------------------------------------------------------------------


class DeltaDecoder:
    """Takes a delta in pieces of any size and gives out its commands as soon as they are known.

    Literals come out in pieces, as views of what was fed: use them before that changes.  Refused,
    at the offset of the command: reserved opcodes, empty commands, copies beyond `base_size` or
    2^63, more output than `max_size`, anything after END.  After an error the decoder is of no more
    use.
    """

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        *,
        base_size: int | None = None,
        max_size: int | None = None,
    ) -> None:
        self._base_size = (1 << 63) - 1 if base_size is None else base_size
        self._max_size = limits.max_file_size if max_size is None else max_size
        self._buffer = bytearray()
        self._offset = 0  # in the stream, of the first byte that was not consumed
        self._literal = 0  # bytes still to come of the literal being read
        self._started = False
        self.size = 0
        """Bytes of output described so far."""
        self.finished = False
        """END was read."""

    def feed(self, data: Data) -> list[Event]:
        """The commands that `data` completes; FormatError or LimitError."""
        events: list[Event] = []
        view = bytes_of(data)
        if self._buffer:
            self._buffer += view
            whole, self._buffer = bytes(self._buffer), bytearray()
            view = memoryview(whole)
        used = self._consume(view, events)
        self._offset += used
        self._buffer += view[used:]
        return events

    @property
    def literal_left(self) -> int:
        """Bytes still to come of the literal being read."""
        return self._literal

    def suspend(self) -> tuple[bytes, int, int, bool, int, bool]:
        """Where it stands, to go on from with `resume` in another process."""
        buffer = bytes(self._buffer)
        return buffer, self._offset, self._literal, self._started, self.size, self.finished

    def resume(self, state: tuple[bytes, int, int, bool, int, bool]) -> None:
        """Go on from where another decoder of the same arguments stood."""
        buffer, self._offset, self._literal, self._started, self.size, self.finished = state
        self._buffer = bytearray(buffer)

    def finish(self) -> None:
        """Raise unless the stream ended with END."""
        if not self.finished:
            offset = self._offset + len(self._buffer)
            raise FormatError("the delta is cut short", offset=offset)

    def _consume(self, view: memoryview, events: list[Event]) -> int:
        at = 0
        if not self._started:
            if len(view) < 4:
                self._check_magic(view)
                return 0
            self._check_magic(view[:4])
            self._started, at = True, 4
        while at < len(view):
            if self.finished:
                raise FormatError("bytes after the end of the delta", offset=self._offset + at)
            if self._literal:
                at += self._take_literal(view[at : at + LITERAL_LIMIT], events)
                continue
            used = self._command(view, at, events)
            if not used:
                break
            at += used
        return at

    def _check_magic(self, head: memoryview) -> None:
        if DELTA_MAGIC.startswith(bytes(head)):
            return
        value = bytes(head).hex()
        if len(head) == 4 and int.from_bytes(head, "big") in STRONG_SIZES.keys() | {Magic.XXH3}:
            raise FormatError(f"a signature (magic 0x{value}) where a delta should be", offset=0)
        raise FormatError(f"not a delta: magic number 0x{value}", offset=0)

    def _take_literal(self, view: memoryview, events: list[Event]) -> int:
        piece = view[: self._literal]
        self._literal -= len(piece)
        events.append(Literal(piece))
        return len(piece)

    def _command(self, view: memoryview, at: int, events: list[Event]) -> int:
        """Read the command at `at`; how many bytes it took, 0 where some are still to come."""
        opcode = view[at]
        if opcode >= _RESERVED:
            raise FormatError(f"reserved opcode {opcode:#04x} in a delta", offset=self._offset + at)
        if opcode >= _COPY_N1_N1:
            return self._copy(opcode - _COPY_N1_N1, view, at, events)
        if opcode == 0:
            self.finished = True
            events.append(End())
            return 1
        if opcode <= _SHORT_LITERAL:
            self._begin_literal(opcode, at)
            return 1
        width = _WIDTHS[opcode - _LITERAL_N1]
        if len(view) < at + 1 + width:
            return 0
        self._begin_literal(int.from_bytes(view[at + 1 : at + 1 + width], "big"), at)
        return 1 + width

    def _begin_literal(self, length: int, at: int) -> None:
        self._grow(length, at, "literal")
        self._literal = length

    def _copy(self, index: int, view: memoryview, at: int, events: list[Event]) -> int:
        wide, long = _WIDTHS[index >> 2], _WIDTHS[index & 3]
        end = at + 1 + wide + long
        if len(view) < end:
            return 0
        offset = int.from_bytes(view[at + 1 : at + 1 + wide], "big")
        length = int.from_bytes(view[at + 1 + wide : end], "big")
        if offset + length > self._base_size:
            raise FormatError(
                f"copy of {length} bytes from {offset} on, beyond the base's {self._base_size}",
                offset=self._offset + at,
            )
        self._grow(length, at, "copy")
        events.append(Copy(offset, length))
        return end - at

    def _grow(self, length: int, at: int, what: str) -> None:
        if not length:
            raise FormatError(f"empty {what}", offset=self._offset + at)
        self.size += length
        if self.size > self._max_size:
            raise LimitError(
                f"the delta describes more than {self._max_size} bytes",
                wanted=self.size,
                available=self._max_size,
                offset=self._offset + at,
            )


def whole_literal(delta: memoryview) -> memoryview | None:
    """The content, where `delta` is a whole delta of just one literal; else None.

    Most files are small and new: this spares them a decoder.
    """
    head = bytes(delta[:13])
    if not head.startswith(DELTA_MAGIC) or len(delta) < 6 or delta[-1]:
        return None
    opcode = head[4]
    if 0 < opcode <= _SHORT_LITERAL:
        start, length = 5, opcode
    elif _SHORT_LITERAL < opcode < _COPY_N1_N1:
        width = _WIDTHS[opcode - _LITERAL_N1]
        start = 5 + width
        length = int.from_bytes(head[5:start], "big")
    else:
        return None
    return delta[start:-1] if start + length + 1 == len(delta) else None
