"""How many sites hold what was committed here: what followers say that they have."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from dblike_delta.messages import CommitReply
from dblike_delta.versions import VersionVector
from dblike_srv.identity import FolderRef
from dblike_srv.models import folders, holds, journals
from dblike_srv.replication.journals import all_numbers
from dblike_srv.replication.messages import Position
from dblike_srv.replication.sites import present_sites
from dblike_srv.site import Ahead, Site
from dblike_srv.slots import waiting
from dblike_srv.tree import site_id

LOOK: Final = 0.005
"""Seconds between looks for what followers say."""
_TOLD: Final = select(holds.c.site, holds.c.numbers).where(holds.c.folder == bindparam("folder"))


def note_held(
    site: Site, holder: bytes, positions: Iterable[Position], *, relayed: bool = False
) -> list[bytes]:
    """A site holds this much of folders, durably; the folders of which that was not known.

    What was `relayed` may be old: it takes nothing back.  Raises Ahead where that is more of our
    own journal than we have: then our disk went back in time.
    """
    told = {p.folder: site.seal.open_cursor(p.folder, p.cursor) for p in positions}

    known = (holds.c.folder == folders.c.row) & (holds.c.site == holder)

    def work(connection: Connection) -> list[bytes]:
        own, news = site_id(connection), []
        mine = (journals.c.folder == folders.c.row) & (journals.c.site == own)
        query = select(folders.c.row, folders.c.id, holds.c.numbers, journals.c.head)
        query = query.outerjoin(holds, known).outerjoin(journals, mine)
        rows = connection.execute(query.where(folders.c.id.in_(told))).all()
        for row, uid, before, head in rows:
            if told[bytes(uid)].get(own, 0) > (head or 0):
                raise Ahead(own)
            now = _vector(told[bytes(uid)])
            if relayed and before is not None:
                now = now.join(VersionVector.unpack(bytes(before)))
            packed = now.pack()
            if before is None:
                values = {"folder": row, "site": holder, "numbers": packed}
                connection.execute(insert(holds).values(values))
            elif bytes(before) != packed:
                mine = (holds.c.folder == row) & (holds.c.site == holder)
                connection.execute(update(holds).where(mine).values(numbers=packed))
            else:
                continue
            news.append(bytes(uid))
        return news

    return site.database.transact(work) if told else []


def held_by(
    site: Site, holder: bytes = b"", among: Collection[bytes] = ()
) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Site, folder, and how much of each journal (packed) other sites said that they hold; of one
    site and these folders, or of all that are there."""
    query = select(holds.c.site, folders.c.id, holds.c.numbers).join(
        folders, folders.c.row == holds.c.folder
    )
    if holder:
        query = query.where(holds.c.site == holder, folders.c.id.in_(among))

    def work(connection: Connection) -> tuple[Sequence[Any], Collection[bytes]]:
        return connection.execute(query).all(), present_sites(connection).keys()

    rows, there = site.database.read(work)
    for uid, folder, packed in rows:
        if bytes(uid) in there:
            yield bytes(uid), bytes(folder), bytes(packed)


def cursor_of(site: Site, folder: bytes, packed: bytes) -> str:
    """What says that much of each journal to another site."""
    return site.seal.cursor(folder, dict(VersionVector.unpack(packed).items()))


def count_copies(site: Site, folder: FolderRef, cursor: str, own: bytes) -> int:
    """How many sites, this one included, hold all that the cursor covers; `own` is this site's id
    when it was made.

    Of whatever journal: a version that is offered again may have come here from another site.
    """
    wanted = _vector(site.seal.open_cursor(folder.id, cursor))

    def work(connection: Connection) -> int:
        if site_id(connection) != own:
            return 1  # what others say of the former id by now is not of it
        return 1 + _count(_held_elsewhere(connection, folder, own), wanted)

    return site.database.read(work)


def lacking(site: Site, positions: Iterable[Position]) -> int:
    """How many of the versions that are here, of whatever journal, a site lacks whose folders stand
    at these positions.  Raises Gone for a position that no site of the cluster made."""
    there = {p.folder: site.seal.open_cursor(p.folder, p.cursor) for p in positions}
    return sum(
        max(0, number - there.get(folder, {}).get(origin, 0))
        for folder, numbers in all_numbers(site).items()
        for origin, number in numbers.items()
    )


def note_spread(site: Site, folder: FolderRef, reply: CommitReply, own: bytes) -> CommitReply:
    """The reply, with who took the commit, and how many sites had all that was here before it."""
    wanted = _vector(site.seal.open_cursor(folder.id, reply.before))

    def work(connection: Connection) -> list[VersionVector | None]:
        held = _held_elsewhere(connection, folder, own)
        return held if site_id(connection) == own else [None for _ in held]

    others = site.database.read(work)
    if not others:
        return reply
    held = 1 + _count(others, wanted)
    return msgspec.structs.replace(reply, site=own.hex(), held=held)


def _held_elsewhere(
    connection: Connection, folder: FolderRef, own: bytes
) -> list[VersionVector | None]:
    """What each of the other sites said that it holds; None where it said nothing yet."""
    rows = connection.execute(_TOLD, {"folder": folder.row})
    told = {bytes(uid): bytes(packed) for uid, packed in rows}
    others = present_sites(connection).keys() - {own}
    return [VersionVector.unpack(told[uid]) if uid in told else None for uid in others]


def _count(held: Iterable[VersionVector | None], wanted: VersionVector) -> int:
    return sum(numbers is not None and wanted <= numbers for numbers in held)


def _vector(numbers: dict[bytes, int]) -> VersionVector:
    """Journal numbers, to be compared."""
    return VersionVector.of({site: number for site, number in numbers.items() if number})


def await_copies(site: Site, folder: FolderRef, reply: CommitReply, own: bytes) -> CommitReply:
    """The reply, once as many sites as configured hold the commit, or the wait for them is over;
    `own` is the id under which this site made it."""
    rule = site.config.replication
    if rule.copies <= 1:
        return note_spread(site, folder, reply, own)
    until = site.clock.monotonic() + rule.wait_ms / 1000
    pause = threading.Event()
    while True:
        copies = count_copies(site, folder, reply.cursor, own)
        if copies >= rule.copies or site.clock.monotonic() >= until:
            return msgspec.structs.replace(reply, copies=copies, wanted=rule.copies)
        with waiting():
            pause.wait(LOOK)
