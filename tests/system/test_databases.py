"""A real server on a database server, and real clients on it."""

from __future__ import annotations

import contextlib
import itertools
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from conftest import Spawn
from dblike_delta.changeset import Part
from dblike_delta.exchange import Exchange, Refused, Unreachable
from dblike_delta.messages import LoginRequest
from rig.mariadb import MariaDB, missing
from rig.plain_http import PlainTransport
from rig.programs import Program, wait_until, wait_until_same
from rig.servers import PASSWORD, Server
from rig.writer import Writer

READY, AWAY = (200, False), (503, True)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[MariaDB]:
    """A MariaDB of the test's own, which it may kill."""
    if missing():
        pytest.skip(missing())
    server = MariaDB(tmp_path / "m")
    try:
        server.begin()
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(tmp_path: Path, database: MariaDB) -> Iterator[Server]:
    """A server whose data are there."""
    made = Server(tmp_path, "--workers", "2", DBLIKE_DATABASE=database.create())
    yield made
    made.stop()


def ready(server: Server) -> tuple[int, bool]:
    """What /readyz answers with, and whether it says when to come back."""
    try:
        with urllib.request.urlopen(f"{server.url}/readyz", timeout=30) as reply:
            return reply.status, False
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "Retry-After" in error.headers


def test_two_devices_go_on_when_their_database_was_killed(
    tmp_path: Path, server: Server, database: MariaDB, spawn: Spawn
) -> None:
    """Nobody is told of an error but the one who asks whether the site is ready."""
    user = server.add_user()
    laptop = Program.link(tmp_path / "laptop", server.url, user, PASSWORD, spawn)
    phone = Program.link(tmp_path / "phone", server.url, user, PASSWORD, spawn)
    writing, reading = laptop.watch(), phone.watch()
    laptop.write("a/before", "1")
    wait_until_same(laptop, phone, also=lambda tree: "a/before" in tree)
    wait_until(lambda: ready(server) == READY)

    database.kill()
    laptop.write("a/meanwhile", "2")
    wait_until(lambda: ready(server) == AWAY)
    database.start()

    wait_until(lambda: ready(server) == READY)
    wait_until_same(laptop, phone, also=lambda tree: "a/meanwhile" in tree)
    assert [writing.end(), reading.end()] == [0, 0]
    laptop.ok("sync")  # the watch may have ended before it had its last answer
    assert laptop.json("status")["in_sync"]


def test_too_many_connections_are_said_and_pass(server: Server, database: MariaDB) -> None:
    exchange = Exchange(PlainTransport(server.url))
    exchange.login(LoginRequest(user=server.add_user(), password=PASSWORD, device="laptop"))
    database.root("SET GLOBAL max_connections = 10")
    held: list[pymysql.Connection[pymysql.cursors.Cursor]] = []

    def take_all() -> bool:
        """Whether all were taken, none of them by the server, before this and are still."""
        before = len(held)
        database.end_all_but([connection.thread_id() for connection in held])
        with contextlib.suppress(pymysql.Error):
            while True:
                held.append(database.connect())
        return len(held) == before and ready(server) == AWAY

    wait_until(take_all)
    with pytest.raises(Refused) as refused:
        exchange.folders()
    assert (refused.value.status, refused.value.temporary) == (503, True)
    for connection in held:
        connection.close()
    wait_until(lambda: ready(server) == READY)
    assert [folder.name for folder in exchange.folders()] == ["home"]


def test_workers_that_start_without_their_database_wait_for_it(
    server: Server, database: MariaDB
) -> None:
    database.kill()
    server.kill_workers()
    database.start()
    wait_until(lambda: ready(server) == READY)
    assert server.process is not None
    assert server.process.poll() is None


def test_the_next_releases_migration_runs_under_writers(server: Server, database: MariaDB) -> None:
    """Releases N and N+1 side by side: this one goes on, and its workers may start anew, on a
    database that has columns, tables and a revision that it does not know."""
    exchange = Exchange(PlainTransport(server.url))
    reply = exchange.login(LoginRequest(user=server.add_user(), password=PASSWORD, device="laptop"))
    writer = Writer(exchange, bytes.fromhex(reply.device_id))
    stop, written = threading.Event(), list[bytes]()

    def write() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            changeset = writer.changeset({b"f%d" % number: b"%d" % number})
            while not send(exchange, changeset):
                pass
            written.append(b"f%d" % number)

    thread = threading.Thread(target=write)
    thread.start()
    wait_until(lambda: len(written) > 5)
    database.root(
        "ALTER TABLE versions ADD COLUMN colour BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE folders ADD COLUMN colour VARBINARY(16) NULL",
        "CREATE TABLE colours (id BIGINT PRIMARY KEY) ENGINE=InnoDB",
        "UPDATE alembic_version SET version_num = '9999'",
        database="dblike1",
    )
    server.kill_workers()
    so_far = len(written)
    wait_until(lambda: len(written) > so_far + 5)
    stop.set()
    thread.join()
    assert {record.path for record in exchange.changes("home").records} == set(written)


def send(exchange: Exchange, changeset: list[Part]) -> bool:
    """Whether a commit was taken; it may be asked for again."""
    try:
        [result] = exchange.commit("home", changeset).results
    except Unreachable:
        return False
    except Refused as refused:
        if not refused.temporary:
            raise
        return False
    assert result.status in ("accepted", "known")
    return True
