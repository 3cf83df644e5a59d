"""What alembic runs: the revisions, on the connection that it was given."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy.dialects import mysql

from dblike_srv.columns import called
from dblike_srv.models import metadata


def render(kind: str, thing: Any, autogenerate: Any) -> str | Literal[False]:
    """A type of ours as a revision writes it."""
    text = called(thing, mysql.dialect()) if kind == "type" else ""
    if text:
        autogenerate.imports.add("from dblike_srv.columns import Row, binary, blob, long_blob")
    return text or False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_server_default=True,
    render_item=render,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
