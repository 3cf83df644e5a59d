"""Contents that are damaged or absent here, from any site that has them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from sqlalchemy import Connection, and_, exists, select

from dblike_delta.exchange import Unreachable
from dblike_delta.versions import Kind
from dblike_srv.collect import gc
from dblike_srv.compact import rescue
from dblike_srv.contents import EMPTY_HASH, State
from dblike_srv.identity import FolderRef
from dblike_srv.models import contents, folders, paths, versions
from dblike_srv.replication.arrival import Damaged, Entry, Unfinished
from dblike_srv.replication.aside import is_of_a_folder
from dblike_srv.replication.follower import FAILURES, RUN_BYTES
from dblike_srv.replication.journals import folder_by_id, record_of
from dblike_srv.replication.link import Link
from dblike_srv.replication.runs import Run, in_runs
from dblike_srv.replication.sites import announce
from dblike_srv.replication.supervisor import Following
from dblike_srv.site import Site
from dblike_srv.tree import VERSION_COLUMNS

RUN: Final = 500
"""Contents that are asked for at once."""
AGAIN: Final = 2
"""How often the rest is asked for again: some contents may be wrong, and others unreadable."""

log = logging.getLogger(__name__)


def repair(site: Site, damaged: Iterable[str]) -> int:
    """Fetch what this site can't serve from the others, one after the other, and save what is good
    of the damaged packs (names in hex); how many contents came."""
    before = sum(len(lost) for _, lost in _lost(site))
    for url in sorted(Following(site).urls()):
        if not any(_lost(site)):
            break
        link = Link(site, url)
        try:
            link.open(announce(site))
            ask_for_lost(site, link)
        except FAILURES as error:
            log.warning("%s: %s", url, error)
        finally:
            link.close()
    rescue(site, map(bytes.fromhex, damaged))
    gc(site)  # packs that nothing needs any more are dying from here on
    return before - sum(len(lost) for _, lost in _lost(site))


def ask_for_lost(site: Site, link: Link) -> None:
    """Fetch from one site what it has of all that can't be served here.  What is wrong with some of
    it keeps nothing else away; raises what ends the session."""
    for folder, lost in _lost(site):
        for at in range(0, len(lost), RUN):
            for run in in_runs(lost[at : at + RUN], RUN_BYTES):
                try:
                    _ask(site, link, folder, run)
                except FAILURES as error:
                    if not is_of_a_folder(error):
                        raise
                    log.warning("%s: %s", link.url, error)


def _ask(site: Site, link: Link, folder: FolderRef, lost: Sequence[Entry]) -> None:
    """One request; what the other site lacks as well stays away.  What comes wrong, or can't be
    read there, is told, and all else asked for once more."""
    for _ in range(AGAIN):
        try:
            _fetch(site, link, folder, lost)
            return
        except (Damaged, Unfinished) as lacking:
            log.warning("%s: %s", link.url, lacking)
            wrong = set(lacking.hashes)
        if not wrong:
            return
        with contextlib.suppress(Unreachable):  # it reads for long
            link.report_damage(folder.id, list(wrong))
        lost = [entry for entry in lost if entry[2].hash not in wrong]
    _fetch(site, link, folder, lost)


def _fetch(site: Site, link: Link, folder: FolderRef, lost: Sequence[Entry]) -> None:
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
    wins = and_(
        paths.c.folder == versions.c.folder,
        paths.c.path_key == versions.c.path_key,
        paths.c.winner == versions.c.seq,
    )
    query = select(*VERSION_COLUMNS).outerjoin(paths, wins)
    query = query.where(
        versions.c.folder == folder,
        versions.c.kind == int(Kind.FILE),
        versions.c.hash != EMPTY_HASH,
        ~good,
    )
    # A site that forgot a version knows no content by it: what is there now is kept everywhere, and
    # the newest of what was for longest.
    last = query.order_by(paths.c.winner.is_not(None), versions.c.seq)
    records = map(record_of, connection.execute(last))
    return [*{record.hash: (b"", 0, record) for record in records}.values()]
