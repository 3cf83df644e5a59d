"""The write path: a changeset in, one result per version out.

Literals go to a pack as they come.  When the stream is whole the pack is made durable, then one
transaction names it and adds the versions, then a notice is sent.  The cost is that of the change:
no content is read, and nothing is looked at but the paths that are named and those above them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import Connection, select

from dblike_delta.changeset import Decoder, Part
from dblike_delta.messages import CommitReply, Sources
from dblike_delta.recipe import Recipe
from dblike_srv.contents import EMPTY_HASH, State, check_contents, find_contents
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.intake import NEW_PACK, Intake
from dblike_srv.items import Item
from dblike_srv.models import users
from dblike_srv.packs import Pack, see_pack
from dblike_srv.replication.copies import await_copies
from dblike_srv.site import Site
from dblike_srv.sources import NamedContents
from dblike_srv.store.base import PackWriter
from dblike_srv.transaction import Check, Transaction


class Commit:
    """A commit while it comes in; used once.  A stream that fails changes nothing."""

    def __init__(self, site: Site, identity: Identity, folder: FolderRef) -> None:
        self._site, self._identity, self._folder = site, identity, folder
        self._decoder = Decoder()
        self._writer = site.store.writer()
        self._intake = new_intake(site, identity, self._writer)
        self._sources = NamedContents(site, folder)

    def wanted(self) -> int:
        """How many bytes are best received at once."""
        return self._decoder.wanted

    def receive(self, data: Part) -> None:
        """The next bytes of the changeset.  Raises DeltaError; then `abort` is called for."""
        for event in self._decoder.receive(data):
            if isinstance(event, Sources):
                self._sources.name(event)
            else:
                self._intake.take(self._sources.fill(event))

    def finish(self, *, brief: bool = False) -> CommitReply:
        """All bytes are here: commit them.  With `brief` results of which there is nothing to say
        are only counted."""
        self._decoder.close()
        pack = keep_pack(self._intake, self._writer)
        return commit_items(
            self._site, self._identity, self._folder, self._intake.items, pack, brief=brief
        )

    def abort(self) -> None:
        """Forget what came."""
        self._writer.abort()


def new_intake(site: Site, identity: Identity, writer: PackWriter) -> Intake:
    """An intake that knows the user's contents, limits and quota."""
    return Intake(
        writer,
        lambda digest: find_base(site, identity.user, digest),
        file_limit=site.config.limits.file_size,
        allowance=allowance(site, identity),
    )


def find_base(site: Site, user: int, digest: bytes) -> Recipe | None:
    """The recipe of a content that a delta may be taken against."""
    found = site.database.read(lambda connection: find_contents(connection, user, [digest]))
    content = found.get(digest)
    return None if content is None or content.state is State.DAMAGED else content.recipe


def allowance(site: Site, identity: Identity) -> int:
    """How many literal bytes the user may still add."""
    query = select(users.c.quota, users.c.used).where(users.c.id == identity.user)
    row = site.database.read(lambda connection: connection.execute(query).one())
    quota = row.quota or site.config.limits.quota
    return max(quota - row.used, 0) if quota else 1 << 62


def keep_pack(intake: Intake, writer: PackWriter) -> Pack | None:
    """Make the literals durable, where any item uses them."""
    pack = pack_of(intake)
    if pack is None:
        writer.abort()
    else:
        writer.commit(pack.name)
    return pack


def pack_of(intake: Intake) -> Pack | None:
    """The pack that the literals make, where any item uses them."""
    if not any(item.status is None and NEW_PACK in item.recipe.packs for item in intake.items):
        return None
    return Pack(intake.name(), intake.size)


def commit_items(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    items: list[Item],
    pack: Pack | None,
    *,
    overwrite: Check | None = None,
    brief: bool = False,
) -> CommitReply:
    """One transaction for all items, then the notice, then the wait for the copies that are asked
    for.  Running it again changes nothing.

    `overwrite` is the check of an edit that is made at the site itself; with `brief` results of
    which there is nothing to say are only counted.
    """
    if overwrite is None:
        _check_reused(site, identity, items)

    seen = None if pack is None else see_pack(site, pack)

    def work(connection: Connection) -> tuple[CommitReply, int, bytes]:
        transaction = Transaction(site, identity, folder, connection, overwrite)
        reply = transaction.run(items, seen, brief=brief)
        return reply, transaction.copies, transaction.site

    reply, copies, own = site.database.transact(work)
    _meter(site, items, pack, reply, copies)
    if reply.before != reply.cursor:
        site.notices.publish(folder.id, reply.cursor)
    return await_copies(site, folder, reply, own)


def _meter(
    site: Site, items: list[Item], pack: Pack | None, reply: CommitReply, copies: int
) -> None:
    """Count what became of the versions, and what their contents took."""
    outcomes = Counter[str](result.status for result in reply.results)
    outcomes["accepted"] += reply.accepted
    for status, number in outcomes.items():
        site.meter.count(f'dblike_versions_total{{status="{status}"}}', number)
    site.meter.count("dblike_conflicts_total", copies)
    meter_contents(site, items, pack, "device")


def meter_contents(site: Site, items: Iterable[Item], pack: Pack | None, by: str) -> None:
    """Count bytes of files that came, and those of them that did not lie here already."""
    content = sum(item.size for item in items if item.stored)
    site.meter.count(f'dblike_content_bytes_total{{by="{by}"}}', content)
    site.meter.count(f'dblike_literal_bytes_total{{by="{by}"}}', pack.size if pack else 0)


def _check_reused(site: Site, identity: Identity, items: Iterable[Item]) -> None:
    """Read those contents that are to serve another version, and were never read here."""
    wanted = {
        item.hash for item in items if item.status is None and not item.stored and item.hash
    } - {EMPTY_HASH}
    if not wanted:
        return
    found = site.database.read(lambda c: find_contents(c, identity.user, wanted))
    unchecked = [digest for digest, c in found.items() if c.state is State.UNCHECKED]
    if unchecked:
        check_contents(site, identity.user, unchecked)
