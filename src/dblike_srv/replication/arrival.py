"""Versions that another site accepted, into this site's tree.

An arrival is the write path of a commit with another judge: what the other site has acknowledged is
not refused here for a quota or a full hour's clock, but what can't be true is.  Content comes as
deltas against what is here, and no content that is here is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, select, update

from dblike_delta.changeset import Body
from dblike_delta.errors import DeltaError
from dblike_delta.messages import HASH_BYTES, Record, Refusal, Trailer, Want
from dblike_delta.paths import check_path
from dblike_delta.recipe import Recipe
from dblike_delta.versions import KINDS, Dot, Kind, Version, VersionVector
from dblike_srv.commit import find_base, keep_pack, meter_contents
from dblike_srv.contents import EMPTY_HASH, Content, State, find_contents
from dblike_srv.errors import Busy
from dblike_srv.folders import journal_numbers
from dblike_srv.identity import FolderRef
from dblike_srv.intake import NEW_PACK, Intake
from dblike_srv.items import Item
from dblike_srv.models import users
from dblike_srv.packs import (
    Pack,
    SeenPack,
    claim_packs,
    place_contents,
    see_pack,
    write_contents,
)
from dblike_srv.registers import note_counters
from dblike_srv.replication.parts import Parts, take_parts
from dblike_srv.site import Ahead, Site
from dblike_srv.store.base import PackWriter
from dblike_srv.tree import Tree

_UNBOUNDED: Final = 1 << 62
_HAVES: Final = 4
WORTH: Final = 1 << 20
"""Bytes of files from which on what comes of them is kept over a cut."""
SPARED: Final = 16 << 20
"""Bytes of files that are not kept where a longer beginning of another one would go for that."""
_LOST: Final = ("gone", "damaged")
"""Contents that the other site does not have either: the version is history all the same, and
`scrub --repair` asks everyone for its content."""

Entry = tuple[bytes, int, Record]
"""A site, a number in its journal, and the version."""
Piece = Record | Body | Trailer | Refusal
"""What an answer to wants consists of."""


class Fault(Exception):
    """What the other site sent can't be: it is not believed any more until someone looks."""


class Damaged(Fault):
    """Contents that are not what their hashes say: that site's disk, or a lie."""

    def __init__(self, hashes: list[bytes], detail: str) -> None:
        super().__init__(f"a content that is not what its hash says: {detail}")
        self.hashes = hashes


class Unfinished(Exception):
    """Some content could not be had now; what came before it is kept.  The store of the other site
    failed with those of `hashes`."""

    def __init__(self, detail: str, hashes: Sequence[bytes] = ()) -> None:
        super().__init__(detail)
        self.hashes = hashes


class Arrival:
    """A run of journal entries, and the contents of those whose content is not here.

    Used once: `wants` first, then `take` for every event of the answer, then `finish`.  Where the
    answer is cut, `leave` keeps what came of it for the next arrival.
    """

    def __init__(
        self, site: Site, folder: FolderRef, entries: Sequence[Entry], front: Arrival | None = None
    ) -> None:
        """`front` has come and is written before anything of this one is taken in."""
        self._site, self._folder = site, folder
        self._waits = front is not None
        self._coming_first = front.brings if front else set[bytes]()
        self._before = front.latest if front else {}
        self._entries = [(origin, number, version_of(record)) for origin, number, record in entries]
        self._told_of = {version.dot: version.hash for _, _, version in self._entries}
        self._coming = 0
        self._fresh: dict[bytes, Recipe] = {}
        self._taken = 0
        self._wanted: set[bytes] = set()
        self._refused: dict[bytes, str] = {}
        self._told = ""
        self._use(None)

    # --- content

    def wants(self) -> list[Want]:
        """Which contents are absent, each with what is at hand to build it from."""
        wants = self._missing()
        if self._coming < WORTH:
            return wants
        # Also where this one waits, unless the one in front has them.
        self._use(take_parts(self._site, self._folder))
        digest, start = self._intake.begun
        if digest not in self._wanted and self._coming < min(start, SPARED):
            self._leave_parts()
        return self._left(wants) if self._resumed else wants

    @property
    def brings(self) -> set[bytes]:
        """The contents that came."""
        return {item.hash for item in self._intake.items if item.stored}

    @property
    def latest(self) -> dict[bytes, bytes]:
        """Path to the content that it has once this is written."""
        return {v.path: v.hash for _, _, v in self._entries if v.kind is Kind.FILE}

    def _begin(self) -> None:
        """The one in front is written, and has let go of the parts where it had them."""
        self._waits = False
        if self._parts is None and self._coming >= WORTH:
            self._use(take_parts(self._site, self._folder))
            if self._resumed:
                self._leave_parts()  # all of it was asked for

    def _leave_parts(self) -> None:
        """Let another one go on with them."""
        if self._parts is not None:
            self._parts.leave()
            self._use(None)

    def _use(self, parts: Parts | None) -> None:
        """Go on with what came before a cut, where there is such."""
        self._parts = parts
        self._writer: PackWriter = parts.writer if parts else self._site.store.writer()
        self._intake = self._new_intake()
        self._resumed = parts is not None and parts.restore(self._intake)

    def _new_intake(self) -> Intake:
        free = _UNBOUNDED
        return Intake(self._writer, self._base, file_limit=free, allowance=free, commands=free)

    def _left(self, wants: list[Want]) -> list[Want]:
        """What did not come before a cut; first that of which a part did."""
        here = {item.hash for item in self._intake.items if item.stored}
        left = [want for want in wants if self._hash(want) not in here]
        digest, start = self._intake.begun
        first = [want for want in left if start and self._hash(want) == digest]
        if not first:
            self._intake.drop()
            if not self._intake.items and self._parts is not None:
                self._parts.forget()  # of no use any more; its bytes would be in the pack
                self._use(take_parts(self._site, self._folder))
        for want in first:
            left.remove(want)
            have = [d for d in want.have if d not in self._wanted or d in here]
            left.insert(0, msgspec.structs.replace(want, have=have, start=start))
        return left

    def _hash(self, want: Want) -> bytes:
        return self._told_of[Dot(want.device, want.counter)]

    def _missing(self) -> list[Want]:
        files = [version for _, _, version in self._entries if version.kind is Kind.FILE]
        hashes = {version.hash for version in files}
        absent = self._absent(hashes)
        if not absent:
            return []
        before = self._contents_before({version.path for version in files})
        absent |= self._absent({d for contents in before.values() for d in contents} - hashes)
        wants: list[Want] = []
        for version in files:
            known = before.get(version.path, ())
            if version.hash in absent and version.hash not in self._wanted:
                have = [d for d in known if d not in absent or d in self._wanted]
                wants.append(Want(*version.dot, have[-_HAVES:]))
                self._wanted.add(version.hash)
                self._coming += version.size
            before[version.path] = (*known, version.hash)
        return wants

    def _absent(self, hashes: set[bytes]) -> set[bytes]:
        """Those of the contents that can't be served from here."""
        if not hashes:
            return set()
        user = self._folder.user
        held = self._site.database.read(lambda c: find_contents(c, user, hashes))
        absent = {d for d in hashes if d not in held or held[d].state is State.DAMAGED}
        return absent - self._coming_first

    def _contents_before(self, paths: set[bytes]) -> dict[bytes, tuple[bytes, ...]]:
        """The contents that paths have here: what the next versions were most likely made from."""

        def work(connection: Connection) -> dict[bytes, tuple[bytes, ...]]:
            tree = Tree(connection, self._folder.row)
            tree.load(paths)
            known = [node for node in map(tree.node, paths) if node.heads]
            return {n.path: tuple(h.hash for h in n.heads if h.kind is Kind.FILE) for n in known}

        found = self._site.database.read(work)
        for path in self._before.keys() & paths:
            found[path] = (*found.get(path, ()), self._before[path])
        return found

    def _base(self, digest: bytes) -> Recipe | None:
        for item in self._intake.items[self._taken :]:
            if item.stored:
                self._fresh[item.hash] = item.recipe
                self._taken += 1
        return self._fresh.get(digest) or find_base(self._site, self._folder.user, digest)

    def take(self, event: Piece) -> None:
        """An event of the answer to `wants`."""
        if self._waits:
            self._begin()
        if isinstance(event, Refusal):
            told = self._told_of.get(Dot(event.device, event.counter), b"")
            self._refused[told] = event.status
            self._intake.drop()
            return
        if isinstance(event, Record):
            self._check(event)
            if event.start:
                self._intake.go_on(event.base)
                return
            if event.context:
                event = msgspec.structs.replace(event, context=b"")
        self._intake.take(event)
        if self._parts is not None and isinstance(event, Body):
            self._parts.save_at_times(self._intake)

    def _check(self, record: Record) -> None:
        if Dot(record.device, record.counter) not in self._told_of:
            raise Fault("content came that nobody asked for")
        if record.hash not in self._wanted:
            raise Unfinished("it says something else of a version than just now")
        if record.start and self._intake.begun != (record.hash, record.start):
            raise Fault("a content that begins where nobody asked for")

    def leave(self) -> None:
        """The answer was cut: keep what came of it."""
        if self._parts is None:
            self.abort()
            return
        try:
            self._parts.save(self._intake)
            self._parts.settle()
        except OSError:
            self.abort()
        else:
            self._parts.leave()

    def abort(self) -> None:
        """Forget what came."""
        self._writer.abort()
        if self._parts is not None:
            self._parts.forget()

    # --- the transaction

    def finish(self) -> str:
        """Make it durable; the cursor that the folder is at then.  Raises Fault, Unfinished.

        Where some content did not come, the entries before the first that needs it are kept.
        """
        try:
            return self._finish()
        finally:
            if self._parts is not None:
                self._parts.forget()

    def _finish(self) -> str:
        bad = [item for item in self._intake.items if item.status == "bad-content"]
        if bad:
            self._writer.abort()
            if self._resumed:
                raise Unfinished("what came after a cut does not go with what came before it")
            raise Damaged([item.record.hash for item in bad], bad[0].detail)
        lacking = self._wanted - self.brings
        entries = self._entries
        for at, (_, _, version) in enumerate(entries):
            if version.hash in lacking and self._refused.get(version.hash) not in _LOST:
                entries = entries[:at]
                break
        pack = keep_pack(self._intake, self._writer)
        if entries or any(not number for _, number, _ in self._entries):  # in no order: a repair
            self._commit(entries, pack)
        if len(entries) < len(self._entries):
            digest = self._entries[len(entries)][2].hash
            failed = [d for d in lacking if self._refused.get(d) == "unavailable"]
            raise Unfinished(self._refused.get(digest, "a content did not come"), failed)
        return self._told

    def _commit(self, entries: Sequence[tuple[bytes, int, Version]], pack: Pack | None) -> None:
        seen = None if pack is None else see_pack(self._site, pack)

        def work(connection: Connection) -> dict[bytes, int]:
            return self._write(connection, entries, seen)

        held = self._site.database.transact(work)
        meter_contents(self._site, self._intake.items, pack, "site")
        self._site.meter.count('dblike_versions_total{status="replicated"}', len(entries))
        self._told = self._site.seal.cursor(self._folder.id, held)
        self._site.notices.publish(self._folder.id, self._told)

    def _write(
        self,
        connection: Connection,
        entries: Sequence[tuple[bytes, int, Version]],
        pack: SeenPack | None,
    ) -> dict[bytes, int]:
        now = self._site.clock.now_ms()
        owner = users.c.id == self._folder.user
        connection.execute(select(users.c.id).where(owner).with_for_update())
        tree = Tree(connection, self._folder.row, now=now)
        held = journal_numbers(connection, self._folder.row)
        new = [entry for entry in entries if entry[1] > held.get(entry[0], 0)]
        needed = {version.hash for _, _, version in new if version.kind is Kind.FILE}
        self._keep_contents(connection, pack, now, needed)
        tree.recall(version.dot for _, _, version in new)
        tree.load(version.path for _, _, version in new)
        for origin, position, version in new:
            if origin == tree.site:
                raise Ahead(origin)
            tree.copy(origin, position, version)
            held[origin] = position
        tree.write()
        for origin in {origin for origin, _, _ in new}:
            tree.reach(origin, held[origin])
        note_counters(connection, (version.dot for _, _, version in new))
        return {**held, tree.site: tree.head}

    def _keep_contents(
        self, connection: Connection, pack: SeenPack | None, now: int, needed: set[bytes]
    ) -> None:
        """Rows for what came; its space is the user's, whatever the quota says.  Raises Busy where
        what was here is collected meanwhile."""
        items = [item for item in self._intake.items if item.stored]
        used = {extent.pack for item in items for extent in item.recipe.extents} - {NEW_PACK}
        if claim_packs(connection, self._site, used):
            raise Busy("a delta's base was just collected")
        user = self._folder.user
        held = find_contents(connection, user, needed | self.brings, lock=True)
        if any(d not in self._refused for d in needed - self.brings - held.keys()):
            raise Busy("a content was just collected")
        fresh = [self._content(item, held.get(item.hash)) for item in items]
        kept = [content for content in fresh if content is not None]
        kept, taken = place_contents(connection, kept, held.values(), pack, now)
        if taken:
            owner = update(users).where(users.c.id == user)
            connection.execute(owner.values(used=users.c.used + taken))
        write_contents(connection, user, kept, now)

    def _content(self, item: Item, held: Content | None) -> Content | None:
        state = State.CHECKED if item.checked else State.UNCHECKED
        if held is not None and held.state is not State.DAMAGED and held.state >= state:
            return None
        row = held.id if held is not None else 0
        return Content(row, item.hash, item.size, state, item.recipe)


def version_of(record: Record) -> Version:
    """A version as another site told it, checked as one of a device would be.  Raises Fault."""
    try:
        check_path(record.path)
        vector = VersionVector.unpack(record.vector)
    except DeltaError as error:
        raise Fault(f"an impossible version: {error}") from None
    dot, kind = Dot(record.device, record.counter), KINDS[record.kind]
    wrong = (
        vector.get(dot.device) != dot.counter
        or (kind is Kind.FILE) != (len(record.hash) == HASH_BYTES)
        or (kind is not Kind.FILE and (record.hash or record.size))
        or (kind is Kind.SYMLINK) != bool(record.target)
        or b"\0" in record.target
        or record.mode > 0o777
        or (record.hash == EMPTY_HASH and record.size)
    )
    if wrong:
        raise Fault(f"an impossible version: {dot.device.hex()}.{dot.counter}")
    return Version(
        path=record.path, dot=dot, vector=vector, time=record.time, kind=kind, hash=record.hash,
        size=record.size, mode=record.mode, mtime_ns=record.mtime_ns, target=record.target,
        author=record.author, key_id=record.key_id,
    )  # fmt: skip
