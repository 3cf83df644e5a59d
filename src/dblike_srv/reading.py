"""Contents that the site itself reads: files, parts of them, and rsync's steps as the other side.

What is read as a whole is compared with its hash.  Where that is damaged it is marked as such, so
that no one is served it any more, and the reply ends before anybody could take it for all of it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import partial
from typing import Final

from blake3 import blake3
from sqlalchemy import Connection

from dblike_delta.delta import delta
from dblike_delta.recipe import Recipe
from dblike_delta.signature import Signature, signature
from dblike_delta.versions import Kind, Version
from dblike_srv.contents import (
    Content,
    PackReader,
    State,
    check_contents,
    find_contents,
    pack_names,
)
from dblike_srv.errors import Busy, Invalid, NotFound
from dblike_srv.identity import Identity
from dblike_srv.site import Site
from dblike_srv.store.base import Away

MOST_BLOCKS: Final = 1 << 21
"""Blocks of a signature that is made here, at 36 bytes each: those of 4 GiB in blocks of 2 KiB.
Where nobody says how large they shall be, it is the square root of the file's size."""
LOST: Final = "the content is damaged or not kept any more"


def read_content(
    site: Site, identity: Identity, version: Version, start: int = 0, end: int | None = None
) -> Iterator[memoryview]:
    """A file version's bytes from `start` to before `end`; NotFound where they are not kept.

    All of them are compared with the hash: what is damaged ends in NotFound before its last piece.
    Of a part nothing can be said.
    """
    recipe, names = find_recipe(site, identity.user, version)
    end = version.size if end is None else end
    pieces = PackReader(site, names).pieces(recipe.pieces(start, end - start))
    if (start, end) != (0, version.size):
        return pieces
    return _verified(site, identity.user, version.hash, pieces)


def signature_of(
    site: Site, identity: Identity, version: Version, *, block_size: int | None, strong: int | None
) -> bytes:
    """The librsync signature (RK_BLAKE2) of a version's content; Invalid where the blocks are so
    small that it would be too large to be made in memory."""
    if block_size is not None and version.size // block_size > MOST_BLOCKS:
        least = -(-version.size // MOST_BLOCKS)
        raise Invalid(f"blocks of a file of this size have {least} bytes or more", field="block")
    source = _Reader(site, identity.user, version)
    made = signature(source, block_size=block_size, format="librsync", strong_size=strong)
    source.compare()
    return made.pack()


def delta_for(site: Site, identity: Identity, version: Version, theirs: bytes) -> Iterator[bytes]:
    """The librsync delta that makes a version's content of a file with the signature `theirs`."""
    known = Signature.unpack(theirs)
    source = _Reader(site, identity.user, version)
    made = delta(known, source, hash=False)
    try:
        source.compare()
        for piece in made.pieces():
            yield bytes(piece)
    finally:
        made.close()


def find_recipe(site: Site, user: int, version: Version) -> tuple[Recipe, dict[int, bytes]]:
    """A file version's recipe, and the names of its packs; NotFound where it is not kept."""
    if version.kind is not Kind.FILE:
        raise Invalid("only files have content", field="path")

    def work(connection: Connection) -> tuple[Content | None, dict[int, bytes]]:
        content = find_contents(connection, user, [version.hash]).get(version.hash)
        packs = content.recipe.packs if content is not None else ()
        return content, pack_names(connection, packs)

    content, names = site.database.read(work)
    if content is None or content.state is State.DAMAGED:
        raise NotFound(LOST, field="version")
    return content.recipe, names


@contextlib.contextmanager
def reading(site: Site, user: int, digest: bytes) -> Iterator[None]:
    """An error of what is read is remembered as damage of that content, if it is, and said so."""
    try:
        yield
    except Away:
        raise  # which says nothing of the content
    except OSError as error:
        if check_contents(site, user, [digest]):
            raise NotFound(LOST, field="version") from error
        raise Busy("the content was just moved or mended: ask again") from error


def _compare(found: bytes, digest: bytes) -> None:
    if found != digest:
        raise OSError(f"content {digest.hex()} is damaged")


def _verified(
    site: Site, user: int, digest: bytes, pieces: Iterator[memoryview]
) -> Iterator[memoryview]:
    """The pieces of a whole content, the last one when all of them are known to be right."""
    hasher, held = blake3(), memoryview(b"")
    with reading(site, user, digest):
        for piece in pieces:
            if held:
                yield held
            hasher.update(piece)
            held = piece
        _compare(hasher.digest(), digest)
    yield held


class _Reader(io.RawIOBase):
    """A content as a file, read forwards, once."""

    def __init__(self, site: Site, user: int, version: Version) -> None:
        super().__init__()
        self._recipe, names = find_recipe(site, user, version)
        self._packs = PackReader(site, names)
        self._hash, self._hasher = version.hash, blake3()
        self._reading = partial(reading, site, user, version.hash)
        self._at = 0

    def compare(self) -> None:
        """All was read: NotFound where it is damaged."""
        with self._reading():
            _compare(self._hasher.digest(), self._hash)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._at, self._recipe.size)[whence]
        self._at = max(start + offset, 0)
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(self._recipe.size - self._at, 0)
        length = left if size < 0 else min(size, left)
        with self._reading():
            data = b"".join(self._packs.pieces(self._recipe.pieces(self._at, length)))
        self._at += length
        self._hasher.update(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
