"""Pairs of files for the library's benchmark: made from a seed, or two releases of a project."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

MIB = 1 << 20


class Corpus(NamedTuple):
    """An old and a new file."""

    name: str
    old: Path
    new: Path


def corpora(folder: Path, size: int, releases: list[Path]) -> Iterator[Corpus]:
    """All pairs of files; those of one are overwritten when the next one is asked for."""
    chance, base = random.Random(20260101), noise("base", size)
    # Made one after the other: together they would take ten times the size.
    pairs: dict[str, Callable[[], tuple[bytes, bytes]]] = {
        "200 edits": lambda: (base, edited(base, chance)),
        "identical": lambda: (base, base),
        "unrelated": lambda: (base, noise("other", size)),
        "appended": lambda: (base, base + noise("tail", size // 100)),
        "inserted in front": lambda: (base, b"in front" + base),
        "moved blocks": lambda: (base, moved(base, chance)),
        "zeros": lambda: (bytes(size), bytes(size) + b"end"),
        "log": lambda: logs(size // 4),
        "sqlite, 1 % of rows": lambda: databases(folder, size // 8),
    }
    for name, make in pairs.items():
        yield put(folder, name, *make())
    for one, other in zip(releases[::2], releases[1::2], strict=True):
        yield Corpus(f"{one.name} to {other.name}", one, other)


def noise(seed: str, size: int) -> bytes:
    """Incompressible bytes that only the seed decides."""
    return blake3(seed.encode()).digest(size)


def edited(base: bytes, chance: random.Random) -> bytes:
    """200 places, a third each: overwritten, inserted, removed."""
    parts, at = [], 0
    for place in sorted(chance.sample(range(len(base) - 100), 200)):
        parts.append(base[at : max(at, place)])
        kind = chance.randrange(3)
        at = max(at, place) + (0 if kind == 1 else 20)
        if kind < 2:
            parts.append(chance.randbytes(20))
    return b"".join([*parts, base[at:]])


def moved(base: bytes, chance: random.Random) -> bytes:
    """As a disk image after defragmenting: 1 MiB pieces in another order."""
    pieces = [base[at : at + MIB] for at in range(0, len(base), MIB)]
    chance.shuffle(pieces)
    return b"".join(pieces)


def logs(size: int) -> tuple[bytes, bytes]:
    """A log, and the same with lines appended."""
    line = "2026-01-01T00:00:%09.6f INFO request %d handled in %d ms for /v1/folders/home/changes\n"
    old = "".join(line % (n % 60, n, n * 7919 % 997) for n in range(size // 90)).encode()
    return old, old + "".join(line % (n % 60, n, n) for n in range(2000)).encode()


def databases(folder: Path, size: int) -> tuple[bytes, bytes]:
    """A database before and after updating 1 % of its rows."""
    path = folder / "rows.sqlite"
    chance = random.Random(7)
    rows = size // 220
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, body BLOB)")
        items = ((n, f"item {n}", chance.randbytes(180)) for n in range(rows))
        connection.executemany("INSERT INTO item VALUES (?, ?, ?)", items)
    old = path.read_bytes()
    with sqlite3.connect(path) as connection:
        changed = [(chance.randbytes(180), chance.randrange(rows)) for _ in range(rows // 100)]
        connection.executemany("UPDATE item SET body = ? WHERE id = ?", changed)
    connection.close()
    new = path.read_bytes()
    path.unlink()
    return old, new


def colliding(size: int) -> tuple[bytes, bytes]:
    """Blocks that collide in librsync's sum: Thue-Morse words and their opposites."""
    words = [b"a", b"b"]
    for _ in range(7):
        words = [words[0] + words[1], words[1] + words[0]]
    blocks = [b"".join(words[n >> bit & 1] for bit in range(16)) for n in range(2 * size // 2048)]
    half = len(blocks) // 2
    return b"".join(blocks[:half]), b"".join(blocks[half:])


def put(folder: Path, name: str, old: bytes, new: bytes) -> Corpus:
    """The two as files."""
    paths = folder / "old", folder / "new"
    for path, data in zip(paths, (old, new), strict=True):
        path.write_bytes(data)
    return Corpus(name, *paths)
