"""Tombs: what was known of the paths that both sides agreed to be deleted.

A site that has not heard of a delete yet still shows the path: by the tomb that is known to be
older news, and no news.  A path that lives again has no tomb.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

import msgspec

_KEPT_MS: Final = 30 * 24 * 3600 * 1000


class Tomb(msgspec.Struct, frozen=True):
    """What was known of a path when it was agreed to be deleted.

    `doubtful`: a site may have to be told of the delete, as it went back in time since, or took
    something in whose answer was lost.
    """

    context: bytes
    doubtful: bool = False


class Tombs:
    """The table of it; see State."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, path: bytes) -> Tomb | None:
        """The tomb of a path."""
        query = "SELECT context, doubtful FROM tombs WHERE path = ?"
        row = self._connection.execute(query, (path,)).fetchone()
        return None if row is None else Tomb(row[0], bool(row[1]))

    def all(self) -> dict[bytes, Tomb]:
        """Path to tomb."""
        rows = self._connection.execute("SELECT path, context, doubtful FROM tombs")
        return {path: Tomb(context, bool(doubtful)) for path, context, doubtful in rows}

    def empty(self) -> bool:
        """Whether there are none."""
        return self._connection.execute("SELECT 1 FROM tombs LIMIT 1").fetchone() is None

    def bury(
        self, paths: Iterable[tuple[bytes, bytes]], now_ms: int, *, doubtful: bool = False
    ) -> None:
        """Both sides agree that nothing is at these, by (path, context); old tombs fall in."""
        rows = list(paths)
        self._connection.executemany("DELETE FROM tree WHERE path = ?", [(p,) for p, _ in rows])
        insert = "INSERT OR REPLACE INTO tombs VALUES (?, ?, ?, ?)"
        kept = [(path, context, now_ms, int(doubtful)) for path, context in rows if context]
        self._connection.executemany(insert, kept)
        if kept:
            self._connection.execute("DELETE FROM tombs WHERE time < ?", (now_ms - _KEPT_MS,))

    def doubt(self) -> None:
        """The site went back in time."""
        self._connection.execute("UPDATE tombs SET doubtful = 1")
