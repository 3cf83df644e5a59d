"""Sites follow each other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from dblike_srv.columns import Row, binary
from dblike_srv.migrations.steps import add_column, add_index, add_table

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CHANGED = {
    "users": ("password_at", "disabled_at", "quota_at", "stamp"),
    "devices": ("token_at", "stamp"),
    "folders": ("stamp",),
}
counters = sa.table("counters", sa.column("name"), sa.column("value"))


def upgrade() -> None:
    """Sites follow each other."""
    add_table(
        "counters",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    add_table(
        "follows",
        sa.Column("url", sa.String(length=512), nullable=False),
        sa.Column("site", binary(16), nullable=True),
        sa.Column("stamp", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("contact", sa.BigInteger(), nullable=False),
        sa.Column("behind", sa.BigInteger(), nullable=False),
        sa.Column("problem", sa.String(length=500), nullable=False),
        sa.PrimaryKeyConstraint("url"),
    )
    add_table(
        "holds",
        sa.Column("folder", Row, autoincrement=False, nullable=False),
        sa.Column("site", binary(16), nullable=False),
        sa.Column("numbers", binary(4096), nullable=False),
        sa.PrimaryKeyConstraint("folder", "site"),
    )
    add_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", binary(16), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    add_table(
        "sites",
        sa.Column("id", binary(16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=1024), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("gone", sa.SmallInteger(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    add_index("ix_sites_stamp", "sites", ["stamp"], unique=False)
    for table, names in CHANGED.items():
        for name in names:
            add_column(table, sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
        add_index(f"ix_{table}_stamp", table, ["stamp"], unique=False)
    _stamp_what_is_there()


def _stamp_what_is_there() -> None:
    """Other sites ask for rows whose stamp is greater than the last that they have."""
    connection = op.get_bind()
    if connection.execute(sa.select(counters.c.value)).first() is None:
        connection.execute(sa.insert(counters).values(name="stamps", value=1))
    for table in CHANGED:
        connection.execute(sa.text(f"UPDATE {table} SET stamp = 1 WHERE stamp = 0"))  # noqa: S608
