"""The tables, and nothing else.

Rows that all sites share (users, devices, folders, sites) carry a `stamp`: the number of the last
change to them at this site, by which the others ask for what is new.

Names and paths are bytes: text collations fold what users keep apart.  A path is found by a 16-byte
key (XXH3-128) and then compared byte by byte, since MySQL's indexes end at 3,072 bytes and a
collision must change nothing but speed.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
)

from dblike_srv.columns import MYSQL, VECTOR, Row, binary, blob, long_blob

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", binary(1024), nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", Row, primary_key=True, autoincrement=True),
    Column("uid", binary(16), nullable=False, unique=True),
    Column("name", binary(255), nullable=False, unique=True),
    Column("password", String(255), nullable=False, default=""),
    Column("password_at", BigInteger, nullable=False, server_default="0"),  # epoch ms
    Column("disabled", SmallInteger, nullable=False, default=0),
    Column("disabled_at", BigInteger, nullable=False, server_default="0"),
    Column("quota", BigInteger, nullable=False, default=0),  # bytes; 0 is none
    Column("quota_at", BigInteger, nullable=False, server_default="0"),
    Column("used", BigInteger, nullable=False, default=0),  # bytes in packs
    Column("created", BigInteger, nullable=False),
    Column("stamp", BigInteger, nullable=False, server_default="0", index=True),
)

devices = Table(
    "devices",
    metadata,
    Column("id", binary(16), primary_key=True),
    Column("user", Row, ForeignKey("users.id"), nullable=False, index=True),
    Column("parent", binary(16), nullable=True),  # the device in whose name it was added
    Column("name", String(64), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False, default=0),
    Column("revoked", BigInteger, nullable=False, default=0),
    Column("token", binary(32), nullable=True, unique=True),  # hash of the bearer token
    Column("token_at", BigInteger, nullable=False, server_default="0"),  # when it was made or ended
    Column("highest", BigInteger, nullable=False, default=0),  # counter known of it
    Column("site_counter", BigInteger, nullable=False, default=0),  # of edits made through REST
    Column("stamp", BigInteger, nullable=False, server_default="0", index=True),
)

folders = Table(
    "folders",
    metadata,
    Column("row", Row, primary_key=True, autoincrement=True),
    Column("id", binary(16), nullable=False, unique=True),
    Column("user", Row, ForeignKey("users.id"), nullable=False),
    Column("name", binary(64), nullable=False),
    Column("seq", BigInteger, nullable=False, default=0),  # of the last version that came
    Column("files", BigInteger, nullable=False, default=0),
    Column("bytes", BigInteger, nullable=False, default=0),
    Column("created", BigInteger, nullable=False),
    Column("stamp", BigInteger, nullable=False, server_default="0", index=True),
    UniqueConstraint("user", "name"),
)

sites = Table(
    "sites",
    metadata,
    Column("id", binary(16), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("url", String(1024), nullable=False),  # empty: it can't be reached from outside
    Column("changed", BigInteger, nullable=False),  # by its own clock, epoch ms
    Column("gone", SmallInteger, nullable=False, default=0),  # it left the cluster
    Column("stamp", BigInteger, nullable=False, server_default="0", index=True),
)

follows = Table(
    "follows",
    metadata,
    Column("url", String(512), primary_key=True),
    Column("site", binary(16), nullable=True),  # who answered there
    Column(
        "stamp", BigInteger, nullable=False, server_default="0"
    ),  # of its account changes: taken so far
    Column("contact", BigInteger, nullable=False, default=0),  # the last answer, epoch ms
    Column("behind", BigInteger, nullable=False, default=0),  # versions that it has and we lack
    Column("problem", String(500), nullable=False, default=""),
)

holds = Table(
    "holds",
    metadata,
    Column("folder", Row, primary_key=True, autoincrement=False),
    Column("site", binary(16), primary_key=True),
    Column("numbers", binary(4096), nullable=False),  # packed: how much of each journal it has
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", binary(16), nullable=False),
    Column("until", BigInteger, nullable=False),  # epoch ms by the holders' clocks
)

versions = Table(
    "versions",
    metadata,
    Column("folder", Row, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # in order of arrival here
    Column("path_key", binary(16), nullable=False),
    Column("path", binary(4096), nullable=False),
    Column("device", binary(16), nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column(VECTOR, blob(), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("hash", binary(32), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mode", Integer, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("target", binary(4096), nullable=False),
    Column("author", String(64), nullable=False),
    Column("key_id", binary(64), nullable=False),
    Column("accepted", BigInteger, nullable=False),  # when it came here, epoch ms
    # Of the folder, not of all: nobody may stand in the way of another user's dots.
    UniqueConstraint("folder", "device", "counter"),
    Index("versions_of_path", "path_key", "folder", "seq"),
    Index("versions_of_hash", "hash"),
    sqlite_with_rowid=False,
)

journals = Table(
    "journals",
    metadata,
    Column("folder", Row, primary_key=True, autoincrement=False),
    Column("site", binary(16), primary_key=True),
    Column("head", BigInteger, nullable=False),  # the last number that is here
)

journal = Table(
    "journal",
    metadata,
    Column("folder", Row, primary_key=True, autoincrement=False),
    Column("site", binary(16), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),  # of the version
    Index("journal_by_version", "folder", "seq"),
    sqlite_with_rowid=False,
)

paths = Table(
    "paths",
    metadata,
    Column("id", Row, primary_key=True, autoincrement=True),
    Column("folder", Row, nullable=False),
    Column("path_key", binary(16), nullable=False),
    Column("parent_key", binary(16), nullable=False),
    Column("path", binary(4096), nullable=False),
    Column("winner", BigInteger, nullable=False),  # versions.seq
    Column("heads", blob(), nullable=False),  # varints of versions.seq; empty: the winner alone
    Column("context", blob(), nullable=False),  # packed join of the heads' vectors
    Column("live", SmallInteger, nullable=False),
    # The keys first: a planner without statistics must not take a whole folder for a good start.
    Index("paths_by_key", "path_key", "folder"),
    Index("paths_by_parent", "parent_key", "folder", "live"),
)

contents = Table(
    "contents",
    metadata,
    Column("id", Row, primary_key=True, autoincrement=True),
    Column("user", Row, ForeignKey("users.id"), nullable=False),
    Column("hash", binary(32), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),  # 0 unchecked, 1 checked, 2 damaged
    Column("recipe", long_blob(), nullable=False),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("user", "hash"),
)

packs = Table(
    "packs",
    metadata,
    Column("id", Row, primary_key=True, autoincrement=True),
    Column("hash", binary(32), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column(
        "dying", BigInteger, nullable=False, default=0
    ),  # since when nothing needs it; 0: needed
    sqlite_autoincrement=True,
)

attempts = Table(
    "attempts",
    metadata,
    Column("key", binary(64), primary_key=True),  # an account or an address
    Column("failures", Integer, nullable=False),
    Column("last", BigInteger, nullable=False),
)

for _table in metadata.tables.values():
    _table.dialect_kwargs.update(MYSQL)
