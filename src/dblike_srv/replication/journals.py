"""A folder's journals as a stream: every version beyond a cursor, in the order of each journal and
of what the site knew when."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection, bindparam, select

from dblike_delta.changeset import Encoder, Part
from dblike_delta.messages import CursorMark, JournalMark, Record
from dblike_delta.versions import Dot
from dblike_srv.db import find_rows
from dblike_srv.folders import journal_numbers
from dblike_srv.identity import FolderRef
from dblike_srv.models import folders, journal, journals, versions
from dblike_srv.replication.messages import Known, Position, Positions
from dblike_srv.site import Ahead, Site
from dblike_srv.tree import VERSION_COLUMNS, Tree, site_id, version_of

LARGEST_PAGE = 20_000
POSITIONS = 2000

_FOLDER = select(folders.c.row, folders.c.name, folders.c.user).where(
    folders.c.id == bindparam("id")
)
_NUMBERS = (
    select(journal.c.number, journal.c.seq)
    .where(
        journal.c.folder == bindparam("folder"),
        journal.c.site == bindparam("origin"),
        journal.c.number > bindparam("after"),
    )
    .order_by(journal.c.number)
    .limit(bindparam("most"))
)

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
    """The next entries; `reached` is moved to where they end.  Whether there are more.

    They come in the order in which this site learned of them, as far as each journal's own order
    lets them.  So whoever takes in some of them knows a time of this site, and never an edit
    without what it was made from: of that, conflicts would come that nobody made.
    """
    numbers = journal_numbers(connection, folder)
    behind = {site: after for site in numbers if (after := reached.get(site, 0)) < numbers[site]}
    pages = {site: _numbers(connection, folder, site, behind[site], limit) for site in behind}
    chosen = list(islice(heapq.merge(*(_timed(*page) for page in pages.items())), limit))
    taken = Counter(site for _, site, _, _ in chosen)
    for site, page in pages.items():
        if taken[site] == len(page) < limit:
            reached[site] = numbers[site]
        elif taken[site]:
            reached[site] = page[taken[site] - 1][0]
    rows = _rows(connection, folder, [seq for _, _, _, seq in chosen])
    found = [(site, number, rows[seq]) for _, site, number, seq in chosen if seq in rows]
    return found, any(reached.get(site, 0) < numbers[site] for site in behind)


def _timed(site: bytes, page: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes, int, int]]:
    """A journal's entries, each with the place that it has among those of all of them."""
    place = 0
    for number, seq in page:
        place = max(place, seq)
        yield place, site, number, seq


def _numbers(
    connection: Connection, folder: int, origin: bytes, after: int, limit: int
) -> Sequence[tuple[int, int]]:
    """The next entries of a journal: number and version."""
    values = {"folder": folder, "origin": origin, "after": after, "most": limit}
    return [(number, seq) for number, seq in connection.execute(_NUMBERS, values)]


def _rows(connection: Connection, folder: int, seqs: Iterable[int]) -> dict[int, Any]:
    """The versions, as rows of VERSION_COLUMNS."""
    where = {versions.c.folder: folder}
    rows = find_rows(connection, VERSION_COLUMNS, where, versions.c.seq, seqs)
    return {row[0]: row for row in rows}


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
        return [(bytes(uid), journal_numbers(connection, row)) for row, uid in rows]

    found = site.database.read(work)
    told = [Position(uid, site.seal.cursor(uid, numbers)) for uid, numbers in found]
    return Positions(told, more=len(found) == POSITIONS)


def folder_by_id(site: Site, uid: bytes) -> FolderRef | None:
    """The folder, whosever it is."""
    row = site.database.read(lambda c: c.execute(_FOLDER, {"id": uid}).first())
    return None if row is None else FolderRef(row[0], uid, bytes(row[1]).decode(), row[2])


def numbers_of(site: Site, folder: FolderRef) -> dict[bytes, int]:
    """How much of each journal is here."""
    return site.database.read(lambda connection: journal_numbers(connection, folder.row))


def dots_of(site: Site, folder: FolderRef, origin: bytes, after: int, limit: int) -> dict[int, Dot]:
    """The next entries of a journal: number to dot."""

    def work(connection: Connection) -> dict[int, Dot]:
        page = _numbers(connection, folder.row, origin, after, limit)
        rows = _rows(connection, folder.row, [seq for _, seq in page])
        return {number: version_of(rows[seq]).dot for number, seq in page if seq in rows}

    return site.database.read(work)


def check_own(site: Site, known: Known) -> None:
    """Raises Ahead where another site has another version under a number of our own journal."""
    folder, dot = folder_by_id(site, known.folder), Dot(known.device, known.counter)
    if folder is None or known.site != site.database.read(site_id):
        return
    ours = dots_of(site, folder, known.site, known.number - 1, 1)
    if ours.get(known.number, dot) != dot:
        raise Ahead(known.site)


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


def reach(site: Site, folder: FolderRef, numbers: dict[bytes, int]) -> None:
    """Journals are here up to these numbers, where nothing is left of what lies before them."""

    def work(connection: Connection) -> None:
        tree = Tree(connection, folder.row)
        held = journal_numbers(connection, folder.row)
        for origin, number in numbers.items():
            if number > held.get(origin, 0):
                if origin == tree.site:
                    raise Ahead(origin)
                tree.reach(origin, number)

    site.database.transact(work)
