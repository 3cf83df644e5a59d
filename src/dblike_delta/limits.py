"""Limits: one frozen value, handed to every decoder.

A limit is checked when its field is read, before anything is allocated for it.
"""

from __future__ import annotations

from typing import Final

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a decoder accepts; the defaults suit content from strangers."""

    max_file_size: int = 1 << 50
    """Bytes that a delta may describe."""
    max_signature: int = 1 << 32
    """Bytes of a signature, header included."""
    max_block_size: int = 8 << 20
    """Bytes of a signature's block: what its reader has to buffer."""
    max_extents: int = 1 << 24
    """Extents of a recipe."""


DEFAULT_LIMITS: Final = Limits()
