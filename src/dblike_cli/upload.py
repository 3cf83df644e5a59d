"""Upload: local changes become versions at the site.

Small changes travel in batches, one commit each: while one is on its way the next is read.  Large
files travel by themselves.  A version gets its dot in the outbox before anything of it is sent, and
leaves the outbox in the transaction that records the site's answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from typing import NamedTuple

import msgspec

from dblike_cli.answers import DotReused, Uploads, take_answer
from dblike_cli.context import Context
from dblike_cli.device import site_time
from dblike_cli.hashing import StillWriting
from dblike_cli.outgoing import Outgoing, encode_item, name_contents
from dblike_cli.prepare import Reader
from dblike_cli.report import Code, Progress
from dblike_cli.state import Sending
from dblike_cli.stream import is_full, stream_file
from dblike_delta.changeset import Encoder, Part
from dblike_delta.errors import FormatError
from dblike_delta.exchange import Refused, Unreachable
from dblike_delta.messages import SOURCES_FIELD, CommitReply, Sources
from dblike_delta.plan import Upload
from dblike_delta.vectors import vector_in

_UPLOAD_ID = 16
_LOST = "the site lost its content on the way"
_NO_ROOM = "the site's disk is full"
_UNFINISHED = "the site has too many unfinished uploads of this user"
_PLENTY = 1 << 63
_TOO_LARGE = 413
_UPLOAD_FIELD = "upload"


def upload(
    context: Context,
    changes: Sequence[Upload],
    stamps: Mapping[bytes, bytes],
    seen: int,
    *,
    again: bool = False,
) -> Uploads:
    """Send the changes, in their order.

    `stamps` has what lstat said of each path, at the disk's time `seen` or after it.  `again`: what
    the site refused before is sent once more.  Raises DotReused, and what the exchange raises: what
    was answered until then is remembered.
    """
    result = Uploads()
    uploader = _Uploader(context, result)
    try:
        for batch in Reader(context, stamps, seen, result, again=again).batches(changes):
            uploader.send(batch)
            done = len(result.done)
            context.reporter.progress(Progress("upload", done=done, total=len(changes)))
    finally:
        uploader.land()
    uploader.abandon()
    if result.same:
        with context.state.transaction():
            context.state.tree.restamp(result.same.items())
            context.state.notes.unrefuse(result.same)
    return result


class _Flight(NamedTuple):
    """A batch on its way; `named`: some of its contents are said by sources only."""

    batch: list[Outgoing]
    reply: Future[CommitReply]
    named: bool


class _Uploader:
    def __init__(self, context: Context, result: Uploads) -> None:
        self._context = context
        self._result = result
        self._flight: _Flight | None = None
        self._over: list[str] = []
        self._room = _room(context)
        self._before = {sending.path: sending for sending in context.state.outbox.all()}

    def send(self, batch: list[Outgoing]) -> None:
        """Send a batch, or one large file, after the batch before it was answered.

        Where the site had no room for as much before, what is smaller may still fit.
        """
        if _weight(batch) >= self._room:
            self._keep(batch)
            return
        batch = self._assign(batch)
        if batch[0].large:
            self.land()
            self.abandon()
            self._stream(batch[0], whole=False)
            return
        sources, named = None, frozenset[bytes]()
        if self._context.exchange.takes_sources:
            sources, named = name_contents(self._context, batch)
        parts = self._encode(batch, whole=False, sources=sources, named=named)
        landed, reply = self._wait()
        self._flight = _Flight(
            batch, self._context.executor.submit(self._commit, parts), bool(named)
        )
        if reply is not None:  # what it says is remembered while the site is busy with this one
            self._take(landed, reply)

    def land(self) -> None:
        """Wait for the batch that is on its way, and remember the answer."""
        landed, reply = self._wait()
        if reply is not None:
            self._take(landed, reply)

    def abandon(self) -> None:
        """Give up the uploads of what was to be sent before, and is another by now: they need not
        lie at the site until it forgets them by itself, nor count among the unfinished ones."""
        over, self._over = self._over, []
        with contextlib.suppress(Unreachable, Refused):
            for upload_id in over:
                self._context.exchange.abandon(self._context.folder, upload_id)

    def _wait(self) -> tuple[list[Outgoing], CommitReply | None]:
        """The batch that was on its way, and the answer to it."""
        if self._flight is None:
            return [], None
        flight, self._flight = self._flight, None
        try:
            return flight.batch, self._reply(flight)
        except Refused as refused:
            self._lack_room(flight.batch, refused)
            return [], None

    def _reply(self, flight: _Flight) -> CommitReply:
        try:
            return flight.reply.result()
        except Refused as refused:
            takes = self._context.exchange.takes_sources
            if not flight.named or (takes and refused.problem.field != SOURCES_FIELD):
                raise
        # The site knows other versions than we do, or nothing of sources: with hashes, then.
        return self._commit(self._encode(flight.batch, whole=False))

    def _commit(self, parts: list[Part]) -> CommitReply:
        return self._context.exchange.commit(self._context.folder, parts, brief=True)

    def _take(self, batch: list[Outgoing], reply: CommitReply) -> None:
        missing = take_answer(self._context, self._result, batch, reply)
        if not missing:
            return
        if self._flight is not None:
            wait([self._flight.reply])  # one request at a time
        self._send_whole([msgspec.structs.replace(item, body=True) for item in missing])

    def _send_whole(self, items: list[Outgoing]) -> None:
        """Send once more, each with all of its content."""
        for item in items:
            if item.large:
                self._stream(item, whole=True)
        small = [item for item in items if not item.large]
        if small:
            parts = self._encode(small, whole=True)
            try:
                reply = self._commit(parts)
            except Refused as refused:
                self._lack_room(small, refused)
                return
            for item in take_answer(self._context, self._result, small, reply):
                self._result.wait(item.path, Code.UNAVAILABLE, _LOST)

    def _stream(self, item: Outgoing, *, whole: bool) -> None:
        """Send a large file by itself."""
        try:
            done, reply = stream_file(self._context, item, whole=whole, count=self._count)
        except StillWriting:
            self._forget(item, Code.WRITING, "it is still being written")
            return
        except OSError as error:
            self._forget(item, Code.UNREADABLE, f"it can't be read: {error.strerror}")
            return
        except Refused as refused:
            if refused.status == _TOO_LARGE and refused.problem.field == _UPLOAD_FIELD:
                self._result.wait(item.path, Code.UNAVAILABLE, _UNFINISHED)
            else:
                self._lack_room([item], refused)
            return
        if reply is None:
            self._result.same[item.path] = done.trusted
            self._result.done.add(item.path)
            self._drop(item)
        elif take_answer(self._context, self._result, [done], reply):
            if whole:
                self._result.wait(item.path, Code.UNAVAILABLE, _LOST)
            else:
                self._stream(item, whole=True)

    def _count(self, sent: int) -> None:
        self._result.bytes_sent += sent

    def _lack_room(self, batch: list[Outgoing], refused: Refused) -> None:
        """The site has no room for these now.  Raises what was refused for another reason."""
        if not is_full(refused):
            raise refused
        self._room = min(self._room, _weight(batch))
        until = self._context.clock.monotonic() + (refused.retry_after or 0.0)
        self._context.state.full = self._context.place(), self._room, until
        self._keep(batch)

    def _keep(self, batch: list[Outgoing]) -> None:
        for item in batch:
            self._result.wait(item.path, Code.NO_SPACE, _NO_ROOM)

    def _forget(self, item: Outgoing, code: Code, reason: str) -> None:
        """It was not sent; its dot is never used."""
        self._result.wait(item.path, code, reason)
        self._drop(item)

    def _drop(self, item: Outgoing) -> None:
        with self._context.state.transaction():
            self._context.state.outbox.drop([item.path])

    def _encode(
        self,
        batch: list[Outgoing],
        *,
        whole: bool,
        sources: Sources | None = None,
        named: frozenset[bytes] = frozenset(),
    ) -> list[Part]:
        encoder = Encoder(compress=self._context.config.compress)
        parts: list[Part] = [] if sources is None else encoder.sources(sources)
        for item in batch:
            bare = item.path in named
            parts += encode_item(self._context, encoder, item, whole=whole, named=bare)
        parts += encoder.finish()
        self._result.bytes_sent += encoder.sent
        return parts

    def _assign(self, batch: list[Outgoing]) -> list[Outgoing]:
        """Give each its dot: that of the time before, where the very same is sent again.  Raises
        DotReused where what is known of a path says that the dot was used before."""
        state, now = self._context.state, site_time(self._context)
        ready: list[Outgoing] = []
        with state.transaction():
            counter = state.meta.take_counters(len(batch))
            for number, item in enumerate(batch, counter):
                sending = self._before.get(item.path)
                again = sending is not None and _is_same(sending, item)
                if not again:
                    sending = self._sending(item, number, now)
                if sending is not None and _was_used(sending, self._context.device.id):
                    raise DotReused
                ready.append(msgspec.structs.replace(item, sending=sending, again=again))
            state.outbox.put(item.sending for item in ready if item.sending and not item.again)
        formers = (self._before.get(item.path) for item in ready if not item.again)
        self._over += [former.upload.hex() for former in formers if former and former.upload]
        return ready

    def _sending(self, item: Outgoing, counter: int, now: int) -> Sending:
        upload_id = self._context.random.bytes(_UPLOAD_ID) if item.large else b""
        known = item.upload.context
        return Sending(item.path, counter, now, item.entry, known, item.stamp, upload_id)


def _was_used(sending: Sending, device: bytes) -> bool:
    """Whether the version that a new one replaces was made by this device with a later dot: then
    our state is an old one.  A site that lacks the version of our dot takes it for one that was
    replaced, and what is sent now would be nowhere."""
    try:
        return vector_in(sending.context).get(device) >= sending.counter
    except FormatError:
        return False  # the site says so


def _room(context: Context) -> int:
    """Bytes for which it is not worth asking the site now: it said that it has no room for them."""
    site, size, until = context.state.full
    asked = context.clock.monotonic() < until and site == context.place()
    return size if asked else _PLENTY


def _weight(batch: Sequence[Outgoing]) -> int:
    """Bytes of content that go along."""
    return sum(item.entry.size for item in batch if item.body and item.entry)


def _is_same(sending: Sending, item: Outgoing) -> bool:
    """Whether a version that was being sent is the one that is to be sent now."""
    if sending.context != item.upload.context or sending.stamp != item.stamp:
        return False
    if item.large and not sending.upload:
        return False
    old, new = sending.entry, item.entry
    if old is not None and new is not None and not new.hash:
        old = msgspec.structs.replace(old, hash=b"")
    return old == new
