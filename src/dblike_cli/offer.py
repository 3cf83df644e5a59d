"""Offering again: own versions that fewer sites hold than should, until enough of them do; and
where another site serves, those that one holds alone which may be lost.

They go as the very same versions, by their hashes; a site that lacks a content gets it in full, as
long as it is here.  What nobody can use any more, because a later version replaced it, is dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Final

import msgspec
from blake3 import blake3

from dblike_cli.answers import MISSING, TAKEN, DotReused, keep_offers
from dblike_cli.context import Context, Device
from dblike_cli.entries import stamp_of
from dblike_cli.hashing import StillWriting, read_whole
from dblike_cli.outgoing import Outgoing, encode_item
from dblike_cli.state import Offer, Sending
from dblike_cli.stream import stream_file
from dblike_delta.changeset import Encoder, Part
from dblike_delta.exchange import Refused, Unreachable
from dblike_delta.messages import CommitReply
from dblike_delta.plan import Upload
from dblike_delta.vectors import is_behind
from dblike_delta.versions import Kind

_AGAIN: Final = 55.0
"""Seconds between two offers to the same site: a little less than the time between two looks."""
_LONGEST: Final = 900.0
_OFFERED: Final = "offered to"


def offer(context: Context) -> bool:
    """Offer what is due; whether anything was sent.

    A site that was not asked yet is offered everything.  Where it was, and still too few others
    hold what it was offered, the first batch finds that out.  What a site wants of large files is
    left for `offer_large`.  Raises DotReused and Unreachable.
    """
    state = context.state
    if state.offers.empty():
        return False
    site = _site(context)
    elsewhere = site != state.meta.noted(_OFFERED)
    if not elsewhere and (context.clock.monotonic() < state.offer_at or not state.offers.short()):
        return False
    with contextlib.suppress(Refused):  # to the next commit it says so, too, and is heard
        _offer_all(context, everything=elsewhere)
    if elsewhere:
        with state.transaction():
            state.meta.note(_OFFERED, site)
    _wait(context, again=not elsewhere)
    return True


def _site(context: Context) -> str:
    """Who serves.  Several sites may stand behind one name: one that has not heard of all that is
    known here is another than the one that has."""
    behind = " (behind)" if is_behind(context.state.meta.cursor) else ""
    return context.place() + behind


def offer_large(context: Context) -> None:
    """Send large files that a site wanted in full; the same raises."""
    later, context.state.offers_later = context.state.offers_later, []
    for offer in later:
        with contextlib.suppress(Refused):
            _Offering(context).stream(offer)


def _offer_all(context: Context, *, everything: bool) -> None:
    offering, later = _Offering(context), context.state.offers_later
    later.clear()
    for batch in _batches(context, everything):
        reply = offering.send(batch)
        missing = offering.take(batch, reply)
        later += [offer for offer in missing if _size(offer) >= context.config.whole_below]
        offering.send_whole([o for o in missing if _size(o) < context.config.whole_below])
        if reply.copies < reply.wanted and not everything:
            return


def _batches(context: Context, everything: bool) -> Iterator[list[Offer]]:
    offers, size = context.state.offers.all(), context.config.batch_records
    if not everything:
        offers = [offer for offer in offers if not offer.site]
    for at in range(0, len(offers), size):
        yield offers[at : at + size]


def _wait(context: Context, *, again: bool) -> None:
    """The same site is asked again after a while, and less often each time."""
    state = context.state
    state.offer_wait = min(state.offer_wait * 2, _LONGEST) if again and state.offer_wait else _AGAIN
    state.offer_at = context.clock.monotonic() + state.offer_wait


class _Offering:
    """Sends versions again, and remembers what is said of them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def send(self, offers: list[Offer]) -> CommitReply:
        """Send them by their hashes."""
        parts: list[Part] = []
        encoder = Encoder(compress=0)
        for offer in offers:
            parts += encode_item(self._as_author(offer), encoder, _outgoing(offer), whole=True)
        parts += encoder.finish()
        return self._context.exchange.commit(self._context.folder, parts)

    def take(self, offers: list[Offer], reply: CommitReply) -> list[Offer]:
        """Remember the answer; what the site wants in full is returned."""
        if [answer.counter for answer in reply.results] != [offer.counter for offer in offers]:
            raise Unreachable("the answer to a commit is not about what was sent")
        answers = list(zip(offers, reply.results, strict=True))
        if any(a.status == "dot-reused" and not a.superseded for a in reply.results):
            raise DotReused
        taken = [offer for offer, answer in answers if answer.status in TAKEN]
        over = [offer for offer, answer in answers if answer.status == "dot-reused"]
        enough = reply.copies >= reply.wanted
        with self._context.state.transaction():
            self._context.state.offers.drop(offer.path for offer in over)
            if enough:
                keep_offers(self._context, taken, reply)
        return [offer for offer, answer in answers if answer.status in MISSING]

    def send_whole(self, offers: list[Offer]) -> None:
        """Send small files with their contents, as far as these are still here."""
        batch: list[Offer] = []
        parts: list[Part] = []
        encoder = Encoder(compress=self._context.config.compress)
        for offer in offers:
            data = self._content(offer)
            if data is None:
                continue
            item = msgspec.structs.replace(_outgoing(offer), data=data, body=True)
            parts += encode_item(self._as_author(offer), encoder, item, whole=True)
            batch.append(offer)
            if encoder.sent >= self._context.config.batch_bytes:
                self._commit(batch, parts + encoder.finish())
                batch, parts = [], []
                encoder = Encoder(compress=self._context.config.compress)
        if batch:
            self._commit(batch, parts + encoder.finish())

    def _commit(self, batch: list[Offer], parts: list[Part]) -> None:
        self.take(batch, self._context.exchange.commit(self._context.folder, parts))

    def _content(self, offer: Offer) -> bytes | None:
        entry, config = offer.entry, self._context.config
        if entry is None or entry.kind is not Kind.FILE:
            return None
        try:
            data, *_ = read_whole(self._context.fs, offer.path, config.whole_below)
        except (StillWriting, OSError):
            return None
        return data if blake3(data).digest() == entry.hash else None

    def stream(self, offer: Offer) -> None:
        """Send a large file with its content, if that is still here."""
        try:
            reply = self._stream(offer)
        except (StillWriting, OSError):
            return
        if reply is not None:
            self.take([offer], reply)

    def _stream(self, offer: Offer) -> CommitReply | None:
        context = self._as_author(offer)
        stamp = stamp_of(context.fs.lstat(offer.path))
        known = context.state.tree.get(offer.path)
        if known is None or offer.entry is None or known.stamp != stamp:
            return None
        if known.synced.entry is None or known.synced.entry.hash != offer.entry.hash:
            return None
        item = msgspec.structs.replace(_outgoing(offer), stamp=stamp, body=True)
        _, reply = stream_file(context, item, whole=True)
        return reply

    def _as_author(self, offer: Offer) -> Context:
        """The context in which the version was made: this device, by its name of that time."""
        device = Device(self._context.device.id, offer.author)
        return dataclasses.replace(self._context, device=device)


def _size(offer: Offer) -> int:
    return offer.entry.size if offer.entry is not None else 0


def _outgoing(offer: Offer) -> Outgoing:
    """The version as it was sent, without its content."""
    sending = Sending(
        offer.path, offer.counter, offer.time, offer.entry, offer.context, upload=offer.upload
    )
    upload = Upload(offer.path, offer.entry, offer.context, None)
    return Outgoing(upload, offer.entry, sending=sending, again=True)
