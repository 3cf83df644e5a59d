"""Packs in memory: a real store, for sites that live in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dblike_srv.store.base import Data


class MemoryStore:
    """Packs in a dictionary, which outlives the site that uses it."""

    def __init__(self) -> None:
        self.packs: dict[bytes, bytes] = {}

    def writer(self) -> MemoryWriter:
        return MemoryWriter(self)

    def adopt(self, path: Path, name: bytes) -> None:
        self.packs[name] = path.read_bytes()
        path.unlink()

    def settle(self, name: bytes) -> None:
        """Memory has nothing that is more durable."""

    def read(self, name: bytes, offset: int, length: int) -> bytes:
        pack = self._pack(name)
        if offset + length > len(pack):
            raise OSError(f"pack {name.hex()} ends at byte {len(pack)}")
        return pack[offset : offset + length]

    def size(self, name: bytes) -> int:
        return len(self._pack(name))

    def delete(self, name: bytes) -> None:
        self.packs.pop(name, None)

    def names(self) -> Iterator[bytes]:
        return iter(list(self.packs))

    def check(self) -> None:
        """Memory is always there."""

    def tidy(self, before_ms: int) -> int:  # noqa: ARG002 - the protocol's
        return 0

    def _pack(self, name: bytes) -> bytes:
        try:
            return self.packs[name]
        except KeyError:
            raise FileNotFoundError(f"no pack {name.hex()}") from None


class MemoryWriter:
    """A pack being written in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._data = bytearray()

    @property
    def size(self) -> int:
        return len(self._data)

    def write(self, data: Data) -> None:
        self._data += data

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length])

    def commit(self, name: bytes) -> None:
        self._store.packs[name] = bytes(self._data)

    def abort(self) -> None:
        self._data.clear()
