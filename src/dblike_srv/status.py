"""What a site holds and how it is: `dblike-server status`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import msgspec
from sqlalchemy import Connection, func, select

from dblike_srv.models import folders, packs, users, versions
from dblike_srv.readiness import check_ready
from dblike_srv.site import Site


class SiteStatus(msgspec.Struct, frozen=True):
    """One look at a site.  `problem` is empty where all is well; `free` is -1 where unknown."""

    site_id: str
    name: str
    bind: str
    data: str
    database: str
    store: str
    users: int
    folders: int
    files: int
    bytes: int
    versions: int
    packs: int
    pack_bytes: int
    free: int
    peers: list[str]
    problem: str = ""

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"site {self.site_id} {self.name}".rstrip()
        yield f"binds to {self.bind}, keeps data in {self.data}"
        yield f"database {self.database}, store {self.store}"
        yield f"{self.users} users, {self.folders} folders"
        yield f"{self.files:,} files ({_size(self.bytes)})"
        yield f"{self.versions:,} versions, {self.packs:,} packs ({_size(self.pack_bytes)})"
        if self.free >= 0:
            yield f"{_size(self.free)} free"
        yield f"peers: {', '.join(self.peers) or 'none'}"
        yield self.problem or "all is well"


def survey(site: Site) -> SiteStatus:
    """Look at the site."""
    config = site.config
    return SiteStatus(
        site_id=site.id.hex(),
        name=config.site.name,
        bind=config.bind,
        data=config.data,
        database=site.database.engine.dialect.name,
        store=(config.store or "file").partition(":")[0],
        free=_free(config.data),
        peers=[peer.url for peer in config.peers],
        problem=check_ready(site),
        **site.database.read(_counts),
    )


def _counts(connection: Connection) -> dict[str, int]:
    def one(column: object) -> int:
        return int(connection.execute(select(column)).scalar() or 0)  # type: ignore[call-overload]

    return {
        "users": one(func.count(users.c.id)),
        "folders": one(func.count(folders.c.row)),
        "files": one(func.sum(folders.c.files)),
        "bytes": one(func.sum(folders.c.bytes)),
        "versions": one(func.count(versions.c.seq)),
        "packs": one(func.count(packs.c.id)),
        "pack_bytes": one(func.sum(packs.c.size)),
    }


def _free(data: str) -> int:
    try:
        return shutil.disk_usage(data).free
    except OSError:
        return -1


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
