"""Leases: what one of a site's hosts does for all of them, for as long as it says."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select, update

from dblike_srv.models import leases
from dblike_srv.site import Site

_NOW = select(func.unix_timestamp())


def take_lease(site: Site, name: str, holder: bytes, lasts_ms: int) -> bool:
    """Whether `holder` (16 bytes) has the lease from now on, for so long; it may have had it.

    It is counted by the clock that all hosts look at: one's own may differ from another one's.
    """

    def work(connection: Connection) -> bool:
        mine = leases.c.name == name
        row = connection.execute(select(leases).where(mine).with_for_update()).one_or_none()
        now = site.clock.now_ms()
        if not site.database.embedded:
            now = int(connection.execute(_NOW).scalar_one()) * 1000
        values = {"holder": holder, "until": now + lasts_ms}
        if row is None:
            connection.execute(insert(leases).values(name=name, **values))
        # One that ends later than any that begins now was taken before a clock was set back.
        elif bytes(row.holder) == holder or not now < row.until <= now + lasts_ms:
            connection.execute(update(leases).where(mine).values(values))
        else:
            return False
        return True

    return site.database.transact(work)
