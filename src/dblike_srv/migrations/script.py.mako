"""${message.capitalize()}."""

from __future__ import annotations

import sqlalchemy as sa

from dblike_srv.migrations.steps import add_column, add_index, add_table, drop_column, drop_table
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """${message.capitalize()}."""
    ${upgrades if upgrades else "pass"}
