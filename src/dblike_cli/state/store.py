"""The database: one connection, one transaction at a time."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from dblike_cli.errors import ClientError, Failed, StateDamaged
from dblike_cli.state.meta import Meta
from dblike_cli.state.notes import Notes
from dblike_cli.state.offers import Offer, Offers
from dblike_cli.state.outbox import Outbox
from dblike_cli.state.remote import RemoteTable
from dblike_cli.state.schema import mistyped, prepare
from dblike_cli.state.tombs import Tombs
from dblike_cli.state.tree import Tree
from dblike_cli.state.view import View
from dblike_delta.plan import Synced

_PASSING: Final = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
)
"""What SQLite says of a disk that is busy, read-only, broken or gone."""


class State:
    """What is remembered between cycles.

    `meta` has the device, its counter and the cursor; `tree` and `tombs` what both sides agreed on;
    `remote` what the site has that is not here yet; `outbox` what was sent and not answered;
    `offers` what too few sites hold; `notes` what a person should know.  Reads go on at any time;
    writes need `transaction()`, and what one holds is durable together or not at all.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open, and create where there is none; raises StateDamaged."""
        with said_plainly():
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=10)
            try:
                prepare(self._connection)
            except BaseException:
                self._connection.close()
                raise
        self.meta = Meta(self._connection)
        self.tree = Tree(self._connection)
        self.tombs = Tombs(self._connection)
        self.remote = RemoteTable(self._connection)
        self.outbox = Outbox(self._connection)
        self.offers = Offers(self._connection)
        self.notes = Notes(self._connection)
        self.offset: int | None = None
        """What to add to our clock to get the site's, in milliseconds; None: no site was heard."""
        self.recovered = False
        """Whether what a crash may have left was cleared away since this was opened."""
        self.offer_at = 0.0
        """When to offer again to the same site, by the monotonic clock."""
        self.offer_wait = 0.0
        """How long that was to be waited for, in seconds."""
        self.full = ("", 0, 0.0)
        """Which site had no room, for how many bytes, and the monotonic time to ask it again."""
        self.fewer: dict[str, list[tuple[float, int]]] = {"local": [], "remote": []}
        """How many files fewer there were after each step, by the side that it came from, with its
        monotonic time; for the brake."""
        self.offers_later: list[Offer] = []
        """Large files that the site wants in full."""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside become durable at its end, or none where it raises."""
        with said_plainly():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self.remote.forget()
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def view(self, paths: Iterable[bytes]) -> Mapping[bytes, Synced]:
        """What was agreed on, as reconcile reads it; `paths` are those that it will mostly ask
        for."""
        return View(self.tree, self.tombs, paths)

    def check(self) -> list[str]:
        """What is wrong with the database's pages, or else with its values; empty where nothing
        is."""
        with said_plainly():
            found = [row[0] for row in self._connection.execute("PRAGMA integrity_check(20)")]
            return list(mistyped(self._connection)) if found == ["ok"] else found

    def close(self) -> None:
        """Close the connection; every transaction that ended is durable already."""
        self._connection.close()


@contextlib.contextmanager
def said_plainly(check: Callable[[], Sequence[str]] = tuple) -> Iterator[None]:
    """SQLite's errors as the client's: StateDamaged, or Failed where that may pass.

    A value that was damaged is found by whatever stumbles over it: then `check` says whether that
    is what was wrong.
    """
    try:
        yield
    except ClientError:
        raise
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise Failed("the disk is full: the state can't be written") from error
        if code in _PASSING:
            raise Failed(f"the state can't be used: {error}") from error
        raise StateDamaged(_advice(error)) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError, msgspec.DecodeError) as error:
        # Nothing else in here decodes text strictly; SQLite's messages quote a damaged schema.
        raise StateDamaged(_advice(error)) from error
    except (TypeError, AttributeError, ValueError, LookupError) as error:
        for wrong in check()[:1]:
            raise StateDamaged(_advice(wrong)) from error
        raise


def _advice(error: Exception | str) -> str:
    return f"the state is damaged ({error}); `dblike doctor` says how to go on"
