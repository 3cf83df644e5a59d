"""Contents that are damaged or absent here, from any site that has them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from sqlalchemy import Connection, and_, exists, select

from dblike_delta.versions import Kind
from dblike_srv.collect import gc
from dblike_srv.compact import rescue
from dblike_srv.contents import EMPTY_HASH, State
from dblike_srv.identity import FolderRef
from dblike_srv.models import contents, folders, versions
from dblike_srv.replication.arrival import Entry
from dblike_srv.replication.follower import FAILURES
from dblike_srv.replication.journals import folder_by_id, record_of
from dblike_srv.replication.link import Link
from dblike_srv.replication.runs import Run
from dblike_srv.replication.sites import announce
from dblike_srv.replication.supervisor import Following
from dblike_srv.site import Site
from dblike_srv.tree import VERSION_COLUMNS

RUN: Final = 500
"""Contents that are asked for at once."""

log = logging.getLogger(__name__)


def repair(site: Site, damaged: Iterable[str]) -> int:
    """Fetch what this site can't serve from the others, one after the other, and save what is good
    of the damaged packs (names in hex); how many contents came."""
    before = sum(len(lost) for _, lost in _lost(site))
    for url in sorted(Following(site).urls()):
        wanted = list(_lost(site))
        if not wanted:
            break
        link = Link(site, url)
        try:
            link.open(announce(site))
            for folder, lost in wanted:
                for at in range(0, len(lost), RUN):
                    _ask(site, link, folder, lost[at : at + RUN])
        except FAILURES as error:
            log.warning("%s: %s", url, error)
        finally:
            link.close()
    rescue(site, map(bytes.fromhex, damaged))
    gc(site)  # packs that nothing needs any more are dying from here on
    return before - sum(len(lost) for _, lost in _lost(site))


def _ask(site: Site, link: Link, folder: FolderRef, lost: Sequence[Entry]) -> None:
    """One request; what the other site lacks as well stays away."""
    run = Run(site, link, folder, lost)
    for _ in run.take():
        pass
    run.write()


def _lost(site: Site) -> Iterator[tuple[FolderRef, list[Entry]]]:
    """Folders with versions whose content can't be served, each content once.

    They are entries of no journal: number 0 was there before any other.
    """
    rows = site.database.read(lambda c: c.execute(select(folders.c.id, folders.c.user)).all())
    for uid, user in rows:
        folder = folder_by_id(site, bytes(uid))
        if folder is None:
            continue
        found = site.database.read(lambda c, f=folder, u=user: _in_folder(c, f.row, u))  # type: ignore[misc]
        if found:
            yield folder, found


def _in_folder(connection: Connection, folder: int, user: int) -> list[Entry]:
    good = exists().where(
        and_(
            contents.c.user == user,
            contents.c.hash == versions.c.hash,
            contents.c.state != int(State.DAMAGED),
        )
    )
    query = select(*VERSION_COLUMNS).where(
        versions.c.folder == folder,
        versions.c.kind == int(Kind.FILE),
        versions.c.hash != EMPTY_HASH,
        ~good,
    )
    entries: dict[bytes, Entry] = {}
    for row in connection.execute(query):
        record = record_of(row)
        entries.setdefault(record.hash, (b"", 0, record))
    return list(entries.values())
