"""Scrub: read everything, and say what is not what it was.

Every pack is read and compared with its name, unless it is dying: damage of what goes is no news.
A content that was checked when it came and lies in those that are sound is what it was; the others
are read as well, and so are those that need a dying pack all the same.  What is damaged is marked,
so that no one is served it and any device that still has it may send it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

import msgspec
from sqlalchemy import select

from dblike_delta.recipe import Recipe
from dblike_srv.contents import State, batches, check_contents
from dblike_srv.db import asked
from dblike_srv.models import contents, packs
from dblike_srv.packs import UNMARKED
from dblike_srv.site import Site
from dblike_srv.store.base import is_sound

PAGE: Final = 900

log = logging.getLogger(__name__)


class ScrubReport(msgspec.Struct, frozen=True):
    """What was read, and what is damaged: packs by name, contents by hash, both hex."""

    packs: int = 0
    bytes: int = 0
    contents: int = 0
    damaged_packs: tuple[str, ...] = ()
    damaged_contents: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged_packs and not self.damaged_contents


def scrub(site: Site) -> ScrubReport:
    """Read all packs and whatever contents that leaves in doubt.  Safe beside a running site."""
    query = select(packs.c.id, packs.c.hash, packs.c.size).where(UNMARKED)
    held = {row: (bytes(name), size) for row, name, size in site.database.read(asked(query))}
    wrong = {row for row, (name, size) in held.items() if not is_sound(site.store, name, size)}
    # Of these some may have been collected meanwhile.
    damaged = wrong & {row for row, _, _ in site.database.read(asked(query))} if wrong else wrong
    seen, bad = 0, []
    for user, hashes in _doubtful(site, held.keys() - wrong):
        seen += len(hashes)
        bad += check_contents(site, user, hashes)
    report = ScrubReport(
        packs=len(held),
        bytes=sum(size for _, size in held.values()),
        contents=seen,
        damaged_packs=tuple(sorted(held[row][0].hex() for row in damaged)),
        damaged_contents=tuple(sorted({digest.hex() for digest in bad})),
    )
    log.info("scrub: %s", report)
    return report


def _doubtful(site: Site, sound: set[int]) -> Iterator[tuple[int, list[bytes]]]:
    """Contents, by user, of which sound packs say too little."""
    last = 0
    while True:
        query = (
            select(contents.c.id, contents.c.user, contents.c.hash, contents.c.size,
                   contents.c.state, contents.c.recipe)
            .where(contents.c.id > last)
            .order_by(contents.c.id)
            .limit(PAGE)
        )  # fmt: skip
        rows = site.database.read(asked(query))
        by_user: dict[int, list[bytes]] = {}
        for _, user, digest, size, state, packed in rows:
            recipe = Recipe.unpack(bytes(packed))
            known = state == State.CHECKED and recipe.size == size
            if not known or not recipe.packs <= sound:
                by_user.setdefault(user, []).append(bytes(digest))
        for user, hashes in by_user.items():
            for batch in batches(hashes):
                yield user, batch
        if len(rows) < PAGE:
            return
        last = rows[-1][0]
