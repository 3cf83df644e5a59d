"""The pack store: where literal bytes lie, in immutable packs that are named by their BLAKE3 hash.

A pack is written under a temporary name, and has its own name only when it is durable.  Errors:
`FileNotFoundError` where there is no such pack, `Away` where the store can't be asked now, which
says nothing of the pack, any other `OSError` where it fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from blake3 import blake3

PIECE: Final = 8 << 20
"""Bytes of a pack to read at once."""
Data = bytes | bytearray | memoryview


class Away(OSError):
    """The store does not answer: it is worth asking again after `retry_after` seconds."""

    retry_after = 2.0


class PackWriter(Protocol):
    """A pack being written."""

    @property
    def size(self) -> int:
        """Bytes that were written."""

    def write(self, data: Data) -> None:
        """Append; what the data is in must not be changed afterwards."""

    def read(self, offset: int, length: int) -> bytes:
        """What was written before."""

    def commit(self, name: bytes) -> None:
        """Make the pack durable under `name`; one that is there already counts if it is sound."""

    def abort(self) -> None:
        """Forget it.  May be called at any time, also after `commit`, which it does not undo."""


class PackStore(Protocol):
    """Packs by name."""

    def writer(self) -> PackWriter:
        """Begin a pack."""

    def adopt(self, path: Path, name: bytes) -> None:
        """Make a file of the store's host a durable pack; the file is gone afterwards."""

    def settle(self, name: bytes) -> None:
        """Make durable the name of a pack that is there, whoever gave it and was killed then."""

    def read(self, name: bytes, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; OSError where the pack is shorter."""

    def size(self, name: bytes) -> int:
        """Bytes of the pack."""

    def delete(self, name: bytes) -> None:
        """Remove a pack; one that is not there is no error."""

    def names(self) -> Iterator[bytes]:
        """All packs, in no order."""

    def check(self) -> None:
        """Whether the store can be used, in one try; OSError, which says why, where not."""

    def tidy(self, before_ms: int) -> int:
        """Remove what writers that were killed left behind before that moment; how much it was."""


def is_sound(store: PackStore, name: bytes, size: int) -> bool:
    """Whether a pack is all there and what its name says.  Raises Away."""
    hasher = blake3()
    try:
        if store.size(name) != size:
            return False
        for at in range(0, size, PIECE):
            hasher.update(store.read(name, at, min(PIECE, size - at)))
    except Away:
        raise
    except OSError:
        return False
    return hasher.digest() == name
