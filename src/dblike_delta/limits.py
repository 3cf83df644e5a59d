"""Limits: one frozen value, handed to every decoder.

A limit is checked when its field is read, before anything is allocated for it.
"""

from __future__ import annotations

from typing import Final

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a decoder accepts; the defaults suit content from strangers."""

    max_path: int = 4096
    """Bytes of a path."""
    max_part: int = 255
    """Bytes of one part of a path."""
    max_record: int = 64 << 10
    """Bytes of a version record."""
    max_block: int = 8 << 20
    """Bytes of a changeset block."""
    max_file_size: int = 1 << 50
    """Bytes that a delta may describe."""
    max_signature: int = 1 << 32
    """Bytes of a signature, header included."""
    max_block_size: int = 8 << 20
    """Bytes of a signature's block: what its reader has to buffer."""
    max_extents: int = 1 << 24
    """Extents of a recipe."""
    max_devices: int = 1 << 16
    """Devices in one version vector."""


DEFAULT_LIMITS: Final = Limits()
