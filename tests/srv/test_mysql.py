"""MySQL and MariaDB: URLs of several nodes, transactions side by side, connections that end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import ArgumentError, IntegrityError

from dblike_srv import mysql
from dblike_srv.db import Database
from dblike_srv.models import meta, metadata
from dblike_srv.mysql import Node, parse
from rig.core_site import SeededRandom
from rig.mariadb import MariaDB

ONE, TWO = Node("a", 3306), Node("b", 7)


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("mysql+pymysql://u:p@a/db", (ONE,)),
        ("mysql://u:p@a,b:7/db", (ONE, TWO)),
        ("mariadb+pymysql://u@a:3306,b:7/db?charset=utf8mb4", (ONE, TWO)),
        ("mysql://u:p%40%2f@[::1]:9,a/db", (Node("::1", 9), ONE)),
    ],
)
def test_a_url_names_one_node_or_several(url: str, nodes: tuple[Node, ...]) -> None:
    address = parse(url)
    assert address.nodes == nodes
    assert (address.url.drivername, address.url.database) == ("mysql+pymysql", "db")


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://u:secret@/db", "mysql://u:secret@a", "mysql://u:secret@a:b/db"]
)
def test_what_is_no_url_is_said_without_its_password(url: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        parse(url)
    assert "secret" not in str(raised.value)


@pytest.fixture
def database(mariadb: str) -> Iterator[Database]:
    made = Database(mariadb, SeededRandom())
    made.transact(metadata.create_all)
    yield made
    made.close()


def test_a_node_that_accepts_and_says_nothing_is_passed_over(
    mariadb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped: its system goes on to take connections for it."""
    monkeypatch.setattr(mysql, "CONNECT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        head, _, tail = mariadb.partition("@")
        made = Database(f"{head}@127.0.0.1:{silent.getsockname()[1]},{tail}", SeededRandom())
        assert made.read(lambda c: c.execute(select(1)).scalar()) == 1
        assert made.read(lambda c: c.connection.dbapi_connection._read_timeout) == 12  # type: ignore[union-attr]
        made.close()


def count(connection: Connection) -> int:
    return len(connection.execute(select(meta.c.key)).all())


def put(key: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.execute(insert(meta).values(key=key, value=b"0"))

    return work


def add_one(connection: Connection) -> None:
    row = select(meta.c.value).where(meta.c.key == "n").with_for_update()
    value = int(connection.execute(row).scalar_one())
    connection.execute(update(meta).where(meta.c.key == "n").values(value=b"%d" % (value + 1)))


def elsewhere(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_reader_sees_one_moment(database: Database) -> None:
    database.transact(put("a"))

    def work(connection: Connection) -> tuple[int, int]:
        before = count(connection)
        elsewhere(lambda: database.transact(put("b")))
        return before, count(connection)

    assert database.read(work) == (1, 1)
    assert database.read(count) == 2


def test_a_writer_sees_what_others_wrote_before_it_locked(database: Database) -> None:
    """A journal number that was read before the lock was had would be given twice."""
    database.transact(put("n"))

    def work(connection: Connection) -> None:
        count(connection)
        elsewhere(lambda: database.transact(add_one))
        add_one(connection)

    database.transact(work)
    assert database.read(lambda c: c.scalar(select(meta.c.value))) == b"2"


def test_writers_at_once_lose_nothing(database: Database) -> None:
    database.transact(put("n"))
    threads = [
        threading.Thread(target=lambda: [database.transact(add_one) for _ in range(25)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.read(lambda c: c.scalar(select(meta.c.value))) == b"200"


def test_a_deadlock_is_run_again_whole(database: Database) -> None:
    for key in ("a", "b"):
        database.transact(put(key))
    meeting = threading.Barrier(2)
    runs: list[str] = []

    def lock_both(first: str, second: str) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            runs.append(first)
            for key in (first, second):
                change = update(meta).where(meta.c.key == key)
                connection.execute(change.values(value=first.encode()))
                if len(runs) <= 2 and key == first:
                    meeting.wait(30)

        return work

    threads = [
        threading.Thread(target=database.transact, args=(lock_both(*pair),))
        for pair in (("a", "b"), ("b", "a"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 3  # one of the two was chosen to be undone


def test_a_row_that_somebody_else_put_is_found_by_the_next_run(database: Database) -> None:
    def work(connection: Connection) -> int:
        found = count(connection)
        if not found:
            elsewhere(lambda: database.transact(put("a")))
            put("a")(connection)
        return found

    assert database.transact(work) == 1
    with pytest.raises(IntegrityError):
        database.transact(put("a"))


def test_connections_that_were_ended_are_made_anew(
    database: Database, mariadb_server: MariaDB
) -> None:
    database.transact(put("a"))
    for _ in range(2):
        name = database.engine.url.database
        for (number,) in mariadb_server.root(
            f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
        ):
            mariadb_server.root(f"KILL {number}")
        assert database.read(count) == 1


def test_a_connection_that_ends_in_a_transaction(
    database: Database, mariadb_server: MariaDB
) -> None:
    ended: list[int] = []

    def work(connection: Connection) -> None:
        put("a")(connection)
        if not ended:
            ended.append(int(connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()))
            mariadb_server.root(f"KILL {ended[0]}")
        put("b")(connection)

    database.transact(work)
    assert database.read(count) == 2
