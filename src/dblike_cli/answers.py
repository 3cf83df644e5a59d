"""The site's answers to a commit, and what is remembered of them."""

from __future__ import annotations

from typing import Final

import msgspec

from dblike_cli.context import Context
from dblike_cli.entries import UNTRUSTED
from dblike_cli.outgoing import Outgoing, dot_of
from dblike_cli.report import Code, Outcome, Pending
from dblike_cli.signatures import drop_signatures, sign
from dblike_cli.state import Known, Offer
from dblike_delta.errors import FormatError
from dblike_delta.exchange import Unreachable
from dblike_delta.messages import CommitReply, CommitResult
from dblike_delta.plan import Synced
from dblike_delta.vectors import said_after, vector_in
from dblike_delta.versions import Dot, Kind

TAKEN: Final = ("accepted", "known")
"""What a site says of a version that it has by then."""
MISSING: Final = ("base-missing", "content-missing")
"""What a site says of a version whose content has to come in full."""

Answered = tuple[Outgoing, CommitResult]


class DotReused(Exception):
    """The site knows one of our dots with other content: another copy of this device used it."""


class Uploads(msgspec.Struct):
    """What came of the uploads; filled in while they go on.

    `done` are paths that are now as both sides agree; those of `same` were it all the time, and
    have a new stamp.  `stamps` has what lstat said of all that was sent.  `waiting` are to be
    looked at again.  `heard` says that nothing happened at the site but what is known here.
    """

    uploaded: list[bytes] = []
    deleted: list[bytes] = []
    done: set[bytes] = set()
    same: dict[bytes, bytes] = {}
    stamps: dict[bytes, bytes] = {}
    waiting: dict[bytes, Pending] = {}
    heard: bool = True
    bytes_sent: int = 0

    def wait(self, path: bytes, code: Code, reason: str) -> None:
        """The path is to be looked at again."""
        self.waiting[path] = Pending(path, reason, code)


def take_answer(
    context: Context, result: Uploads, batch: list[Outgoing], reply: CommitReply
) -> list[Outgoing]:
    """Remember what the site said, in one transaction; what it asks for in full is returned.

    Raises DotReused; then nothing of the answer is remembered.
    """
    pairs = _pairs(context, batch, reply)
    reused = [pair for pair in pairs if pair[1].status == "dot-reused"]
    if not all(_was_sent(item) and _was_replaced(context, answer) for item, answer in reused):
        raise DotReused
    good = [pair for pair in pairs if pair[1].status in TAKEN]
    with context.state.transaction():
        only_ours = _is_only_ours(context, pairs, reply)
        _remember(context, good)
        note_copies(context, [item for item, _ in good], reply)
        _let_pass(context, result, [item for item, _ in reused])
        for item, answer in pairs:
            if answer.status in ("refused", "bad-content"):
                _reject(context, result, item, answer)
        if result.heard and only_ours and not reused:
            context.state.meta.step(reply.cursor)
        elif reply.before != reply.cursor:
            result.heard = False
    for item, _ in good:
        if item.data is not None and item.entry is not None:
            sign(context, item.data, item.entry.hash)
    _tell(context, result, good)
    return [item for item, answer in pairs if answer.status in MISSING]


def _pairs(context: Context, batch: list[Outgoing], reply: CommitReply) -> list[Answered]:
    """Each item with its result; of those that are only counted the site knows what we know."""
    told = {answer.counter: answer for answer in reply.results}
    device = context.device.id
    pairs: list[Answered] = []
    for item in batch:
        counter = item.dot
        answer = told.get(counter)
        if answer is None:
            dot = Dot(device, counter)
            after = said_after(item.upload.context, dot)
            answer = CommitResult(*dot, status="accepted", context=after)
        pairs.append((item, answer))
    heard = [answer for _, answer in pairs if answer.counter in told]
    if heard != reply.results or len(heard) + reply.accepted != len(batch):
        raise Unreachable("the answer to a commit is not about what was sent")
    return pairs


def _is_only_ours(context: Context, pairs: list[Answered], reply: CommitReply) -> bool:
    """Whether all that happened at the site since our cursor is what we said ourselves.

    Asked before the answer is remembered: with news there may have been a conflict with them, and
    then the copies that the site made are still to be heard of.
    """
    if any(answer.superseded for _, answer in pairs):
        return False
    return reply.before == context.state.meta.cursor and context.state.remote.empty()


def _remember(context: Context, good: list[Answered]) -> None:
    state = context.state
    state.tree.record(
        Known(item.path, item.trusted, Synced(item.entry, answer.context, dot_of(context, item)))
        for item, answer in good
        if item.entry is not None
    )
    gone = [(item.path, answer.context) for item, answer in good if item.entry is None]
    state.tombs.bury(gone, context.clock.now_ms())
    paths = [item.path for item, _ in good]
    state.outbox.drop(paths)
    if state.notes.refused():
        state.notes.unrefuse(paths)
    if not state.remote.empty():
        state.remote.drop(item.path for item, answer in good if not answer.superseded)


def note_copies(context: Context, items: list[Outgoing], reply: CommitReply) -> None:
    """Remember what is to be offered again, because too few sites hold it."""
    offers, name = context.state.offers, context.device.name
    enough = reply.copies >= reply.wanted
    if enough and not reply.site:
        if not offers.empty():
            offers.drop(item.path for item in items)
        return
    made = [
        Offer(item.path, s.counter, s.time, item.entry, item.upload.context, name, s.upload)
        for item in items
        if (s := item.sending) is not None
    ]
    if enough:
        keep_offers(context, made, reply)
    else:
        offers.put(made)


def keep_offers(context: Context, taken: list[Offer], reply: CommitReply) -> None:
    """Enough sites hold these.  Where that is one, and there are others which can go on without it,
    they are kept until it says that another one holds them, too."""
    offers, site = context.state.offers, reply.site
    if reply.held > 1:
        offers.drop_of(site)
    if site and reply.copies == 1:
        offers.put(msgspec.structs.replace(offer, site=site) for offer in taken)
    else:
        offers.drop(offer.path for offer in taken)


def _was_sent(item: Outgoing) -> bool:
    """Whether the dot stood for just this content when it was sent before."""
    sending = item.sending
    if not item.again or sending is None:
        return False
    entry = sending.entry
    return entry is None or entry.kind is not Kind.FILE or bool(entry.hash)


def _was_replaced(context: Context, answer: CommitResult) -> bool:
    """Whether the site's versions of the path know just this dot of ours, and so what we sent.  A
    later one of this device's we never made there: a copy of it did."""
    if not answer.superseded or not answer.context:  # one that says no more, in older releases
        return answer.superseded
    try:
        return vector_in(answer.context).get(context.device.id) == answer.counter
    except FormatError as error:
        raise Unreachable(f"the answer to a commit can't be read: {error}") from None


def _let_pass(context: Context, result: Uploads, items: list[Outgoing]) -> None:
    """Another site took these in, and someone has replaced them there since: that comes as news."""
    state = context.state
    for item in items:
        synced = Synced(item.entry, item.upload.context, dot_of(context, item))
        if item.entry is None:
            state.tombs.bury([(item.path, item.upload.context)], context.clock.now_ms())
        else:
            state.tree.record([Known(item.path, UNTRUSTED, synced)])
        state.outbox.drop([item.path])
        result.done.add(item.path)
        result.heard = False


def _reject(context: Context, result: Uploads, item: Outgoing, answer: CommitResult) -> None:
    context.state.outbox.drop([item.path])
    if answer.status == "bad-content":
        result.wait(item.path, Code.WRITING, "it changed on the way")
        return
    reason = answer.detail or "the site does not take it"
    context.state.notes.refuse(item.path, item.entry, reason)


def _tell(context: Context, result: Uploads, good: list[Answered]) -> None:
    replaced: list[bytes] = []
    for item, _ in good:
        result.done.add(item.path)
        result.stamps[item.path] = item.stamp
        if item.entry is None:
            result.deleted.append(item.path)
            context.reporter.progress(Outcome("delete-remote", item.path))
        else:
            result.uploaded.append(item.path)
            context.reporter.progress(Outcome("upload", item.path, item.entry.size))
        base = item.upload.base
        if base and base.kind is Kind.FILE and base.size >= context.config.signature_from:
            replaced.append(base.hash)
    drop_signatures(context, replaced)
