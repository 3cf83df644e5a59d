"""Edits that are made at the site: whole files over HTTP, restores.

Their versions need dots, too.  The device that asks may use its own counter at the same time, so
the site uses a device id derived from its own and the device's, and a counter that it keeps itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from blake3 import blake3
from sqlalchemy import Connection, select, update

from dblike_delta.messages import CommitResult, Record
from dblike_delta.paths import display
from dblike_delta.versions import Dot, Kind
from dblike_srv.commit import commit_items
from dblike_srv.errors import Invalid, QuotaExceeded, SiteError, TooLarge
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.items import Item
from dblike_srv.models import devices
from dblike_srv.packs import Pack
from dblike_srv.site import Site
from dblike_srv.transaction import Check
from dblike_srv.tree import Tree, site_id

OVERTAKEN: Final = 8
"""How often an edit is given another dot."""


class Edit(msgspec.Struct, frozen=True):
    """What a path shall become.  A file's content is here already, or comes in a pack."""

    path: bytes
    kind: Kind
    hash: bytes = b""
    size: int = 0
    mode: int = 0
    mtime_ns: int = 0
    target: bytes = b""


def make_items(site: Site, identity: Identity, edits: Sequence[Edit]) -> list[Item]:
    """Items with dots of their own, which are used up by this."""
    device, first = _take_dots(site, identity, len(edits))
    now = site.clock.now_ms()
    items = []
    for counter, edit in enumerate(edits, first):
        record = Record(
            path=edit.path,
            device=device,
            counter=counter,
            time=now,
            kind=int(edit.kind),
            hash=edit.hash,
            size=edit.size,
            mode=edit.mode,
            mtime_ns=edit.mtime_ns,
            target=edit.target,
            author=identity.device_name,
        )
        items.append(Item(record, edit.hash, edit.size))
    return items


def _passed(tree: Tree) -> None:
    """The check of an edit that may be made in any case."""


def apply_items(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    items: list[Item],
    pack: Pack | None = None,
    *,
    check: Check = _passed,
) -> None:
    """Commit items of `make_items` over whatever the paths are; the first refusal is raised.

    Those that were overtaken, by an edit that took its dot later and is here, get new dots.
    """
    left = items
    for last in (*[False] * OVERTAKEN, True):
        # All are of the one device that edits at this site in the name of the one that asks.
        author = msgspec.structs.replace(identity, device=left[0].record.device)
        reply = commit_items(site, author, folder, left, pack, overwrite=check)
        late = []
        for item, result in zip(left, reply.results, strict=True):
            if result.status == "dot-reused" and not last:
                late.append(item)
            elif result.status not in ("accepted", "known"):
                raise _error(item, result)
        if not late:
            return
        _renew_dots(site, identity, late)
        if len(late) < len(left):
            check = _passed  # it was, and would look at what came of it
        left = late


def _renew_dots(site: Site, identity: Identity, items: list[Item]) -> None:
    device, first = _take_dots(site, identity, len(items))
    for counter, item in enumerate(items, first):
        item.record = msgspec.structs.replace(item.record, device=device, counter=counter)


def dots_of(items: Sequence[Item]) -> list[Dot]:
    """The items' dots."""
    return [Dot(item.record.device, item.record.counter) for item in items]


def _take_dots(site: Site, identity: Identity, count: int) -> tuple[bytes, int]:
    """A device id, and the first of `count` counters of it that nobody will use again."""
    mine = devices.c.id == identity.device

    def work(connection: Connection) -> tuple[bytes, int]:
        change = update(devices).where(mine).values(site_counter=devices.c.site_counter + count)
        connection.execute(change)
        last = connection.execute(select(devices.c.site_counter).where(mine)).scalar_one()
        purpose = b"dblike site device" + site_id(connection) + identity.device
        return blake3(purpose).digest(length=16), int(last) - count + 1

    return site.database.transact(work)


def _error(item: Item, result: CommitResult) -> SiteError:
    if result.status == "content-missing":  # of what is brought back: nobody sends it
        name = display(item.record.path)
        lost = f"the content of {name} is damaged or not kept at this site: all else is there"
        return Invalid(lost, field="path")
    if result.detail.startswith("over quota"):
        return QuotaExceeded(result.detail)
    if "the limit is" in result.detail:
        return TooLarge(result.detail)
    return Invalid(result.detail or f"refused: {result.status}")
