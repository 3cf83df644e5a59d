"""Offers: own versions that were acknowledged while fewer sites held them than should.

They are offered again, as the very same versions, until enough sites hold them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from dblike_delta.plan import Entry

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry | None).decode


class Offer(msgspec.Struct, frozen=True):
    """All that a version said when it was sent, to be said again word for word."""

    path: bytes
    counter: int
    time: int
    entry: Entry | None
    context: bytes
    author: str
    upload: bytes = b""


class Offers:
    """The table of it; see State."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> list[Offer]:
        """All of it, in the order in which the versions were made."""
        rows = self._connection.execute("SELECT * FROM offers ORDER BY counter")
        return [
            Offer(path, counter, time, _decode(entry), context, author, upload)
            for path, counter, time, entry, context, author, upload in rows
        ]

    def count(self) -> int:
        """How many there are."""
        return int(self._connection.execute("SELECT count(*) FROM offers").fetchone()[0])

    def empty(self) -> bool:
        """Whether there are none."""
        return self._connection.execute("SELECT 1 FROM offers LIMIT 1").fetchone() is None

    def put(self, offers: Iterable[Offer]) -> None:
        """Too few sites hold these; each takes the place of an older version of its path."""
        rows = [
            (o.path, o.counter, o.time, _encode(o.entry), o.context, o.author, o.upload)
            for o in offers
        ]
        self._connection.executemany("INSERT OR REPLACE INTO offers VALUES (?,?,?,?,?,?,?)", rows)

    def drop(self, paths: Iterable[bytes]) -> None:
        """Enough sites hold what these are now."""
        self._connection.executemany("DELETE FROM offers WHERE path = ?", [(p,) for p in paths])
