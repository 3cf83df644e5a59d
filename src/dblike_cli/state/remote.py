"""The site's news: paths whose state there is not here yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from dblike_delta.messages import Record

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class RemoteTable:
    """The table of it; see State."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, path: bytes) -> Record | None:
        """The news of a path."""
        query = "SELECT record FROM remote WHERE path = ?"
        row = self._connection.execute(query, (path,)).fetchone()
        return None if row is None else _decode(row[0])

    def all(self) -> dict[bytes, Record]:
        """Path to record, by path."""
        rows = self._connection.execute("SELECT path, record FROM remote ORDER BY path")
        return {path: _decode(record) for path, record in rows}

    def empty(self) -> bool:
        """Whether there are no news."""
        return self._connection.execute("SELECT 1 FROM remote LIMIT 1").fetchone() is None

    def put(self, records: Iterable[Record]) -> None:
        """The present state of these paths; it replaces what was heard of them before."""
        rows = [(record.path, _encode(record)) for record in records]
        self._connection.executemany("INSERT OR REPLACE INTO remote VALUES (?, ?)", rows)

    def clear(self) -> None:
        """Nothing was heard."""
        self._connection.execute("DELETE FROM remote")

    def drop(self, paths: Iterable[bytes]) -> None:
        """These are here now."""
        self._connection.executemany("DELETE FROM remote WHERE path = ?", [(p,) for p in paths])
