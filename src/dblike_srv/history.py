"""History: the versions of a path, the folder's log, the tree now and then, and restoring."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import islice

from sqlalchemy import Connection, select

from dblike_delta.errors import PathError
from dblike_delta.messages import (
    RestoreReply,
    RestoreRequest,
    TreeList,
    VersionList,
)
from dblike_delta.paths import check_path, display
from dblike_delta.versions import Kind, Version
from dblike_srv.db import find_rows
from dblike_srv.edits import Edit, apply_items, dots_of, make_items
from dblike_srv.errors import Conflict, Invalid, NotFound
from dblike_srv.fetch import find_versions
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.listing import Place, last_versions, walk, winners
from dblike_srv.models import paths, versions
from dblike_srv.site import Site
from dblike_srv.tree import VERSION_COLUMNS, Tree, path_key, version_of
from dblike_srv.views import dot_of, view_version

LARGEST_RESTORE = 1_000_000
SOME = 1000
"""Paths whose versions are looked up at once."""
_ELSEWHERE = "delete or rename it first, or restore to another path"


def versions_of(
    site: Site, folder: FolderRef, path: bytes, *, limit: int = 100, before: str = ""
) -> VersionList:
    """A path's versions, the newest first; NotFound where it never was."""
    found = _page(site, folder, limit, before, path)
    if not found.versions and not before:
        raise NotFound("no such path", field="path")
    return found


def log(site: Site, folder: FolderRef, *, limit: int = 100, before: str = "") -> VersionList:
    """The folder's versions, the newest first."""
    return _page(site, folder, limit, before)


def tree(
    site: Site,
    folder: FolderRef,
    below: bytes = b"",
    *,
    at: int | None = None,
    limit: int = 1000,
    after: bytes = b"",
    deep: bool = True,
) -> TreeList:
    """What is live at and below a path, now or at a moment (epoch milliseconds), sorted by path;
    where it shall not be `deep`, nothing that is below the directories in it.

    At a moment each path is what the versions that were recorded by then made of it.
    """

    def work(connection: Connection) -> list[Version]:
        places = walk(connection, folder.row, below, after=after, dead=at is not None, deep=deep)
        return _live(connection, folder, places, at, limit + 1)

    found = site.database.read(work)
    entries = [view_version(version, current=at is None) for version in found[:limit]]
    return TreeList(entries, more=len(found) > limit)


def restore(
    site: Site, identity: Identity, folder: FolderRef, request: RestoreRequest
) -> RestoreReply:
    """Bring back a version, a deleted file or a whole directory, as new versions.

    No bytes move, and nothing is removed: what was added since stays.  Raises Conflict, before
    anything is changed, where a file would take a directory's place, or lie below a file.
    """
    path = requested_path(request.path, request.path_b64)
    wanted = site.database.read(lambda c: _wanted(c, folder, path, request))
    if not wanted:
        raise NotFound("nothing of that path was kept", field="path")
    edits = [_edit(version, _target(version, request, path)) for version in wanted]
    present = site.database.read(lambda c: _present(c, folder, edits))
    edits = [edit for edit in edits if not _is(present.get(edit.path), edit)]
    if not edits:
        return RestoreReply(restored=0)
    items = make_items(site, identity, edits)
    apply_items(site, identity, folder, items, check=lambda tree: _check_room(tree, edits))
    dots = dots_of(items)
    made = site.database.read(lambda c: find_versions(c, folder, dots))
    views = [view_version(made[dot], current=True) for dot in dots[:1000] if dot in made]
    return RestoreReply(restored=len(edits), versions=views)


def requested_path(text: str, exact: str) -> bytes:
    """The path that a request names, by text or by its exact bytes in base64.  Raises Invalid."""
    try:
        raw = base64.b64decode(exact, validate=True) if exact else text.encode()
        return check_path(raw) if raw else b""
    except PathError as error:
        raise Invalid(str(error), field="path_b64" if exact else "path") from None
    except ValueError:
        raise Invalid("not valid base64", field="path_b64") from None


def _page(
    site: Site, folder: FolderRef, limit: int, before: str, path: bytes | None = None
) -> VersionList:
    """Versions of the folder, or of one path of it.

    Their numbers first, which the index has: SQLite would read all of the folder for the rows.
    """
    numbers = select(versions.c.seq).where(versions.c.folder == folder.row)
    if path is not None:
        numbers = numbers.where(versions.c.path_key == path_key(path))
    numbers = numbers.order_by(versions.c.seq.desc()).limit(limit + 1)

    def work(connection: Connection) -> VersionList:
        page = numbers
        if before:
            page = numbers.where(versions.c.seq < _seq_of(connection, folder, before))
        seqs = list(connection.scalars(page))
        where = {versions.c.folder: folder.row}
        found = find_rows(connection, VERSION_COLUMNS, where, versions.c.seq, seqs[:limit])
        rows = [tuple(row) for row in found if path in (None, row[1])]
        rows.sort(reverse=True)
        best = _winners(connection, folder, {row[1] for row in rows})
        views = [view_version(version_of(row), current=row[0] in best) for row in rows]
        return VersionList(views, more=len(seqs) > limit)

    return site.database.read(work)


def _seq_of(connection: Connection, folder: FolderRef, name: str) -> int:
    dot = dot_of(name)
    query = select(versions.c.seq).where(
        versions.c.device == dot.device,
        versions.c.counter == dot.counter,
        versions.c.folder == folder.row,
    )
    seq = connection.execute(query).scalar()
    if seq is None:
        raise NotFound("no such version in this folder", field="before")
    return int(seq)


def _winners(connection: Connection, folder: FolderRef, wanted: set[bytes]) -> set[int]:
    keys, where = map(path_key, wanted), {paths.c.folder: folder.row}
    rows = find_rows(connection, [paths.c.path, paths.c.winner], where, paths.c.path_key, keys)
    return {winner for path, winner in rows if path in wanted}


def _live(
    connection: Connection,
    folder: FolderRef,
    places: Iterator[Place],
    at: int | None,
    limit: int,
) -> list[Version]:
    found: list[Version] = []
    while len(found) < limit and (some := list(islice(places, min(limit - len(found), SOME)))):
        if at is None:
            found += winners(connection, folder.row, some)
        else:
            then = last_versions(connection, folder.row, [place.path for place in some], at=at)
            late = _made_after(connection, folder, at, [v.path for v in then if not v.time])
            found += [version for version in then if version.live and version.path not in late]
    return found


def _made_after(
    connection: Connection, folder: FolderRef, at: int, undated: list[bytes]
) -> set[bytes]:
    """Those of the paths that first came here after a moment.  A directory that is only because
    something lives in it has no time of its own."""
    if not undated:
        return set()
    columns, where = (versions.c.path, versions.c.accepted), {versions.c.folder: folder.row}
    keys = {path_key(path) for path in undated}
    first: dict[bytes, int] = {}
    for path, accepted in find_rows(connection, columns, where, versions.c.path_key, keys):
        first[path] = min(accepted, first.get(path, accepted))
    return {path for path in undated if first[path] > at}


def _wanted(
    connection: Connection, folder: FolderRef, path: bytes, request: RestoreRequest
) -> list[Version]:
    """The versions that shall be again."""
    if request.version:
        dot = dot_of(request.version)
        found = find_versions(connection, folder, [dot]).get(dot)
        if found is None or (path and found.path != path):
            raise NotFound("no such version of that path", field="version")
        if not found.live:
            raise Invalid("that version is a delete: choose one before it", field="version")
        return [found]
    if request.at is not None:
        places = walk(connection, folder.row, path, dead=True)
        return _live(connection, folder, places, request.at, LARGEST_RESTORE)
    if not path:
        raise Invalid("say what to restore: a path, a version or a moment", field="path")
    return _last_live(connection, folder, path)


def _last_live(connection: Connection, folder: FolderRef, path: bytes) -> list[Version]:
    """The last live version of each path at and below `path` that is deleted now."""
    found: list[Version] = []
    places = walk(connection, folder.row, path, dead=True)
    gone = (place.path for place in places if not place.live)
    while len(found) < LARGEST_RESTORE and (some := list(islice(gone, SOME))):
        found += last_versions(connection, folder.row, some)
    return found


def _target(version: Version, request: RestoreRequest, path: bytes) -> bytes:
    """Where a version is brought back."""
    to = request.to.encode()
    if not to:
        return version.path
    if request.version:
        return to
    return to + version.path[len(path) :] if path else to + b"/" + version.path


def _edit(version: Version, target: bytes) -> Edit:
    try:
        check_path(target)
    except PathError as error:
        raise Invalid(str(error), field="to") from None
    return Edit(
        target,
        version.kind,
        version.hash,
        version.size,
        version.mode,
        version.mtime_ns,
        version.target,
    )


def _check_room(tree: Tree, edits: list[Edit]) -> None:
    """Raise Conflict where a path can't become what it shall: it would be a conflict copy."""
    made = {edit.path for edit in edits if edit.kind is Kind.DIRECTORY}
    sound = {b""}
    for edit in edits:
        if edit.kind is not Kind.DIRECTORY and tree.node(edit.path).is_directory:
            raise Conflict(f"{display(edit.path)} is a directory: {_ELSEWHERE}", field="to")
        for above in tree.unfounded(edit.path, sound):
            if above not in made and tree.node(above).live:
                raise Conflict(f"{display(above)} is no directory: {_ELSEWHERE}", field="to")


def _present(
    connection: Connection, folder: FolderRef, edits: list[Edit]
) -> dict[bytes, Version | None]:
    looked = Tree(connection, folder.row)
    looked.load(edit.path for edit in edits)
    return {edit.path: looked.node(edit.path).winner for edit in edits}


def _is(version: Version | None, edit: Edit) -> bool:
    """Whether a path is already what it shall become."""
    if version is None or version.kind != edit.kind:
        return False
    if edit.kind is Kind.DIRECTORY:
        return True
    same = version.hash == edit.hash and version.target == edit.target
    return same and version.mode == edit.mode and version.mtime_ns == edit.mtime_ns
