"""What a signature's header and seed mean in numbers: all that the kernel is told.

Our own sums are keyed: selection, multiplier and seeds come from 16 random bytes in the signature,
so nobody who has not seen it can prepare blocks whose sums collide.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dblike_delta.formats import Magic, SignatureHeader

POLYNOMIAL, RABIN_KARP, ROLLSUM = range(3)
"""Kinds of weak sum: ours (modulo the prime 2^31 - 1), and librsync's two."""
XXH3, BLAKE2, MD4 = range(3)
"""Kinds of strong sum."""

ANCHORS_LOG: Final = 3
"""A block has 2^3 to 2^4 selected positions, five eighths of which may be its anchor: less than one
in a hundred has none and is found by rolling; twice as many would double the look-ups."""

_RK_MULTIPLIER = 0x08104225
_COMMON_RUNS = (0x20, 0xFF)
_ATTEMPTS = 255

_LIBRSYNC = {
    Magic.MD4: (ROLLSUM, MD4),
    Magic.BLAKE2: (ROLLSUM, BLAKE2),
    Magic.RK_MD4: (RABIN_KARP, MD4),
    Magic.RK_BLAKE2: (RABIN_KARP, BLAKE2),
}


class Parameters(NamedTuple):
    """Plain numbers for the kernel."""

    block_size: int
    strong_size: int
    place_size: int
    weak: int
    strong: int
    multiplier: int
    anchor_size: int = 0
    """An anchor's sum is taken over so many bytes."""
    threshold: int = 0
    """A position is selected where its 32-bit value is at least this; 0: there are no anchors."""
    select_low: int = 0
    select_high: int = 0
    anchor_seed: int = 0
    strong_seed: int = 0


def parameters(header: SignatureHeader) -> Parameters:
    """The numbers behind a signature."""
    if header.magic == Magic.XXH3:
        return _keyed(header)
    weak, strong = _LIBRSYNC[header.magic]
    return Parameters(header.block_size, header.strong_size, 0, weak, strong, _RK_MULTIPLIER)


def _keyed(header: SignatureHeader) -> Parameters:
    threshold = _threshold(header.block_size) if header.place_size else 0
    low, high, multiplier, anchor, strong = _draw(header.seed, threshold)
    return Parameters(
        block_size=header.block_size,
        strong_size=header.strong_size,
        place_size=header.place_size,
        weak=POLYNOMIAL,
        strong=XXH3,
        multiplier=multiplier,
        anchor_size=_anchor_size(header.block_size),
        threshold=threshold,
        select_low=low,
        select_high=high,
        anchor_seed=anchor,
        strong_seed=strong,
    )


def _draw(seed: bytes, threshold: int) -> tuple[int, int, int, int, int]:
    """Keys by which runs of a common byte are not selected at every position.

    Runs of zeros never are: their value is 0.
    """
    for attempt in range(_ATTEMPTS):
        keys = _expand(seed, attempt)
        runs = (byte * 0x01010101 * (keys[0] + keys[1]) & 0xFFFFFFFF for byte in _COMMON_RUNS)
        if not threshold or all(value < threshold for value in runs):
            return keys
    return _expand(seed, _ATTEMPTS)


def _anchor_size(block_size: int) -> int:
    """Three eighths of the block.

    Longer ones tell blocks with common parts from each other (tar archives were found as well as by
    rolling, to 1 %; with 64 bytes up to a fifth was lost), but fewer positions can be one.
    """
    return 3 * block_size // 8


def _threshold(block_size: int) -> int:
    density_log = block_size.bit_length() - 1 - ANCHORS_LOG
    return (1 << 32) - (1 << (32 - density_log))


def _expand(seed: bytes, attempt: int) -> tuple[int, int, int, int, int]:
    import hashlib  # OpenSSL: a client that has no large file is faster without

    raw = hashlib.blake2b(seed + bytes((attempt,)), digest_size=28, person=b"dblike sums").digest()
    low, high, multiplier = (int.from_bytes(raw[at : at + 4], "big") for at in (0, 4, 8))
    anchor, strong = int.from_bytes(raw[12:20], "big"), int.from_bytes(raw[20:28], "big")
    # Below 2^30 one reduction per byte is enough to stay in 64 bits.
    return low | 1, high | 1, (1 << 16) + multiplier % ((1 << 30) - (1 << 16)), anchor, strong
