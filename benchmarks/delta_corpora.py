"""Pairs of files for the library's benchmark: made from a seed, or two releases of a project."""

from __future__ import annotations

import gzip
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

MIB = 1 << 20


RELEASES = (("Django", "5.1.4", "5.1.5"), ("SQLAlchemy", "2.0.35", "2.0.36"))
"""Consecutive releases of two projects: source archives, as decompressed tars."""
FAR = ("Django", "5.1", "5.1.5")
"""Five patch levels apart, as the two kernel sources of rsync's paper."""


class Corpus(NamedTuple):
    """An old and a new file."""

    name: str
    old: Path
    new: Path


def made(folder: Path, size: int) -> dict[str, Callable[[], Corpus]]:
    """Pairs that are made.  The next pair overwrites the files: together they are large."""
    chance = random.Random(20260101)

    def base() -> bytes:
        return noise("base", size)

    pairs: dict[str, Callable[[], tuple[bytes, bytes]]] = {
        "200 edits": lambda: (base(), edited(base(), chance)),
        "identical": lambda: (base(), base()),
        "unrelated": lambda: (base(), noise("other", size)),
        "appended": lambda: (base(), base() + noise("tail", size // 100)),
        "inserted in front": lambda: (base(), b"in front" + base()),
        "moved blocks": lambda: (base(), moved(base(), chance)),
        "zeros": lambda: (bytes(size), bytes(size) + b"end"),
        "log": lambda: logs(size // 4),
        "sqlite, 1 % of rows": lambda: databases(folder, size // 8),
    }

    def write(name: str) -> Corpus:
        return put(folder, name, *pairs[name]())

    return {name: partial(write, name) for name in pairs}


def releases(folder: Path) -> dict[str, Callable[[], Corpus]]:
    """Pairs that are fetched."""
    return {
        f"{name} {old} to {new}": partial(fetched, folder, name, old, new)
        for name, old, new in RELEASES
    }


def fetched(folder: Path, name: str, old: str, new: str) -> Corpus:
    """Two releases of a project, fetched by pip unless they are there."""
    paths = [release(folder, name, version) for version in (old, new)]
    return Corpus(f"{name} {old} to {new}", *paths)


def release(folder: Path, name: str, version: str) -> Path:
    """The decompressed source archive of a release."""
    tar = folder / f"{name}-{version}.tar"
    if not tar.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary=:all:", f"--dest={folder}", f"{name}=={version}"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        (packed,) = (path for path in folder.glob("*.gz") if is_of(path, name, version))
        with gzip.open(packed) as source, tar.open("wb") as out:
            shutil.copyfileobj(source, out, MIB)
    return tar


def far_apart(folder: Path) -> Corpus:
    """The releases that are compared as in rsync's paper.

    Who packed them left other times, owners, modes and paths (with a version), which change the
    header of every file and are no change of the sources.  So they are packed again.
    """
    pair = fetched(folder, *FAR)
    return Corpus(pair.name, *(repacked(path) for path in (pair.old, pair.new)))


def repacked(tar: Path) -> Path:
    """The same files in an archive without times, owners, modes, and the directory above."""
    plain = tar.with_suffix(".plain.tar")
    with tarfile.open(tar) as source, tarfile.open(plain, "w", format=tarfile.GNU_FORMAT) as out:
        for member in source:
            content = source.extractfile(member) if member.isfile() else None
            member.name, member.mtime = member.name.partition("/")[2] or ".", 0
            member.uid = member.gid = member.mode = 0
            member.uname = member.gname = ""
            member.pax_headers = {}
            out.addfile(member, content)
    return plain


def is_of(path: Path, name: str, version: str) -> bool:
    """Whether a source archive is that of a release; their names' case differs."""
    return path.name.lower() == f"{name}-{version}.tar.gz".lower()


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
    """Blocks that collide in librsync's sum: Thue-Morse words and their opposites.

    All are different up to 64 MiB each.
    """
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
