"""Leases: what one of a site's hosts does for all of them, for as long as it says."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from dblike_srv.models import leases
from dblike_srv.site import Site


def take_lease(site: Site, name: str, holder: bytes, lasts_ms: int) -> bool:
    """Whether `holder` (16 bytes) has the lease from now on, for so long; it may have had it."""

    def work(connection: Connection) -> bool:
        now, mine = site.clock.now_ms(), leases.c.name == name
        row = connection.execute(select(leases).where(mine).with_for_update()).one_or_none()
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
