"""Types of columns, for either database."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Integer, LargeBinary
from sqlalchemy.dialects.mysql import LONGBLOB, MEDIUMBLOB, VARBINARY
from sqlalchemy.sql.elements import quoted_name

VECTOR: Final = quoted_name("vector", quote=True)
"""A word of MariaDB's own since 11.7, of which SQLAlchemy does not know yet."""

Row = BigInteger().with_variant(Integer, "sqlite")
"""A key that the database allots."""

MYSQL = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
"""What a table is made with there, whatever the server's own choice is: its other collations fold
what users keep apart, and other engines know no transactions."""


class _Plain:
    """Bytes go to the driver and come from it as they are: both drivers take and give bytes, and
    wrapping them costs more than all else about a row."""

    def bind_processor(self, dialect: Any) -> None:  # noqa: ARG002 - SQLAlchemy's signature
        return None

    def result_processor(self, dialect: Any, coltype: Any) -> None:  # noqa: ARG002 - likewise
        return None


class Bytes(_Plain, LargeBinary):
    """Bytes; with a length they can be part of a key."""


class _VarBytes(_Plain, VARBINARY):
    pass


class _MediumBytes(_Plain, MEDIUMBLOB):
    pass


class _LongBytes(_Plain, LONGBLOB):
    pass


def binary(length: int) -> LargeBinary:
    """At most `length` bytes."""
    return Bytes(length).with_variant(_VarBytes(length), "mysql", "mariadb")


def blob() -> LargeBinary:
    """Bytes, up to 16 MiB."""
    return Bytes().with_variant(_MediumBytes(), "mysql", "mariadb")


def long_blob() -> LargeBinary:
    """Bytes, as many as there are."""
    return Bytes().with_variant(_LongBytes(), "mysql", "mariadb")


def called(kind: object, dialect: Any) -> str:
    """How a revision writes one of these types; "" for any other."""
    if kind is Row:
        return "Row"
    if not isinstance(kind, Bytes):
        return ""
    if kind.length:
        return f"binary({kind.length})"
    return "long_blob()" if isinstance(kind.dialect_impl(dialect), _LongBytes) else "blob()"
