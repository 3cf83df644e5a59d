"""Transactions that are run again, writers that take turns, and tables for either database."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, LargeBinary, create_mock_engine, insert, select
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.schema import CreateTable

from dblike_srv import db
from dblike_srv.db import Database, find_rows, insert_many
from dblike_srv.errors import Busy, NoSpace
from dblike_srv.models import meta, metadata, users
from rig.core_site import SeededRandom

PATIENCE = 30


@pytest.fixture
def database(tmp_path: Path):
    made = Database(f"sqlite:///{tmp_path / 'test.db'}", SeededRandom())
    made.transact(metadata.create_all)
    yield made
    made.close()


def put(key: str, value: bytes = b"x"):
    return lambda connection: connection.execute(insert(meta).values(key=key, value=value))


def keys(database: Database) -> list[str]:
    return sorted(database.read(lambda c: list(c.execute(select(meta.c.key)).scalars())))


def test_a_transaction_that_fails_changes_nothing(database: Database) -> None:
    def work(connection: Connection) -> None:
        put("a")(connection)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        database.transact(work)
    assert keys(database) == []


@pytest.mark.parametrize("text", ["database is locked", "database table is locked", "busy"])
def test_it_is_run_again_whole_when_the_database_is_busy(database: Database, text: str) -> None:
    runs = []

    def work(connection: Connection) -> int:
        runs.append(1)
        put(f"run {len(runs)}")(connection)
        if len(runs) < 3:
            raise OperationalError("statement", {}, Exception(text))
        return len(runs)

    assert database.transact(work) == 3
    assert keys(database) == ["run 3"]


@pytest.mark.parametrize("code", [1205, 1213, 1020, 1047, 2006, 2013])
def test_errors_of_mariadb_that_pass(database: Database, code: int) -> None:
    left = [1, 1]

    def work(_: Connection) -> str:
        if left:
            left.pop()
            raise OperationalError("statement", {}, Exception(code, "try restarting"))
        return "done"

    assert database.transact(work) == "done"


def test_it_gives_up_in_the_end_and_says_try_again(database: Database) -> None:
    def work(_: Connection) -> None:
        raise OperationalError("statement", {}, Exception("database is locked"))

    with pytest.raises(Busy):
        database.transact(work, attempts=3)


def test_a_full_disk_is_said_at_once(database: Database) -> None:
    def work(_: Connection) -> None:
        raise OperationalError("statement", {}, Exception("database or disk is full"))

    with pytest.raises(NoSpace):
        database.transact(work)


def test_a_constraint_is_no_reason_to_try_again(database: Database) -> None:
    database.transact(put("a"))
    with pytest.raises(IntegrityError):
        database.transact(put("a"))


def test_sqlite_is_set_up_to_remember(database: Database) -> None:
    """WAL with NORMAL forgets acknowledged transactions in a power cut."""

    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert database.read(pragmas) == ["wal", 2, 1]


def test_a_reader_sees_one_moment(database: Database) -> None:
    database.transact(put("a"))

    def work(connection: Connection) -> tuple[int, int]:
        def count() -> int:
            return len(connection.execute(select(meta.c.key)).all())

        first = count()
        writer = threading.Thread(target=database.transact, args=(put("b"),))
        writer.start()
        writer.join()
        return first, count()

    assert database.read(work) == (1, 1)
    assert keys(database) == ["a", "b"]


def test_writers_of_several_processes_lose_nothing(tmp_path: Path, database: Database) -> None:
    script = (
        "import sys\n"
        "from sqlalchemy import select, update\n"
        "from dblike_delta.seams import SystemRandom\n"
        "from dblike_srv.db import Database\n"
        "from dblike_srv.models import meta\n"
        "database = Database(sys.argv[1], SystemRandom())\n"
        "def work(c):\n"
        "    value = int(c.execute(select(meta.c.value)).scalar_one())\n"
        "    c.execute(update(meta).values(value=str(value + 1).encode()))\n"
        "for _ in range(40): database.transact(work)\n"
    )
    database.transact(put("n", b"0"))
    url = f"sqlite:///{tmp_path / 'test.db'}"
    running = [subprocess.Popen([sys.executable, "-c", script, url]) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert database.read(lambda c: c.execute(select(meta.c.value)).scalar_one()) == b"120"


@contextlib.contextmanager
def another_process_s_turn(tmp_path: Path) -> Iterator[None]:
    descriptor = os.open(tmp_path / "test.db-queue", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def test_a_turn_that_does_not_come_is_not_waited_for(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "WRITING", 0.05)
    monkeypatch.setattr(db, "STUCK", 0.05)
    with another_process_s_turn(tmp_path):
        for _ in range(3):
            with pytest.raises(Busy, match="another process"):
                database.transact(put("a"))
    with another_process_s_turn(tmp_path):  # whoever waited in vain holds nobody up
        pass
    database.transact(put("b"), patience=PATIENCE)
    assert keys(database) == ["b"]


def test_a_turn_that_comes_is_waited_for(tmp_path: Path, database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        with another_process_s_turn(tmp_path):
            waiting = [pool.submit(database.transact, put(str(n))) for n in range(4)]
        for each in waiting:
            each.result(PATIENCE)
    assert keys(database) == ["0", "1", "2", "3"]


def test_one_writer_does_not_make_all_others_wait(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds a thread of the server for as long."""
    monkeypatch.setattr(db, "STUCK", 0.05)
    begun, enough = threading.Event(), threading.Event()

    def stay(_: Connection) -> None:
        begun.set()
        enough.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(database.transact, stay)
        begun.wait(PATIENCE)
        with pytest.raises(Busy, match="too many"):
            database.transact(put("a"), patience=0.05)
        with pytest.raises(Busy, match="too many"):  # the next has less patience by itself
            database.transact(put("a"))
        enough.set()
        slow.result(PATIENCE)
    database.transact(put("a"))


@pytest.mark.parametrize("count", [0, 1, 900, 901, 2500])
def test_many_rows_go_in_and_are_found(database: Database, count: int) -> None:
    rows = [(f"{n:05}", b"%d" % n) for n in range(count)]
    database.transact(lambda c: insert_many(c, meta, ("key", "value"), rows))
    wanted = [key for key, _ in rows][::-1]

    def work(connection: Connection) -> dict[str, bytes]:
        found = find_rows(connection, [meta.c.key, meta.c.value], {}, meta.c.key, wanted)
        return {key: value for key, value in found}  # noqa: C416 - rows are no pairs to mypy

    assert database.read(work) == dict(rows)


# --- MariaDB, without one


KEY_LIMIT = 3072


def columns_of(index) -> list[Column]:  # type: ignore[no-untyped-def, type-arg]
    return list(index.columns)


def width(column: Column) -> int:  # type: ignore[type-arg]
    kind = column.type.dialect_impl(mysql.dialect())
    if isinstance(kind, LargeBinary | mysql.VARBINARY):
        return kind.length or 1 << 30
    return 8 if isinstance(kind, Integer) else 4 * (getattr(kind, "length", None) or 2)


def test_every_key_fits_mariadb() -> None:
    """Index keys end at 3,072 bytes there; paths have 4,096."""
    for table in metadata.tables.values():
        keyed = [table.primary_key, *table.indexes]
        keyed += [c for c in table.constraints if type(c).__name__ == "UniqueConstraint"]
        for index in keyed:
            assert sum(map(width, columns_of(index))) <= KEY_LIMIT, (table.name, index)


def test_names_and_paths_are_bytes_in_mariadb() -> None:
    """Its text collations fold what users keep apart: 'Readme' and 'README', 'x' and 'x '."""
    for table in metadata.tables.values():
        for column in table.columns:
            text = column.type.compile(dialect=mysql.dialect())
            if column.name in ("path", "path_key", "parent_key", "hash", "vector", "target"):
                assert text.startswith(("VARBINARY", "BINARY", "MEDIUMBLOB")), (column, text)
    assert str(users.c.name.type.compile(dialect=mysql.dialect())) == "VARBINARY(255)"


def test_the_schema_can_be_said_in_mariadb() -> None:
    said: list[str] = []
    engine = create_mock_engine(
        "mysql+pymysql://",
        lambda statement, *_: said.append(str(statement.compile(dialect=engine.dialect))),
    )
    metadata.create_all(engine, checkfirst=False)
    assert sum("CREATE TABLE" in statement for statement in said) == len(metadata.tables)
    assert all(CreateTable(table) is not None for table in metadata.tables.values())
