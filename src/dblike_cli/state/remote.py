"""The site's news: paths whose state there is not here yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from dblike_delta.decoding import unpacker
from dblike_delta.messages import Record

_encode = msgspec.msgpack.Encoder().encode
_decode = unpacker(Record)


class RemoteTable:
    """The table of it; see State.

    What it holds is kept in memory, too, from when it was first asked for: a cycle asks for each
    path several times.  Whoever ends a transaction without its writes has to `forget` that.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._held: dict[bytes, Record] | None = None

    def get(self, path: bytes) -> Record | None:
        """The news of a path."""
        return self._all().get(path)

    def all(self) -> dict[bytes, Record]:
        """Path to record, by path."""
        held = self._all()
        return {path: held[path] for path in sorted(held)}

    def empty(self) -> bool:
        """Whether there are no news."""
        return not self._all()

    def put(self, records: Iterable[Record]) -> None:
        """The present state of these paths; it replaces what was heard of them before."""
        news = {record.path: record for record in records}
        rows = [(path, _encode(record)) for path, record in news.items()]
        self._connection.executemany("INSERT OR REPLACE INTO remote VALUES (?, ?)", rows)
        self._all().update(news)

    def clear(self) -> None:
        """Nothing was heard."""
        self._connection.execute("DELETE FROM remote")
        self._held = {}

    def drop(self, paths: Iterable[bytes]) -> None:
        """These are here now."""
        held = self._all()
        gone = [path for path in paths if held.pop(path, None) is not None]
        self._connection.executemany("DELETE FROM remote WHERE path = ?", [(p,) for p in gone])

    def forget(self) -> None:
        """What is held in memory may be otherwise than the table."""
        self._held = None

    def _all(self) -> dict[bytes, Record]:
        if self._held is None:
            rows = self._connection.execute("SELECT path, record FROM remote")
            self._held = {path: _decode(record) for path, record in rows}
        return self._held
