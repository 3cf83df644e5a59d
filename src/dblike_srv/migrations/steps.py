"""The steps that revisions are made of: each may find itself done already.

MySQL and MariaDB end the transaction at each change of a schema, so a migration that is cut short
has done some of its steps, and is run again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from dblike_srv.columns import MYSQL
from dblike_srv.models import meta


def add_table(name: str, *parts: Any, **options: Any) -> None:
    """A new table."""
    if not _inspector().has_table(name):
        op.create_table(name, *parts, **{**MYSQL, **options})


def add_column(table: str, column: sa.Column[Any]) -> None:
    """A new column.  Releases that do not know it go on writing rows without it."""
    if not column.nullable and column.server_default is None:
        raise ValueError(f"{table}.{column.name} needs a server_default, or to be nullable")
    if column.name not in {known["name"] for known in _inspector().get_columns(table)}:
        op.add_column(table, column)


def add_index(name: str, table: str, columns: list[str], *, unique: bool = False) -> None:
    """A new index."""
    if name not in {known["name"] for known in _inspector().get_indexes(table)}:
        op.create_index(name, table, columns, unique=unique)


def drop_column(table: str, name: str) -> None:
    """What no release from `contract` on looks at."""
    if name in {known["name"] for known in _inspector().get_columns(table)}:
        op.drop_column(table, name)


def drop_table(name: str) -> None:
    """Likewise."""
    if _inspector().has_table(name):
        op.drop_table(name)


def contract(schema: int) -> None:
    """From here on only releases work that understand this schema (`schema.UNDERSTOOD`)."""
    change = sa.update(meta).where(meta.c.key == "schema")
    op.get_bind().execute(change.values(value=str(schema).encode()))


def _inspector() -> sa.Inspector:
    found = sa.inspect(op.get_bind())
    assert isinstance(found, sa.Inspector)
    return found
