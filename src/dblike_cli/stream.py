"""Large files on their way up: read once, hashed, compared and sent at the same time.

The stream goes in resumable appends.  While one is sent the next is produced; a cut re-sends what
the site did not keep.  The same file with the same base makes the same stream, so even a new start
of the client goes on where the last one ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import msgspec

from dblike_cli.answers import TAKEN
from dblike_cli.context import Context
from dblike_cli.entries import file_entry, stamp_of, trusted_stamp
from dblike_cli.fs import File
from dblike_cli.hashing import StillWriting, check_same, disk_time, read_pieces
from dblike_cli.noting import Noting
from dblike_cli.outgoing import Outgoing, base_signature, command_parts, record_for
from dblike_cli.report import Progress
from dblike_delta.changeset import Encoder, Part
from dblike_delta.delta import DeltaEncoder
from dblike_delta.exchange import Refused, Unreachable
from dblike_delta.formats import DELTA_MAGIC, END, encode_literal_header
from dblike_delta.messages import CommitReply, Trailer
from dblike_delta.reconcile import same_entry
from dblike_delta.signature import Signature, SignatureBuilder

_TRIES = 3
_FULL = 507


class Sink:
    """Takes the parts of one changeset, and sends them when there are enough."""

    def __init__(
        self, context: Context, upload: bytes, kept: int, count: Callable[[int], None]
    ) -> None:
        """`upload`: id of the resumable upload, of which the site has `kept` bytes already; `count`
        is told of the bytes that were sent."""
        self._context = context
        self._upload = upload.hex()
        self._kept = kept
        self._parts: list[Part] = []
        self._size = 0
        self._at = 0
        self._flight: Future[object] | None = None
        self._count = count

    def add(self, parts: list[Part]) -> None:
        """The next parts of the stream."""
        self._parts += parts
        self._size += sum(map(len, parts))
        if self._size >= self._context.config.segment:
            self._dispatch()

    def finish(self, parts: list[Part]) -> CommitReply:
        """The last parts: commit the whole."""
        self._parts += parts
        self._land()
        exchange, folder = self._context.exchange, self._context.folder
        if not self._at and not self._kept:
            self._count(sum(map(len, self._parts)))
            return exchange.commit(folder, self._parts)
        reply = self._append(self._at, self._parts, complete=True)
        assert isinstance(reply, CommitReply)
        return reply

    def abandon(self) -> None:
        """Nothing of this is to be committed."""
        try:
            self._land()
            if self._at or self._kept:
                self._context.exchange.abandon(self._context.folder, self._upload)
        except (Unreachable, Refused):
            return  # the site forgets it by itself

    def _dispatch(self) -> None:
        parts, start = self._parts, self._at
        self._at += self._size
        self._parts, self._size = [], 0
        self._land()
        if self._at > self._kept:
            self._flight = self._context.executor.submit(self._append, start, parts, complete=False)

    def _land(self) -> None:
        """Wait for what is being sent."""
        if self._flight is not None:
            flight, self._flight = self._flight, None
            flight.result()

    def _append(self, start: int, parts: list[Part], *, complete: bool) -> object:
        """Send the part of the stream that begins at `start`, from where the site stands."""
        exchange, folder = self._context.exchange, self._context.folder
        at = max(start, min(self._kept, start + sum(map(len, parts))))
        for last in range(_TRIES):
            rest = _skip(parts, at - start)
            try:
                reply = exchange.upload(folder, self._upload, at, rest, complete=complete)
                self._count(sum(map(len, rest)))
                return reply
            except (Unreachable, Refused) as error:
                at = self._stands(error, start, parts, last + 1 == _TRIES)
        raise AssertionError

    def _stands(self, error: Exception, start: int, parts: list[Part], last: bool) -> int:
        """Where to go on after an error; raises it where there is no going on."""
        if last or (isinstance(error, Refused) and error.status != 409):
            raise error
        at = self._context.exchange.upload_offset(self._context.folder, self._upload)
        if not start <= at <= start + sum(map(len, parts)):
            raise Unreachable("the upload has to begin anew") from error
        return at


def is_full(refused: Refused) -> bool:
    """Whether the site has no room on its disk; of a user's quota it does not say when to retry."""
    return refused.status == _FULL and refused.retry_after is not None


def stream_file(
    context: Context,
    item: Outgoing,
    *,
    whole: bool,
    count: Callable[[int], None] = lambda _: None,
) -> tuple[Outgoing, CommitReply | None]:
    """Send a large file and commit it: what was sent, and the answer; `count` is told of the bytes
    that it takes.

    There is no answer, and nothing was committed, where the file turned out to be as it was agreed
    on.  Raises StillWriting where it moved meanwhile: then nothing of it counts, and its dot is
    never used.  Raises OSError where it can't be read.
    """
    sending = item.sending
    assert sending is not None
    file = context.fs.open_read(item.path)
    try:
        upload = sending.upload.hex()
        kept = context.exchange.upload_offset(context.folder, upload) if item.again else 0
        sink = Sink(context, sending.upload, kept, count)
        try:
            done, reply = _stream(context, item, file, sink, whole=whole)
        except (StillWriting, OSError):
            sink.abandon()
            raise
        except Refused as refused:
            if is_full(refused):
                sink.abandon()  # what is there of it takes the room that others may need
            raise
        if reply is None:
            sink.abandon()
        return done, reply
    finally:
        file.close()


def _stream(
    context: Context, item: Outgoing, file: File, sink: Sink, *, whole: bool
) -> tuple[Outgoing, CommitReply | None]:
    tick = disk_time(context)
    before = file.stat()
    if stamp_of(before) != item.stamp:
        raise StillWriting
    if context.config.durable:
        file.sync()  # before it is read: see `durable`
    signature = None if whole else base_signature(context, item)
    encoder = Encoder(compress=context.config.compress)
    sink.add(encoder.record(record_for(context, item, signature.hash if signature else b"")))
    noting, size = Noting(context, before.st_size, signature), 0
    body = _Body(signature, before.st_size, noting.builder)
    note = noting.update if signature is None else noting.hash
    for data in read_pieces(file, before.st_size, context.config.read_size):
        if stamp_of(file.stat()) != item.stamp:
            raise StillWriting  # all that is still to be sent would be for nothing, too
        size += len(data)
        note(data)
        for piece in body.update(data):
            sink.add(encoder.data(piece))
        _tell(context, item, size, before.st_size)
    check_same(file, before, size)
    entry = file_entry(before, noting.digest())
    done = msgspec.structs.replace(item, entry=entry, trusted=trusted_stamp(before, tick))
    if same_entry(entry, item.upload.base):
        return done, None
    _settle(context, done)
    for piece in body.finish():
        sink.add(encoder.data(piece))
    reply = sink.finish(encoder.trailer(Trailer(entry.hash, size)) + encoder.finish())
    if all(answer.status in TAKEN for answer in reply.results):
        noting.keep(entry.hash)
    return done, reply


class _Body:
    """The delta of a file that streams by; a search has the `signer` sign what it finds."""

    def __init__(
        self, signature: Signature | None, size: int, signer: SignatureBuilder | None
    ) -> None:
        self._search = DeltaEncoder(signature, signer=signer) if signature is not None else None
        self._head = DELTA_MAGIC
        if self._search is None and size:
            self._head += encode_literal_header(size)

    def update(self, data: bytes) -> Iterator[Part]:
        """What is settled of the delta with these bytes of the file."""
        if self._head:
            yield self._head
            self._head = b""
        if self._search is None:
            yield data
        else:
            yield from command_parts(self._search.update(data))

    def finish(self) -> Iterator[Part]:
        """The rest of it."""
        if self._head:
            yield self._head
        if self._search is not None:
            yield from command_parts(self._search.finish())
        yield END


def _settle(context: Context, item: Outgoing) -> None:
    """Say which content the dot stands for, durably, before the site can hear of it."""
    sending, entry = item.sending, item.entry
    assert sending is not None
    assert entry is not None
    if sending.entry is not None and sending.entry.hash not in (b"", entry.hash):
        raise StillWriting  # the dot was sent with another content
    if sending.entry is not None and sending.entry.hash:
        return
    with context.state.transaction():
        context.state.outbox.put([msgspec.structs.replace(sending, entry=entry)])


def _tell(context: Context, item: Outgoing, done: int, total: int) -> None:
    context.reporter.progress(
        Progress("upload", bytes_done=done, bytes_total=total, path=item.path)
    )


def _skip(parts: list[Part], count: int) -> list[Part]:
    """The parts without their first `count` bytes."""
    if not count:
        return parts
    rest: list[Part] = []
    for part in parts:
        if count >= len(part):
            count -= len(part)
            continue
        rest.append(memoryview(part)[count:] if count else part)
        count = 0
    return rest
