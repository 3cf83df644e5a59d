"""The database: an engine, transactions that are run again, and what each dialect needs.

A transaction is a function of a connection.  It may be run several times, so it changes nothing but
the database; what it returns is what its last run returned.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    CursorResult,
    Engine,
    Executable,
    Table,
    create_engine,
    event,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.pool import StaticPool

from dblike_delta.seams import Random
from dblike_delta.system import give_to_owner
from dblike_srv import mysql
from dblike_srv.errors import Busy, NoSpace, Unreachable
from dblike_srv.turns import Turns

_T = TypeVar("_T")

ATTEMPTS: Final = 12
PATIENCE: Final = 20.0
"""Seconds after which a transaction is not run once more."""
WRITING: Final = 10.0
"""The same for a writer to SQLite, the wait for its turn included."""
STUCK: Final = 1.0
"""The same where the writer before it came too late: whoever waits holds a thread that those who
only read could use."""
PAUSE: Final = 1.0
"""The longest that is waited before a transaction is run again."""
FINDING: Final = 2
"""Runs again where a row was there already: another one came first, and is found then."""
AWAY: Final = 2.0
"""Seconds after which it is worth asking again when the database is away."""
BUSY_MS: Final = 2_000
"""How long SQLite waits by itself: for programs that are not in our queue."""
CHUNK: Final = 900
"""Values of one IN (…): SQLite's older limit on variables is 999."""
FULL: Final = frozenset((1021, 1114))
"""MariaDB's errors for a disk or a table that is full."""

_WRITES: Final = "dblike writes"
"""Of a connection to SQLite: whether the transaction that begins next is to write."""

log = logging.getLogger(__name__)

# Bytes go in as they are.  SQLite's driver looks for an adapter of every value that is no number or
# text, and to find none costs it twice as much as to bind the value.
sqlite3.register_adapter(bytes, bytes.__bytes__)


class Database:
    """Connections to one database; safe to share between threads, made anew after a fork."""

    def __init__(self, url: str, random: Random, *, answer: int = mysql.ANSWER) -> None:
        """`answer` is how many seconds a database server may take for a statement."""
        self._url, self._random = url, random
        self.engine = _engine(url, answer)
        self.embedded = self.engine.dialect.name == "sqlite"
        self._writing = threading.Lock()
        queue = _queue_file(self.engine) if self.embedded else None
        self._turns = Turns(queue) if queue else None
        self._stuck = False

    def reach(self) -> None:
        """Connect to the database server.  Raises Unreachable, and OSError for a file."""
        if self.embedded:
            _make_file(self.engine)
            return
        try:
            self.engine.connect().close()
        except DBAPIError as error:
            why = mysql.explain(error.orig, mysql.parse(self._url))
            raise Unreachable(f"database: {why}", retry_after=AWAY) from error

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    def read(self, work: Callable[[Connection], _T], *, attempts: int = ATTEMPTS) -> _T:
        """Run `work` on one consistent view of the database."""
        return self._run(work, write=False, attempts=attempts)

    def transact(
        self,
        work: Callable[[Connection], _T],
        *,
        attempts: int = ATTEMPTS,
        patience: float | None = None,
    ) -> _T:
        """Run `work` in a transaction that is durable when this returns.

        Raises Busy after several attempts or, with SQLite, where there was no turn to write within
        `patience` seconds; NoSpace where the disk is full.  Where the outcome of a COMMIT is
        unknown the work is run again: it must find what it did the first time.
        """
        if not self.embedded:
            return self._run(work, write=True, attempts=attempts)
        until = time.monotonic() + (patience or (STUCK if self._stuck else WRITING))
        try:
            with self._turn(until):
                return self._run(work, write=True, attempts=attempts, until=until)
        finally:
            self._stuck = time.monotonic() > until

    @contextlib.contextmanager
    def _turn(self, until: float) -> Iterator[None]:
        """Writers queue up here, threads and processes: SQLite's own waiting is a loop of sleeps,
        and takes up to 2 s with four busy processes where this takes 0.2."""
        if not self._writing.acquire(timeout=max(until - time.monotonic(), 0.0)):
            raise Busy("too many requests write to the database", retry_after=AWAY)
        with contextlib.ExitStack() as exits:
            exits.callback(self._writing.release)
            if self._turns is not None:
                try:
                    exits.enter_context(self._turns.take(until))
                except TimeoutError as error:
                    raise Busy("another process writes", retry_after=AWAY) from error
            yield

    @contextlib.contextmanager
    def alone(self, name: str, patience: int) -> Iterator[None]:
        """Nobody else is in here, of all processes and hosts; raises Busy.

        SQLite's transactions are alone as they are.
        """
        if self.embedded:
            yield
            return
        name = f"{name} {self.engine.url.database}"
        with (
            self.engine.connect() as connection,
            mysql.lock(connection, name[:64], patience) as held,
        ):
            if not held:
                raise Busy("another process changes the database's schema", retry_after=AWAY)
            yield

    def _run(
        self,
        work: Callable[[Connection], _T],
        *,
        write: bool,
        attempts: int,
        until: float | None = None,
    ) -> _T:
        until = until or time.monotonic() + PATIENCE
        for attempt in range(attempts):
            try:
                with self.engine.connect() as connection:
                    if self.embedded:
                        connection.info[_WRITES] = write
                    else:
                        connection = connection.execution_options(dblike_write=write)  # noqa: PLW2901
                    with connection.begin():
                        return work(connection)
            except DBAPIError as error:
                last = attempt == attempts - 1 or time.monotonic() > until
                _judge(error, attempt=attempt, last=last)
                log.info("transaction run again after: %s", error.orig)
                self._pause(attempt)
            except NoConnection as error:
                raise Busy("too many requests use the database", retry_after=AWAY) from error
        raise AssertionError("unreachable")

    def _pause(self, attempt: int) -> None:
        threading.Event().wait(self._random.uniform(0.0, min(PAUSE, 0.02 * 2**attempt)))


def _make_file(engine: Engine) -> None:
    """An empty database where there is none: whose the directory is, not root's.

    One that is there is not opened: to close it again would end SQLite's locks in this process.
    """
    name = engine.url.database
    if not name or name.startswith((":", "file:")) or os.path.lexists(name):
        return
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        give_to_owner(descriptor, Path(name).parent)
    finally:
        os.close(descriptor)


def _queue_file(engine: Engine) -> str | None:
    name = engine.url.database
    return f"{name}-queue" if name and name != ":memory:" else None


def asked(query: Executable) -> Callable[[Connection], Sequence[Any]]:
    """The work of reading all rows of a query."""
    return lambda connection: connection.execute(query).all()


def told(statement: Executable) -> Callable[[Connection], int]:
    """The work of one statement; how many rows it changed."""
    return lambda connection: connection.execute(statement).rowcount


def find_rows(
    connection: Connection,
    columns: Sequence[Column[Any]],
    where: Mapping[Column[Any], Any],
    column: Column[Any],
    values: Iterable[Any],
    *,
    lock: str = "",
) -> Iterator[Sequence[Any]]:
    """Rows of one table in which `column` has one of many values.

    As the driver does it, for the same reason as `insert_many`.  `lock` is "UPDATE" or "SHARE": the
    rows are held until the transaction ends (on SQLite a transaction that writes holds all).
    """
    quote = connection.dialect.identifier_preparer.quote
    names = ", ".join(quote(each.name) for each in columns)
    table, wanted = quote(column.table.name), quote(column.name)
    if connection.dialect.name == "sqlite":
        # A step in the index for each value.  Of a folder and ten values of IN (…) SQLite, which
        # has no statistics, takes the folder for the better start, and reads all of it; so it does
        # for one value where the folder is what the table itself is ordered by.
        start, mark, equals = "WITH wanted (one) AS (VALUES ", "(?)", "= ?"
        table += _by_index(column)
        end = f") SELECT {names} FROM wanted CROSS JOIN {table} WHERE {wanted} = one"  # noqa: S608
        tail = ""
    else:
        start = f"SELECT {names} FROM {table} WHERE {wanted} IN ("  # noqa: S608
        mark, equals, end, tail = "%s", "= %s", ")", _LOCKS[lock]
    end += "".join(f" AND {quote(each.name)} {equals}" for each in where) + tail
    rest = iter(dict.fromkeys(values))
    while batch := list(islice(rest, CHUNK)):
        statement = f"{start}{', '.join([mark] * len(batch))}{end}"
        yield from all_rows(connection.exec_driver_sql(statement, (*batch, *where.values())))


@cache
def _by_index(column: Column[Any]) -> str:
    """The words that make SQLite use the index which begins with a column, where there is one."""
    assert isinstance(column.table, Table)
    names = (index.name for index in column.table.indexes if index.columns[0] is column)
    return next((f" INDEXED BY {name}" for name in names), "")


def all_rows(result: CursorResult[Any]) -> Sequence[Sequence[Any]]:
    """All rows as the driver gives them, which for our types is what they are: thousands are the
    normal case, and a Row of SQLAlchemy's costs more than the database's work for it."""
    assert result.cursor is not None
    rows: Sequence[Sequence[Any]] = result.cursor.fetchall()
    result.close()
    return rows


_LOCKS: Final = {"": "", "UPDATE": " FOR UPDATE", "SHARE": " LOCK IN SHARE MODE"}


def insert_many(
    connection: Connection, table: Table, names: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows that have these columns, as the driver itself does it: thousands are the normal
    case, and the way through the statement's parameters costs more than the database's work."""
    if not rows:
        return
    quote = connection.dialect.identifier_preparer.quote
    columns = ", ".join(quote(table.c[name].name) for name in names)
    marks = ", ".join([_mark(connection)] * len(names))
    statement = f"INSERT INTO {quote(table.name)} ({columns}) VALUES ({marks})"  # noqa: S608
    connection.exec_driver_sql(statement, rows)


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


def _engine(url: str, answer: int) -> Engine:
    if not url.startswith("sqlite"):
        return mysql.open_engine(url, answer)
    parsed = make_url(url)
    memory = parsed.database in (None, "", ":memory:")
    extra: dict[str, Any] = {"poolclass": StaticPool} if memory else {"pool_size": 32}
    engine = create_engine(
        parsed, connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000}, **extra
    )
    event.listen(engine, "connect", _sqlite_connect)
    # Not as a listener to "begin": with one each statement costs a third more.
    engine.dialect.do_begin = _sqlite_begin  # type: ignore[assignment,method-assign]
    return engine


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "cache_size=-65536",
        "temp_store=MEMORY",
        "mmap_size=0",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Any) -> None:
    write = connection.info.pop(_WRITES, False)
    connection.driver_connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")


def _judge(error: DBAPIError, *, attempt: int, last: bool) -> None:
    """Return where the transaction may be run again; else raise what it means."""
    text, code = str(error.orig), mysql.code_of(error.orig)
    if "database or disk is full" in text or "disk I/O error" in text or code in FULL:
        raise NoSpace("the site's disk is full or failing") from error
    if code == mysql.TAKEN and attempt < FINDING:
        return
    again = code in mysql.PASSING or "locked" in text or "busy" in text
    if not again and not error.connection_invalidated:
        raise error
    if last:
        raise Busy("the database is busy or away", retry_after=AWAY) from error
