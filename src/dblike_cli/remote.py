"""Remote: what the site says changed since the cursor.  Metadata only; nothing here is touched."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dblike_cli.context import Context
from dblike_cli.device import correction
from dblike_cli.entries import UNTRUSTED, entry_of, remote_of, synced_of
from dblike_cli.fs import OWN
from dblike_cli.state import Known, State
from dblike_cli.state.tombs import Tomb
from dblike_cli.state.tree import NOTHING, is_unsettled
from dblike_delta.errors import FormatError, LimitError, PathError
from dblike_delta.exchange import Changes, Refused
from dblike_delta.messages import HASH_BYTES, Record, Sources
from dblike_delta.paths import check_path, display
from dblike_delta.plan import Entry
from dblike_delta.reconcile import same_entry
from dblike_delta.sources import (
    Content,
    SourcesUnknown,
    contents_of,
    dots_of,
    fill,
    lacks_content,
)
from dblike_delta.vectors import said_after
from dblike_delta.versions import Dot, Kind, vector_in

_GONE = 410
_FIRST = "first look"


class _Sorted(msgspec.Struct):
    """Records, by what they mean here."""

    news: list[Record] = []
    known: list[bytes] = []
    renewed: list[tuple[bytes, bytes]] = []
    refused: list[tuple[bytes, str]] = []
    answered: list[Known] = []
    """Our own versions whose answer was lost."""
    buried: list[tuple[bytes, bytes]] = []
    """The same of deletes, by (path, context)."""
    settled: list[bytes] = []
    """Paths of which the site knows all that we do, though it went back in time."""
    undead: list[Known] = []
    """Paths that the site has only because it went back in time, or because nothing was heard of
    its taking them in, to be deleted there."""


def has_to_hear(context: Context) -> bool:
    """Whether nothing can be sent before the site was asked."""
    meta = context.state.meta
    return context.state.offset is None or not meta.cursor or meta.unsealed


def hear(context: Context) -> int:
    """Take in all changes since the cursor; what to add to our clock to get the site's.

    Each page of changes is remembered together with the cursor that covers it, while the next one
    is on its way.
    """
    _begin(context)
    if context.state.meta.unsealed:
        _seal(context)
    page, offset = correction(context, lambda: _page(context))
    while True:
        page = _spelled_out(context, page)
        ahead = None
        if page.more:
            first = _is_first(context)
            ahead = context.executor.submit(_changes, context, page.cursor, buried=first)
        with context.state.transaction():
            _take(context, page)
        if ahead is None:
            return offset
        try:
            page = ahead.result()
        except Refused:
            page = _page(context)


def _begin(context: Context) -> None:
    """Note where this is the first look at a site from a directory that holds files already."""
    if not context.state.meta.cursor and _is_old_copy(context):
        with context.state.transaction():
            context.state.meta.note(_FIRST, "going on")


def _is_first(context: Context) -> bool:
    """Whether an old copy of what was deleted since is to be told from what is new."""
    return bool(context.state.meta.noted(_FIRST))


def _is_old_copy(context: Context) -> bool:
    """Whether there are files that nothing is remembered of."""
    if not context.state.tree.empty():
        return False
    return any(name != OWN for name, _ in context.fs.scandir(b""))


def _seal(context: Context) -> None:
    """Get seals for what the device that we were knew of its own versions: as another one we have
    to prove that."""
    tree, cursor = context.state.tree, ""
    more = not tree.empty()
    while more:
        page = _changes(context, cursor, brief=False)
        renewed = [
            (record.path, record.context)
            for record in page.records
            if (known := tree.get(record.path)) is not None
            and _is_same(known, record)
            and not lacks_some(record.context, known.synced.context)
        ]
        with context.state.transaction():
            tree.renew(renewed)
        cursor, more = page.cursor, page.more
    with context.state.transaction():
        context.state.meta.have_sealed()


def _spelled_out(context: Context, page: Changes) -> Changes:
    """The page with all hashes; asked for again where it names versions that are not here."""
    if page.sources is None:
        return page
    try:
        contents = contents_of(page.sources, _contents_held(context, page, page.sources))
        return msgspec.structs.replace(page, records=tuple(fill(page.records, contents)))
    except (SourcesUnknown, LimitError):
        return _page(context, brief=False)


def _contents_held(context: Context, page: Changes, sources: Sources) -> dict[Dot, Content]:
    """What is at the paths that the page deletes, or was heard to be; and what is at those of the
    records themselves, where they are versions that are here."""
    tree, news = context.state.tree, _Held(context.state)
    held: dict[Dot, Content] = {}
    for path in (record.path for record in page.records if record.kind == Kind.DELETED):
        held.update(tree.content_at(path))
        heard = news.news(path)
        if heard is not None:
            held[Dot(heard.device, heard.counter)] = Content(heard.hash, heard.size)
    for source, record in zip(dots_of(sources), filter(lacks_content, page.records), strict=False):
        if source not in held:
            own = dict(tree.content_at(record.path)).get(Dot(record.device, record.counter))
            held.update({source: own} if own else {})
    return held


def _page(context: Context, *, brief: bool = True) -> Changes:
    cursor = context.state.meta.cursor
    try:
        return _changes(context, cursor, buried=_is_first(context), brief=brief)
    except Refused as refused:
        if refused.status != _GONE or not context.state.meta.cursor:
            raise
    # The site can't go on from our cursor: its disk went back in time.  What it says now may be
    # older than what is here, so what was agreed is in doubt until it says that it knows all of
    # that.  Our contexts say that we knew of what it has, so what it lost goes up again and makes
    # no conflict.  What it says was deleted is told from what it lost by what the delete buried.
    with context.state.transaction():
        context.state.tree.doubt()
        context.state.tombs.doubt()
        context.state.remote.clear()
        context.state.meta.step("")
        context.state.meta.note(_FIRST, "going on")
        context.state.meta.look_everywhere()
    return _changes(context, "", buried=True)


def _changes(context: Context, cursor: str, *, buried: bool = False, brief: bool = True) -> Changes:
    limit = context.config.changes_limit
    return context.exchange.changes(context.folder, cursor, limit=limit, buried=buried, brief=brief)


def _take(context: Context, page: Changes) -> None:
    state, found = context.state, _sort(context, page.records)
    state.remote.put(found.news)
    state.remote.drop(found.known)
    state.tree.settle(found.settled)
    state.tree.renew(found.renewed)
    state.tree.record(found.answered)
    state.tree.record(found.undead)
    if found.undead:
        state.meta.look_everywhere()
    state.tombs.bury(found.buried, context.clock.now_ms())
    state.outbox.drop(known.path for known in found.answered)
    state.outbox.drop(path for path, _ in found.buried)
    for path, reason in found.refused:
        state.notes.refuse(path, None, reason)
    state.meta.step(page.cursor)
    if not page.more and _is_first(context):
        state.meta.note(_FIRST, "")
        state.tree.unsettle()


def overhear(context: Context) -> dict[bytes, Record]:
    """What the news would be after `hear`, which remembers nothing: for a look from outside."""
    news = context.state.remote.all()
    cursor, more = context.state.meta.cursor, True
    first = not cursor and _is_old_copy(context)
    while more:
        try:
            page = _changes(context, cursor, buried=first, brief=False)
        except Refused as refused:
            if refused.status != _GONE or not cursor:
                raise
            page, first = _changes(context, "", buried=True), True
        found = _sort(context, page.records)
        news.update((record.path, record) for record in found.news)
        for path in found.known:
            news.pop(path, None)
        cursor, more = page.cursor, page.more
    return news


def _sort(context: Context, records: Iterable[Record]) -> _Sorted:
    """Our own versions that come back are no news, nor is what we know to be over."""
    found = _Sorted()
    held = _Held(context.state)
    for record in records:
        fault = _fault(record)
        if fault:
            found.refused.append((record.path, fault))
            continue
        answer = _answer(context, record)
        if answer is not None:
            found.answered.append(answer)
            found.known.append(record.path)
            continue
        if _is_own_delete(context, record):
            found.buried.append((record.path, record.context))
            found.known.append(record.path)
            continue
        known, tomb = held.known(record.path), held.tomb(record.path)
        if held.is_settled(record, known):
            found.settled.append(record.path)
        if held.is_over(record, known, tomb):
            if tomb is not None and tomb.doubtful and record.kind != Kind.DELETED:
                gone = msgspec.structs.replace(NOTHING, context=tomb.context)
                found.undead.append(Known(record.path, UNTRUSTED, gone))
            continue
        if known is None or not (_is_same(known, record) and _looks_the_same(known, record)):
            found.news.append(record)
            continue
        found.known.append(record.path)
        if known.synced.context != record.context:
            found.renewed.append((record.path, record.context))
    return found


def _is_same(known: Known, record: Record) -> bool:
    """Whether it is the version that is here."""
    dot = (record.device, record.counter)
    return known.synced.dot == dot and _says(known.synced.entry, record)


def _looks_the_same(known: Known, record: Record) -> bool:
    """Whether it has the mode and mtime that are here, too: a copy of the device that made it may
    have given it others."""
    return same_entry(known.synced.entry, entry_of(record))


def _says(entry: Entry | None, record: Record) -> bool:
    """Whether what a dot stands for here is what it stands for there.  The dot alone does not tell:
    a copy of its device may have used it, too."""
    if entry is None:
        return False
    return (entry.kind, entry.hash, entry.target) == (record.kind, record.hash, record.target)


class _Held:
    """What is known here of the paths that are in the news."""

    def __init__(self, state: State) -> None:
        self._tree = None if state.tree.empty() else state.tree
        self._doubts = state.tree.has_doubts()
        self._tombs = None if state.tombs.empty() else state.tombs
        self._news = None if state.remote.empty() else state.remote

    def known(self, path: bytes) -> Known | None:
        """What was agreed on."""
        return self._tree.get(path) if self._tree else None

    def tomb(self, path: bytes) -> Tomb | None:
        """What was known of it when it was deleted."""
        return self._tombs.get(path) if self._tombs else None

    def news(self, path: bytes) -> Record | None:
        """What was heard of it, and is not here yet."""
        return self._news.get(path) if self._news else None

    def in_doubt(self, known: Known) -> bool:
        """Whether a site that went back in time may have lost what is known of the path."""
        return self._doubts and self._tree is not None and self._tree.in_doubt(known.path)

    def is_settled(self, record: Record, known: Known | None) -> bool:
        """Whether that was in doubt, and the site knows all of it."""
        if known is None or not record.context or not self.in_doubt(known):
            return False
        return not lacks_some(record.context, known.synced.context)

    def is_over(self, record: Record, known: Known | None, tomb: Tomb | None) -> bool:
        """Whether the site that says so has not heard of all that we know.  It will say what
        becomes of the path when it has."""
        if tomb is not None:
            lacks = is_older if tomb.doubtful else lacks_some
            if lacks(record.context, tomb.context):
                return True
        if known is not None:
            lacks = is_older if is_unsettled(known) or self.in_doubt(known) else lacks_some
            if lacks(record.context, known.synced.context):
                return True
        news = self.news(record.path)
        return news is not None and lacks_some(record.context, news.context)


def is_older(context: bytes, than: bytes) -> bool:
    """Whether a sealed context says less than another one; not where either can't be read."""
    try:
        old, new = vector_in(context), vector_in(than)
    except FormatError:
        return False
    return bool(old) and old <= new and old != new


def lacks_some(context: bytes, of: bytes) -> bool:
    """Whether a sealed context does not say all that another one does; likewise."""
    if context == of or not context:
        return False
    try:
        return not vector_in(of) <= vector_in(context)
    except FormatError:
        return False


def _answer(context: Context, record: Record) -> Known | None:
    """The path as agreed, where the record is a version of ours that waits for its answer.

    It was accepted then.  Whether the path still is that, the next look will tell.  What a copy of
    this device said with the same dot is news: it was never here.
    """
    if record.device != context.device.id or record.kind == Kind.DELETED:
        return None
    sending = context.state.outbox.get(record.path)
    if sending is None or sending.counter != record.counter or not _says(sending.entry, record):
        return None
    return Known(record.path, UNTRUSTED, synced_of(remote_of(record)))


def _is_own_delete(context: Context, record: Record) -> bool:
    """Whether the record is a delete of ours that waits for its answer, and says no more than we
    knew.  What is at the path by now was put there after it."""
    if record.device != context.device.id or record.kind != Kind.DELETED:
        return False
    sending = context.state.outbox.get(record.path)
    if sending is None or sending.counter != record.counter or sending.entry is not None:
        return False
    after = said_after(sending.context, Dot(record.device, record.counter))
    return bool(record.context) and not lacks_some(after, record.context)


def _fault(record: Record) -> str:
    """Why a record can't be taken for what it says it is; a site is not trusted with the disk."""
    try:
        check_path(record.path)
    except PathError as error:
        return f"the site named an impossible path: {error}"
    if record.key_id:
        return "it is encrypted with a key that is not here"
    if record.kind == Kind.FILE and len(record.hash) != HASH_BYTES:
        return "the site gave no content hash"
    if record.kind == Kind.SYMLINK and (not record.target or b"\0" in record.target):
        return f"the site gave an impossible symlink target: {display(record.target)}"
    return ""
