"""Folders: which there are, and what changed in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flask import Blueprint, Response, request

from dblike_delta.changeset import Encoder, Part
from dblike_delta.messages import (
    CHANGESET_TYPE,
    ChangeList,
    CursorMark,
    FolderCreate,
    FolderList,
    FolderView,
    Record,
    Sources,
    VersionView,
)
from dblike_delta.versions import Dot, Kind, Version, VersionVector
from dblike_srv import changes, folders
from dblike_srv.api.inbound import flag, folder, identity, message, moment, number, site
from dblike_srv.api.operation import INTEGER, TEXT, operation
from dblike_srv.api.outbound import reply, stream, wants
from dblike_srv.identity import FolderRef
from dblike_srv.sources import name_moved
from dblike_srv.views import view_version

blueprint = Blueprint("folders", __name__, url_prefix="/v1/folders")

LIMIT: Final = 100_000
"""Paths or versions in one reply, at most."""
PAGE: Final = {"type": "integer", "minimum": 1, "maximum": LIMIT}


@blueprint.get("")
@operation(gives=FolderList)
def list_all() -> Response:
    """The folders that the user may use."""
    return reply(FolderList(folders.list_folders(site(), identity())))


@blueprint.post("")
@operation(FolderCreate, gives=FolderView, status=201)
def create() -> Response:
    """A new folder."""
    me = identity()
    made = folders.create_folder(site(), me, message(FolderCreate).name)
    return reply(_view(made), 201)


@blueprint.get("/<folder_name>")
@operation(gives=FolderView)
def view(folder_name: str) -> Response:
    """One folder: where it stands and what it holds."""
    return reply(_view(folder(folder_name)))


def _view(wanted: FolderRef) -> FolderView:
    views = folders.list_folders(site(), identity())
    return next(view for view in views if view.id == wanted.id.hex())


@blueprint.get("/<folder_name>/changes")
@operation(
    gives=(ChangeList, CHANGESET_TYPE),
    query={
        "cursor": TEXT,
        "since": INTEGER,
        "limit": PAGE,
        "deleted": INTEGER,
        "brief": INTEGER,
    },
)
def list_changes(folder_name: str) -> Response:
    """Changed paths, each with its present state, and the cursor that covers them.

    Since `cursor` (none: everything), or since a moment in epoch milliseconds.  As a changeset the
    records have no bodies.  With `deleted=1` deleted paths come from the first look on, with hash
    and size of what was deleted.  With `brief=1` and a cursor files that only moved may have no
    hash, but sources before them.
    """
    source = folder(folder_name)
    limit, moment_ms = number("limit", 10_000, least=1, most=LIMIT), moment("since")
    if moment_ms is None:
        cursor, buried = request.args.get("cursor", ""), number("deleted", 0, least=0, most=1)
        found = changes.changes(site(), source, cursor, limit, buried=bool(buried))
    else:
        found = changes.since(site(), source, moment_ms, limit)
    return _render(source, *found)


def _render(source: FolderRef, records: list[Record], cursor: str, more: bool) -> Response:
    if wants(CHANGESET_TYPE):
        sources = None
        if flag("brief") and "since" not in request.args:
            known = request.args.get("cursor", "")
            records, sources = name_moved(site(), source, known, records)
        return stream(_frames(sources, records, CursorMark(cursor, more)))
    now = site().clock.now_ms()
    return reply(ChangeList([_state(record) for record in records], cursor, more, now))


def _state(record: Record) -> VersionView:
    """A path's present state for people."""
    fields = ("path", "time", "hash", "size", "mode", "mtime_ns", "target", "author")
    version = Version(
        dot=Dot(record.device, record.counter),
        vector=VersionVector.of({}),
        kind=Kind(record.kind),
        **{name: getattr(record, name) for name in fields},
    )
    return view_version(version, current=True)


def _frames(sources: Sources | None, records: list[Record], mark: CursorMark) -> Iterator[Part]:
    encoder = Encoder()
    if sources is not None:
        yield from encoder.sources(sources)
    for record in records:
        yield from encoder.record(record)
    yield from encoder.cursor(mark)
    yield from encoder.finish()
