"""MD4 (RFC 1320), for librsync's oldest signatures only: OpenSSL no longer offers it."""

from __future__ import annotations

import struct
from typing import Final

_MASK = 0xFFFFFFFF
_START: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_ROUND_2 = (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
_ROUND_3 = (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)
_STEPS = (
    [(0, 0, word, (3, 7, 11, 19)[i % 4]) for i, word in enumerate(range(16))]
    + [(1, 0x5A827999, word, (3, 5, 9, 13)[i % 4]) for i, word in enumerate(_ROUND_2)]
    + [(2, 0x6ED9EBA1, word, (3, 9, 11, 15)[i % 4]) for i, word in enumerate(_ROUND_3)]
)


def md4(data: bytes | bytearray | memoryview) -> bytes:
    """The 16-byte digest."""
    message = bytes(data)
    padding = b"\x80" + b"\0" * ((55 - len(message)) % 64)
    message += padding + struct.pack("<Q", 8 * len(message) & (1 << 64) - 1)
    state = _START
    for at in range(0, len(message), 64):
        state = _compress(state, struct.unpack_from("<16I", message, at))
    return struct.pack("<4I", *state)


def _compress(
    state: tuple[int, int, int, int], words: tuple[int, ...]
) -> tuple[int, int, int, int]:
    a, b, c, d = state
    for kind, constant, word, turn in _STEPS:
        if kind == 0:
            mixed = b & c | ~b & d
        elif kind == 1:
            mixed = b & c | b & d | c & d
        else:
            mixed = b ^ c ^ d
        value = a + mixed + words[word] + constant & _MASK
        a, b, c, d = d, (value << turn | value >> 32 - turn) & _MASK, b, c
    return (
        a + state[0] & _MASK,
        b + state[1] & _MASK,
        c + state[2] & _MASK,
        d + state[3] & _MASK,
    )
