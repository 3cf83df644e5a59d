"""Retention: which versions may be forgotten, and forgetting them.

Heads are never forgotten: a tombstone that went away would let what it deleted come back.  When a
version and one that dominates it had both come says since when nobody needs it, by this site's own
clock at the time: a device with a wrong clock must not make history shorter, nor one that was away
and brings an older version after a newer one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, delete, func, select

from dblike_delta.varints import take_varints
from dblike_delta.versions import Kind, Version
from dblike_delta.versions import heads as heads_of
from dblike_srv.config import Retention
from dblike_srv.contents import batches
from dblike_srv.db import asked, find_rows
from dblike_srv.models import folders, journal, paths, versions
from dblike_srv.site import Site
from dblike_srv.tree import VERSION_COLUMNS, version_of

PATHS: Final = 500
"""Paths looked at in one transaction: a commit waits no longer than these take."""
LOOK: Final = 100 * PATHS
"""Edited paths looked for at once: no index has a folder's paths, so each look reads all of it."""
DAY_MS: Final = 24 * 3600 * 1000


class Seen(NamedTuple):
    """A version of a path, and when it came here."""

    seq: int
    accepted: int


class Aged(NamedTuple):
    """What came of a path before the days that the rule keeps, and what of it nothing else keeps:
    the seqs, oldest first."""

    came: list[int]
    spare: list[int]


def aged(
    history: Sequence[Seen], heads: frozenset[int], rule: Retention, *, live: bool, now: int
) -> Aged:
    """Which of a path's versions (oldest first) the rule lets go, if they were replaced by then."""
    newest = rule.versions + len(heads) if live else 0
    kept = heads.union(seen.seq for seen in history[::-1][:newest])
    since = now - rule.days * DAY_MS
    came = [seen.seq for seen in history if seen.accepted <= since]
    return Aged(came, [seq for seq in came if seq not in kept] if len(came) > 1 else [])


def forgettable(path: Aged, known: Mapping[int, Version]) -> list[int]:
    """Which of these were replaced by then: whatever of them nothing dominated is what the path was
    in the days that are kept, or a part of it."""
    stood = {head.dot for head in heads_of(known[seq] for seq in path.came)}
    return [seq for seq in path.spare if known[seq].dot not in stood]


def prune(site: Site, *, dry_run: bool = False) -> int:
    """Forget what the configured retention lets go; how many versions that was."""
    rows = site.database.read(asked(select(folders.c.row)))
    return sum(_prune_folder(site, folder, dry_run=dry_run) for (folder,) in rows)


def doomed(connection: Connection, site: Site, folder: int, keys: list[bytes]) -> set[int]:
    """The versions of these paths that `prune` would forget now."""
    return set(_doomed(connection, site, folder, keys))


def _prune_folder(site: Site, folder: int, *, dry_run: bool) -> int:
    forgotten = 0
    for keys in _edited(site, folder):

        def work(connection: Connection, keys: list[bytes] = keys) -> int:
            if not dry_run:  # no commit may make a head of what was none when it was looked at
                row = select(folders.c.seq).where(folders.c.row == folder)
                connection.execute(row.with_for_update())
            doomed = list(_doomed(connection, site, folder, keys))
            if not dry_run:
                _forget(connection, folder, doomed)
            return len(doomed)

        run = site.database.read if dry_run else site.database.transact
        forgotten += run(work)
    return forgotten


def _edited(site: Site, folder: int) -> Iterator[list[bytes]]:
    """The keys of paths that have more than one version, in batches."""
    last = b""
    while True:
        query = (
            select(versions.c.path_key)
            .where(versions.c.folder == folder, versions.c.path_key > last)
            .group_by(versions.c.path_key)
            .having(func.count() > 1)
            .order_by(versions.c.path_key)
            .limit(LOOK)
        )
        keys = [bytes(key) for (key,) in site.database.read(asked(query))]
        yield from batches(keys, PATHS)
        if len(keys) < LOOK:
            return
        last = keys[-1]


def _doomed(connection: Connection, site: Site, folder: int, keys: list[bytes]) -> Iterator[int]:
    """Versions of these paths that may go."""
    now, rule = site.clock.now_ms(), site.config.retention
    standing = _standing(connection, folder, keys)
    columns = (versions.c.path, versions.c.seq, versions.c.accepted)
    where = {versions.c.folder: folder}
    seen: dict[bytes, list[Seen]] = {}
    for path, seq, accepted in find_rows(connection, columns, where, versions.c.path_key, keys):
        seen.setdefault(path, []).append(Seen(seq, accepted))
    old: list[Aged] = []
    for path, history in seen.items():
        heads, live = standing[path]
        old.append(aged(sorted(history), heads, rule, live=live, now=now))
    old = [path for path in old if path.spare]
    seqs = (seq for path in old for seq in path.came)
    found = find_rows(connection, VERSION_COLUMNS, where, versions.c.seq, seqs)
    known = {row[0]: version_of(row) for row in found}
    for path in old:
        yield from forgettable(path, known)


def _standing(
    connection: Connection, folder: int, keys: list[bytes]
) -> dict[bytes, tuple[frozenset[int], bool]]:
    """The heads of paths, and whether they live."""
    query = (
        select(paths.c.path, paths.c.winner, paths.c.heads, versions.c.kind)
        .join(versions, (versions.c.folder == paths.c.folder) & (versions.c.seq == paths.c.winner))
        .where(paths.c.folder == folder, paths.c.path_key.in_(keys))
    )
    return {
        bytes(path): (
            frozenset(take_varints(bytes(packed), 0) if packed else [best]),
            kind != Kind.DELETED,
        )
        for path, best, packed, kind in connection.execute(query)
    }


def _forget(connection: Connection, folder: int, doomed: list[int]) -> None:
    for batch in batches(doomed):
        connection.execute(
            delete(journal).where(journal.c.folder == folder, journal.c.seq.in_(batch))
        )
        connection.execute(
            delete(versions).where(versions.c.folder == folder, versions.c.seq.in_(batch))
        )
