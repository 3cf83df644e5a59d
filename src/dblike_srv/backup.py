"""Backup: a copy of a site from which the same site can run.

The database first, then the packs that it names: packs never change, and none is deleted before it
was dying for a day.  Those that are dying come along, for a content may need one all the same.  The
copy appears under its name when it is whole.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import URL, create_engine, select

from dblike_delta.system import sync_path
from dblike_srv.errors import Conflict, Invalid
from dblike_srv.models import packs
from dblike_srv.packs import KEPT, is_dying
from dblike_srv.site import Site
from dblike_srv.store.local import LocalStore

PIECE: Final = 1 << 20


class BackupReport(msgspec.Struct, frozen=True):
    """Where the copy lies, and what is in it."""

    directory: str
    packs: int
    bytes: int


def backup(site: Site, directory: Path) -> BackupReport:
    """Copy the site into `directory`, which must not be there yet.

    Packs are hard links where they can be: they share nothing but bytes that never change.
    Raises Invalid for a database server, which has tools of its own for this.
    """
    if not site.database.embedded:
        raise Invalid(
            "the database is a server's: copy it with mariadb-backup first, then the store",
            field="database",
        )
    if directory.exists():
        raise Conflict(f"{directory} is there already: name a new directory", field="directory")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    (partial / "packs").mkdir(mode=0o700)
    _copy_database(site, partial / "dblike.db")
    _write_config(site, partial / "config.json")
    count = size = 0
    for name, mark in _named(partial / "dblike.db"):
        target = partial / "packs" / name.hex()[:2] / name.hex()
        try:
            size += _copy_pack(site, name, target)
        except FileNotFoundError:
            if not is_dying(mark):
                raise
            target.unlink(missing_ok=True)  # the pack went meanwhile
        else:
            count += 1
    _sync_tree(partial)
    partial.rename(directory)
    sync_path(directory.parent)
    return BackupReport(str(directory), count, size)


def _copy_database(site: Site, target: Path) -> None:
    with site.database.engine.connect() as connection:
        source = connection.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        copy = sqlite3.connect(target)
        try:
            # All pages in one step: one moment of the database, while others go on writing.
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            copy.close()
    target.chmod(0o600)


def _named(database: Path) -> list[tuple[bytes, int]]:
    """The packs that the copied database may need, each with its mark."""
    query = select(packs.c.hash, packs.c.dying).where(KEPT)
    engine = create_engine(URL.create("sqlite", database=str(database)))
    try:
        with engine.connect() as copy:
            return [(bytes(name), mark) for name, mark in copy.execute(query)]
    finally:
        engine.dispose()


def _copy_pack(site: Site, name: bytes, target: Path) -> int:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    size = site.store.size(name)
    if isinstance(site.store, LocalStore):
        try:
            os.link(site.store.path(name), target)
        except OSError:
            pass  # another file system, or one without links
        else:
            return size
    with target.open("xb") as out:
        for at in range(0, size, PIECE):
            out.write(site.store.read(name, at, min(PIECE, size - at)))
    return size


def _write_config(site: Site, target: Path) -> None:
    """The config that is in use, wherever it comes from: without the cluster's key no token and no
    cursor is good any more.  Database and packs are those of the copy: by what it says, one that is
    looked at would collect the packs of the site itself."""
    config = msgspec.structs.replace(
        site.config,
        data=".",
        database="",
        store="",
        cluster_key=site.config.key.decode(),
        cluster_key_file="",
    )
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(msgspec.json.format(msgspec.json.encode(config)))


def _sync_tree(root: Path) -> None:
    for directory, _, files in os.walk(root):
        for name in files:
            sync_path(Path(directory) / name)
        sync_path(Path(directory))
