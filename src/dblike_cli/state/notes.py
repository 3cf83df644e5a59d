"""What a person should know of paths that are not in sync."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from dblike_cli.report import Code, Pending
from dblike_delta.plan import Entry

_encode = msgspec.msgpack.Encoder().encode


class Notes:
    """The tables of refused and pending paths; see State."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def refused(self) -> list[Pending]:
        """What the site does not take, by path."""
        rows = self._connection.execute("SELECT path, reason FROM refused ORDER BY path")
        return [Pending(path, reason, Code.REFUSED) for path, reason in rows]

    def refusal(self, path: bytes, entry: Entry | None) -> str:
        """Why the site did not take just this; empty where it was not asked."""
        query = "SELECT reason FROM refused WHERE path = ? AND entry = ?"
        row = self._connection.execute(query, (path, _encode(entry))).fetchone()
        return "" if row is None else row[0]

    def refuse(self, path: bytes, entry: Entry | None, reason: str) -> None:
        """The site does not take this."""
        values = (path, reason, _encode(entry))
        self._connection.execute("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", values)

    def unrefuse(self, paths: Iterable[bytes]) -> None:
        """What was refused of these is over."""
        self._connection.executemany("DELETE FROM refused WHERE path = ?", [(p,) for p in paths])

    def pending(self) -> list[Pending]:
        """What else is not in sync, by path."""
        rows = self._connection.execute("SELECT path, reason, code FROM pending ORDER BY path")
        return [Pending(path, reason, Code(code)) for path, reason, code in rows]

    def set_pending(self, found: Iterable[Pending]) -> None:
        """What is not in sync now; it replaces what was before."""
        self._connection.execute("DELETE FROM pending")
        rows = [(item.path, item.reason, item.code.value) for item in found]
        self._connection.executemany("INSERT OR REPLACE INTO pending VALUES (?, ?, ?)", rows)
