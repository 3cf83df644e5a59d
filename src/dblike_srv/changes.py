"""What changed since a cursor: paths, each with its present state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, and_, bindparam, func, select

from dblike_delta.messages import Record
from dblike_delta.versions import Kind
from dblike_srv.contents import State, find_contents
from dblike_srv.db import all_rows
from dblike_srv.errors import Gone
from dblike_srv.folders import journal_numbers
from dblike_srv.identity import FolderRef
from dblike_srv.listing import last_versions
from dblike_srv.models import journal, paths, versions
from dblike_srv.replication.lost import are_lost
from dblike_srv.site import Ahead, Site, own_ids, renew

LARGEST_PAGE = 20_000

_COLUMNS = (
    paths.c.path, paths.c.context, versions.c.device, versions.c.counter, versions.c.time,
    versions.c.kind, versions.c.hash, versions.c.size, versions.c.mode, versions.c.mtime_ns,
    versions.c.target, versions.c.author, versions.c.key_id,
)  # fmt: skip
"""A path with its winner; `context` is the join of the heads' vectors."""
_PATH, _KIND = 1, 6
"""Where these are in a row of a page."""


def changes(
    site: Site, folder: FolderRef, cursor: str, limit: int, *, buried: bool = False
) -> tuple[list[Record], str, bool]:
    """Records of paths that changed since `cursor`, the cursor that covers them, and whether there
    are more.  Raises Gone.

    A first look (no cursor) hears nothing of deleted paths, but with `buried`: then each of them
    comes with hash and size of the file that was deleted, as long as that could be brought back, or
    with the mode of the directory.

    Where the cursor is of a site that had heard more, the new one goes back to what is known here:
    the states that are told now lack the rest, and are told again when it has come.  Where it can't
    come any more the cursor is Gone, and what its owner has of it goes up again.
    """
    numbers = site.seal.open_cursor(folder.id, cursor)
    seen = site.seal.open_seen(folder.id, cursor)
    room = max(1, min(limit, LARGEST_PAGE))

    def work(connection: Connection) -> tuple[list[Record], dict[bytes, int], bool]:
        held = journal_numbers(connection, folder.row)
        check_ahead(connection, seen, held)
        beyond = {origin for origin, n in seen.items() if n > held.get(origin, 0)}
        if beyond and are_lost(connection, beyond, site.clock.now_ms()):
            raise Gone("a site was lost that had told more: start with none", field="cursor")
        here = {origin: min(n, held.get(origin, 0)) for origin, n in numbers.items()}
        live_only = not cursor and not buried
        found, reached, more = _collect(site, connection, folder, here, held, room, live_only)
        return _with_buried(connection, folder, found) if buried else found, reached, more

    try:
        records, reached, more = site.database.read(work)
    except Ahead as ahead:
        renew(site, ahead.site)
        raise Gone("the cursor is ahead of this site: start with none", field="cursor") from None
    return records, site.seal.cursor(folder.id, reached, seen), more


def since(
    site: Site, folder: FolderRef, epoch_ms: int, limit: int
) -> tuple[list[Record], str, bool]:
    """The same for a moment instead of a cursor: paths with versions that came from then on."""

    def work(connection: Connection) -> dict[bytes, int]:
        first = _first_since(connection, folder.row, epoch_ms)
        rows = connection.execute(_NUMBERS, {"folder": folder.row, "first": first})
        return journal_numbers(connection, folder.row) | {
            bytes(uid): least - 1 for uid, least in rows
        }

    start = site.database.read(work)
    return changes(site, folder, site.seal.cursor(folder.id, start), limit)


_NUMBERS = (
    select(journal.c.site, func.min(journal.c.number))
    .where(journal.c.folder == bindparam("folder"), journal.c.seq >= bindparam("first"))
    .group_by(journal.c.site)
)
"""Where versions begin in each journal that came here from one on."""


def _first_since(connection: Connection, folder: int, moment: int) -> int:
    """The first version that came here at a moment or later, from wherever, by halving: numbers and
    times grow together, as far as the site's clock does."""
    last = select(func.max(versions.c.seq)).where(versions.c.folder == folder)
    low, high = 1, (connection.scalar(last) or 0) + 1
    while low < high:
        middle = (low + high) // 2
        query = (
            select(versions.c.seq, versions.c.accepted)
            .where(versions.c.folder == folder)
            .where(versions.c.seq >= middle)  # this one may be forgotten
            .order_by(versions.c.seq)
            .limit(1)
        )
        row = connection.execute(query).first()
        if row is None or row[1] >= moment:
            high = middle
        else:
            low = row[0] + 1
    return low


def check_ahead(connection: Connection, numbers: dict[bytes, int], held: dict[bytes, int]) -> None:
    """Raises Ahead where somebody has more of our own journal than we do."""
    for own in own_ids(connection):
        if numbers.get(own, 0) > held.get(own, 0):
            raise Ahead(own)


def _collect(
    site: Site,
    connection: Connection,
    folder: FolderRef,
    reached: dict[bytes, int],
    held: dict[bytes, int],
    room: int,
    live_only: bool,
) -> tuple[list[Record], dict[bytes, int], bool]:
    records: dict[bytes, Record] = {}
    for origin, head in sorted(held.items()):
        if reached.get(origin, 0) >= head:
            continue
        if room <= 0:
            return list(records.values()), reached, True
        last = reached.get(origin, 0)
        values = {"folder": folder.row, "origin": origin, "after": last, "most": room}
        rows = all_rows(connection.execute(_PAGE, values))
        for row in rows:
            path, kind = row[_PATH], row[_KIND]
            if path not in records and not (live_only and kind == Kind.DELETED):
                records[path] = _record(site, folder, row)
        last, count = rows[-1][0] if rows else last, len(rows)
        room -= count
        reached[origin] = head if room > 0 else last
        if reached[origin] < head:
            return list(records.values()), reached, True
    return list(records.values()), reached, False


def _page() -> Any:
    """Journal entries, each with its path's present winner: asked for `folder`, `origin`, `after`
    and at `most` so many.  Made once, for to build it takes longer than to run it."""
    changed, best = versions.alias("changed"), versions
    return (
        select(journal.c.number, *_COLUMNS)
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
        .where(
            journal.c.folder == bindparam("folder"),
            journal.c.site == bindparam("origin"),
            journal.c.number > bindparam("after"),
        )
        .order_by(journal.c.number)
        .limit(bindparam("most"))
    )


_PAGE = _page()


def _with_buried(connection: Connection, folder: FolderRef, records: list[Record]) -> list[Record]:
    """The records, those of deleted paths with what each delete buried."""
    tombs = {record.path: record for record in records if record.kind == Kind.DELETED}
    last = last_versions(connection, folder.row, tombs)
    kept = find_contents(connection, folder.user, {v.hash for v in last if v.hash})
    for version in last:
        path = version.path
        if version.kind is Kind.DIRECTORY:
            tombs[path] = replace(tombs[path], mode=version.mode)
        elif version.hash in kept and kept[version.hash].state is not State.DAMAGED:
            tombs[path] = replace(tombs[path], hash=version.hash, size=version.size)
    return [tombs.get(record.path, record) for record in records]


def _record(site: Site, folder: FolderRef, row: Sequence[Any]) -> Record:
    """A path's present state as it travels, from a row of `_page`."""
    (_, path, packed, device, counter, time, kind, digest, size, mode, mtime_ns, target, author,
     key_id) = row  # fmt: skip
    context = site.seal.context(folder.id, path, packed)
    return Record(
        path, device, counter, time, kind, digest, size, mode, mtime_ns, target, author, context,
        key_id=key_id,
    )  # fmt: skip
