"""Offers: own versions that were acknowledged, and that a site may have to be told again.

Those of which fewer sites hold than should are offered, as the very same versions, until enough do.
Those that one site alone took, which is enough, are kept for the case that it is lost: another site
that serves is offered them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from dblike_delta.decoding import unpacker
from dblike_delta.plan import Entry

_encode = msgspec.msgpack.Encoder().encode
_decode = unpacker(Entry | None)


class Offer(msgspec.Struct, frozen=True):
    """All that a version said when it was sent, to be said again word for word.

    `site` took it where one site is enough; where it is empty too few hold it.
    """

    path: bytes
    counter: int
    time: int
    entry: Entry | None
    context: bytes
    author: str
    upload: bytes = b""
    site: str = ""


class Offers:
    """The table of it; see State."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> list[Offer]:
        """All of it, in the order in which the versions were made."""
        rows = self._connection.execute("SELECT * FROM offers ORDER BY counter")
        return [
            Offer(path, counter, time, _decode(entry), context, author, upload, site)
            for path, counter, time, entry, context, author, upload, site in rows
        ]

    def short(self) -> int:
        """Of how many fewer sites hold than should."""
        query = "SELECT count(*) FROM offers WHERE site = ''"
        return int(self._connection.execute(query).fetchone()[0])

    def empty(self) -> bool:
        """Whether there are none at all."""
        return self._connection.execute("SELECT 1 FROM offers LIMIT 1").fetchone() is None

    def put(self, offers: Iterable[Offer]) -> None:
        """Remember these; each takes the place of an older version of its path."""
        rows = [
            (o.path, o.counter, o.time, _encode(o.entry), o.context, o.author, o.upload, o.site)
            for o in offers
        ]
        self._connection.executemany("INSERT OR REPLACE INTO offers VALUES (?,?,?,?,?,?,?,?)", rows)

    def drop(self, paths: Iterable[bytes]) -> None:
        """Enough sites hold what these are now."""
        self._connection.executemany("DELETE FROM offers WHERE path = ?", [(p,) for p in paths])

    def drop_of(self, site: str) -> None:
        """Others hold all that this site took."""
        self._connection.execute("DELETE FROM offers WHERE site = ?", (site,))
