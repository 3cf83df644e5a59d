"""The sums in plain Python: part of the definition of the kernel, see _kernel_py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import xxhash

from dblike_delta._md4 import md4
from dblike_delta.commands import Data
from dblike_delta.parameters import BLAKE2, POLYNOMIAL, RABIN_KARP, ROLLSUM, XXH3, Parameters

PRIME: Final = (1 << 31) - 1
_MASK = 0xFFFFFFFF
_ROLLSUM_OFFSET = 31


def weak_sum(p: Parameters, data: Data, value: int | None = None) -> int:
    """The rolling sum of all of `data`, added to a window whose sum is `value`."""
    if value is None:
        value = 1 if p.weak == RABIN_KARP else 0
    if p.weak == ROLLSUM:
        low, high = value & 0xFFFF, value >> 16
        for byte in data:
            low += byte + _ROLLSUM_OFFSET
            high += low
        return (high & 0xFFFF) << 16 | low & 0xFFFF
    modulus = PRIME if p.weak == POLYNOMIAL else 1 << 32
    for byte in data:
        value = (value * p.multiplier + byte) % modulus
    return value


def weak_roll(p: Parameters, value: int, length: int, out: int, new: int) -> int:
    """The sum of the window of `length` one byte further: without `out`, with `new`."""
    m = p.multiplier
    if p.weak == POLYNOMIAL:
        return (value * m + new - out * pow(m, length, PRIME)) % PRIME
    if p.weak == RABIN_KARP:
        return value * m + new - (out + m - 1) * pow(m, length, 1 << 32) & _MASK
    low = (value & 0xFFFF) + new - out
    high = (value >> 16) + low - length * (out + _ROLLSUM_OFFSET)
    return (high & 0xFFFF) << 16 | low & 0xFFFF


def strong_sum(p: Parameters, data: Data) -> bytes:
    """The strong sum, cut to the signature's size."""
    if p.strong == XXH3:
        digest = xxhash.xxh3_128_digest(data, p.strong_seed)
    elif p.strong == BLAKE2:
        digest = hashlib.blake2b(data, digest_size=32).digest()
    else:
        digest = md4(data)
    return digest[: p.strong_size]


def anchor_sum(p: Parameters, data: Data, position: int) -> int:
    """The weak sum of an anchor at `position`."""
    window = data[position : position + p.anchor_size]
    return xxhash.xxh3_64_intdigest(window, p.anchor_seed) & _MASK


def selected(p: Parameters, data: Data, start: int, stop: int) -> Iterator[int]:
    """The selected positions in range(start, stop); 8 bytes have to be there for each."""
    for at in range(start, stop):
        low = int.from_bytes(data[at : at + 4], "little")
        high = int.from_bytes(data[at + 4 : at + 8], "little")
        if low * p.select_low + high * p.select_high & _MASK >= p.threshold:
            yield at
