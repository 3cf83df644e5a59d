"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa

from dblike_srv.columns import VECTOR, Row, binary, blob, long_blob
from dblike_srv.migrations.steps import add_index, add_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The first schema."""
    add_table(
        "attempts",
        sa.Column("key", binary(64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    add_table(
        "journal",
        sa.Column("folder", Row, autoincrement=False, nullable=False),
        sa.Column("site", binary(16), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("folder", "site", "number"),
        sqlite_with_rowid=False,
    )
    add_index("journal_by_version", "journal", ["folder", "seq"], unique=False)
    add_table(
        "journals",
        sa.Column("folder", Row, autoincrement=False, nullable=False),
        sa.Column("site", binary(16), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("folder", "site"),
    )
    add_table(
        "meta",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", binary(1024), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    add_table(
        "packs",
        sa.Column("id", Row, autoincrement=True, nullable=False),
        sa.Column("hash", binary(32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("dying", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
        sqlite_autoincrement=True,
    )
    add_table(
        "paths",
        sa.Column("id", Row, autoincrement=True, nullable=False),
        sa.Column("folder", Row, nullable=False),
        sa.Column("path_key", binary(16), nullable=False),
        sa.Column("parent_key", binary(16), nullable=False),
        sa.Column("path", binary(4096), nullable=False),
        sa.Column("winner", sa.BigInteger(), nullable=False),
        sa.Column("heads", blob(), nullable=False),
        sa.Column("context", blob(), nullable=False),
        sa.Column("live", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    add_index("paths_by_key", "paths", ["path_key", "folder"], unique=False)
    add_index("paths_by_parent", "paths", ["parent_key", "folder", "live"], unique=False)
    add_table(
        "users",
        sa.Column("id", Row, autoincrement=True, nullable=False),
        sa.Column("uid", binary(16), nullable=False),
        sa.Column("name", binary(255), nullable=False),
        sa.Column("password", sa.String(length=255), nullable=False),
        sa.Column("disabled", sa.SmallInteger(), nullable=False),
        sa.Column("quota", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sa.UniqueConstraint("uid"),
    )
    add_table(
        "versions",
        sa.Column("folder", Row, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("path_key", binary(16), nullable=False),
        sa.Column("path", binary(4096), nullable=False),
        sa.Column("device", binary(16), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column(VECTOR, blob(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("hash", binary(32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.Integer(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("target", binary(4096), nullable=False),
        sa.Column("author", sa.String(length=64), nullable=False),
        sa.Column("key_id", binary(64), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("folder", "seq"),
        sa.UniqueConstraint("folder", "device", "counter"),
        sqlite_with_rowid=False,
    )
    add_index("versions_of_hash", "versions", ["hash"], unique=False)
    add_index("versions_of_path", "versions", ["path_key", "folder", "seq"], unique=False)
    add_table(
        "contents",
        sa.Column("id", Row, autoincrement=True, nullable=False),
        sa.Column("user", Row, nullable=False),
        sa.Column("hash", binary(32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("recipe", long_blob(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user"],
            ["users.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("user", "hash"),
    )
    add_table(
        "devices",
        sa.Column("id", binary(16), nullable=False),
        sa.Column("user", Row, nullable=False),
        sa.Column("parent", binary(16), nullable=True),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=False),
        sa.Column("token", binary(32), nullable=True),
        sa.Column("highest", sa.BigInteger(), nullable=False),
        sa.Column("site_counter", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user"],
            ["users.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token"),
    )
    add_index("ix_devices_user", "devices", ["user"], unique=False)
    add_table(
        "folders",
        sa.Column("row", Row, autoincrement=True, nullable=False),
        sa.Column("id", binary(16), nullable=False),
        sa.Column("user", Row, nullable=False),
        sa.Column("name", binary(64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user"],
            ["users.id"],
        ),
        sa.PrimaryKeyConstraint("row"),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("user", "name"),
    )
