"""Compaction: packs that are mostly garbage or tiny are rewritten, and so are scattered contents.

Live bytes are copied into a new pack, which is durable before any recipe names it; then recipes
are moved over to it, some at a time.  Recipes of before and after are both right, so it may stop
anywhere; the old packs are left to garbage collection.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

import msgspec
from blake3 import blake3
from sqlalchemy import Connection, select, update

from dblike_delta.recipe import Extent, Recipe
from dblike_srv.collect import Stored, stored_contents
from dblike_srv.contents import PackReader, State, batches, check_contents
from dblike_srv.db import asked
from dblike_srv.errors import Busy
from dblike_srv.intake import NEW_PACK
from dblike_srv.models import contents, packs
from dblike_srv.packs import KEPT, Pack, claim_packs, name_pack, see_pack
from dblike_srv.relocate import Moves, in_line, merged, unseen
from dblike_srv.site import Site
from dblike_srv.store.base import is_sound

LIVE_SHARE: Final = 0.5
"""A pack of which less is needed is rewritten: at most as much is written as is won."""
TINY: Final = 1 << 20
ENOUGH: Final = 16
"""So many tiny packs of a user are made one: each byte is rewritten a few times at most."""
EXTENTS: Final = 4096
SCATTERED: Final = 256 << 10
"""A content of more extents that are smaller on average is written in one piece."""
LARGEST: Final = 256 << 20
"""Bytes that one new pack takes."""
SETTLED_MS: Final = 3600 * 1000
"""Packs younger than this are left alone: what they are for may still be going on."""
CONTENTS: Final = 200
"""Recipes changed in one transaction."""

log = logging.getLogger(__name__)


class CompactReport(msgspec.Struct, frozen=True):
    """Packs and contents that were rewritten, new packs, and the bytes that were copied."""

    rewritten: int = 0
    contents: int = 0
    packs: int = 0
    bytes: int = 0


class _Pack(msgspec.Struct):
    """A pack, what is needed of it, and by whom."""

    name: bytes
    size: int
    spans: set[tuple[int, int]]
    users: frozenset[int] = frozenset()


def compact(site: Site) -> CompactReport:
    """Rewrite what is worth it.  Safe beside a running site; what it wins, `gc` collects later."""
    known = _packs(site)
    scattered = _survey(site, known)
    report = CompactReport()
    for numbers in _worth_rewriting(known):
        runs = [Extent(n, *run) for n in numbers for run in merged(known[n].spans)]
        report = _add(report, _relocate(site, known, _sound(site, known, runs)), len(numbers), 0)
    had: dict[int, list[tuple[int, int]]] = {}
    for content in _by_age(site, scattered):
        recipe = _present(site, content)
        # What a newer one has stays where that has it: no two of them can both be in one piece.
        runs = [run for run in unseen(recipe.extents, had) if run.pack in known]
        if content in scattered and _is_joined_by(runs, recipe):
            runs = _sound(site, known, runs)
            if _is_joined_by(runs, recipe):
                report = _add(report, _relocate(site, known, runs), 0, 1)
    log.info("compact: %s", report)
    return report


def _add(report: CompactReport, written: int, rewritten: int, scattered: int) -> CompactReport:
    if not written:
        return report
    return CompactReport(
        report.rewritten + rewritten,
        report.contents + scattered,
        report.packs + 1,
        report.bytes + written,
    )


def rescue(site: Site, names: Iterable[bytes]) -> int:
    """Copy what is good out of damaged packs; how many bytes that was.

    Only what contents need that a scrub has just read and found to be what they were; they are read
    once more where they lie then.
    """
    wanted = set(names)
    query = select(packs.c.id, packs.c.hash, packs.c.size).where(KEPT)
    rows = [(row, bytes(name), size) for row, name, size in site.database.read(asked(query))]
    known = {row: _Pack(name, size, set()) for row, name, size in rows if name in wanted}
    moved: dict[int, list[bytes]] = {}
    for stored in stored_contents(site):
        if stored.state is not State.CHECKED:
            continue
        for number, offset, length in stored.recipe.extents:
            if number in known:
                known[number].spans.add((offset, length))
                moved.setdefault(stored.user, []).append(stored.hash)
    runs = [Extent(number, *run) for number, pack in known.items() for run in merged(pack.spans)]
    size = _relocate(site, known, runs)
    for user, hashes in moved.items():
        for batch in batches(dict.fromkeys(hashes)):
            check_contents(site, user, batch)
    return size


# --- what is worth it


def _packs(site: Site) -> dict[int, _Pack]:
    settled = site.clock.now_ms() - SETTLED_MS
    query = select(packs.c.id, packs.c.hash, packs.c.size)
    query = query.where(KEPT, packs.c.created <= settled)
    rows = site.database.read(asked(query))
    return {number: _Pack(bytes(name), size, set()) for number, name, size in rows}


def _survey(site: Site, known: dict[int, _Pack]) -> set[int]:
    """Note what is needed of each pack; the contents that are scattered, but for those that are
    damaged: they would stay in pieces."""
    scattered = set()
    for stored in stored_contents(site):
        if _is_scattered(stored.recipe) and stored.state is not State.DAMAGED:
            scattered.add(stored.id)
        for number, offset, length in stored.recipe.extents:
            pack = known.get(number)
            if pack is not None:
                pack.spans.add((offset, length))
                if stored.user not in pack.users:
                    pack.users |= {stored.user}
    return scattered


def _is_scattered(recipe: Recipe) -> bool:
    return len(recipe) > EXTENTS and recipe.size < len(recipe) * SCATTERED


def _is_joined_by(runs: list[Extent], recipe: Recipe) -> bool:
    """Whether a scattered content has at most half as many extents with these runs in line: one
    that names the same bytes again and again has as many."""
    if not _is_scattered(recipe):
        return False
    return 2 * len(in_line(runs, NEW_PACK).relocate(recipe)) <= len(recipe)


def _by_age(site: Site, scattered: set[int]) -> list[int]:
    """These contents, and what may share bytes with them, the newest first."""
    if not scattered:
        return []
    crossed = frozenset[int]().union(*(_present(site, content).packs for content in scattered))
    return [s.id for s in stored_contents(site) if s.recipe.packs & crossed][::-1]


def _worth_rewriting(known: dict[int, _Pack]) -> Iterator[list[int]]:
    """Groups of packs to be made one; each of the same users: a pack counts for all of them."""
    by_users: dict[frozenset[int], list[int]] = {}
    for number, pack in known.items():
        live = sum(length for _, length in merged(pack.spans))
        if pack.spans and (pack.size < TINY or live < pack.size * LIVE_SHARE):
            by_users.setdefault(pack.users, []).append(number)
    for numbers in by_users.values():
        sparse = [n for n in numbers if known[n].size >= TINY]
        tiny = [n for n in numbers if known[n].size < TINY]
        yield from _grouped(known, sparse + tiny if len(tiny) >= ENOUGH else sparse)


def _grouped(known: dict[int, _Pack], numbers: list[int]) -> Iterator[list[int]]:
    group: list[int] = []
    size = 0
    for number in sorted(numbers):
        live = sum(length for _, length in merged(known[number].spans))
        if group and size + live > LARGEST:
            yield group
            group, size = [], 0
        group.append(number)
        size += live
    if group:
        yield group


def _present(site: Site, row: int) -> Recipe:
    """A content's recipe as it is now; the empty one where it is gone."""
    query = select(contents.c.recipe).where(contents.c.id == row)
    packed = site.database.read(lambda c: c.execute(query).scalar())
    return Recipe() if packed is None else Recipe.unpack(bytes(packed))


# --- rewriting


def _sound(site: Site, known: dict[int, _Pack], runs: list[Extent]) -> list[Extent]:
    """Runs of packs that are what their names say.  The others are left for scrub: copying would
    hide the damage."""
    numbers = {run.pack for run in runs}
    sound = {
        n for n in numbers if n in known and is_sound(site.store, known[n].name, known[n].size)
    }
    return [run for run in runs if run.pack in sound]


def _relocate(site: Site, known: dict[int, _Pack], runs: list[Extent]) -> int:
    """Copy runs of bytes into a new pack and move all recipes over; the bytes copied."""
    if not runs:
        return 0
    moves, size = _copy(site, known, runs)
    affected = [stored.id for stored in _naming(site, moves)]
    for batch in batches(affected, CONTENTS):
        site.database.transact(partial(_move, site=site, moves=moves, rows=batch))
    return size


def _copy(site: Site, known: dict[int, _Pack], runs: list[Extent]) -> tuple[Moves, int]:
    """A new pack of these runs, durable and with a row."""
    reader = PackReader(site, {number: pack.name for number, pack in known.items()})
    writer, hasher = site.store.writer(), blake3()
    try:
        for piece in reader.pieces(runs):
            hasher.update(piece)
            writer.write(piece)
        size = writer.size
        writer.commit(hasher.digest())
    except BaseException:
        writer.abort()
        raise
    pack = see_pack(site, Pack(hasher.digest(), size))
    number = site.database.transact(lambda c: name_pack(c, pack, site.clock.now_ms()))
    return in_line(runs, number), size


def _naming(site: Site, moves: Moves) -> Iterator[Stored]:
    return (stored for stored in stored_contents(site) if stored.recipe.packs & moves.packs)


def _move(connection: Connection, site: Site, moves: Moves, rows: Iterable[int]) -> None:
    """Move recipes over, as they are now: a commit may have replaced one meanwhile.

    Until the first of them is here nothing needs the new pack, and it may be dying.  Raises Busy
    where it is gone.
    """
    if claim_packs(connection, site, moves.targets):
        raise Busy("a pack was collected while it was written")
    query = select(contents.c.id, contents.c.recipe).where(contents.c.id.in_(list(rows)))
    for row, packed in connection.execute(query.with_for_update()).all():
        recipe = moves.relocate(Recipe.unpack(bytes(packed)))
        change = update(contents).where(contents.c.id == row)
        connection.execute(change.values(recipe=recipe.pack()))
