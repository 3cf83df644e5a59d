"""Versions that no site has: a site took them alone, and was lost."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from dblike_srv.models import follows, sites
from dblike_srv.replication.followed import WELL
from dblike_srv.replication.sites import present_sites
from dblike_srv.site import own_ids

LATELY_MS: Final = 90_000
"""A site that is followed is asked for everything three times in that."""


def are_lost(connection: Connection, origins: set[bytes], now_ms: int) -> bool:
    """Whether what we lack of these sites' journals is at no other site either.

    That is so where one of them left, or another site answers at its URL, and all that are there
    were followed lately to their ends.
    """
    there = present_sites(connection).keys() | own_ids(connection)
    if not origins & {bytes(uid) for uid in connection.scalars(select(sites.c.id))} - there:
        return False
    good = WELL & (follows.c.behind == 0)
    query = select(follows.c.site).where(good, follows.c.contact > now_ms - LATELY_MS)
    followed = {bytes(site) for site in connection.scalars(query) if site is not None}
    return there <= followed | own_ids(connection)
