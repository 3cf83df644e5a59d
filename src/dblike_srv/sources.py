"""Contents named by versions: in a commit, found; in changes, named for those who hold them.

Only versions of the same folder count, and only those that are files here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import Connection, select

from dblike_delta.changeset import End, Event
from dblike_delta.messages import SOURCES_FIELD, Record, Sources
from dblike_delta.sources import (
    Content,
    SourcesUnknown,
    contents_of,
    dots_of,
    lacks_content,
    name_sources,
    with_content,
    without_content,
)
from dblike_delta.versions import Dot, Kind
from dblike_srv.contents import batches
from dblike_srv.db import find_rows
from dblike_srv.errors import Conflict, Invalid
from dblike_srv.identity import FolderRef
from dblike_srv.models import journal, paths, versions
from dblike_srv.site import Site
from dblike_srv.tree import path_key

_COLUMNS = (
    versions.c.device,
    versions.c.counter,
    versions.c.kind,
    versions.c.hash,
    versions.c.size,
)
_VERSIONS = tuple(versions.c[name] for name in ("path", "device", "counter", "kind", "hash"))
_EARLIER = versions.alias("earlier")
_PREVIOUS = (
    select(_EARLIER.c.seq)
    .where(
        _EARLIER.c.path_key == paths.c.path_key,
        _EARLIER.c.folder == paths.c.folder,
        _EARLIER.c.seq < paths.c.winner,
    )
    .order_by(_EARLIER.c.seq.desc())
    .limit(1)
    .correlate(paths)
    .scalar_subquery()
)
"""What a path was before: one step in the index, however long its history is."""
_PLACES = (journal.c.seq, journal.c.site, journal.c.number)


class NamedContents:
    """The sources of one commit: named once, before its records, and given to these in order."""

    def __init__(self, site: Site, folder: FolderRef) -> None:
        self._site, self._folder = site, folder
        self._left: deque[Content] = deque()
        self._begun = False

    def name(self, sources: Sources) -> None:
        """Find the contents.  Raises Invalid, Conflict, LimitError."""
        if self._begun:
            raise Invalid("sources come once, before all records", field=SOURCES_FIELD)
        self._begun = True
        self._left.extend(_find(self._site, self._folder, sources))

    def fill(self, event: Event) -> Event:
        """The event; a record that lacks a content with the next one.  Raises Invalid."""
        self._begun = True
        if isinstance(event, End) and self._left:
            raise Invalid("more sources than records without a content", field=SOURCES_FIELD)
        if isinstance(event, Record) and self._left and lacks_content(event):
            return with_content(event, self._left.popleft())
        return event


def _find(site: Site, folder: FolderRef, sources: Sources) -> list[Content]:
    try:
        dots = dots_of(sources)
        held = site.database.read(lambda connection: _held(connection, folder, dots))
        return contents_of(sources, held)
    except SourcesUnknown as error:
        raise Conflict(f"{error}: send the hashes", field=SOURCES_FIELD) from None


def _held(connection: Connection, folder: FolderRef, dots: Sequence[Dot]) -> dict[Dot, Content]:
    """The contents of file versions of the folder; where one is not here, the search ends."""
    held: dict[Dot, Content] = {}
    for batch in batches(dict.fromkeys(dots)):
        before = len(held)
        counters: dict[bytes, set[int]] = {}
        for dot in batch:
            counters.setdefault(dot.device, set()).add(dot.counter)
        for device, wanted in counters.items():
            where = {versions.c.device: device, versions.c.folder: folder.row}
            rows = find_rows(connection, _COLUMNS, where, versions.c.counter, wanted)
            held.update(
                (Dot(bytes(device), counter), Content(bytes(digest), size))
                for device, counter, kind, digest, size in rows
                if kind == Kind.FILE
            )
        if len(held) == before:
            break
    return held


def name_moved(
    site: Site, folder: FolderRef, cursor: str, records: list[Record]
) -> tuple[list[Record], Sources | None]:
    """The records of a list of changes, with sources for what only moved: files with the content of
    another path that is deleted in the same list, as whoever has the cursor knows it."""
    tombs = {record.path for record in records if record.kind == Kind.DELETED}
    files = [record for record in records if record.kind == Kind.FILE]
    if not cursor or not tombs or not files:
        return records, None
    numbers = site.seal.open_cursor(folder.id, cursor)
    dots = site.database.read(lambda connection: _buried(connection, folder, tombs, numbers))
    moved = [record for record in files if record.hash in dots]
    if not moved:
        return records, None
    sources = name_sources((dots[record.hash], record.hash) for record in moved)
    places = {record.path for record in moved}
    return [without_content(r) if r.path in places else r for r in records], sources


def _buried(
    connection: Connection, folder: FolderRef, tombs: Collection[bytes], numbers: dict[bytes, int]
) -> dict[bytes, Dot]:
    """By content, the file version that each delete replaced, of those that a cursor covers."""
    seqs: set[int] = set()
    for keys in batches(map(path_key, tombs)):
        query = select(_PREVIOUS).where(paths.c.folder == folder.row, paths.c.path_key.in_(keys))
        seqs.update(seq for seq in connection.scalars(query) if seq is not None)
    known = _within(connection, folder, numbers, seqs)
    where = {versions.c.folder: folder.row}
    return {
        bytes(digest): Dot(bytes(device), counter)
        for path, device, counter, kind, digest in find_rows(
            connection, _VERSIONS, where, versions.c.seq, known
        )
        if kind == Kind.FILE and bytes(path) in tombs
    }


def _within(
    connection: Connection, folder: FolderRef, numbers: dict[bytes, int], seqs: Iterable[int]
) -> set[int]:
    """Those of the versions that a cursor covers."""
    where = {journal.c.folder: folder.row}
    rows = find_rows(connection, _PLACES, where, journal.c.seq, seqs)
    return {seq for seq, origin, number in rows if number <= numbers.get(bytes(origin), 0)}
