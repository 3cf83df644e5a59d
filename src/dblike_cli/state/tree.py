"""The synced tree: for each path what both sides agreed on last."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

import msgspec

from dblike_delta.plan import NO_MODE, Entry, Synced
from dblike_delta.sources import Content
from dblike_delta.versions import Dot, Kind

_INSERT = "INSERT OR REPLACE INTO tree VALUES (?,?,?,?,?,?,?,?,?,?,?)"
_UNSETTLE = """UPDATE tree SET target = x'', mode = ?, device = zeroblob(16),
    stamp = CASE kind WHEN 2 THEN x'00' ELSE x'' END,
    hash = CASE kind WHEN 1 THEN zeroblob(32) ELSE x'' END
    WHERE path IN (SELECT path FROM doubts)"""
_MOST = 10_000
NOTHING = Synced(Entry(Kind.FILE, bytes(32), 0, NO_MODE), b"", Dot(bytes(16), 0))
"""What no path can be, of a version that nobody made: whatever is here, or comes, is other."""


class Known(msgspec.Struct, frozen=True):
    """A path of the synced tree; `stamp` is empty where its content has to be looked at again."""

    path: bytes
    stamp: bytes
    synced: Synced


class Tree:
    """The table of it; see State."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def stamps(self, below: bytes = b"") -> dict[bytes, bytes]:
        """Path to stamp, of `below` and all under it."""
        if not below:
            return dict(self._connection.execute("SELECT path, stamp FROM tree"))
        query = "SELECT path, stamp FROM tree WHERE path = ? OR (path > ? AND path < ?)"
        return dict(self._connection.execute(query, (below, below + b"/", below + b"0")))

    def get(self, path: bytes) -> Known | None:
        """One path."""
        row = self._connection.execute("SELECT * FROM tree WHERE path = ?", (path,)).fetchone()
        return None if row is None else _known(row)

    def rows(self, below: bytes = b"") -> Iterator[Known]:
        """All of it, or all that is under `below`, by path."""
        if not below:
            return map(_known, self._connection.execute("SELECT * FROM tree ORDER BY path"))
        query = "SELECT * FROM tree WHERE path > ? AND path < ? ORDER BY path"
        return map(_known, self._connection.execute(query, (below + b"/", below + b"0")))

    def empty(self) -> bool:
        """Whether there are no paths."""
        return self._connection.execute("SELECT 1 FROM tree LIMIT 1").fetchone() is None

    def count(self) -> int:
        """How many paths there are; it reads the whole table."""
        return int(self._connection.execute("SELECT count(*) FROM tree").fetchone()[0])

    def count_files(self) -> int:
        """How many of them are no directories; likewise."""
        query = "SELECT count(*) FROM tree WHERE kind != 2"
        return int(self._connection.execute(query).fetchone()[0])

    def has_more_than(self, number: int) -> bool:
        """Whether there are more paths than that; costs no more than to count so many."""
        query = "SELECT 1 FROM tree LIMIT 1 OFFSET ?"
        return self._connection.execute(query, (number,)).fetchone() is not None

    def find_content(self, digest: bytes) -> list[tuple[bytes, bytes]]:
        """Some paths with their stamps that hold this content."""
        query = "SELECT path, stamp FROM tree WHERE kind = 1 AND hash = ? LIMIT 4"
        return self._connection.execute(query, (digest,)).fetchall()

    def content_at(self, path: bytes) -> Iterator[tuple[Dot, Content]]:
        """The version of a path and its content, if it is a file."""
        query = "SELECT device, counter, hash, size FROM tree WHERE path = ? AND kind = 1"
        for device, counter, digest, size in self._connection.execute(query, (path,)):
            yield Dot(device, counter), Content(digest, size)

    def contents_among(self, digests: Iterable[bytes]) -> set[bytes]:
        """Those of the contents that some path holds."""
        return {digest for digest, *_ in self._holding(digests)}

    def versions_of(self, digests: Iterable[bytes]) -> dict[bytes, Dot]:
        """Content to a version that it is agreed to be of, where there is one."""
        return {digest: Dot(device, n) for digest, device, n in self._holding(digests) if n}

    def _holding(self, digests: Iterable[bytes]) -> Iterator[tuple[bytes, bytes, int]]:
        wanted = list(set(digests))
        for at in range(0, len(wanted), _MOST):
            some = wanted[at : at + _MOST]
            marks = ",".join("?" * len(some))
            query = f"SELECT hash, device, counter FROM tree WHERE kind = 1 AND hash IN ({marks})"  # noqa: S608 - marks
            yield from self._connection.execute(query, some)

    def has_size(self, size: int) -> bool:
        """Whether any large file has this size, so that a new one could be a copy of it."""
        query = "SELECT 1 FROM tree WHERE kind = 1 AND size >= 1048576 AND size = ? LIMIT 1"
        return self._connection.execute(query, (size,)).fetchone() is not None

    def unfinished_directories(self) -> list[tuple[bytes, int]]:
        """Directories, with their agreed modes, that may not have got these yet."""
        query = "SELECT path, mode FROM tree WHERE kind = 2 AND length(stamp) = 0"
        return self._connection.execute(query).fetchall()

    def record(self, known: Iterable[Known]) -> None:
        """Both sides agree on these."""
        self._connection.executemany(_INSERT, map(_row, known))

    def restamp(self, stamps: Iterable[tuple[bytes, bytes]]) -> None:
        """The contents of these paths are the same, by (path, stamp)."""
        rows = [(stamp, path) for path, stamp in stamps]
        self._connection.executemany("UPDATE tree SET stamp = ? WHERE path = ?", rows)

    def renew(self, contexts: Iterable[tuple[bytes, bytes]]) -> None:
        """The same versions with newer contexts, by (path, context)."""
        rows = [(context, path) for path, context in contexts]
        self._connection.executemany("UPDATE tree SET context = ? WHERE path = ?", rows)

    def doubt(self) -> None:
        """The site went back in time: each path is in doubt until it says that it knows all that is
        known of it here."""
        self._connection.execute("INSERT OR IGNORE INTO doubts SELECT path FROM tree")

    def has_doubts(self) -> bool:
        """Whether anything is in doubt."""
        return self._connection.execute("SELECT 1 FROM doubts LIMIT 1").fetchone() is not None

    def in_doubt(self, path: bytes) -> bool:
        """Whether the site may have lost what is known of the path here."""
        query = "SELECT 1 FROM doubts WHERE path = ?"
        return self._connection.execute(query, (path,)).fetchone() is not None

    def settle(self, paths: Iterable[bytes]) -> None:
        """The site knows all that is known of these."""
        rows = [(path,) for path in paths]
        self._connection.executemany("DELETE FROM doubts WHERE path = ?", rows)

    def unsettle(self) -> None:
        """Nothing is agreed any more of what is still in doubt: each path is like NOTHING.  The
        contexts stay, for they say what was known here."""
        self._connection.execute(_UNSETTLE, (NO_MODE,))
        self._connection.execute("DELETE FROM doubts")


def is_unsettled(known: Known) -> bool:
    """Whether `unsettle` has come over it."""
    return known.synced.entry is not None and known.synced.entry.mode == NO_MODE


def _known(row: tuple[bytes, bytes, int, bytes, int, int, int, bytes, bytes, int, bytes]) -> Known:
    path, stamp, kind, digest, size, mode, mtime_ns, target, device, counter, context = row
    entry = Entry(Kind(kind), digest, size, mode, mtime_ns, target)
    return Known(path, stamp, Synced(entry, context, Dot(device, counter)))


def _row(known: Known) -> tuple[bytes | int, ...]:
    synced = known.synced
    entry = synced.entry
    assert entry is not None  # a path that is deleted on both sides has no row
    return (
        known.path,
        known.stamp,
        int(entry.kind),
        entry.hash,
        entry.size,
        entry.mode,
        entry.mtime_ns,
        entry.target,
        synced.dot.device,
        synced.dot.counter,
        synced.context,
    )
