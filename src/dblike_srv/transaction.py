"""What a commit does to the database: every item judged, contents kept, versions added, results.

Made anew for each try of a transaction, and a pure function of the database, so that running it
again after a COMMIT of unknown outcome finds its own dots, and says that they are known.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, func, select, update

from dblike_delta.messages import CommitReply, CommitResult, CommitStatus, Record
from dblike_delta.versions import (
    DIRECTORY_MODE,
    KINDS,
    Dot,
    Kind,
    Version,
    VersionVector,
    context,
    derived_dot,
    winner,
)
from dblike_srv.contents import Content, State, find_contents
from dblike_srv.db import find_rows
from dblike_srv.errors import Invalid, QuotaExceeded
from dblike_srv.folders import journal_numbers
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.intake import NEW_PACK
from dblike_srv.items import Item
from dblike_srv.models import devices, folders, users, versions
from dblike_srv.packs import SeenPack, claim_packs, place_contents, write_contents
from dblike_srv.site import Site
from dblike_srv.tree import VERSION_COLUMNS, Tree, version_of

COUNTER_JUMP = 1 << 32
"""How far a device may be ahead of what is known of it."""
FUTURE_MS = 24 * 3600 * 1000
"""A version's time is at most so much after now: a wrong clock must not win for years."""
_LARGER = "over quota: the user's files would be larger than it allows"

Check = Callable[[Tree], None]
"""Looks at the tree before anything is added, and raises where the edit must not go on."""


class Transaction:
    """One commit's work in one transaction.

    With `overwrite` the versions are made in knowledge of whatever the paths are in that moment (an
    edit at the site itself), once the check has passed; without, of what their contexts say.
    """

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
        self._said: dict[int, tuple[CommitStatus, str]] = {}  # by id() of the item
        self._passed: set[int] = set()
        self._held: dict[bytes, Content] = {}  # of what the items name, before them
        self._made: dict[int, Version] = {}
        self.copies = 0
        """Conflict copies that came about, once it ran."""
        self.site = b""
        """By which id this site made the versions, once it ran."""
        self._quota, self._used, highest = self._standing()
        self._room = self._find_room() if self._quota else 0
        self._tracked = highest is not None  # the site's own devices have no row
        self._highest = highest or 0

    def run(self, items: list[Item], pack: SeenPack | None, *, brief: bool = False) -> CommitReply:
        """The reply; everything is written when it is returned.  Raises QuotaExceeded, Busy.

        With `brief` results of which there is nothing to say are only counted.
        """
        tree = Tree(self._connection, self._folder.row, now=self._now)
        self.site = tree.site
        numbers = journal_numbers(self._connection, self._folder.row)
        self._judge(items)
        fresh = self._find_contents(self._good(items))
        tree.load(item.record.path for item in items)
        if self._overwrite is not None and not self._is_done(items):
            self._overwrite(tree)
        sound = {b""}
        for item in self._good(items):
            if self._overwrite is not None:
                self._found(tree, item.record, sound)
            self._add(tree, item)
        self._keep_contents(fresh, self._good(items), pack)
        tree.write()
        self.copies = tree.copies
        self._note_counter(self._good(items))
        seal = self._site.seal
        told = [item for item in items if not (brief and self._is_plain(tree, item))]
        return CommitReply(
            results=[self._result(tree, item) for item in told],
            before=seal.cursor(self._folder.id, numbers),
            cursor=seal.cursor(self._folder.id, {**numbers, tree.site: tree.head}),
            time=self._now,
            accepted=len(items) - len(told),
        )

    def _standing(self) -> tuple[int, int, int | None]:
        """The user's quota and used space, with the row locked; the device's highest counter."""
        query = select(users.c.quota, users.c.used).where(users.c.id == self._identity.user)
        quota, used = self._connection.execute(query.with_for_update()).one()
        device = select(devices.c.highest).where(devices.c.id == self._identity.device)
        highest = self._connection.execute(device).scalar()
        return quota or self._site.config.limits.quota, used, highest

    # --- what is said of each item

    def _say(self, item: Item, status: CommitStatus, detail: str = "") -> None:
        self._said[id(item)] = (status, detail)

    def _good(self, items: list[Item]) -> list[Item]:
        """Those of which nothing was said yet."""
        return [item for item in items if id(item) not in self._said]

    def _judge(self, items: list[Item]) -> None:
        known = self._known(items)
        taken: dict[Dot, Item] = {}
        for item in items:
            record = item.record
            dot = Dot(record.device, record.counter)
            if dot in known:
                same = says_the_same(known[dot], item) and not self._knows_more(known[dot], item)
                self._say(item, "known" if same else "dot-reused")
            elif record.device != self._identity.device:
                self._say(item, "refused", "a version's dot must be the device's own")
            elif record.counter > self._highest + COUNTER_JUMP:
                self._say(item, "refused", "the counter is too far ahead of what is known of it")
            elif item.status is not None:
                self._say(item, item.status, item.detail)
            elif dot in taken:
                same = taken[dot].record == record and taken[dot].hash == item.hash
                self._say(item, "known" if same else "dot-reused")
            else:
                taken[dot] = item

    def _knows_more(self, known: Version, item: Item) -> bool:
        """Whether a version that comes again was made in knowledge of what the one that is here
        was not: two copies of a device said the same.  What is sent again because the reply was
        lost knows the same; less, where such a pair was joined since."""
        record = item.record
        if self._overwrite is not None:
            return False
        try:
            knew = self._site.seal.open_context(self._folder.id, record.path, record.context)
        except Invalid:
            return False
        return not knew.with_dot(known.dot) <= known.vector

    def _known(self, items: list[Item]) -> dict[Dot, Version]:
        """Versions whose dots are here already."""
        counters = [i.record.counter for i in items if i.record.device == self._identity.device]
        if self._tracked and min(counters, default=0) > self._highest:
            return {}  # the normal case: all of it is new
        where = {
            versions.c.folder: self._folder.row,
            versions.c.device: self._identity.device,
        }
        rows = find_rows(self._connection, VERSION_COLUMNS, where, versions.c.counter, counters)
        return {version.dot: version for version in map(version_of, rows)}

    def _is_done(self, items: list[Item]) -> bool:
        """Whether all of it is here already: the COMMIT before was of unknown outcome."""
        told = (self._said.get(id(item)) for item in items)
        return all(said is not None and said[0] == "known" for said in told)

    # --- contents

    def _take_space(self, size: int) -> None:
        if self._quota and self._used + size > self._quota:
            raise QuotaExceeded("over quota: the user's space is used up")
        mine = update(users).where(users.c.id == self._identity.user)
        self._connection.execute(mine.values(used=users.c.used + size))

    def _find_room(self) -> int:
        """Bytes by which the user's live files may grow.  Copies make large files of few bytes, so
        that is bounded as well: at twice the quota, or what is within it could not be renamed,
        which adds the new names before it takes the old ones away."""
        mine = folders.c.user == self._identity.user
        total = self._connection.execute(select(func.sum(folders.c.bytes)).where(mine)).scalar()
        return 2 * self._quota - int(total or 0)

    def _grows(self, tree: Tree, item: Item) -> bool:
        """Whether there is room for what the version adds to its path."""
        if not self._quota:
            return True
        present = tree.node(item.record.path).winner
        more = item.size - (present.size if present is not None else 0)
        whole = item.stored and not item.record.base  # it is bounded by what it takes on disk
        if more > max(self._room, 0) and not whole:
            return False
        self._room -= more
        return True

    @property
    def _usable(self) -> tuple[State, ...]:
        """Contents that may serve another version.  To bring back what a path of the folder was
        needs no proof: it served that path with these bytes."""
        if self._overwrite is not None:
            return (State.CHECKED, State.UNCHECKED)
        return (State.CHECKED,)

    def _find_contents(self, items: list[Item]) -> dict[bytes, Content]:
        """What came and is not here yet, and a look at what was only named by its hash."""
        files = [item for item in items if item.record.kind == Kind.FILE]
        lost = self._claim(files)
        user = self._identity.user
        found = find_contents(self._connection, user, (item.hash for item in files), lock=True)
        self._held = found
        fresh: dict[bytes, Content] = {}
        for item in files:
            held = fresh.get(item.hash) or found.get(item.hash)
            if item.stored and lost and item.recipe.packs & lost:
                self._say(item, "base-missing", "the delta's base was just collected")
            elif item.stored:
                state = State.CHECKED if item.checked else State.UNCHECKED
                if held is None or (held.state < state or held.state is State.DAMAGED):
                    row = held.id if held is not None else 0
                    fresh[item.hash] = Content(row, item.hash, item.size, state, item.recipe)
            elif held is None or held.size != item.size or held.state not in self._usable:
                self._say(item, "content-missing", "send it in full")
        return fresh

    def _keep_contents(
        self, fresh: dict[bytes, Content], accepted: list[Item], pack: SeenPack | None
    ) -> None:
        """Rows for what the accepted versions need, also where it came with a refused one.  A pack
        of which they need nothing is not named, nor counted as the user's: it goes with the next
        garbage collection."""
        needed = {item.hash for item in accepted}
        kept = [content for digest, content in fresh.items() if digest in needed]
        held = self._held.values()
        kept, taken = place_contents(self._connection, kept, held, pack, self._now)
        if taken:
            self._take_space(taken)
        write_contents(self._connection, self._identity.user, kept, self._now)

    def _claim(self, files: list[Item]) -> set[int]:
        """The packs of deltas' bases that are gone; the others do not die any more."""
        based = (item for item in files if item.stored and item.record.base)
        used = {number for item in based for number in item.recipe.packs} - {NEW_PACK}
        return claim_packs(self._connection, self._site, used)

    # --- versions

    def _add(self, tree: Tree, item: Item) -> None:
        record = item.record
        try:
            known = self._known_to(tree, record)
        except Invalid as error:
            self._say(item, "refused", error.detail)
            return
        dot, heads = Dot(record.device, record.counter), tree.node(record.path).heads
        if known.knows(dot) or (heads and any(head.vector.knows(dot) for head in heads)):
            # Someone has seen a version of this dot, or a later one: the device went back in time,
            # or it offers again what was replaced since.
            self._say(item, "dot-reused")
            self._passed.add(id(item))
            return
        if not self._grows(tree, item):
            self._say(item, "refused", _LARGER)
            if self._overwrite is not None:
                raise QuotaExceeded(_LARGER)  # an edit is made as a whole, or not at all
            return
        version = make_version(record, dot, item.hash, item.size, known, self._now)
        tree.add(version)
        self._made[id(item)] = version

    def _found(self, tree: Tree, record: Record, sound: set[bytes]) -> None:
        """Make the directories that are missing above an edit, as a device would have done first:
        what follows from the paths alone has neither a time nor an author."""
        if record.kind == Kind.DELETED:
            return
        for above in reversed(tree.unfounded(record.path, sound)):
            if not tree.node(above).live:
                tree.add(self._directory(tree, above, record))

    def _directory(self, tree: Tree, path: bytes, cause: Record) -> Version:
        """One and the same device makes all that this path ever becomes by this: of one that goes
        and comes each day nobody must know more and more devices."""
        known = context(tree.node(path).heads)
        maker = derived_dot(b"dblike directory above" + path, Dot(cause.device, 1)).device
        dot = Dot(maker, known.get(maker) + 1)
        return Version(
            path=path,
            dot=dot,
            vector=known.with_dot(dot),
            time=min(cause.time, self._now + FUTURE_MS),
            kind=Kind.DIRECTORY,
            mode=DIRECTORY_MODE,
            author=cause.author,
        )

    def _known_to(self, tree: Tree, record: Record) -> VersionVector:
        if self._overwrite is not None:
            return context(tree.node(record.path).heads)
        return self._site.seal.open_context(self._folder.id, record.path, record.context)

    def _note_counter(self, added: list[Item]) -> None:
        counter = max((item.record.counter for item in added), default=0)
        if counter > self._highest:
            mine = update(devices).where(devices.c.id == self._identity.device)
            self._connection.execute(mine.values(highest=counter))

    def _is_plain(self, tree: Tree, item: Item) -> bool:
        """Whether a version was just accepted, and all that is known of its path now is what it was
        made in knowledge of, and itself."""
        heads = tree.node(item.record.path).heads
        return len(heads) == 1 and heads[0] is self._made.get(id(item))

    def _result(self, tree: Tree, item: Item) -> CommitResult:
        device, counter, path = item.record.device, item.record.counter, item.record.path
        status, detail = self._said.get(id(item), ("accepted", ""))
        if status not in ("accepted", "known"):
            highest = self._highest if status == "dot-reused" else 0
            passed = id(item) in self._passed
            heads = tree.node(path).heads if passed else ()
            sealed = self._seal(path, context(heads)) if heads else b""
            return CommitResult(device, counter, status, sealed, passed, detail, highest)
        dot, heads = Dot(device, counter), tree.node(path).heads
        known, superseded = context(heads), winner(heads).dot != dot
        if superseded:
            # The device has yet to show the winner to anyone: until it does, an edit is no answer
            # to the winner and must not dominate it.
            known = self._known_to(tree, item.record).with_dot(dot)
        return CommitResult(device, counter, status, self._seal(path, known), superseded)

    def _seal(self, path: bytes, known: VersionVector) -> bytes:
        return self._site.seal.context(self._folder.id, path, known.pack())


def make_version(
    record: Record, dot: Dot, digest: bytes, size: int, known: VersionVector, now: int
) -> Version:
    """The version that a record stands for, with what may not be said taken out of it."""
    kind = KINDS[record.kind]
    is_file = kind is Kind.FILE
    return Version(
        path=record.path,
        dot=dot,
        vector=known.with_dot(dot),
        time=min(record.time, now + FUTURE_MS),
        kind=kind,
        hash=digest if is_file else b"",
        size=size if is_file else 0,
        mode=record.mode & 0o777 if is_file or kind is Kind.DIRECTORY else 0,
        mtime_ns=record.mtime_ns if is_file else 0,
        target=record.target if kind is Kind.SYMLINK else b"",
        author=record.author,
    )


def says_the_same(known: Version, item: Item) -> bool:
    """Whether a version that comes again is the one that is here."""
    record = item.record
    if known.path != record.path or known.kind != record.kind or known.target != record.target:
        return False
    digest = item.hash or record.hash  # a body that was passed over leaves only what was said
    return known.kind is not Kind.FILE or not digest or known.hash == digest
