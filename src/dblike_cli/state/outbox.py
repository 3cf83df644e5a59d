"""The outbox: versions that have a dot and no answer yet.

A dot is durable here before it is sent.  Where the same content is to be sent again it goes with
the same dot, so that a lost reply never makes a second version.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from dblike_delta.decoding import unpacker
from dblike_delta.plan import Entry

_encode = msgspec.msgpack.Encoder().encode
_decode = unpacker(Entry | None)


class Sending(msgspec.Struct, frozen=True):
    """A version on its way: what it says, what it was made from, and how it is sent.

    `entry.hash` is empty while a large file is read for the first time; `upload` is the id of its
    resumable upload.
    """

    path: bytes
    counter: int
    time: int
    entry: Entry | None
    context: bytes
    stamp: bytes = b""
    upload: bytes = b""


class Outbox:
    """The table of it; see State."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, path: bytes) -> Sending | None:
        """What was being sent for a path."""
        row = self._connection.execute("SELECT * FROM outbox WHERE path = ?", (path,)).fetchone()
        return None if row is None else _sending(row)

    def all(self) -> list[Sending]:
        """All of it, by path."""
        rows = self._connection.execute("SELECT * FROM outbox ORDER BY path")
        return [_sending(row) for row in rows]

    def put(self, items: Iterable[Sending]) -> None:
        """These are about to be sent."""
        rows = [
            (s.path, s.counter, s.time, _encode(s.entry), s.context, s.stamp, s.upload)
            for s in items
        ]
        self._connection.executemany("INSERT OR REPLACE INTO outbox VALUES (?,?,?,?,?,?,?)", rows)

    def drop(self, paths: Iterable[bytes]) -> None:
        """These were answered, or are given up."""
        self._connection.executemany("DELETE FROM outbox WHERE path = ?", [(p,) for p in paths])


def _sending(row: tuple[bytes, int, int, bytes, bytes, bytes, bytes]) -> Sending:
    path, counter, time, entry, context, stamp, upload = row
    return Sending(path, counter, time, _decode(entry), context, stamp, upload)
