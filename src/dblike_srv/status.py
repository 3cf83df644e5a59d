"""What a site holds and how it is: `dblike-server status`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, select

from dblike_delta.versions import VersionVector
from dblike_srv.metrics import exact
from dblike_srv.models import folders, follows, holds, journals, packs, sites, users, versions
from dblike_srv.readiness import check_ready
from dblike_srv.replication.sites import present_sites
from dblike_srv.site import Site

LEAST_FREE: Final = 1 << 20
"""Bytes that a site needs free to take anything at all."""

_NOT_YET = "not followed yet"


class PeerStatus(msgspec.Struct, frozen=True):
    """Another site, as far as this one knows.

    `contact` is when it last answered us (epoch ms, 0: never), `behind` how many versions it has
    that we lack, `ahead` how many of ours it lacks (-1: it never said).  `problem` is empty where
    all is well.
    """

    url: str
    site_id: str = ""
    name: str = ""
    contact: int = 0
    behind: int = 0
    ahead: int = -1
    problem: str = ""

    def line(self, now: int) -> str:
        """For people."""
        seen = "never heard"
        if self.contact:
            seen = (
                f"heard {_ago(now - self.contact)} ago, we are {self.behind:,} versions behind it"
            )
        if self.ahead >= 0 and (self.contact or self.site_id):
            seen += f", it is {self.ahead:,} behind us"
        who = f"{self.name} {self.url or 'without a URL'}".strip()
        return f"peer {who}: {seen}" + (f": {self.problem}" if self.problem else "")


class SiteStatus(msgspec.Struct, frozen=True):
    """One look at a site.  `problem` is empty where all is well, `warning` where nothing waits in
    vain; `free` is -1 where unknown."""

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
    peers: list[PeerStatus]
    time: int
    problem: str = ""
    warning: str = ""

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"site {self.site_id} {self.name}".rstrip()
        yield f"binds to {self.bind}, keeps data in {self.data}"
        yield f"database {self.database}, store {self.store}"
        yield f"{_count(self.users, 'user')}, {_count(self.folders, 'folder')}"
        yield f"{_count(self.files, 'file')} ({_size(self.bytes)})"
        packs = f"{_count(self.packs, 'pack')} ({_size(self.pack_bytes)})"
        yield f"{_count(self.versions, 'version')}, {packs}"
        if self.free >= 0:
            yield f"{_size(self.free)} free"
        if not self.peers:
            yield "peers: none"
        for peer in self.peers:
            yield peer.line(self.time)
        if self.warning:
            yield self.warning
        ill = sum(bool(peer.problem) for peer in self.peers)
        well = f"this site is well, {ill} of its peers not (see above)" if ill else "all is well"
        yield self.problem or well


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
        peers=peers_of(site),
        time=site.clock.now_ms(),
        problem=check_ready(site) or _full(config.data),
        warning=_too_few(site),
        **site.database.read(_counts),
    )


def peers_of(site: Site) -> list[PeerStatus]:
    """The other sites: those that we follow or are to follow, and those that only follow us."""
    own, named = site.id, {peer.url.rstrip("/") for peer in site.config.peers}

    def work(connection: Connection) -> list[PeerStatus]:
        gone = select(sites.c.gone).where(sites.c.id == own)
        if connection.execute(gone).scalar():
            return []
        known = present_sites(connection)
        known.pop(own, None)
        ahead = _ahead(connection, own)
        found = []
        for row in connection.execute(select(follows).order_by(follows.c.url)):
            uid = bytes(row.site or b"")
            who = known.pop(uid, None)
            found.append(_followed(row, "" if who is None else who["name"], ahead(uid)))
        urls = {peer.url for peer in found}
        rest = {uid: who for uid, who in known.items() if who["url"].rstrip("/") not in urls}
        found += [_unfollowed(who, ahead(uid)) for uid, who in rest.items()]
        named.difference_update([peer.url.rstrip("/") for peer in found])
        named.discard(site.config.site.url.rstrip("/"))
        return found + [PeerStatus(url, problem=_NOT_YET) for url in sorted(named)]

    return site.database.read(work)


def peer_gauges(site: Site) -> Iterator[str]:
    """How it goes with the other sites, in Prometheus' text format."""
    peers, now = peers_of(site), site.clock.now_ms()
    values: dict[str, Callable[[PeerStatus], float]] = {
        "dblike_peer_ok": lambda peer: not peer.problem,
        "dblike_peer_behind_versions": lambda peer: peer.behind,
        "dblike_peer_ahead_versions": lambda peer: peer.ahead,
        "dblike_peer_silent_seconds": lambda peer: max(0, now - peer.contact) / 1000,
    }
    for name, value in values.items():
        if peers:
            yield f"# TYPE {name} gauge\n"
        for peer in peers:
            label = msgspec.json.encode(peer.url or peer.site_id).decode()
            yield f"{name}{{peer={label}}} {exact(value(peer))}\n"


def _followed(row: Any, name: str, ahead: int) -> PeerStatus:
    return PeerStatus(
        url=row.url,
        site_id=bytes(row.site or b"").hex(),
        name=name,
        contact=row.contact,
        behind=row.behind,
        ahead=ahead,
        problem=row.problem,
    )


def _unfollowed(who: Any, ahead: int) -> PeerStatus:
    url = who["url"]
    why = _NOT_YET if url else "it told no URL (site.url), so it can't be followed"
    return PeerStatus(url, bytes(who["id"]).hex(), who["name"], ahead=ahead, problem=why)


def _ahead(connection: Connection, own: bytes) -> Callable[[bytes], int]:
    """How many of our own versions a site lacks; -1 for one that never said what it holds."""
    mine = select(journals.c.folder, journals.c.head).where(journals.c.site == own)
    heads = {row.folder: row.head for row in connection.execute(mine)}
    total = sum(heads.values())
    held: dict[bytes, int] = {}
    for folder, uid, packed in connection.execute(select(holds)):
        number = VersionVector.unpack(bytes(packed)).get(own)
        held[bytes(uid)] = held.get(bytes(uid), 0) + min(number, heads.get(folder, 0))
    lag = {uid: total - count for uid, count in held.items()}
    return lambda uid: lag.get(uid, -1) if total else 0


def _ago(ms: int) -> str:
    seconds = max(0, ms) // 1000
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"


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


def _too_few(site: Site) -> str:
    """Whether commits wait for more copies than there are sites of which this one hears what they
    hold."""
    wanted, own = site.config.replication.copies, site.id

    def count(connection: Connection) -> int:
        told = {bytes(uid) for uid in connection.scalars(select(holds.c.site).distinct())}
        return len(told & present_sites(connection).keys() - {own})

    if wanted <= 1 or wanted <= 1 + (others := site.database.read(count)):
        return ""
    return f"each commit waits in vain: {wanted} copies are wanted, {others} sites follow this one"


def _full(data: str) -> str:
    """Whether there is nothing left to write to; reads are served all the same."""
    return "its disk has no space left" if 0 <= _free(data) < LEAST_FREE else ""


def _free(data: str) -> int:
    try:
        return shutil.disk_usage(data).free
    except OSError:
        return -1


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
