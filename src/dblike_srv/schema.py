"""The database's schema: made where there is none, checked at each start, migrated on demand.

A database has a revision, which is that of the last migration it saw, and a schema number, which a
migration raises when it takes away what older releases look at.  So a release works with every
database of its own revision or a newer one, up to the schema that it understands: a cluster is
migrated first, then its hosts are replaced one by one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
)

from dblike_srv.config import ConfigError
from dblike_srv.db import Database
from dblike_srv.models import meta, metadata

UNDERSTOOD: Final = 1
"""The highest schema number that this release can work with."""
PATIENCE: Final = 600
"""Seconds in which somebody else's migration is waited for."""
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = "dblike schema"

STAMP = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


class Standing(msgspec.Struct, frozen=True):
    """How a database stands: its revision ("" for none), its schema number, and its site."""

    revision: str
    schema: int
    site: bytes


class Migration(msgspec.Struct, frozen=True):
    """From which revision to which one."""

    before: str
    after: str


def revisions() -> list[str]:
    """The revisions that this release knows, in their order."""
    names = (path.name for path in (_MIGRATIONS / "versions").iterdir())
    found = (re.fullmatch(r"r(\d+)_\w+\.py", name) for name in names)
    return sorted(match[1] for match in found if match)


def read_standing(connection: Connection) -> Standing:
    """How the database stands."""
    tables = set(inspect(connection).get_table_names())
    revision = ""
    if STAMP.name in tables:
        revision = connection.execute(select(STAMP.c.version_num)).scalar() or ""
    rows = connection.execute(select(meta.c.key, meta.c.value)) if meta.name in tables else ()
    known = {str(key): bytes(value) for key, value in rows}
    return Standing(revision, int(known.get("schema", b"0")), known.get("site", b""))


def open_schema(database: Database, fresh: bytes) -> bytes:
    """The id of the site that is in the database, or `fresh`, for which tables are made.

    Raises ConfigError where the database is of another release.
    """
    standing = database.read(read_standing)
    if not standing.site:
        with database.alone(_LOCK, PATIENCE):
            standing = database.transact(lambda connection: _make(connection, fresh))
    check(standing)
    return standing.site


def _make(connection: Connection, fresh: bytes) -> Standing:
    """All tables, at the newest revision.  Who comes second finds them."""
    standing = read_standing(connection)
    if standing.site:
        return standing
    metadata.create_all(connection)
    STAMP.create(connection, checkfirst=True)
    connection.execute(delete(STAMP))
    connection.execute(insert(STAMP).values(version_num=revisions()[-1]))
    rows = {"site": fresh, "schema": str(UNDERSTOOD).encode()}
    connection.execute(delete(meta).where(meta.c.key.in_(rows)))
    values = [{"key": key, "value": value} for key, value in rows.items()]
    connection.execute(insert(meta), values)
    return Standing(revisions()[-1], UNDERSTOOD, fresh)


def check(standing: Standing) -> None:
    """Raise ConfigError where this release can't work with the database."""
    if standing.schema > UNDERSTOOD:
        raise ConfigError(
            f"the database has schema {standing.schema}, and this release understands "
            f"{UNDERSTOOD}: install a newer release"
        )
    known = revisions()
    if standing.revision != known[-1] and standing.revision in {"", *known}:
        raise ConfigError(
            f"the database is at revision {standing.revision or 'none'}, and this release needs "
            f"{known[-1]}: run `dblike-server migrate` once, other hosts may go on meanwhile"
        )


def migrate(database: Database) -> Migration:
    """Bring the database to this release's revision; whoever comes second finds it done."""

    def work(connection: Connection) -> Migration:
        before = read_standing(connection)
        if not before.site:
            raise ConfigError("the database has no site in it: run `dblike-server init`")
        if before.revision in {"", *revisions()}:
            upgrade(connection)
        after = read_standing(connection)
        check(after)
        return Migration(before.revision, after.revision)

    with database.alone(_LOCK, PATIENCE):
        return database.transact(work, patience=PATIENCE)


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the revisions up to one."""
    from alembic import command  # only here: it is not wanted at a start
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS))
    command.upgrade(config, revision)
