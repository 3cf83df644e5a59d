"""The write path: a changeset in, one result per version out.

Literals go to a pack as they come.  When the stream is whole the pack is made durable, then one
transaction names it and adds the versions, then a notice is sent.  The cost is that of the change:
no content is read, and nothing is looked at but the paths that are named and those above them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from sqlalchemy import Connection, insert, select, update

from dblike_delta.changeset import Decoder, Part
from dblike_delta.messages import CommitReply, CommitResult, CommitStatus, Record
from dblike_delta.recipe import Extent, Recipe
from dblike_delta.versions import Dot, Kind, Version, VersionVector, context, winner
from dblike_srv.contents import (
    EMPTY_HASH,
    Content,
    State,
    batches,
    check_contents,
    find_contents,
)
from dblike_srv.db import insert_many
from dblike_srv.errors import Busy, Invalid
from dblike_srv.folders import heads_of
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.intake import NEW_PACK, Intake, Item
from dblike_srv.models import contents, devices, packs, users, versions
from dblike_srv.site import Site
from dblike_srv.store.base import PackWriter
from dblike_srv.tree import VERSION_COLUMNS, Tree, version_of

COUNTER_JUMP = 1 << 32
"""How far a device may be ahead of what is known of it."""
FUTURE_MS = 24 * 3600 * 1000
"""A version's time is at most so much after now: a wrong clock must not win for years."""


class Commit:
    """A commit while it comes in; used once.  A stream that fails changes nothing."""

    def __init__(self, site: Site, identity: Identity, folder: FolderRef) -> None:
        self._site, self._identity, self._folder = site, identity, folder
        self._decoder = Decoder()
        self._writer = site.store.writer()
        self._intake = new_intake(site, identity, self._writer)

    def receive(self, data: Part) -> None:
        """The next bytes of the changeset.  Raises DeltaError; then `abort` is called for."""
        for event in self._decoder.receive(data):
            self._intake.take(event)

    def finish(self) -> CommitReply:
        """All bytes are here: commit them."""
        self._decoder.close()
        pack = keep_pack(self._intake, self._writer)
        return commit_items(self._site, self._identity, self._folder, self._intake.items, pack)

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


@dataclasses.dataclass(frozen=True)
class Pack:
    """A durable pack that no transaction names yet."""

    name: bytes
    size: int


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
    if not any(item.status is None and NEW_PACK in item.recipe.packs for item in intake.items):
        writer.abort()
        return None
    pack = Pack(intake.digest.digest(), writer.size)
    writer.commit(pack.name)
    return pack


Check = Callable[[Tree], None]
"""Looks at the tree before anything is added, and raises where the edit must not go on."""


def commit_items(
    site: Site,
    identity: Identity,
    folder: FolderRef,
    items: list[Item],
    pack: Pack | None,
    *,
    overwrite: Check | None = None,
) -> CommitReply:
    """One transaction for all items, then the notice.  Running it again changes nothing.

    With `overwrite` the versions are made in knowledge of whatever the paths are in that moment (an
    edit at the site itself), once the check has passed; without, of what their contexts say.
    """
    if overwrite is None:
        _check_reused(site, identity, items)

    def work(connection: Connection) -> CommitReply:
        return _Transaction(site, identity, folder, connection, overwrite).run(items, pack)

    reply = site.database.transact(work)
    if reply.before != reply.cursor:
        site.notices.publish(folder.id, reply.cursor)
    return reply


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


class _Transaction:
    """What one commit does to the database.  Made anew for each try."""

    def __init__(
        self,
        site: Site,
        identity: Identity,
        folder: FolderRef,
        connection: Connection,
        overwrite: Check | None,
    ) -> None:
        self._site, self._identity, self._folder = site, identity, folder
        self._connection = connection
        self._overwrite = overwrite
        self._now = site.clock.now_ms()
        self._status: dict[Dot, tuple[CommitStatus, str]] = {}
        self._known: dict[Dot, Version] = {}
        self._changed: set[Dot] = set()

    def run(self, items: list[Item], pack: Pack | None) -> CommitReply:
        """The reply; everything is written when it is returned."""
        tree = Tree(self._connection, self._folder.row, self._site.id, now=self._now)
        heads = heads_of(self._connection, self._folder.row)
        highest = self._highest()
        self._find_known(items)
        good = [item for item in items if self._accepts(item, highest)]
        self._keep_contents(good, self._name_pack(pack))
        tree.load(item.record.path for item in items)
        if self._overwrite is not None:
            self._overwrite(tree)
        for item in good:
            if self._is_good(item):
                self._add(tree, item)
        tree.write()
        self._note_counter(max((dot.counter for dot in self._changed), default=0), highest)
        seal = self._site.seal
        return CommitReply(
            results=[self._result(tree, item, highest) for item in items],
            before=seal.cursor(self._folder.id, heads),
            cursor=seal.cursor(self._folder.id, {**heads, self._site.id: tree.head}),
            time=self._now,
        )

    # --- what is said

    def _highest(self) -> int:
        query = select(devices.c.highest).where(devices.c.id == self._identity.device)
        return int(self._connection.execute(query).scalar() or 0)

    def _find_known(self, items: list[Item]) -> None:
        """Versions whose dots are here already."""
        counters = [i.record.counter for i in items if i.record.device == self._identity.device]
        for batch in batches(counters):
            query = select(*VERSION_COLUMNS).where(
                versions.c.folder == self._folder.row,
                versions.c.device == self._identity.device,
                versions.c.counter.in_(batch),
            )
            for row in self._connection.execute(query):
                version = version_of(row)
                self._known[version.dot] = version

    def _accepts(self, item: Item, highest: int) -> bool:
        dot = _dot(item.record)
        if dot in self._known:
            same = _says_the_same(self._known[dot], item)
            self._say(dot, "known" if same else "dot-reused", "")
        elif item.record.device != self._identity.device:
            self._say(dot, "refused", "a version's dot must be the device's own")
        elif item.record.counter > highest + COUNTER_JUMP:
            self._say(dot, "refused", "the counter is too far ahead of what is known of it")
        elif item.status is not None:
            self._say(dot, item.status, item.detail)
        elif dot in self._status:
            self._say(dot, "refused", "the same dot twice in one changeset")
        else:
            return True
        return False

    def _say(self, dot: Dot, status: CommitStatus, detail: str) -> None:
        self._status[dot] = (status, detail)

    def _is_good(self, item: Item) -> bool:
        return _dot(item.record) not in self._status

    # --- contents

    @property
    def _usable(self) -> tuple[State, ...]:
        """Contents that may serve another version.  To bring back what a path of the folder was
        needs no proof: it served that path with these bytes."""
        if self._overwrite is not None:
            return (State.CHECKED, State.UNCHECKED)
        return (State.CHECKED,)

    def _name_pack(self, pack: Pack | None) -> int:
        """The number of the pack that was written."""
        if pack is None:
            return NEW_PACK
        query = select(packs.c.id).where(packs.c.hash == pack.name).with_for_update()
        number = self._connection.execute(query).scalar()
        if number is None:
            row = {"hash": pack.name, "size": pack.size, "created": self._now, "dying": 0}
            result = self._connection.execute(insert(packs).values(row))
            number = result.inserted_primary_key[0]  # type: ignore[index]
            self._use_space(pack.size)
        try:
            self._site.store.size(pack.name)
        except FileNotFoundError:
            # An older pack of the same bytes was being collected just when this one was put.
            raise Busy("a pack was collected while it was written again") from None
        return int(number)

    def _use_space(self, size: int) -> None:
        self._connection.execute(
            update(users).where(users.c.id == self._identity.user).values(used=users.c.used + size)
        )

    def _keep_contents(self, items: list[Item], number: int) -> None:
        """Rows for what came, and a look at what was only named by its hash."""
        files = [item for item in items if item.record.kind == Kind.FILE]
        user = self._identity.user
        found = find_contents(self._connection, user, (item.hash for item in files))
        fresh: dict[bytes, Content] = {}
        for item in files:
            held = fresh.get(item.hash) or found.get(item.hash)
            if item.stored:
                state = State.CHECKED if item.checked else State.UNCHECKED
                if held is None or (held.state < state or held.state is State.DAMAGED):
                    recipe = _numbered(item.recipe, number)
                    row = held.id if held is not None else 0
                    fresh[item.hash] = Content(row, item.hash, item.size, state, recipe)
            elif held is None or held.size != item.size or held.state not in self._usable:
                self._say(_dot(item.record), "content-missing", "send it in full")
        self._write_contents(list(fresh.values()))

    def _write_contents(self, fresh: list[Content]) -> None:
        rows = [
            {
                "user": self._identity.user, "hash": c.hash, "size": c.size, "state": int(c.state),
                "recipe": c.recipe.pack(), "created": self._now,
            }
            for c in fresh if not c.id
        ]  # fmt: skip
        insert_many(self._connection, contents, rows)
        for content in fresh:
            if content.id:
                change = update(contents).where(contents.c.id == content.id)
                self._connection.execute(
                    change.values(recipe=content.recipe.pack(), state=int(content.state))
                )
        used = {number for content in fresh for number in content.recipe.packs}
        for batch in batches(used):
            self._connection.execute(
                update(packs).where(packs.c.id.in_(batch), packs.c.dying != 0).values(dying=0)
            )

    # --- versions

    def _add(self, tree: Tree, item: Item) -> None:
        record = item.record
        try:
            known = self._known_to(tree, record)
        except Invalid as error:
            self._say(_dot(record), "refused", error.detail)
            return
        self._changed.add(_dot(record))
        tree.add(make_version(record, item.hash, item.size, known, self._now))

    def _known_to(self, tree: Tree, record: Record) -> VersionVector:
        if self._overwrite is not None:
            return context(tree.node(record.path).heads)
        return self._site.seal.open_context(self._folder.id, record.path, record.context)

    def _note_counter(self, counter: int, highest: int) -> None:
        if counter > highest:
            change = update(devices).where(devices.c.id == self._identity.device)
            self._connection.execute(change.values(highest=counter))

    def _result(self, tree: Tree, item: Item, highest: int) -> CommitResult:
        dot = _dot(item.record)
        status, detail = self._status.get(dot, ("accepted", ""))
        if status not in ("accepted", "known"):
            return CommitResult(dot.device, dot.counter, status, detail=detail, highest=highest)
        heads = tree.node(item.record.path).heads
        known, superseded = context(heads), winner(heads).dot != dot
        if superseded:
            # The device has yet to show the winner to anyone: until it does, an edit is no answer
            # to the winner and must not dominate it.
            known = self._known_to(tree, item.record).with_dot(dot)
        sealed = self._site.seal.context(self._folder.id, item.record.path, known.pack())
        return CommitResult(dot.device, dot.counter, status, sealed, superseded=superseded)


def make_version(
    record: Record, digest: bytes, size: int, known: VersionVector, now: int
) -> Version:
    """The version that a record stands for, with what may not be said taken out of it."""
    dot = _dot(record)
    kind = Kind(record.kind)
    plain = kind in (Kind.FILE, Kind.DIRECTORY)
    return Version(
        path=record.path,
        dot=dot,
        vector=known.with_dot(dot),
        time=min(record.time, now + FUTURE_MS),
        kind=kind,
        hash=digest if kind is Kind.FILE else b"",
        size=size if kind is Kind.FILE else 0,
        mode=record.mode & 0o777 if plain else 0,
        mtime_ns=record.mtime_ns if kind is Kind.FILE else 0,
        target=record.target if kind is Kind.SYMLINK else b"",
        author=record.author,
    )


def _says_the_same(known: Version, item: Item) -> bool:
    """Whether a version that comes again is the one that is here."""
    record = item.record
    if known.path != record.path or known.kind != record.kind or known.target != record.target:
        return False
    digest = item.hash or record.hash  # a body that was passed over leaves only what was said
    return known.kind is not Kind.FILE or not digest or known.hash == digest


def _numbered(recipe: Recipe, number: int) -> Recipe:
    """With the new pack's number in place of its stand-in."""
    return Recipe.of(
        Extent(number, offset, length) if pack == NEW_PACK else Extent(pack, offset, length)
        for pack, offset, length in recipe.extents
    )


def _dot(record: Record) -> Dot:
    return Dot(record.device, record.counter)
