"""Whole files over HTTP: made, patched, deleted.  What is read of them is `reading`'s.

These are conveniences for people, `curl` and `rdiff`: unlike commit and fetch they read content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from blake3 import blake3
from sqlalchemy import Connection, and_, select

from dblike_delta.changeset import Body
from dblike_delta.commands import Data
from dblike_delta.errors import PathError
from dblike_delta.formats import DELTA_MAGIC, END, encode_literal_header
from dblike_delta.messages import Trailer
from dblike_delta.paths import check_path
from dblike_delta.versions import Kind, Version
from dblike_srv.commit import keep_pack, new_intake
from dblike_srv.contents import PackReader, check_contents, pack_names
from dblike_srv.edits import Edit, apply_items, dots_of, make_items
from dblike_srv.errors import Conflict, Invalid, NotFound, PreconditionFailed, TooLarge
from dblike_srv.fetch import find_versions
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.intake import NEW_PACK, Intake
from dblike_srv.items import Item
from dblike_srv.listing import walk
from dblike_srv.models import paths, versions
from dblike_srv.packs import Pack
from dblike_srv.reading import LOST, find_recipe, reading
from dblike_srv.site import Site
from dblike_srv.store.base import PackWriter
from dblike_srv.transaction import Check
from dblike_srv.tree import VERSION_COLUMNS, Tree, path_key, version_of
from dblike_srv.views import dot_of, version_name

FILE_MODE: Final = 0o644
DIRECTORY_MODE: Final = 0o755
SMALL: Final = 1 << 20
"""Bytes that come so soon that nothing changes meanwhile."""


class Precondition(msgspec.Struct, frozen=True):
    """If-Match and If-None-Match: version names, or "*"; None where the header is absent."""

    if_match: tuple[str, ...] | None = None
    if_none_match: tuple[str, ...] | None = None

    def check(self, present: Version | None) -> None:
        """Raise PreconditionFailed where it does not hold for a path's present version."""
        name = version_name(present.dot) if present is not None and present.live else None
        if self.if_match is not None and not _matches(self.if_match, name):
            raise PreconditionFailed("the path is not that version any more", field="If-Match")
        if self.if_none_match is not None and _matches(self.if_none_match, name):
            raise PreconditionFailed("the path exists", field="If-None-Match")


ANY: Final = Precondition()


class FileWish(msgspec.Struct, frozen=True):
    """How a file shall be made; `size` is None where its bytes come without a length."""

    size: int | None = None
    mode: int = FILE_MODE
    mtime_ns: int | None = None


def _matches(names: tuple[str, ...], present: str | None) -> bool:
    return present is not None and ("*" in names or present in names)


def find_version(site: Site, folder: FolderRef, path: bytes, name: str = "") -> Version:
    """A path's present version, or that of a name; NotFound where there is none that is live."""
    if name:
        dot = dot_of(name)
        found = site.database.read(lambda c: find_versions(c, folder, [dot]).get(dot))
        if found is not None and found.path != path:
            found = None
    else:
        found = site.database.read(lambda c: _present(c, folder, path))
    if found is None or not found.live:
        raise NotFound("no such path or version", field="path")
    return found


def put_file(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    path: bytes,
    chunks: Iterable[Data],
    *,
    wish: FileWish,
    condition: Precondition = ANY,
) -> Version:
    """Make a path a file of these bytes; what it was stays in history."""

    def receive(intake: Intake) -> Trailer:
        hasher, received = blake3(), 0
        intake.take(Body(memoryview(DELTA_MAGIC)))
        for chunk in filter(len, chunks):
            hasher.update(chunk)
            received += len(chunk)
            if received > size:
                raise TooLarge(f"the file is too large; the limit is {size}")
            intake.take(Body(memoryview(encode_literal_header(len(chunk)))))
            intake.take(Body(memoryview(chunk)))
            if intake.items[-1].status is not None:
                break  # it is refused: over quota
        intake.take(Body(memoryview(END)))
        return Trailer(hasher.digest(), received)

    made = _now_ns(site) if wish.mtime_ns is None else wish.mtime_ns
    sized = wish.size is not None
    size = site.config.limits.file_size if wish.size is None else wish.size
    edit = Edit(_checked(path), Kind.FILE, b"", size, wish.mode, made)
    return _store(site, identity, folder, edit, b"", receive, condition, sized=sized)


def patch_file(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    path: bytes,
    chunks: Iterable[Data],
    *,
    condition: Precondition = ANY,
) -> Version:
    """Apply a librsync delta, which was made against the path's present content.

    Whoever made the delta did not say what hash it makes, so the site reads the result; and that
    the content is what it was, or damage would be part of a version that all take for good.  Raises
    Conflict where the path changed while the delta came in.
    """
    present = find_version(site, folder, path)
    if present.kind is not Kind.FILE:
        raise Invalid("only files can be patched", field="path")
    condition.check(present)
    find_recipe(site, identity.user, present)
    if check_contents(site, identity.user, [present.hash]):
        raise NotFound(LOST, field="version")

    def receive(intake: Intake) -> Trailer:
        for chunk in chunks:
            intake.take(Body(memoryview(chunk)))
        return _hash_result(site, identity.user, present.hash, intake)

    limit = site.config.limits.file_size
    edit = Edit(path, Kind.FILE, b"", limit, present.mode, _now_ns(site))
    same = Precondition(if_match=(version_name(present.dot),))
    try:
        return _store(site, identity, folder, edit, present.hash, receive, same, sized=False)
    except PreconditionFailed as error:
        raise Conflict("the path changed meanwhile: make the delta anew", field="path") from error


def delete_path(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    path: bytes,
    *,
    condition: Precondition = ANY,
) -> Version:
    """Delete a file, a symlink, or a directory with all that is in it."""
    present = find_version(site, folder, path)
    doomed = [path]
    if present.kind is Kind.DIRECTORY:
        doomed = site.database.read(lambda c: _live_below(c, folder, path))
    edits = [Edit(each, Kind.DELETED) for each in sorted(doomed, reverse=True)]
    return _apply(site, identity, folder, make_items(site, identity, edits), None, condition, path)


def make_directory(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    path: bytes,
    *,
    mode: int = DIRECTORY_MODE,
    condition: Precondition = ANY,
) -> Version:
    """Make a path a directory."""
    edit = Edit(_checked(path), Kind.DIRECTORY, mode=mode)
    items = make_items(site, identity, [edit])
    return _apply(site, identity, folder, items, None, condition, path)


# --- inside ---------------------------------------------------------------------------------------


def _store(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    edit: Edit,
    base: bytes,
    receive: Callable[[Intake], Trailer],
    condition: Precondition,
    *,
    sized: bool,
) -> Version:
    """Take content in through the same door as a commit, then make the version of it.

    What will be refused takes neither time nor space: a pack that was kept in vain stays for days.
    The transaction looks again.
    """

    def look() -> None:
        present = site.database.read(lambda connection: _present(connection, folder, edit.path))
        _check(condition, present, edit.kind)

    look()
    writer: PackWriter = site.store.writer()
    try:
        intake = new_intake(site, identity, writer)
        record = make_items(site, identity, [edit])[0].record
        intake.begin(msgspec.structs.replace(record, body=True, base=base), sized=sized)
        intake.take(receive(intake))
        if intake.size > SMALL:
            look()
        pack = keep_pack(intake, writer)
    except BaseException:
        writer.abort()
        raise
    return _apply(site, identity, folder, intake.items, pack, condition, edit.path)


def _apply(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    items: list[Item],
    pack: Pack | None,
    condition: Precondition,
    path: bytes,
) -> Version:
    def check(tree: Tree) -> None:
        makes = next(item.record.kind for item in items if item.record.path == path)
        _check(condition, tree.node(path).winner, Kind(makes))

    guard: Check = check
    apply_items(site, identity, folder, items, pack, check=guard)
    dot = next(d for d, i in zip(dots_of(items), items, strict=True) if i.record.path == path)
    return site.database.read(lambda c: find_versions(c, folder, [dot]))[dot]


def _check(condition: Precondition, present: Version | None, makes: Kind) -> None:
    """Whether a path may become what is made of it: a file in the place of a directory would hide
    what is in there, a directory in the place of a file would take its content away."""
    condition.check(present)
    if present is None or not present.live or makes is Kind.DELETED:
        return
    if Kind.DIRECTORY in (present.kind, makes) and present.kind is not makes:
        what = present.kind.name.lower()
        raise Conflict(f"the path is a {what}: delete that first", field="path")


def _present(connection: Connection, folder: FolderRef, path: bytes) -> Version | None:
    query = (
        select(*VERSION_COLUMNS)
        .join(paths, and_(paths.c.folder == versions.c.folder, paths.c.winner == versions.c.seq))
        .where(
            paths.c.path_key == path_key(path), paths.c.folder == folder.row, paths.c.path == path
        )
    )
    row = connection.execute(query).first()
    return None if row is None else version_of(row)


def _live_below(connection: Connection, folder: FolderRef, path: bytes) -> list[bytes]:
    return [place.path for place in walk(connection, folder.row, path)]


def _hash_result(site: Site, user: int, base: bytes, intake: Intake) -> Trailer:
    """Read what an open body made.  Where the base lies is asked now: it may have been moved."""
    recipe = intake.open_recipe()
    hasher = blake3()
    names = site.database.read(lambda connection: pack_names(connection, recipe.packs))
    reader = PackReader(site, names)
    for extent in recipe.extents:
        if extent.pack == NEW_PACK:
            hasher.update(intake.read_back(extent))
        else:
            with reading(site, user, base):
                for piece in reader.pieces([extent]):
                    hasher.update(piece)
    return Trailer(hasher.digest(), recipe.size)


def _checked(path: bytes) -> bytes:
    try:
        return check_path(path)
    except PathError as error:
        raise Invalid(str(error), field="path") from None


def _now_ns(site: Site) -> int:
    return site.clock.now_ms() * 1_000_000
