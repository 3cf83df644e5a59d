"""The read path: (want, have) in, changeset out.

A wanted content's recipe against that of what is at hand gives the delta, with no content read but
the literals that are sent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, Connection

from dblike_delta.changeset import Encoder, Part
from dblike_delta.commands import Copy
from dblike_delta.formats import DELTA_MAGIC, END, encode_copy, encode_literal_header
from dblike_delta.messages import FetchRequest, Record, Refusal, Trailer, Want
from dblike_delta.recipe import Extent, Recipe, difference, literal_bytes
from dblike_delta.versions import Dot, Kind, Version
from dblike_srv.contents import Content, PackReader, State, batches, find_contents, pack_names
from dblike_srv.db import find_rows
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.models import versions
from dblike_srv.site import Site
from dblike_srv.tree import VERSION_COLUMNS, version_of

log = logging.getLogger(__name__)

SMALL = 256 << 10
"""Bodies up to this are put together in memory and sent as one piece."""
AT_ONCE = 500
"""Wants that are looked up together; the first of them are on their way when the next are."""
COMPARED = 1 << 20
"""Extents that are compared for one request, some two seconds of work; one more delta is made while
any of that is left, what comes after it is sent in full."""


_RECORD = (
    versions.c.path, versions.c.device, versions.c.counter, versions.c.time, versions.c.kind,
    versions.c.hash, versions.c.size, versions.c.mode, versions.c.mtime_ns, versions.c.author,
)  # fmt: skip
"""What a version says of itself to whoever wants its content."""


class _Plan(msgspec.Struct, frozen=True):
    """How a want is served: what its delta is made of, against which content."""

    record: Record
    parts: Sequence[Copy | Extent]


class _Served:
    """What a request got so far."""

    def __init__(self) -> None:
        self.wants = set[tuple[bytes, int, int]]()
        self.compared = 0

    def is_new(self, want: Want) -> bool:
        """Whether that was not wanted before."""
        known = len(self.wants)
        self.wants.add((want.device, want.counter, want.start))
        return len(self.wants) > known


def fetch(
    site: Site, identity: Identity, folder: FolderRef, request: FetchRequest
) -> Iterator[Part]:
    """The changeset, in parts as they are ready.  What can't be served is refused in its place."""
    names: dict[int, bytes] = {}
    reader = PackReader(site, names)
    encoder = Encoder()
    served = _Served()
    for wants in batches(request.wants, AT_ONCE):
        for answer in _answers(site, identity, folder, wants, names, served):
            if isinstance(answer, Refusal):
                yield from encoder.refusal(answer)
            else:
                yield from _send(encoder, reader, answer)
    yield from encoder.finish()


def _answers(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    wants: list[Want],
    names: dict[int, bytes],
    served: _Served,
) -> list[_Plan | Refusal]:
    """How each want is served; the packs that this takes are added to `names`."""
    found, held, fresh = site.database.read(lambda c: _look_up(c, identity, folder, wants))
    names.update(fresh)
    return [_plan(want, found.get(Dot(want.device, want.counter)), held, served) for want in wants]


def _look_up(
    connection: Connection, identity: Identity, folder: FolderRef, wants: list[Want]
) -> tuple[dict[Dot, Record], dict[bytes, Content], dict[int, bytes]]:
    """The wanted versions, the contents that they and the haves name, and the packs of these."""
    dots = [Dot(want.device, want.counter) for want in wants]
    records = map(_record, _find(connection, folder, dots, _RECORD))
    found = {Dot(record.device, record.counter): record for record in records}
    wanted = {record.hash for record in found.values()}
    hashes = {digest for want in wants for digest in want.have} | wanted
    held = find_contents(connection, identity.user, hashes - {b""})
    extents = (held[digest].recipe.extents for digest in wanted if digest in held)
    numbers = {extent.pack for some in extents for extent in some}
    return found, held, pack_names(connection, numbers)


def _record(row: Sequence[Any]) -> Record:
    path, device, counter, time, kind, digest, size, mode, mtime_ns, author = row
    return Record(
        path, device, counter, time, kind, digest, size, mode, mtime_ns, author=author, body=True
    )


def find_versions(
    connection: Connection, folder: FolderRef, dots: Sequence[Dot]
) -> dict[Dot, Version]:
    """Those of the versions that are the folder's."""
    rows = _find(connection, folder, dots, VERSION_COLUMNS)
    return {version.dot: version for version in map(version_of, rows)}


def _find(
    connection: Connection,
    folder: FolderRef,
    dots: Sequence[Dot],
    columns: Sequence[Column[Any]],
) -> Iterator[Sequence[Any]]:
    """Rows of those of the versions that are the folder's."""
    counters: dict[bytes, list[int]] = {}
    for device, counter in dots:
        counters.setdefault(device, []).append(counter)
    for device, of_device in counters.items():
        where = {versions.c.device: device, versions.c.folder: folder.row}
        yield from find_rows(connection, columns, where, versions.c.counter, of_device)


def _plan(
    want: Want, record: Record | None, held: dict[bytes, Content], served: _Served
) -> _Plan | Refusal:
    if not served.is_new(want):
        return Refusal(want.device, want.counter, "invalid", "it was wanted twice")
    if record is None or record.kind != Kind.FILE:
        return Refusal(want.device, want.counter, "unknown", "no such file version in this folder")
    content = held.get(record.hash)
    if content is None:
        return Refusal(want.device, want.counter, "gone", "its content is not kept any more")
    if content.state is State.DAMAGED:
        return Refusal(want.device, want.counter, "damaged", "its content is damaged on this site")
    if want.start > content.size:
        return Refusal(want.device, want.counter, "invalid", "start is after the end of the file")
    recipe = content.recipe
    if want.start:
        recipe = recipe.slice(want.start, content.size - want.start)
    haves = [held[digest] for digest in dict.fromkeys(want.have) if digest in held]
    base, parts = _cheapest(recipe, haves, served) if haves else (b"", recipe.extents)
    if base or want.start:
        record = msgspec.structs.replace(record, base=base, start=want.start)
    return _Plan(record, parts)


def _cheapest(
    recipe: Recipe, haves: list[Content], served: _Served
) -> tuple[bytes, Sequence[Copy | Extent]]:
    """The delta that carries the fewest literal bytes, and what it is against (b"": nothing)."""
    base, parts, cost = b"", list[Copy | Extent](recipe.extents), recipe.size
    for have in haves:
        if have.state is State.DAMAGED or served.compared >= COMPARED:
            continue
        served.compared += len(have.recipe) + len(recipe)
        delta = difference(have.recipe, recipe)
        literals = literal_bytes(delta)
        if literals < cost:
            base, parts, cost = have.hash, delta, literals
    return base, parts


def _send(encoder: Encoder, reader: PackReader, plan: _Plan) -> Iterable[Part]:
    record, parts = plan.record, plan.parts
    if len(parts) == 1 and isinstance(parts[0], Extent) and record.size <= SMALL:
        return _send_whole(encoder, reader, record, parts[0])
    return _send_delta(encoder, reader, record, parts)


def _send_whole(encoder: Encoder, reader: PackReader, record: Record, extent: Extent) -> list[Part]:
    """A delta that is one small literal: the body of most files."""
    try:
        piece = reader.piece(extent)
    except OSError as error:
        return [*encoder.record(record), *encoder.refusal(_failed(record, error))]
    head = DELTA_MAGIC + encode_literal_header(extent.length)
    return encoder.whole(record, (head, piece, END), Trailer(record.hash, record.size))


def _send_delta(
    encoder: Encoder, reader: PackReader, record: Record, parts: Sequence[Copy | Extent]
) -> Iterator[Part]:
    yield from encoder.record(record)
    try:
        if literal_bytes(parts) <= SMALL:
            yield from encoder.data(b"".join(_delta(reader, parts)))
        else:
            for piece in _delta(reader, parts):
                yield from encoder.data(piece)
    except OSError as error:
        # The receiver drops an unfinished body when the next frame is a refusal.
        yield from encoder.refusal(_failed(record, error))
    else:
        yield from encoder.trailer(Trailer(record.hash, record.size))


def _failed(record: Record, error: OSError) -> Refusal:
    log.warning("a content can't be read: %s", error)  # where that is, is the log's to say
    return Refusal(record.device, record.counter, "unavailable", "the site can't read it now")


def _delta(reader: PackReader, parts: Sequence[Copy | Extent]) -> Iterator[Part]:
    """The delta's bytes.  Neighbouring extents make one literal."""
    yield DELTA_MAGIC
    at = 0
    while at < len(parts):
        part = parts[at]
        if isinstance(part, Copy):
            yield encode_copy(*part)
            at += 1
            continue
        end = at
        while end < len(parts) and isinstance(parts[end], Extent):
            end += 1
        literal = [part for part in parts[at:end] if isinstance(part, Extent)]
        yield encode_literal_header(sum(extent.length for extent in literal))
        yield from reader.pieces(literal)
        at = end
    yield END
