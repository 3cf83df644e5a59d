"""Packs and the contents in them, within the transaction that comes to need them.

Garbage collection marks packs that nothing needs as dying (the time since when), and deletes them
when they were so for long enough.  Whoever comes to need one takes the mark off in the same
transaction.  One that is just being deleted is given up, by a negative mark: it is as good as gone.

A mark may be wrong for a while: of a pack that came, or was come to need, while garbage collection
looked.  So a dying pack is as good to read as any other one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, insert, select, update

from dblike_delta.recipe import Extent, Recipe
from dblike_srv.contents import Content, batches
from dblike_srv.db import insert_many
from dblike_srv.errors import Busy
from dblike_srv.intake import NEW_PACK
from dblike_srv.models import contents, packs
from dblike_srv.site import Site

UNMARKED: Final = packs.c.dying == 0
KEPT: Final = packs.c.dying >= 0
GIVEN_UP: Final = packs.c.dying < 0

COLLECTED: Final = "a pack was collected while it was written again"
_COLUMNS: Final = ("user", "hash", "size", "state", "recipe", "created")


class Pack(msgspec.Struct, frozen=True):
    """A durable pack that no transaction names yet."""

    name: bytes
    size: int


class SeenPack(Pack, frozen=True):
    """The same, which was seen in the store while this row named it (0: none)."""

    row: int


def is_dying(mark: int) -> bool:
    """Whether a pack is to go when it was not needed for long enough."""
    return mark > 0


def is_given_up(mark: int) -> bool:
    """Whether nobody may come to need it any more."""
    return mark < 0


def see_pack(site: Site, pack: Pack) -> SeenPack:
    """A pack that was put, seen in the store.  Raises Busy where an older one of the same bytes was
    being collected just then.

    Outside of the transaction, in which a slow store would keep others waiting.  The row is looked
    at first: a file goes only when its row is given up, and before the row does.
    """
    query = select(packs.c.id, packs.c.dying).where(packs.c.hash == pack.name)
    held = site.database.read(lambda connection: connection.execute(query).first())
    if (held is not None and is_given_up(held.dying)) or not _is_there(site, pack.name):
        raise Busy(COLLECTED)
    return SeenPack(pack.name, pack.size, held.id if held is not None else 0)


def name_pack(connection: Connection, pack: SeenPack, now: int) -> int:
    """The number of a pack, which may have one already.  Raises Busy."""
    query = select(packs.c.id, packs.c.dying).where(packs.c.hash == pack.name)
    held = connection.execute(query.with_for_update()).first()
    if held is None and not pack.row:
        row = {"hash": pack.name, "size": pack.size, "created": now, "dying": 0}
        done = connection.execute(insert(packs).values(row)).inserted_primary_key
        assert done is not None
        return int(done[0])
    if held is None or is_given_up(held.dying) or pack.row not in (0, held.id):
        raise Busy(COLLECTED)
    _revive(connection, held.id, held.dying)
    return int(held.id)


def place_contents(
    connection: Connection,
    kept: list[Content],
    held: Iterable[Content],
    pack: SeenPack | None,
    now: int,
) -> tuple[list[Content], int]:
    """The contents with the number of the new pack, where any of them lies in it, and the space
    that this takes of their user, whose contents those of `held` are.  Raises Busy.

    Whether somebody else put the very same bytes makes no difference: else it could be found out
    whether they did.
    """
    if pack is None or not any(NEW_PACK in content.recipe.packs for content in kept):
        return kept, 0
    number = name_pack(connection, pack, now)
    mine = any(number in content.recipe.packs for content in held)
    placed = [replace(each, recipe=numbered(each.recipe, number)) for each in kept]
    return placed, 0 if mine else pack.size


def claim_packs(connection: Connection, site: Site, numbers: Iterable[int]) -> set[int]:
    """Take the marks off packs that are needed from here on; those that are gone already."""
    lost = set(numbers)
    for batch in batches(sorted(lost)):
        query = select(packs.c.id, packs.c.hash, packs.c.dying).where(packs.c.id.in_(batch))
        for number, name, dying in connection.execute(query.with_for_update()).all():
            if is_given_up(dying) or (is_dying(dying) and not _is_there(site, bytes(name))):
                continue
            lost.discard(number)
            _revive(connection, number, dying)
    return lost


def _revive(connection: Connection, number: int, dying: int) -> None:
    if is_dying(dying):
        connection.execute(update(packs).where(packs.c.id == number).values(dying=0))


def write_contents(connection: Connection, user: int, fresh: Iterable[Content], now: int) -> None:
    """New rows, and new recipes for rows that are there (those with an id)."""
    rows: list[tuple[Any, ...]] = []
    for content in fresh:
        packed = content.recipe.pack()
        if content.id:
            change = update(contents).where(contents.c.id == content.id)
            connection.execute(change.values(recipe=packed, state=int(content.state)))
            continue
        rows.append((user, content.hash, content.size, int(content.state), packed, now))
    insert_many(connection, contents, _COLUMNS, rows)


def numbered(recipe: Recipe, number: int) -> Recipe:
    """With the new pack's number in place of its stand-in."""
    if len(recipe.extents) == 1 and recipe.extents[0].pack == NEW_PACK:
        ((_, offset, length),) = recipe.extents
        return Recipe((Extent(number, offset, length),))
    return Recipe.of(
        Extent(number, offset, length) if pack == NEW_PACK else Extent(pack, offset, length)
        for pack, offset, length in recipe.extents
    )


def _is_there(site: Site, name: bytes) -> bool:
    try:
        site.store.size(name)
    except FileNotFoundError:
        return False
    return True
