"""Intake: the events of a changeset become items, their literals a pack.

Nothing here touches the database but to find the bases of deltas; what an item means is decided
when all of them are here (`journal`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from blake3 import blake3

from dblike_delta.changeset import Body, End, Event
from dblike_delta.commands import Command, Copy, Literal
from dblike_delta.commands import End as DeltaEnd
from dblike_delta.errors import DeltaError, FormatError, LimitError
from dblike_delta.formats import DeltaDecoder, whole_literal
from dblike_delta.messages import CommitStatus, Record, Trailer
from dblike_delta.recipe import Extent, Recipe
from dblike_srv.contents import EMPTY_HASH
from dblike_srv.items import Item, check_item
from dblike_srv.store.base import PackWriter

NEW_PACK = 0
"""Stands in recipes for the pack that is being written, until it has a number."""
MAX_ITEMS = 100_000
"""Versions in one changeset: what one transaction adds."""
MAX_SAID = 128 << 20
"""Bytes of their paths, contexts and the like: some 1,300 for each of so many versions."""
MAX_PIECES = 1 << 20
"""Extents that all copies of one changeset make; a file in more is better sent in full."""
COMMANDS = 100_000
COMMANDS_PER_BYTE = 4
"""Commands of all deltas of one changeset, and for each byte that it took to send them: a kilobyte
of compressed stream can hold a million, which keep a processor busy."""
_STEP = 256 << 10
"""Bytes of a delta that are made into commands at once: three of them may be one."""
_READ = 4 << 20
_FLUSH = 1 << 20


class OpenBody(msgspec.Struct, frozen=True, array_like=True):
    """A body that is not whole yet, on disk."""

    recipe: bytes
    decoder: tuple[bytes, int, int, bool, int, bool] | None
    finished: bool


class Suspended(msgspec.Struct, frozen=True, array_like=True):
    """An intake on disk."""

    items: list[tuple[Record, bytes, int, bytes, bool, bool, CommitStatus | None, str]]
    body: OpenBody | None


class Intake:
    """Takes events in the order in which they come.

    `base` finds the recipe of a content of the user's.  `file_limit` bounds one file, `allowance`
    the literal bytes in all, `commands` those of deltas beyond what their bytes allow.  Raises
    DeltaError where the stream itself is wrong.
    """

    def __init__(
        self,
        writer: PackWriter,
        base: Callable[[bytes], Recipe | None],
        *,
        file_limit: int,
        allowance: int,
        commands: int = COMMANDS,
    ) -> None:
        self.items: list[Item] = []
        self._digest = blake3()
        self._resumed = False
        self._writer = writer
        self._base = base
        self._file_limit = file_limit
        self._allowance = allowance
        self._body: _Body | None = None
        self._pending = bytearray()
        self._said = 0
        self.commands_left: float = commands
        """Commands of deltas that may come of what was received so far."""
        self.pieces = 0
        """Extents that copies made so far, also for what was refused."""
        self.size = writer.size
        """Bytes of the pack so far."""

    def take(self, event: Event) -> None:
        """The next event."""
        match event:
            case Record():
                self.begin(event)
            case Body():
                self._open().take(event)
            case Trailer():
                self._open().finish(event)
                self._body = None
            case End():
                if self._body is not None:
                    raise FormatError("the changeset ends inside of a body")
            case _:
                raise FormatError("only records and their bodies have a place in a commit")

    def begin(self, record: Record, *, sized: bool = True) -> None:
        """The next version; `sized` says that it is known to be as large as its record says, not
        at most so."""
        if self._body is not None:
            raise FormatError("a record inside of another one's body")
        if len(self.items) == MAX_ITEMS:
            raise LimitError(f"more than {MAX_ITEMS} versions in one changeset")
        self._hold(record)
        item = Item(record, record.hash, record.size)
        self.items.append(item)
        check_item(item, self._file_limit)
        if not record.body:
            return
        self._body = _Body(self, item)
        if record.base and item.status is None:
            self._body.set_base(self._base(record.base))
        elif item.status is None and sized and record.size > self._left:
            item.refuse("over quota: the user's space is used up")

    def _hold(self, record: Record) -> None:
        """Count what a record takes in memory beyond what each of them does."""
        self._said += len(record.path) + len(record.target) + len(record.context)
        self._said += len(record.vector) + len(record.key_id)
        if self._said > MAX_SAID:
            raise LimitError(f"the versions of one changeset say more than {MAX_SAID} bytes")

    def _open(self) -> _Body:
        if self._body is None:
            raise FormatError("content without a record that announces it")
        return self._body

    @property
    def begun(self) -> tuple[bytes, int]:
        """The content whose body is open, and how many bytes of it are here."""
        good = self._body is not None and self.items[-1].status is None
        return (self.items[-1].hash, self._open().recipe().size) if good else (b"", 0)

    def open_recipe(self) -> Recipe:
        """What the open body makes so far."""
        return self._open().recipe()

    def go_on(self, base: bytes) -> None:
        """What comes next is a delta, against `base`, of what the open body lacks."""
        self._open().go_on()
        if base:
            self._open().set_base(self._base(base))

    def drop(self) -> None:
        """No more comes of the open body."""
        if self._body is not None:
            self._body = None
            self.items.pop()

    def read_back(self, extent: Extent) -> bytes:
        """Bytes of the pack that is being written."""
        self.flush()
        return self._writer.read(extent.offset, extent.length)

    def suspend(self) -> Suspended:
        """What is needed, beside the pack's bytes, to go on in another process."""
        self.flush()
        items = [
            (
                item.record, item.hash, item.size, item.recipe.pack(), item.stored, item.checked,
                item.status, item.detail,
            )
            for item in self.items
        ]  # fmt: skip
        return Suspended(items, None if self._body is None else self._body.suspend())

    def resume(self, state: Suspended) -> None:
        """Go on from where another intake stood, whose pack the writer holds.

        What another process hashed is not known here: it is read back, once, when it is whole.
        """
        for record, digest, size, recipe, stored, checked, status, detail in state.items:
            self._hold(record)
            unpacked = Recipe.unpack(recipe)
            self.pieces += len(unpacked.extents)
            self.items.append(Item(record, digest, size, unpacked, stored, checked, status, detail))
        self._resumed = True
        if state.body is not None:
            item = self.items[-1]
            self._body = _Body(self, item)
            if item.record.base and item.status is None:
                self._body.set_base(self._base(item.record.base))
            self._body.resume(state.body)

    @property
    def is_fresh(self) -> bool:
        """Whether nothing was stored yet, here or before a cut."""
        return not self.size and not self._resumed

    def name(self) -> bytes:
        """The hash of the pack's bytes: its name."""
        self.flush()
        return self.hash_back([Extent(NEW_PACK, 0, self.size)]) if self._resumed else self.digest()

    def digest(self) -> bytes:
        """The hash of all literal bytes, where this intake saw all of them."""
        self.flush()
        return self._digest.digest()

    def hash_back(self, extents: Iterable[Extent]) -> bytes:
        """The hash of bytes of the pack, read back."""
        hasher = blake3()
        for _, offset, length in extents:
            end = offset + length
            for at in range(offset, end, _READ):
                hasher.update(self.read_back(Extent(NEW_PACK, at, min(_READ, end - at))))
        return hasher.digest()

    @property
    def _left(self) -> int:
        return self._allowance - self.size

    def store(self, data: bytes | bytearray | memoryview) -> Extent:
        """Append literal bytes to the pack; small ones are hashed and written together."""
        extent = Extent(NEW_PACK, self.size, len(data))
        self.size += len(data)
        if len(data) >= _FLUSH // 4:
            self.flush()
            self._put(data)
        else:
            self._pending += data
            if len(self._pending) >= _FLUSH:
                self.flush()
        return extent

    def flush(self) -> None:
        """Hand all literal bytes to the writer, and to the pack's hash."""
        if self._pending:
            data, self._pending = self._pending, bytearray()
            self._put(data)

    def _put(self, data: bytes | bytearray | memoryview) -> None:
        if not self._resumed:
            self._digest.update(data)
        self._writer.write(data)

    def fits(self, item: Item, length: int) -> bool:
        """Whether `length` more literal bytes are within the quota; says so in the item if not."""
        if length <= self._left:
            return True
        item.refuse("over quota: the user's space is used up")
        return False


class _Body:
    """The body of one item: a delta against nothing, or against a base's recipe."""

    def __init__(self, intake: Intake, item: Item) -> None:
        self._intake = intake
        self._item = item
        self._base: Recipe | None = None
        self._full = not item.record.base
        # The first content of a pack is all that the pack has so far: one hash is both.
        self._alone = self._full and intake.is_fresh
        self._hasher = blake3() if self._full and not self._alone else None
        self._resumed = False
        self._decoder: DeltaDecoder | None = None
        self._extents: list[Extent] = []
        self._finished = False
        self._start = 0

    def set_base(self, base: Recipe | None) -> None:
        """What copies are taken from."""
        self._full = False
        if base is None:
            self._item.refuse("the site lacks the delta's base", "base-missing")
        self._base = base

    def take(self, piece: Body) -> None:
        """A piece of the delta.  The rest of a refused item's body is passed over."""
        if self._item.status is not None:
            return
        data = piece.data
        if self._decoder is None and not self._finished and self._full:
            whole = whole_literal(data)
            if whole is not None and len(whole) == self._item.record.size - self._start:
                self._literal(whole)
                self._finished = True
                return
        try:
            self._feed(piece)
        except DeltaError as error:
            self._item.refuse(f"the body is no valid delta: {error}", "bad-content")

    def finish(self, trailer: Trailer) -> None:
        """The body is whole: compare it with what was said of it."""
        item = self._item
        if item.status is not None:
            return
        recipe = self.recipe()
        digest = self._digest()
        if not self._finished and (self._decoder is None or not self._decoder.finished):
            item.refuse("the body is cut short", "bad-content")
        elif recipe.size != trailer.size or (item.hash and item.hash != trailer.hash):
            item.refuse("the body is not of the size or hash that was said", "bad-content")
        elif (digest and digest != trailer.hash) or (trailer.hash == EMPTY_HASH and trailer.size):
            item.refuse("the body does not make the hash that was said", "bad-content")
        else:
            item.hash, item.size, item.recipe = trailer.hash, trailer.size, recipe
            item.stored, item.checked = True, bool(digest)

    def recipe(self) -> Recipe:
        """What came so far."""
        if len(self._extents) == 1:
            return Recipe(tuple(self._extents))
        return Recipe.of(self._extents)

    def _digest(self) -> bytes:
        """The hash of what came, where it came in full."""
        if self._resumed and self._full:
            return self._intake.hash_back(self._extents)
        if self._alone:
            return self._intake.digest()
        return b"" if self._hasher is None else self._hasher.digest()

    def suspend(self) -> OpenBody:
        decoder = None if self._decoder is None else self._decoder.suspend()
        return OpenBody(self.recipe().pack(), decoder, self._finished)

    def resume(self, state: OpenBody) -> None:
        self._extents = list(Recipe.unpack(state.recipe).extents)
        self._finished = state.finished
        if state.decoder is not None:
            self._decoder = self._new_decoder()
            self._decoder.resume(state.decoder)
        self._alone, self._hasher, self._resumed = False, None, True

    def go_on(self) -> None:
        """Take a delta of the rest."""
        self._start = self.recipe().size
        self._full = all(extent.pack == NEW_PACK for extent in self._extents)
        self._alone, self._hasher, self._resumed = False, None, True
        self._base, self._decoder, self._finished = None, None, False

    def _new_decoder(self) -> DeltaDecoder:
        size = self._base.size if self._base is not None else 0
        return DeltaDecoder(base_size=size, max_size=self._item.record.size - self._start)

    def _feed(self, piece: Body) -> None:
        if self._decoder is None:
            self._decoder = self._new_decoder()
        data, intake = piece.data, self._intake
        intake.commands_left += COMMANDS_PER_BYTE * piece.packed * len(data)
        # A few bytes may be many commands; but what is within a literal is best taken at once.
        step = _STEP if len(data) > self._decoder.literal_left else len(data)
        for at in range(0, len(data), step or 1):
            if intake.commands_left < 0:
                self._give_up("a delta of too many commands: send it in full")
                return
            commands = self._decoder.feed(data[at : at + step])
            intake.commands_left -= len(commands)
            for command in commands:
                self._take(command)
                if self._item.status is not None:
                    return

    def _give_up(self, detail: str) -> None:
        """Have it sent in full."""
        self._item.refuse(detail, "base-missing")
        self._extents.clear()

    def _take(self, command: Command | DeltaEnd) -> None:
        match command:
            case Copy() if self._base is not None:
                self._copy(self._base.pieces(command.offset, command.length))
            case Literal():
                self._literal(command.data)
            case _:
                pass

    def _copy(self, extents: list[Extent]) -> None:
        self._intake.pieces += len(extents)
        if self._intake.pieces > MAX_PIECES:
            self._give_up("a delta of too many pieces: send it in full")
        else:
            self._extents += extents

    def _literal(self, data: bytes | bytearray | memoryview) -> None:
        if not self._intake.fits(self._item, len(data)):
            return
        if self._hasher is not None:
            self._hasher.update(data)
        extent = self._intake.store(data)
        last = self._extents[-1] if self._extents else None
        if last is not None and last[:2] == (NEW_PACK, extent.offset - last.length):
            self._extents[-1] = last._replace(length=last.length + extent.length)
        else:
            self._extents.append(extent)
