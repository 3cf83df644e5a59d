"""The bytes that are synced: made from a seed, the same for every peer and on every machine.

Contents are incompressible (a BLAKE3 stream) except the log, so that nobody's compression decides.
`tree_hash` is how results are compared: one BLAKE3 over all paths, types and contents.
"""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

MIB = 1 << 20
MARKERS = frozenset({".dblike", ".stfolder", ".stversions"})
"""What peers keep in the synced directory for themselves."""

_PIECE = 8 * MIB
_LOG_LINE = 48
_COMPARED = 256 * 1024


def stream(seed: str, size: int) -> Iterator[bytes]:
    """`size` incompressible bytes that only the seed decides."""
    source = blake3(seed.encode())
    for offset in range(0, size, _PIECE):
        yield source.digest(min(_PIECE, size - offset), seek=offset)


def write(path: Path, pieces: Iterator[bytes]) -> None:
    """A file from its pieces, parents made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def small_files(root: Path, count: int, total: int, seed: str = "small") -> None:
    """Many files, median 4 KB, sizes log-normal, about a hundred in a directory."""
    chance = random.Random(seed)
    mean = total / count
    spread = math.sqrt(2 * math.log(max(mean / 4096, 1.05)))
    sizes = [int(chance.lognormvariate(math.log(4096), spread)) for _ in range(count)]
    scale = total / sum(sizes)
    for number, size in enumerate(sizes):
        write(root / _small_name(number), stream(f"{seed} {number}", max(1, int(size * scale))))


def equal_files(root: Path, count: int, size: int, seed: str = "equal") -> None:
    """Many files of about one size."""
    chance = random.Random(seed)
    for number in range(count):
        length = chance.randint(size // 2, size * 3 // 2)
        write(root / _small_name(number), stream(f"{seed} {number}", length))


def _small_name(number: int) -> str:
    return f"part-{number // 1000:03}/set-{number // 100 % 10}/file-{number:06}.dat"


def log_lines(seed: str, size: int) -> Iterator[bytes]:
    """Text that compresses about two to one, as logs do at least."""
    for piece in stream(seed, size // 2):
        yield piece.hex("\n", _LOG_LINE).encode() + b"\n"


def append_log(path: Path, size: int, seed: str) -> None:
    """More lines at the end, as a logger writes them."""
    with path.open("ab") as file:
        for piece in log_lines(seed, size):
            file.write(piece)


def scatter_edits(path: Path, count: int, seed: str) -> None:
    """Small edits all over a file: overwritten, inserted and removed runs of up to 100 bytes.

    Saved as editors save: a new file renamed over the old one.
    """
    chance = random.Random(seed)
    places = sorted(chance.randrange(path.stat().st_size - 200) for _ in range(count))
    fresh = path.with_name(path.name + ".new")
    with path.open("rb") as old, fresh.open("wb") as new:
        for place in places:
            _copy(old, new, max(0, place - old.tell()))
            inserted, removed = chance.choice(((1, 1), (1, 1), (1, 0), (0, 1)))
            length = chance.randint(1, 100)
            new.write(chance.randbytes(length * inserted))
            old.seek(length * removed, os.SEEK_CUR)
        shutil.copyfileobj(old, new, _PIECE)
    fresh.replace(path)


def _copy(old: BinaryIO, new: BinaryIO, length: int) -> None:
    """So many bytes from one file to another."""
    while length:
        piece = old.read(min(length, _PIECE))
        new.write(piece)
        length -= len(piece)


# --- comparing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """What a poll of the other device can see of a path."""

    size: int
    mtime_ns: int


def snapshot(root: Path) -> dict[str, Entry]:
    """Every file and link below, by relative path."""
    return {
        path: Entry(stat.st_size, stat.st_mtime_ns)
        for path, stat in ((path, os.lstat(root / path)) for path in walk(root))
    }


def walk(root: Path) -> Iterator[str]:
    """Relative paths of all files and links, without the peers' own markers."""
    for directory, names, files in os.walk(root):
        if Path(directory) == root:
            names[:] = [name for name in names if name not in MARKERS]
        links = [name for name in names if (Path(directory) / name).is_symlink()]
        for name in (*files, *links):
            yield os.path.relpath(os.path.join(directory, name), root)


@dataclass(frozen=True)
class Change:
    """What must be seen on the other device before an edit has arrived there."""

    present: tuple[tuple[str, Entry], ...]
    gone: tuple[str, ...]

    @classmethod
    def between(cls, before: dict[str, Entry], after: dict[str, Entry]) -> Change:
        present = tuple((path, entry) for path, entry in after.items() if before.get(path) != entry)
        return cls(present, tuple(path for path in before if path not in after))


class Arrival:
    """Whether a change has gone from here to there; asks about each path until it has."""

    def __init__(self, change: Change, here: Path, there: Path) -> None:
        self._here, self._there = str(here), str(there)
        self._present = list(reversed(change.present))
        self._gone = list(change.gone)

    def __call__(self) -> bool:
        while self._present and self._arrived(*self._present[-1]):
            self._present.pop()
        while not self._present and self._gone and not self._exists(self._gone[-1]):
            self._gone.pop()
        return not self._present and not self._gone

    @property
    def missing(self) -> int:
        """How many paths were not seen yet (an upper bound)."""
        return len(self._present) + len(self._gone)

    def _arrived(self, path: str, entry: Entry) -> bool:
        """Size and time say so, or, for a small file, its bytes (some peers round times)."""
        there = f"{self._there}/{path}"
        try:
            stat = os.lstat(there)
            if stat.st_size != entry.size:
                return False
            if stat.st_mtime_ns == entry.mtime_ns:
                return True
            return entry.size <= _COMPARED and _same_bytes(f"{self._here}/{path}", there)
        except OSError:
            return False

    def _exists(self, path: str) -> bool:
        return os.path.lexists(f"{self._there}/{path}")


def _same_bytes(left: str, right: str) -> bool:
    if os.path.islink(left) or os.path.islink(right):
        return (
            os.path.islink(left)
            and os.path.islink(right)
            and os.readlink(left) == os.readlink(right)
        )
    return Path(left).read_bytes() == Path(right).read_bytes()


def content_hash(path: Path) -> str:
    """BLAKE3 of a file, or of a link's target."""
    if path.is_symlink():
        return "link " + blake3(os.readlink(os.fsencode(path))).hexdigest()
    hasher = blake3(max_threads=blake3.AUTO if path.stat().st_size > _PIECE else 1)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
    return hasher.hexdigest()


def tree_hash(root: Path) -> str:
    """One hash over every path and content below."""
    whole = blake3()
    for path in sorted(walk(root), key=os.fsencode):
        whole.update(f"{content_hash(root / path)} {len(path)} ".encode() + os.fsencode(path))
    return whole.hexdigest()


def differing(left: Path, right: Path) -> list[str]:
    """Paths whose presence or content is not the same on both sides."""
    ours, theirs = set(walk(left)), set(walk(right))
    unequal = [
        path for path in ours & theirs if content_hash(left / path) != content_hash(right / path)
    ]
    return sorted((ours ^ theirs) | set(unequal))


def copy_tree(source: Path, target: Path) -> None:
    """The corpus into a client's folder, times kept."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
