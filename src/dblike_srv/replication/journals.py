"""A folder's journals as a stream: every version beyond a cursor, in the order of each journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, and_, select

from dblike_delta.changeset import Encoder, Part
from dblike_delta.messages import CursorMark, JournalMark, Record
from dblike_delta.versions import Dot
from dblike_srv.folders import heads_of
from dblike_srv.identity import FolderRef
from dblike_srv.models import folders, journal, journals, versions
from dblike_srv.replication.messages import Position, Positions
from dblike_srv.site import Site
from dblike_srv.tree import VERSION_COLUMNS

LARGEST_PAGE = 20_000
POSITIONS = 2000

Entry = tuple[bytes, int, Any]
"""The site, the number in its journal, and the row of the version."""


def stream(site: Site, folder: FolderRef, cursor: str, limit: int) -> Iterator[Part]:
    """The changeset of at most `limit` versions beyond the cursor.  Raises Gone."""
    reached = site.seal.open_cursor(folder.id, cursor)
    entries, more = site.database.read(lambda c: _entries(c, folder.row, reached, limit))
    encoder = Encoder()
    expected: tuple[bytes, int] | None = None
    for origin, number, row in entries:
        if expected != (origin, number):
            yield from encoder.journal(JournalMark(origin, number))
        expected = (origin, number + 1)
        yield from encoder.record(record_of(row))
    yield from encoder.cursor(CursorMark(site.seal.cursor(folder.id, reached), more))
    yield from encoder.finish()


def _entries(
    connection: Connection, folder: int, reached: dict[bytes, int], limit: int
) -> tuple[Sequence[Entry], bool]:
    """The next entries; `reached` is moved to where they end.  Whether there are more."""
    found: list[Entry] = []
    for origin, head in sorted(heads_of(connection, folder).items()):
        after, room = reached.get(origin, 0), limit - len(found)
        if after >= head:
            continue
        if room <= 0:
            return found, True
        rows = connection.execute(_page(folder, origin, after, room)).all()
        found += [(origin, row[0], row[1:]) for row in rows]
        full = len(rows) == room
        reached[origin] = rows[-1][0] if full else head
        if reached[origin] < head:
            return found, True
    return found, False


def _page(folder: int, origin: bytes, after: int, limit: int) -> Any:
    same = and_(versions.c.folder == journal.c.folder, versions.c.seq == journal.c.seq)
    return (
        select(journal.c.number, *VERSION_COLUMNS)
        .join(versions, same)
        .where(journal.c.folder == folder, journal.c.site == origin, journal.c.number > after)
        .order_by(journal.c.number)
        .limit(limit)
    )


def record_of(row: Any) -> Record:
    """A version, from a row of VERSION_COLUMNS, as sites tell it to each other."""
    (_, path, device, counter, vector, time, kind, digest, size, mode, mtime_ns, target, author,
     key_id) = row  # fmt: skip
    return Record(
        path=path, device=device, counter=counter, time=time, kind=kind, hash=digest, size=size,
        mode=mode, mtime_ns=mtime_ns, target=target, author=author, vector=vector, key_id=key_id,
    )  # fmt: skip


def positions(site: Site, after: bytes) -> Positions:
    """Where all folders stand, by id, from after `after` on."""
    query = (
        select(folders.c.row, folders.c.id)
        .where(folders.c.id > after)
        .order_by(folders.c.id)
        .limit(POSITIONS)
    )

    def work(connection: Connection) -> list[tuple[bytes, dict[bytes, int]]]:
        rows = connection.execute(query).all()
        return [(bytes(uid), heads_of(connection, row)) for row, uid in rows]

    found = site.database.read(work)
    told = [Position(uid, site.seal.cursor(uid, heads)) for uid, heads in found]
    return Positions(told, more=len(found) == POSITIONS)


def folder_by_id(site: Site, uid: bytes) -> FolderRef | None:
    """The folder, whosever it is."""
    query = select(folders.c.row, folders.c.name, folders.c.user).where(folders.c.id == uid)
    row = site.database.read(lambda connection: connection.execute(query).first())
    return None if row is None else FolderRef(row[0], uid, bytes(row[1]).decode(), row[2])


def numbers_of(site: Site, folder: FolderRef) -> dict[bytes, int]:
    """How much of each journal is here."""
    query = select(journals.c.site, journals.c.head).where(journals.c.folder == folder.row)
    return site.database.read(lambda c: {bytes(s): head for s, head in c.execute(query)})


def dots_of(site: Site, folder: FolderRef, origin: bytes, after: int, limit: int) -> dict[int, Dot]:
    """The next entries of a journal: number to dot."""
    query = _page(folder.row, origin, after, limit)
    rows = site.database.read(lambda connection: connection.execute(query).all())
    return {row[0]: Dot(bytes(row.device), row.counter) for row in rows}


def all_numbers(site: Site) -> dict[bytes, dict[bytes, int]]:
    """How much of each journal of each folder is here, by the folders' ids."""
    query = select(folders.c.id, journals.c.site, journals.c.head).outerjoin(
        journals, journals.c.folder == folders.c.row
    )
    found: dict[bytes, dict[bytes, int]] = {}
    for folder, origin, head in site.database.read(lambda c: c.execute(query).all()):
        numbers = found.setdefault(bytes(folder), {})
        if origin is not None:
            numbers[bytes(origin)] = head
    return found
