"""What is remembered of the sites that are followed: who answers where, and how it goes."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, and_, delete, insert, select, update

from dblike_srv.db import asked, told
from dblike_srv.models import follows
from dblike_srv.site import Site

AWAY: Final = "away"
"""How the problem of a site begins that can't be reached."""
NOT_BELIEVED: Final = "not believed"
FAILED: Final = "failed"
"""The same of one that said what can't be, and where following it failed otherwise."""
WELL: Final = and_(*(~follows.c.problem.startswith(kind) for kind in (AWAY, NOT_BELIEVED, FAILED)))
"""All that it says is taken in, whatever else there is to be said of it, as of its clock."""


def taken_in(site: Site, url: str) -> int:
    """The number of the last change of the shared rows there that is here."""
    rows = site.database.read(asked(select(follows.c.stamp).where(follows.c.url == url)))
    return int(rows[0][0]) if rows else 0


def note_taken_in(site: Site, url: str, uid: bytes, stamp: int) -> None:
    """All up to this change is here; where another site answers at the URL by now that says nothing
    of what is there."""
    mine = (follows.c.url == url, follows.c.site == uid)
    site.database.transact(told(update(follows).where(*mine).values(stamp=stamp)))


def remember(site: Site, url: str, uid: bytes) -> None:
    """Who answers at the URL; of another site than before nothing was taken yet."""
    mine = follows.c.url == url
    rows = site.database.read(asked(select(follows.c.site, follows.c.problem).where(mine)))
    values: dict[str, object] = {"site": uid, "contact": site.clock.now_ms()}
    if not rows or rows[0].site is None or bytes(rows[0].site) != uid:
        values["stamp"] = 0
    if rows and rows[0].problem.startswith(AWAY):
        values["problem"] = ""  # any other one lasts until all that it says was taken in
    note(site, url, **values)


def note(here: Site, url: str, **values: object) -> None:
    """Write down how following goes."""
    known = update(follows).where(follows.c.url == url).values(values)

    def work(connection: Connection) -> None:  # whole, since others may note it at the same time
        if not connection.execute(known).rowcount:
            connection.execute(insert(follows).values(url=url, **values))

    here.database.transact(work)


def forget(site: Site, url: str) -> None:
    """It is followed no more."""
    site.database.transact(told(delete(follows).where(follows.c.url == url)))


def forget_others(site: Site, urls: set[str]) -> None:
    """All but these are followed no more: they were taken out of the config."""
    for url in followed_urls(site) - urls:
        forget(site, url)


def followed_urls(site: Site) -> set[str]:
    """Where the sites are that are followed, or were when that ended."""
    return set(
        site.database.read(lambda connection: connection.scalars(select(follows.c.url)).all())
    )


def met(site: Site, urls: set[str]) -> set[bytes]:
    """Who is followed at these without trouble, and needs not be at another URL of theirs, too."""
    query = select(follows.c.site).where(follows.c.url.in_(urls), WELL)
    rows = site.database.read(lambda connection: connection.scalars(query).all())
    return {bytes(uid) for uid in rows if uid is not None}
