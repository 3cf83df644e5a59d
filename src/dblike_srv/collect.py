"""Garbage collection: what no version needs goes, without ever going too early.

Contents that no version names are dropped at once, in a transaction that looks again.  Packs go in
two steps: one that no content needs is marked as dying, and only when it was so for a whole grace
period is it deleted.  A commit that comes to need a dying pack takes the mark off in its own
transaction.  Every step may be the last before a crash; the next run goes on.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import partial
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from dblike_delta.recipe import Recipe
from dblike_srv.contents import State, batches
from dblike_srv.db import asked, told
from dblike_srv.models import contents, folders, packs, users, versions
from dblike_srv.packs import GIVEN_UP, UNMARKED, is_dying
from dblike_srv.retention import doomed as doomed_versions
from dblike_srv.retention import prune
from dblike_srv.site import Site

GRACE_MS: Final = 24 * 3600 * 1000
"""How long a pack stays when nothing needs it: fetches and slow uploads that began before end."""
PAGE: Final = 900

log = logging.getLogger(__name__)


class GcReport(msgspec.Struct, frozen=True):
    """What went (or would go): versions, contents, packs and the packs' bytes."""

    versions: int = 0
    contents: int = 0
    packs: int = 0
    bytes: int = 0


class Stored(msgspec.Struct, frozen=True):
    """A content as garbage collection sees it."""

    id: int
    user: int
    hash: bytes
    state: State
    recipe: Recipe


def gc(site: Site, *, dry_run: bool = False) -> GcReport:
    """Forget versions by the retention, then what only they needed.  Safe beside a running site."""
    began = site.clock.now_ms()
    forgotten = prune(site, dry_run=dry_run)
    dropped = sum(_drop_contents(site, dry_run=dry_run))
    needed = _needed_by_user(site)
    before = _spaces(site)  # after that: what came meanwhile was seen, and is counted already
    everyone = set[int]().union(*needed.values())
    deleted = _sweep(site, everyone, dry_run=dry_run)
    if not dry_run:
        _mark(site, everyone, began)
        _adopt_orphans(site)
        _recount(site, before, needed)
    report = GcReport(forgotten, dropped, len(deleted), sum(deleted))
    log.info("gc%s: %s", " (dry run)" if dry_run else "", report)
    return report


def stored_contents(site: Site) -> Iterator[Stored]:
    """All contents, in the order in which they came, read page by page."""
    last = 0
    while True:
        query = (
            select(contents.c.id, contents.c.user, contents.c.hash, contents.c.state,
                   contents.c.recipe)
            .where(contents.c.id > last)
            .order_by(contents.c.id)
            .limit(PAGE)
        )  # fmt: skip
        rows = site.database.read(asked(query))
        for row, user, digest, state, packed in rows:
            recipe = Recipe.unpack(bytes(packed))
            yield Stored(row, user, bytes(digest), State(state), recipe)
        if len(rows) < PAGE:
            return
        last = rows[-1][0]


# --- contents


def _drop_contents(site: Site, *, dry_run: bool) -> Iterator[int]:
    """Drop what no version names; how many, page by page."""
    for page in batches(stored_contents(site), PAGE):
        wanted = {stored.id: (stored.user, stored.hash) for stored in page}
        find = partial(_unnamed_soon, site=site) if dry_run else _unnamed
        doomed = site.database.read(partial(find, wanted=wanted))
        if doomed and not dry_run:
            site.database.transact(partial(_drop, wanted=wanted, doomed=doomed))
        yield len(doomed)


def _unnamed(connection: Connection, wanted: dict[int, tuple[int, bytes]]) -> set[int]:
    """Those of the contents that no version of their user names."""
    query = (
        select(folders.c.user, versions.c.hash)
        .join(folders, folders.c.row == versions.c.folder)
        .where(versions.c.hash.in_({digest for _, digest in wanted.values()}))
        .distinct()
    )
    named = {(user, bytes(digest)) for user, digest in connection.execute(query)}
    return {row for row, key in wanted.items() if key not in named}


def _unnamed_soon(
    connection: Connection, site: Site, wanted: dict[int, tuple[int, bytes]]
) -> set[int]:
    """Those of the contents that no version of their user names that the retention keeps."""
    query = (
        select(folders.c.user, versions.c.hash, versions.c.folder, versions.c.seq,
               versions.c.path_key)
        .join(folders, folders.c.row == versions.c.folder)
        .where(versions.c.hash.in_({digest for _, digest in wanted.values()}))
    )  # fmt: skip
    rows = connection.execute(query).all()
    paths: dict[int, set[bytes]] = {}
    for row in rows:
        paths.setdefault(row.folder, set()).add(bytes(row.path_key))
    going = {
        (folder, seq)
        for folder, keys in paths.items()
        for batch in batches(keys)
        for seq in doomed_versions(connection, site, folder, batch)
    }
    named = {(row.user, bytes(row.hash)) for row in rows if (row.folder, row.seq) not in going}
    return {number for number, key in wanted.items() if key not in named}


def _drop(connection: Connection, wanted: dict[int, tuple[int, bytes]], doomed: set[int]) -> None:
    # The rows are locked first, then the versions looked at again: a commit that is about to name
    # one of them either did so before, and is seen, or finds it gone.  On two nodes of a Galera
    # cluster locks do not meet, only what is written: so this takes a number of each folder.
    owners = {user for user, _ in (wanted[row] for row in doomed)}
    mine = folders.c.user.in_(owners)
    connection.execute(update(folders).where(mine).values(seq=folders.c.seq + 1))
    query = select(contents.c.id, contents.c.user, contents.c.hash)
    locked = connection.execute(query.where(contents.c.id.in_(doomed)).with_for_update())
    rows = {row: (user, bytes(digest)) for row, user, digest in locked}
    # SQLite gives the number of the last row again when that is gone, as by another collection.
    still = _unnamed(connection, {row: key for row, key in rows.items() if key == wanted[row]})
    connection.execute(delete(contents).where(contents.c.id.in_(still)))


# --- packs


def _needed_by_user(site: Site) -> dict[int, set[int]]:
    """The packs that each user's contents lie in."""
    needed: dict[int, set[int]] = {}
    for stored in stored_contents(site):
        needed.setdefault(stored.user, set()).update(stored.recipe.packs)
    return needed


def _sweep(site: Site, needed: set[int], *, dry_run: bool) -> list[int]:
    """Delete packs that were dying for the whole grace; their sizes."""
    until = site.clock.now_ms() - GRACE_MS
    query = select(packs.c.id, packs.c.hash, packs.c.size, packs.c.dying).where(
        ~UNMARKED, packs.c.dying <= until
    )
    doomed = [row for row in site.database.read(asked(query)) if row[0] not in needed]
    swept = []
    for row, name, size, dying in doomed:
        if dry_run or _delete(site, row, bytes(name), dying):
            swept.append(size)
    return swept


def _delete(site: Site, row: int, name: bytes, dying: int) -> bool:
    """Delete a pack; False where somebody came to need it.

    First its row is given up for good, in a transaction of its own, then the file goes, then the
    row.  In one step the file would be gone, and a COMMIT that fails, as in a Galera cluster where
    a commit on another node took the mark off meanwhile, would bring the row back.  A crash in
    between leaves a row that was given up, which the next run deletes.
    """
    if is_dying(dying) and not site.database.transact(partial(_give_up, row=row, dying=dying)):
        return False
    site.store.delete(name)
    given_up = delete(packs).where(packs.c.id == row, GIVEN_UP)
    return site.database.transact(told(given_up)) == 1


def _give_up(connection: Connection, row: int, dying: int) -> bool:
    """Nobody may take the mark off from here on.  True also where a former run did this."""
    mine = packs.c.id == row
    change = update(packs).where(mine, packs.c.dying == dying).values(dying=-dying)
    connection.execute(change)
    return connection.scalar(select(packs.c.dying).where(mine)) == -dying


def _mark(site: Site, needed: set[int], now: int) -> None:
    """Mark packs that nothing needs as dying; take the mark off those that are needed.

    A pack that came while the contents were read may be marked wrongly.  That does no harm: nothing
    is deleted that the contents of a later run need.
    """
    query = select(packs.c.id, packs.c.dying, packs.c.created)
    rows = site.database.read(asked(query))
    unmarked = {row for row, mark, made in rows if not mark and made < now}
    idle = unmarked - needed
    alive = {row for row, mark, _ in rows if is_dying(mark)} & needed
    for change, chosen in ((now, idle), (0, alive)):
        for batch in batches(chosen):
            statement = update(packs).where(packs.c.id.in_(batch)).values(dying=change)
            site.database.transact(told(statement))


def _adopt_orphans(site: Site) -> None:
    """Files that no row names come from crashes: give them a row that is dying."""
    known = {bytes(name) for (name,) in site.database.read(asked(select(packs.c.hash)))}
    began = site.clock.now_ms()
    for name in site.store.names():
        if name not in known:
            with contextlib.suppress(FileNotFoundError):
                size = site.store.size(name)
                site.database.transact(partial(_adopt, name=name, size=size, now=began))


def _adopt(connection: Connection, name: bytes, size: int, now: int) -> None:
    if connection.execute(select(packs.c.id).where(packs.c.hash == name)).first() is None:
        row = {"hash": name, "size": size, "created": now, "dying": now}
        connection.execute(insert(packs).values(row))


# --- space


def _spaces(site: Site) -> dict[int, int]:
    query = select(users.c.id, users.c.used)
    return dict(map(tuple, site.database.read(asked(query))))


def _recount(site: Site, before: dict[int, int], needed: dict[int, set[int]]) -> None:
    """Bring each user's used space to that of the packs that the user's contents lie in.

    By the difference, so that what was committed meanwhile stays counted.
    """
    sizes = dict(
        site.database.read(
            lambda c: [tuple(r) for r in c.execute(select(packs.c.id, packs.c.size))]
        )
    )
    for user, used in before.items():
        now = sum(sizes.get(number, 0) for number in needed.get(user, ()))
        if now != used:
            change = update(users).where(users.c.id == user).values(used=users.c.used + now - used)
            site.database.transact(told(change))
