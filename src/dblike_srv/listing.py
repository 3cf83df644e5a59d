"""A folder's paths from the top down, a directory at a time.

No index has names in their order, so a directory's names are all read, beyond where an earlier walk
stopped; whatever else there is to know only of what is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, select

from dblike_delta import paths as pathnames
from dblike_delta.versions import Version, buried, heads, winner
from dblike_srv.contents import batches
from dblike_srv.db import all_rows, find_rows
from dblike_srv.models import paths, versions
from dblike_srv.tree import VERSION_COLUMNS, path_key, version_of


class Place(NamedTuple):
    """A path, the seq of its winner, and whether it lives."""

    path: bytes
    winner: int
    live: bool


def walk(
    connection: Connection,
    folder: int,
    below: bytes = b"",
    *,
    after: bytes = b"",
    dead: bool = False,
    deep: bool = True,
) -> Iterator[Place]:
    """The places at and below a path that live (with `dead`, all that ever were), as a tree is
    read: each directory, then what is in it, names in order of their bytes.

    `after` is where an earlier walk stopped.  A walk that is not `deep` goes into no directory
    but the path itself.
    """
    resume = after.split(b"/") if after else []
    if below:
        own = _find(connection, folder, below)
        if own is not None and (own.live or dead) and below.split(b"/") > resume:
            yield own
    children = partial(_children, connection, folder, resume=resume, dead=dead, deep=deep)
    waiting = [children(below)]
    while waiting:
        place = next(waiting[-1], None)
        if place is None:
            waiting.pop()
            continue
        parts = place[0].path.split(b"/")
        if parts > resume:
            yield place[0]
        elif parts != resume[: len(parts)]:
            continue  # all of it comes before
        if place[1]:
            waiting.append(children(place[0].path))


def winners(connection: Connection, folder: int, places: Iterable[Place]) -> list[Version]:
    """The places' present versions, in their order."""
    seqs = [place.winner for place in places]
    where = {versions.c.folder: folder}
    rows = find_rows(connection, VERSION_COLUMNS, where, versions.c.seq, seqs)
    found = {row[0]: version_of(row) for row in rows}
    return [found[seq] for seq in seqs]


def last_versions(
    connection: Connection, folder: int, wanted: Iterable[bytes], *, at: int | None = None
) -> list[Version]:
    """What paths were by the versions recorded until `at`, or, where there is no `at`, what deleted
    ones were before; those that were nothing are left out."""
    found: dict[bytes, list[Version]] = {path: [] for path in wanted}
    where, keys = {versions.c.folder: folder}, map(path_key, found)
    for row in find_rows(connection, VERSION_COLUMNS, where, versions.c.path_key, keys):
        if row[1] in found:
            found[row[1]].append(version_of(row))
    if at is None:
        last = map(buried, found.values())
        return [version for version in last if version is not None]
    then = [heads(v for v in known if v.time <= at) for known in found.values()]
    return [winner(standing) for standing in then if standing]


def _find(connection: Connection, folder: int, path: bytes) -> Place | None:
    query = select(paths.c.path, paths.c.winner, paths.c.live).where(
        paths.c.path_key == path_key(path), paths.c.folder == folder, paths.c.path == path
    )
    row = connection.execute(query).first()
    return None if row is None else Place(row[0], row[1], bool(row[2]))


def _children(
    connection: Connection,
    folder: int,
    directory: bytes,
    *,
    resume: list[bytes],
    dead: bool,
    deep: bool,
) -> Iterator[tuple[Place, bool]]:
    """What is directly in a directory, in order, each with whether anything is in it to go into;
    but nothing that comes as a whole before `resume`."""
    query = select(paths.c.path, paths.c.winner, paths.c.live).where(
        paths.c.parent_key == path_key(directory), paths.c.folder == folder
    )
    above = directory.split(b"/") if directory else []
    if above == resume[: len(above)]:
        query = query.where(paths.c.path >= b"/".join(resume[: len(above) + 1]))
    if not dead:
        query = query.where(paths.c.live == 1)
    rows = all_rows(connection.execute(query))
    mine = (row for row in rows if pathnames.parent(row[0]) == directory)
    found = sorted(mine, key=lambda row: row[0])
    column, where = paths.c.parent_key, {paths.c.folder: folder}
    for some in batches(found):
        keys = [path_key(path) for path, _, _ in some]
        inside = find_rows(connection, [column], where, column, keys) if deep else ()
        full = {key for (key,) in inside}
        for key, (path, best, live) in zip(keys, some, strict=True):
            yield Place(path, best, bool(live)), key in full
