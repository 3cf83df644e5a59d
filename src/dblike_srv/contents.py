"""Contents: what a user's files are made of on this site, each a recipe under its content hash.

A content belongs to one user: a hash is never a way to another user's bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

import msgspec
from blake3 import blake3
from sqlalchemy import Connection, select, update

from dblike_delta.recipe import Extent, Recipe
from dblike_srv.db import CHUNK, find_rows
from dblike_srv.models import contents, packs
from dblike_srv.site import Site
from dblike_srv.store.base import Away

_T = TypeVar("_T")

EMPTY_HASH: Final = blake3(b"").digest()
PIECE: Final = 1 << 20


class State(enum.IntEnum):
    """What this site knows of a content.

    A content that came as a delta is unchecked: the site did not read it.  It serves its own path,
    where the receiver checks it, but is not used for another one until its bytes were read.
    """

    UNCHECKED = 0
    CHECKED = 1
    DAMAGED = 2


_COLUMNS: Final = (
    contents.c.id,
    contents.c.hash,
    contents.c.size,
    contents.c.state,
    contents.c.recipe,
)


class Content(msgspec.Struct, frozen=True):
    """A row of the table."""

    id: int
    hash: bytes
    size: int
    state: State
    recipe: Recipe


def batches(values: Iterable[_T], size: int = CHUNK) -> Iterator[list[_T]]:
    """The values in lists of at most `size`."""
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


def find_contents(
    connection: Connection, user: int, hashes: Iterable[bytes], *, lock: bool = False
) -> dict[bytes, Content]:
    """Those of the contents that are here; the empty one always is.

    With `lock` they are not dropped before the transaction ends.
    """
    found = {EMPTY_HASH: Content(0, EMPTY_HASH, 0, State.CHECKED, Recipe())}
    where, wanted = {contents.c.user: user}, set(hashes) - {EMPTY_HASH}
    lent = "SHARE" if lock else ""
    rows = find_rows(connection, _COLUMNS, where, contents.c.hash, wanted, lock=lent)
    for row, digest, size, state, packed in rows:
        found[digest] = Content(row, digest, size, State(state), Recipe.unpack(packed))
    return found


def pack_names(connection: Connection, numbers: Iterable[int]) -> dict[int, bytes]:
    """The names of packs by their numbers."""
    names: dict[int, bytes] = {}
    for batch in batches(set(numbers)):
        query = select(packs.c.id, packs.c.hash).where(packs.c.id.in_(batch))
        names.update((number, bytes(name)) for number, name in connection.execute(query))
    return names


class PackReader:
    """Reads extents; neighbouring small ones by one read of the store."""

    def __init__(self, site: Site, names: dict[int, bytes], *, window: int = PIECE) -> None:
        self._store = site.store
        self._names = names
        self._window = window
        self._pack = -1
        self._start = 0
        self._data = memoryview(b"")
        self._sizes: dict[int, int] = {}

    def pieces(self, extents: Iterable[Extent]) -> Iterator[memoryview]:
        """The bytes of the extents, in pieces; OSError where the store can't give them."""
        for pack, offset, length in extents:
            for at in range(0, length, PIECE):
                yield self._piece(pack, offset + at, min(length - at, PIECE))

    def piece(self, extent: Extent) -> memoryview:
        """The bytes of a small extent; likewise."""
        return self._piece(*extent)

    def read(self, extents: Sequence[Extent]) -> bytes | memoryview:
        """All bytes of the extents at once, for small ones."""
        pieces = list(self.pieces(extents))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, pack: int, offset: int, length: int) -> memoryview:
        start = offset - self._start
        if pack != self._pack or start < 0 or start + length > len(self._data):
            # Never less than what is wanted: a pack that is cut short must fail, not be believed.
            ahead = length if length >= self._window else max(length, self._reach(pack, offset))
            self._data = memoryview(self._store.read(self._name(pack), offset, ahead))
            self._pack, self._start, start = pack, offset, 0
        return self._data[start : start + length]

    def _reach(self, pack: int, offset: int) -> int:
        if pack not in self._sizes:
            self._sizes[pack] = self._store.size(self._name(pack))
        return max(min(self._window, self._sizes[pack] - offset), 1)

    def _name(self, pack: int) -> bytes:
        try:
            return self._names[pack]
        except KeyError:
            raise FileNotFoundError(f"no pack of number {pack}") from None


def check_contents(site: Site, user: int, hashes: Iterable[bytes]) -> list[bytes]:
    """Read contents, compare them with their hashes, remember the result; the damaged ones.

    Raises Away where the store can't be asked.
    """

    def load(connection: Connection) -> tuple[dict[bytes, Content], dict[int, bytes]]:
        held = find_contents(connection, user, hashes)
        return held, pack_names(connection, (n for c in held.values() for n in c.recipe.packs))

    held, names = site.database.read(load)
    reader = PackReader(site, names)
    read = [(content, _verdict(reader, content)) for content in held.values() if content.id]
    news = [(content, state) for content, state in read if state is not content.state]

    def remember(connection: Connection) -> None:
        for content, state in news:
            # Only as long as the row still has the recipe that was read.
            mine = (contents.c.id == content.id) & (contents.c.recipe == content.recipe.pack())
            connection.execute(update(contents).where(mine).values(state=int(state)))

    if news:
        site.database.transact(remember)
    return [content.hash for content, state in read if state is State.DAMAGED]


def _verdict(reader: PackReader, content: Content) -> State:
    hasher = blake3()
    try:
        for piece in reader.pieces(content.recipe.extents):
            hasher.update(piece)
    except Away:
        raise  # which says nothing of the content
    except OSError:
        return State.DAMAGED
    return State.CHECKED if hasher.digest() == content.hash else State.DAMAGED
