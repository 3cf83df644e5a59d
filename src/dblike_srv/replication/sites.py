"""The sites of the cluster: this one's row, and the others'."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, update

from dblike_srv.errors import SiteError
from dblike_srv.models import follows, sites
from dblike_srv.registers import ACCOUNTS, next_stamp, pass_over_stamps
from dblike_srv.replication.messages import SharedPage, SiteState
from dblike_srv.replication.shared import site_state, take_in
from dblike_srv.site import Site, own_ids
from dblike_srv.tree import site_id

_GONE = select(sites.c.gone).where(sites.c.id == bindparam("site"))
_HERE = select(sites).where(sites.c.gone == 0)

TURN_MS: Final = 3_600_000

log = logging.getLogger(__name__)


def present_sites(connection: Connection) -> dict[bytes, Any]:
    """The rows, by their ids, of all sites that are there, this one among them where it has said
    who it is.

    A site that lost its disk, or was set back, goes on under another id: of those that have a URL
    only the last one is there.  Whatever others said of a former id is of a disk that is no more.
    """
    rows = connection.execute(_HERE).mappings().all()
    former = own_ids(connection) - {site_id(connection)}
    known = {bytes(row["id"]): row for row in rows if bytes(row["id"]) not in former}
    by_time = sorted(known.values(), key=lambda row: row["changed"])
    last = {_place(row["url"]): bytes(row["id"]) for row in by_time if row["url"]}
    return {uid: row for uid, row in known.items() if last.get(_place(row["url"]), uid) == uid}


def _place(url: str) -> str:
    """Where a URL leads: with a slash at its end or without one."""
    return url.rstrip("/")


def known_sites(site: Site) -> list[SiteState]:
    """The same as states, by their ids."""
    rows = site.database.read(present_sites)
    return [site_state(rows[uid]) for uid in sorted(rows)]


def site_urls(site: Site) -> list[str]:
    """Where devices can reach the sites of the cluster, this one first."""
    found = sorted(known_sites(site), key=lambda state: state.id != site.id)
    return [state.url for state in found if state.url]


def announce(site: Site) -> SiteState:
    """Write down who this site is, where that is new, or hidden by another one at its URL: one that
    was there before, whose clock was fast, or one that was there while this one's disk was lost.
    Where two are called alike by mistake that is now the one and now the other.
    """
    config, now, own = site.config.site, site.clock.now_ms(), site.id
    places = [_place(config.url), _place(config.url) + "/"]
    others = (sites.c.url.in_(places), sites.c.id != own, sites.c.gone == 0)
    before = select(func.max(sites.c.changed)).where(*others)

    def work(connection: Connection) -> tuple[SiteState, bool]:
        row = connection.execute(select(sites).where(sites.c.id == own)).mappings().first()
        changed = max(now, row["changed"] + 1) if row is not None else now
        gone = row is not None and bool(row["gone"])
        last = int(connection.scalar(before) or 0) if config.url and not gone else 0
        if row is not None and (row["name"], row["url"]) == (config.name, config.url):
            lately = now - row["changed"] < TURN_MS
            if last < (changed if lately else row["changed"]):
                return site_state(row), False
        changed = max(changed, last + 1)
        values = {"name": config.name, "url": config.url, "changed": changed, "gone": int(gone)}
        values["stamp"] = next_stamp(connection)
        if row is None:
            connection.execute(insert(sites).values(id=own, **values))
        else:
            connection.execute(update(sites).where(sites.c.id == own).values(values))
        return SiteState(own, config.name, config.url, changed, gone), True

    state, new = site.database.transact(work)
    if new:
        site.notices.publish(ACCOUNTS, "changed")
    return state


def begin(site: Site) -> None:
    """A process of the site starts.  Its disk may have come from a backup: changes from here on get
    numbers that no change had before, whatever others have heard of since."""
    now = site.clock.now_ms()
    try:
        site.database.transact(lambda connection: pass_over_stamps(connection, now))
    except SiteError as error:
        log.warning("changes of accounts go on with the numbers that they had: %s", error)
    announce(site)


def has_left(site: Site, uid: bytes) -> bool:
    """Whether the site of this id left the cluster."""
    return bool(site.database.read(lambda connection: connection.scalar(_GONE, {"site": uid})))


def has_left_others(site: Site) -> bool:
    """Whether this site left a cluster that goes on without it."""
    return has_left(site, site.id) and bool(site.database.read(present_sites))


def urls_of(site: Site, uid: bytes) -> set[str]:
    """Where the site of this id answered."""
    query = select(follows.c.url).where(follows.c.site == uid)
    return set(site.database.read(lambda connection: connection.scalars(query).all()))


def welcome(site: Site, state: SiteState) -> None:
    """A site of the cluster has said who it is."""
    take_in(site, SharedPage(upto=0, sites=[state]))


def part_with(site: Site, state: SiteState) -> SiteState:
    """A site leaves the cluster for good: what it is from now on."""
    gone = msgspec.structs.replace(state, gone=True)
    take_in(site, SharedPage(upto=0, sites=[gone]))
    return gone
