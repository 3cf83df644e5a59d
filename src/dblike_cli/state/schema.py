"""The tables, and how an older database becomes a newer one."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from dblike_cli.errors import StateDamaged

# WAL + FULL: a counter that was used is there after a power cut.  With NORMAL it would be used
# again, for another content.
SETTINGS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA mmap_size=0",
    "PRAGMA cache_size=-16384",
)

# Bytes go in as they are.  The driver looks for an adapter of every value that is no number or
# text, and to find none costs it twice as much as to bind the value.
sqlite3.register_adapter(bytes, bytes.__bytes__)

# Each step is run once, in order, in the transaction that records it; none is ever changed.
STEPS: Final[Sequence[tuple[str, ...]]] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        # What both sides agreed on last.  An empty stamp: look at the content again.
        """CREATE TABLE tree (
             path BLOB PRIMARY KEY, stamp BLOB NOT NULL, kind INTEGER NOT NULL,
             hash BLOB NOT NULL, size INTEGER NOT NULL, mode INTEGER NOT NULL,
             mtime_ns INTEGER NOT NULL, target BLOB NOT NULL,
             device BLOB NOT NULL, counter INTEGER NOT NULL, context BLOB NOT NULL
           ) WITHOUT ROWID""",
        "CREATE INDEX tree_hash ON tree (hash) WHERE kind = 1",
        "CREATE INDEX tree_size ON tree (size) WHERE kind = 1 AND size >= 1048576",
        # Paths whose state at the site is not here yet.
        "CREATE TABLE remote (path BLOB PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID",
        # Versions that were sent, or were about to be, and have no answer yet.
        """CREATE TABLE outbox (
             path BLOB PRIMARY KEY, counter INTEGER NOT NULL, time INTEGER NOT NULL,
             entry BLOB NOT NULL, context BLOB NOT NULL, stamp BLOB NOT NULL,
             upload BLOB NOT NULL
           ) WITHOUT ROWID""",
        # What the site does not take; tried again when the path is something else.
        """CREATE TABLE refused (
             path BLOB PRIMARY KEY, reason TEXT NOT NULL, entry BLOB NOT NULL
           ) WITHOUT ROWID""",
        """CREATE TABLE pending (
             path BLOB PRIMARY KEY, reason TEXT NOT NULL, code TEXT NOT NULL
           ) WITHOUT ROWID""",
    ),
    (
        # What was known of the paths that both sides agreed to be deleted.
        """CREATE TABLE tombs (
             path BLOB PRIMARY KEY, context BLOB NOT NULL, time INTEGER NOT NULL,
             doubtful INTEGER NOT NULL
           ) WITHOUT ROWID""",
        "CREATE INDEX tombs_time ON tombs (time)",
        """CREATE TRIGGER tree_lives AFTER INSERT ON tree BEGIN
             DELETE FROM tombs WHERE path = NEW.path;
           END""",
        # Acknowledged versions of ours that fewer sites hold than should.
        """CREATE TABLE offers (
             path BLOB PRIMARY KEY, counter INTEGER NOT NULL, time INTEGER NOT NULL,
             entry BLOB NOT NULL, context BLOB NOT NULL, author TEXT NOT NULL,
             upload BLOB NOT NULL
           ) WITHOUT ROWID""",
    ),
    (
        # Who took an offer that enough sites hold as long as this one lasts; empty: too few do.
        "ALTER TABLE offers ADD COLUMN site TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX offers_short ON offers (path) WHERE site = ''",
    ),
    (),  # contexts may end with what no site sealed, which an older client would send
    (
        # Paths of the tree of which a site that went back in time has not said yet that it knows
        # all that is known of them here.
        "CREATE TABLE doubts (path BLOB PRIMARY KEY) WITHOUT ROWID",
    ),
)


def prepare(connection: sqlite3.Connection) -> None:
    """Settings and schema; raises StateDamaged for a database of a newer client."""
    for setting in SETTINGS:
        connection.execute(setting)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(STEPS):
        raise StateDamaged("the state was written by a newer dblike: update this one")
    for number in range(version, len(STEPS)):
        connection.execute("BEGIN IMMEDIATE")
        for statement in STEPS[number]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number + 1}")
        connection.execute("COMMIT")
