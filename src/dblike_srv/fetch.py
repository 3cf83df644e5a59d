"""The read path: (want, have) in, changeset out.

A wanted content's recipe against that of what is at hand gives the delta, with no content read but
the literals that are sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection

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

SMALL = 256 << 10
"""Bodies up to this are put together in memory and sent as one piece."""
AT_ONCE = 500
"""Wants that are looked up together; the first of them are on their way when the next are."""


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How a want is served: what its delta is made of, against which content."""

    version: Version
    base: bytes
    start: int
    parts: Sequence[Copy | Extent]


def fetch(
    site: Site, identity: Identity, folder: FolderRef, request: FetchRequest
) -> Iterator[Part]:
    """The changeset, in parts as they are ready.  What can't be served is refused in its place."""
    names: dict[int, bytes] = {}
    reader = PackReader(site, names)
    encoder = Encoder()
    for wants in batches(request.wants, AT_ONCE):
        for answer in _answers(site, identity, folder, wants, names):
            if isinstance(answer, Refusal):
                yield from encoder.refusal(answer)
            else:
                yield from _send(encoder, reader, answer)
    yield from encoder.finish()


def _answers(
    site: Site, identity: Identity, folder: FolderRef, wants: list[Want], names: dict[int, bytes]
) -> list[_Plan | Refusal]:
    """How each want is served; the packs that this takes are added to `names`."""
    found, held, fresh = site.database.read(lambda c: _look_up(c, identity, folder, wants))
    names.update(fresh)
    return [_plan(want, found.get(Dot(want.device, want.counter)), held) for want in wants]


def _look_up(
    connection: Connection, identity: Identity, folder: FolderRef, wants: list[Want]
) -> tuple[dict[Dot, Version], dict[bytes, Content], dict[int, bytes]]:
    """The wanted versions, the contents that they and the haves name, and the packs of these."""
    found = find_versions(connection, folder, [Dot(w.device, w.counter) for w in wants])
    hashes = {version.hash for version in found.values() if version.hash}
    hashes.update(digest for want in wants for digest in want.have)
    held = find_contents(connection, identity.user, hashes)
    wanted = {version.hash for version in found.values()}
    numbers = {n for digest in wanted if digest in held for n in held[digest].recipe.packs}
    return found, held, pack_names(connection, numbers)


def find_versions(
    connection: Connection, folder: FolderRef, dots: Sequence[Dot]
) -> dict[Dot, Version]:
    """Those of the versions that are the folder's."""
    counters: dict[bytes, list[int]] = {}
    for dot in dots:
        counters.setdefault(dot.device, []).append(dot.counter)
    found: dict[Dot, Version] = {}
    for device, of_device in counters.items():
        where = {versions.c.device: device, versions.c.folder: folder.row}
        rows = find_rows(connection, VERSION_COLUMNS, where, versions.c.counter, of_device)
        for version in map(version_of, rows):
            found[version.dot] = version
    return found


def _plan(want: Want, version: Version | None, held: dict[bytes, Content]) -> _Plan | Refusal:
    if version is None or version.kind is not Kind.FILE:
        return Refusal(want.device, want.counter, "unknown", "no such file version in this folder")
    content = held.get(version.hash)
    if content is None:
        return Refusal(want.device, want.counter, "gone", "its content is not kept any more")
    if content.state is State.DAMAGED:
        return Refusal(want.device, want.counter, "damaged", "its content is damaged on this site")
    if want.start > content.size:
        return Refusal(want.device, want.counter, "invalid", "start is after the end of the file")
    recipe = content.recipe
    if want.start:
        recipe = recipe.slice(want.start, content.size - want.start)
    haves = (held[digest] for digest in want.have if digest in held)
    base, parts = _cheapest(recipe, [c for c in haves if c.state is not State.DAMAGED])
    return _Plan(version, base, want.start, parts)


def _cheapest(recipe: Recipe, haves: list[Content]) -> tuple[bytes, Sequence[Copy | Extent]]:
    """The delta that carries the fewest literal bytes, and what it is against (b"": nothing)."""
    base, parts, cost = b"", list[Copy | Extent](recipe.extents), recipe.size
    for have in haves:
        delta = difference(have.recipe, recipe)
        literals = literal_bytes(delta)
        if literals < cost:
            base, parts, cost = have.hash, delta, literals
    return base, parts


def _send(encoder: Encoder, reader: PackReader, plan: _Plan) -> Iterator[Part]:
    version = plan.version
    record = Record(
        path=version.path,
        device=version.dot.device,
        counter=version.dot.counter,
        time=version.time,
        kind=int(version.kind),
        hash=version.hash,
        size=version.size,
        mode=version.mode,
        mtime_ns=version.mtime_ns,
        author=version.author,
        base=plan.base,
        body=True,
        start=plan.start,
    )
    sent = encoder.record(record)
    try:
        if len(plan.parts) == 1 and isinstance(plan.parts[0], Extent) and version.size <= SMALL:
            sent += encoder.data(_whole(reader, plan.parts[0]))
        elif literal_bytes(plan.parts) <= SMALL:
            sent += encoder.data(b"".join(_delta(reader, plan.parts)))
        else:
            for piece in _delta(reader, plan.parts):
                sent += encoder.data(piece)
                yield from sent
                sent = []
    except OSError as error:
        # The receiver drops an unfinished body when the next frame is a refusal.
        sent += encoder.refusal(Refusal(*version.dot, "unavailable", f"the store failed: {error}"))
    else:
        sent += encoder.trailer(Trailer(version.hash, version.size))
    yield from sent


def _whole(reader: PackReader, extent: Extent) -> bytes:
    """The delta that is one small literal: the body of most files."""
    [piece] = reader.pieces((extent,))
    return b"".join((DELTA_MAGIC, encode_literal_header(extent.length), piece, END))


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
