"""The schema: made once, migrated once, and never out of step with the models."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import (
    Connection,
    MetaData,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.elements import quoted_name

from dblike_delta.seams import SystemRandom
from dblike_srv import schema
from dblike_srv.config import ConfigError, decode_config
from dblike_srv.db import Database
from dblike_srv.models import meta, metadata, users, versions
from dblike_srv.scrub import scrub
from dblike_srv.site import Site, open_site
from dblike_srv.store.local import LocalStore
from rig.core_site import CoreSite, SeededRandom, StillClock

GOLDEN = Path(__file__).parent.parent / "golden" / "site-0001"
"""A site as the first release left it, with a file, an edit, a delete and a conflict."""
FIRST, NEWEST = schema.revisions()[0], schema.revisions()[-1]


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    (tmp_path / "data").mkdir()
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'data' / 'dblike.db'}"
    return str(request.getfixturevalue("empty_mariadb"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """It, opened."""
    made = Database(url, SystemRandom())
    yield made
    made.close()


@pytest.fixture
def old(tmp_path: Path, database: Database) -> Database:
    """The first release's site: its packs are in place, its database is this one."""
    shutil.copytree(GOLDEN / "packs", tmp_path / "data" / "packs")
    source = tmp_path / "golden.db"
    with sqlite3.connect(source) as copy:
        copy.executescript((GOLDEN / "database.sql").read_text())
    copy.close()
    database.transact(lambda connection: schema.upgrade(connection, FIRST))
    engine = create_engine(f"sqlite:///{source}")
    with engine.connect() as given:
        database.transact(lambda connection: copy_rows(given, connection))
    engine.dispose()
    return database


def quote(_inspector: object, _table: object, column: dict[str, Any]) -> None:
    """As ours are, where a database has a word of that name."""
    column["name"] = quoted_name(column["name"], quote=True)


def copy_rows(source: Connection, target: Connection) -> None:
    tables = MetaData()
    event.listen(tables, "column_reflect", quote)
    tables.reflect(target)
    for table in tables.sorted_tables:
        target.execute(delete(table))
        rows = [dict(row) for row in source.execute(select(table)).mappings()]
        if rows:
            target.execute(insert(table), rows)


def stamp(database: Database, revision: str) -> None:
    """Say that the database is at a revision."""
    change = update(schema.STAMP).values(version_num=revision)
    database.transact(lambda connection: connection.execute(change))


def opened(url: str, tmp_path: Path) -> Site:
    values = {"data": str(tmp_path / "data"), "cluster_key": "k" * 32, "database": url}
    return open_site(decode_config(values), clock=StillClock())


def all_at_once(count: int, work: Callable[[], object]) -> list[object]:
    """What `work` returns in several threads that begin together."""
    together, results = threading.Barrier(count), list[object]()

    def run() -> None:
        together.wait()
        results.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_revisions_are_a_chain() -> None:
    assert schema.revisions() == [f"{n:04}" for n in range(1, len(schema.revisions()) + 1)]


def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    """Where this fails, `scripts/revision` writes what is missing."""

    def work(connection: Connection) -> list[object]:
        schema.upgrade(connection)
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert database.transact(work) == []


def test_a_fresh_database_is_what_the_migrations_make(database: Database) -> None:
    """Down to what a comparison with the models does not look at: options of tables, indexes."""
    schema.open_schema(database, b"f" * 16)
    made = described(database)
    database.transact(drop_all)
    database.transact(schema.upgrade)
    assert described(database) == made


def drop_all(connection: Connection) -> None:
    metadata.drop_all(connection)
    schema.STAMP.drop(connection)


def described(database: Database) -> dict[str, set[str]]:
    """Each table as the database itself describes it; columns may come in any order."""

    def work(connection: Connection) -> dict[str, set[str]]:
        return {name: set(lines(connection, name)) for name in metadata.tables}

    return database.read(work)


def lines(connection: Connection, table: str) -> Iterator[str]:
    if connection.dialect.name == "sqlite":
        for _, *column in connection.exec_driver_sql(f"PRAGMA table_info({table})"):
            yield str(column)
        for index in inspect(connection).get_indexes(table):
            yield str(index)
    else:
        [(_, text)] = connection.exec_driver_sql(f"SHOW CREATE TABLE {table}")
        yield from (line.strip(" \t,") for line in str(text).splitlines())


def test_the_first_releases_site_is_migrated_and_serves(
    tmp_path: Path, url: str, old: Database
) -> None:
    """Also one that has no revision at all: it is from before there were any."""
    old.transact(schema.STAMP.drop)
    with pytest.raises(ConfigError, match="run `dblike-server migrate`"):
        opened(url, tmp_path)
    assert schema.migrate(old) == schema.Migration("", NEWEST)
    assert schema.migrate(old) == schema.Migration(NEWEST, NEWEST)

    store = LocalStore(tmp_path / "data", SeededRandom(9))
    core = CoreSite.again(tmp_path / "data", store, database=url)
    assert scrub(core.site).sound
    tree = {path: core.read(path) for path, record in core.records().items() if record.hash}
    assert len(tree) == 3
    assert tree[b"notes/first"] == b"another one at the same time\n"
    assert core.laptop.put(b"new", b"what comes after").status == "accepted"
    assert core.read(b"new") == b"what comes after"
    core.site.close()


def test_a_migration_that_is_run_at_once_runs_once(url: str, old: Database) -> None:
    old.transact(schema.STAMP.drop)
    hosts = [Database(url, SystemRandom()) for _ in range(3)]
    waiting = iter(hosts)
    done = all_at_once(3, lambda: schema.migrate(next(waiting)))
    assert sorted(map(str, done)) == sorted(
        map(str, [schema.Migration("", NEWEST), *[schema.Migration(NEWEST, NEWEST)] * 2])
    )
    for host in hosts:
        host.close()


def test_a_migration_that_was_cut_short_goes_on(old: Database) -> None:
    """MariaDB has no way back from half of one: each step may find itself done."""
    old.transact(schema.STAMP.drop)
    old.transact(lambda c: c.exec_driver_sql("DROP TABLE attempts"))
    assert schema.migrate(old).after == NEWEST
    assert "attempts" in old.read(lambda c: inspect(c).get_table_names())


def test_hosts_that_start_at_once_make_one_site(url: str) -> None:
    hosts = [Database(url, SystemRandom()) for _ in range(3)]
    waiting = iter(enumerate(hosts))

    def start() -> bytes:
        number, host = next(waiting)
        return schema.open_schema(host, bytes([number]) * 16)

    assert len(set(all_at_once(3, start))) == 1
    for host in hosts:
        host.close()


def test_making_the_tables_may_be_cut_short(database: Database) -> None:
    database.transact(lambda c: metadata.create_all(c, tables=[meta, users]))
    assert schema.open_schema(database, b"f" * 16) == b"f" * 16
    assert schema.open_schema(database, b"g" * 16) == b"f" * 16


def test_a_newer_database_serves_as_long_as_its_schema_is_understood(
    tmp_path: Path, url: str, old: Database
) -> None:
    """A cluster is migrated first, then its hosts are replaced: until then they may restart."""
    schema.migrate(old)
    stamp(old, "9999")
    opened(url, tmp_path).close()
    assert schema.migrate(old) == schema.Migration("9999", "9999")
    above = b"%d" % (schema.UNDERSTOOD + 1)
    change = update(meta).where(meta.c.key == "schema").values(value=above)
    old.transact(lambda connection: connection.execute(change))
    with pytest.raises(ConfigError, match="install a newer release"):
        opened(url, tmp_path)
    with pytest.raises(ConfigError, match="install a newer release"):
        schema.migrate(old)


def test_nothing_to_migrate_is_said(database: Database) -> None:
    with pytest.raises(ConfigError, match="dblike-server init"):
        schema.migrate(database)


def test_what_newer_databases_keep_for_themselves_is_quoted() -> None:
    """MariaDB has a type of that name since 11.7: none of our statements was understood there."""
    for statement in (CreateTable(versions), versions.select(), versions.insert()):
        said = str(statement.compile(dialect=mysql.dialect()))  # type: ignore[no-untyped-call]
        assert "`vector`" in said
