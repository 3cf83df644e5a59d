"""What changed since a cursor: paths, each with its present state."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, select

from dblike_delta.messages import Record
from dblike_delta.versions import Kind, Version
from dblike_srv.errors import Gone
from dblike_srv.folders import heads_of
from dblike_srv.identity import FolderRef
from dblike_srv.models import journal, paths, versions
from dblike_srv.site import Ahead, Site, own_ids, renew
from dblike_srv.tree import VERSION_COLUMNS, site_id, version_of

LARGEST_PAGE = 20_000


def changes(
    site: Site, folder: FolderRef, cursor: str, limit: int
) -> tuple[list[Record], str, bool]:
    """Records of paths that changed since `cursor`, the cursor that covers them, and whether there
    are more.  A first look (no cursor) hears nothing of deleted paths.  Raises Gone.
    """
    numbers = site.seal.open_cursor(folder.id, cursor)
    room = max(1, min(limit, LARGEST_PAGE))

    def work(connection: Connection) -> tuple[list[Record], dict[bytes, int], bool]:
        heads = heads_of(connection, folder.row)
        check_ahead(connection, numbers, heads)
        return _collect(site, connection, folder, dict(numbers), heads, room, not cursor)

    try:
        records, reached, more = site.database.read(work)
    except Ahead as ahead:
        renew(site, ahead.site)
        raise Gone("the cursor is ahead of this site: start with none", field="cursor") from None
    return records, site.seal.cursor(folder.id, reached), more


def since(
    site: Site, folder: FolderRef, epoch_ms: int, limit: int
) -> tuple[list[Record], str, bool]:
    """The same for a moment instead of a cursor: paths with versions that came from then on."""

    def work(connection: Connection) -> dict[bytes, int]:
        heads, own = heads_of(connection, folder.row), site_id(connection)
        first = _first_since(connection, folder.row, own, epoch_ms, heads.get(own, 0))
        return {**heads, own: first - 1}

    start = site.database.read(work)
    return changes(site, folder, site.seal.cursor(folder.id, start), limit)


def _first_since(connection: Connection, folder: int, site: bytes, moment: int, head: int) -> int:
    """The first number of the journal that came at a moment or later, by halving: numbers and
    times grow together, as far as the site's clock does."""
    low, high = 1, head + 1
    while low < high:
        middle = (low + high) // 2
        query = (
            select(journal.c.number, versions.c.accepted)
            .join(
                versions,
                and_(versions.c.folder == journal.c.folder, versions.c.seq == journal.c.seq),
            )
            .where(journal.c.folder == folder, journal.c.site == site)
            .where(journal.c.number >= middle)  # this one may be forgotten
            .order_by(journal.c.number)
            .limit(1)
        )
        row = connection.execute(query).first()
        if row is None or row[1] >= moment:
            high = middle
        else:
            low = row[0] + 1
    return low


def check_ahead(connection: Connection, numbers: dict[bytes, int], heads: dict[bytes, int]) -> None:
    """Raises Ahead where somebody has more of our own journal than we do."""
    for own in own_ids(connection):
        if numbers.get(own, 0) > heads.get(own, 0):
            raise Ahead(own)


def _collect(
    site: Site,
    connection: Connection,
    folder: FolderRef,
    reached: dict[bytes, int],
    heads: dict[bytes, int],
    room: int,
    first: bool,
) -> tuple[list[Record], dict[bytes, int], bool]:
    records: dict[bytes, Record] = {}
    for origin, head in sorted(heads.items()):
        if reached.get(origin, 0) >= head:
            continue
        if room <= 0:
            return list(records.values()), reached, True
        last, count = reached.get(origin, 0), 0
        for row in connection.execute(_page(folder.row, origin, last, room)):
            last, count = row[0], count + 1
            path = bytes(row[1])
            if path not in records and not (first and row[3 + 6] == Kind.DELETED):
                records[path] = record_of(site, folder, version_of(row[3:]), bytes(row[2]))
        room -= count
        reached[origin] = head if room > 0 else last
        if reached[origin] < head:
            return list(records.values()), reached, True
    return list(records.values()), reached, False


def _page(folder: int, origin: bytes, after: int, limit: int) -> Any:
    """Journal entries, each with its path's present winner."""
    changed, best = versions.alias("changed"), versions
    return (
        select(journal.c.number, paths.c.path, paths.c.context, *VERSION_COLUMNS)
        .join(changed, and_(changed.c.folder == journal.c.folder, changed.c.seq == journal.c.seq))
        .join(
            paths,
            and_(
                paths.c.folder == journal.c.folder,
                paths.c.path_key == changed.c.path_key,
                paths.c.path == changed.c.path,
            ),
        )
        .join(best, and_(best.c.folder == paths.c.folder, best.c.seq == paths.c.winner))
        .where(journal.c.folder == folder, journal.c.site == origin, journal.c.number > after)
        .order_by(journal.c.number)
        .limit(limit)
    )


def record_of(site: Site, folder: FolderRef, version: Version, packed: bytes) -> Record:
    """A path's present state as it travels; `packed` is the join of its heads' vectors."""
    return Record(
        path=version.path,
        device=version.dot.device,
        counter=version.dot.counter,
        time=version.time,
        kind=int(version.kind),
        hash=version.hash,
        size=version.size,
        mode=version.mode,
        mtime_ns=version.mtime_ns,
        target=version.target,
        author=version.author,
        context=site.seal.context(folder.id, version.path, packed),
        key_id=version.key_id,
    )
