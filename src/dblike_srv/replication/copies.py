"""How many sites hold what was committed here: what followers say that they have."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

import msgspec
from sqlalchemy import Connection, insert, select, update

from dblike_delta.messages import CommitReply
from dblike_delta.versions import VersionVector
from dblike_srv.identity import FolderRef
from dblike_srv.models import folders, holds, sites
from dblike_srv.replication.messages import Position
from dblike_srv.site import Site, own_ids
from dblike_srv.tree import site_id

LOOK: Final = 0.005
"""Seconds between looks for what followers say."""


def note_held(site: Site, follower: bytes, positions: Iterable[Position]) -> None:
    """A follower holds this much of folders, durably."""
    told = {p.folder: site.seal.open_cursor(p.folder, p.cursor) for p in positions}

    known = (holds.c.folder == folders.c.row) & (holds.c.site == follower)
    query = select(folders.c.row, folders.c.id, holds.c.numbers).outerjoin(holds, known)

    def work(connection: Connection) -> None:
        rows = connection.execute(query.where(folders.c.id.in_(told))).all()
        for row, uid, before in rows:
            packed = _vector(told[bytes(uid)]).pack()
            if before is None:
                values = {"folder": row, "site": follower, "numbers": packed}
                connection.execute(insert(holds).values(values))
            elif bytes(before) != packed:
                mine = (holds.c.folder == row) & (holds.c.site == follower)
                connection.execute(update(holds).where(mine).values(numbers=packed))

    if told:
        site.database.transact(work)


def count_copies(site: Site, folder: FolderRef, cursor: str) -> int:
    """How many sites, this one included, hold all that the cursor covers.

    Of whatever journal: a version that is offered again may have come here from another site.
    """
    wanted = _vector(site.seal.open_cursor(folder.id, cursor))
    query = (
        select(holds.c.numbers)
        .join(sites, sites.c.id == holds.c.site)
        .where(holds.c.folder == folder.row, sites.c.gone == 0)
    )

    def work(connection: Connection) -> int:
        former = own_ids(connection) - {site_id(connection)}
        if any(map(wanted.get, former)) and not wanted.get(site_id(connection)):
            return 1  # the id changed since: what others said of the former one is not of it
        rows = connection.execute(query).all()
        return 1 + sum(wanted <= VersionVector.unpack(bytes(packed)) for (packed,) in rows)

    return site.database.read(work)


def note_spread(site: Site, folder: FolderRef, reply: CommitReply) -> CommitReply:
    """The reply, with who took the commit, and how many sites had all that was here before it."""
    wanted = _vector(site.seal.open_cursor(folder.id, reply.before))
    here = (holds.c.site == sites.c.id) & (holds.c.folder == folder.row)
    query = select(sites.c.id, holds.c.numbers).outerjoin(holds, here).where(sites.c.gone == 0)

    def work(connection: Connection) -> tuple[bytes, list[bytes]]:
        rows = connection.execute(query).all()
        mine = own_ids(connection) if rows else set()
        others = [bytes(packed or b"") for uid, packed in rows if bytes(uid) not in mine]
        return site_id(connection) if others else b"", others

    own, others = site.database.read(work)
    if not others:
        return reply
    held = 1 + sum(wanted <= VersionVector.unpack(packed) for packed in others if packed)
    return msgspec.structs.replace(reply, site=own.hex(), held=held)


def _vector(numbers: dict[bytes, int]) -> VersionVector:
    """Journal numbers, to be compared."""
    return VersionVector.of({site: number for site, number in numbers.items() if number})


def await_copies(site: Site, folder: FolderRef, reply: CommitReply) -> CommitReply:
    """The reply, once as many sites as configured hold the commit, or the wait for them is over."""
    rule = site.config.replication
    if rule.copies <= 1:
        return note_spread(site, folder, reply)
    until = site.clock.monotonic() + rule.wait_ms / 1000
    pause = threading.Event()
    while True:
        copies = count_copies(site, folder, reply.cursor)
        if copies >= rule.copies or site.clock.monotonic() >= until:
            return msgspec.structs.replace(reply, copies=copies, wanted=rule.copies)
        pause.wait(LOOK)
