"""Unsigned integers of any size in few bytes: seven bits each, the lowest first (LEB128).

Each number has exactly one spelling and decoding accepts no other: equal values, equal bytes.
"""

from __future__ import annotations

from typing import Final

from dblike_delta.errors import FormatError

_LAST_SHIFT: Final = 63


def put_varint(out: bytearray, value: int) -> None:
    """Append `value`, which is 0 or more."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def take_varint(data: bytes, offset: int) -> tuple[int, int]:
    """The number at `offset` and where the next one begins; FormatError."""
    value = shift = 0
    for at in range(offset, len(data)):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            _check_spelling(byte, shift, value, offset)
            return value, at + 1
        shift += 7
        if shift > _LAST_SHIFT:
            break
    raise FormatError("a number has no end", offset=offset)


def take_varints(data: bytes, offset: int) -> list[int]:
    """All numbers from `offset` to the end of `data`; FormatError."""
    values: list[int] = []
    value = shift = 0
    for at in range(offset, len(data)):
        byte = data[at]
        if byte < 0x80:
            if shift:
                value |= byte << shift
                _check_spelling(byte, shift, value, at)
                values.append(value)
                value = shift = 0
            else:
                values.append(byte)
        else:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > _LAST_SHIFT:
                raise FormatError("a number has no end", offset=at)
    if shift:
        raise FormatError("a number has no end", offset=len(data))
    return values


def _check_spelling(last: int, shift: int, value: int, offset: int) -> None:
    if shift and not last:
        raise FormatError("a number is longer than it needs to be", offset=offset)
    if value >> 64:
        raise FormatError("a number does not fit 64 bits", offset=offset)
