"""Remote: what the site says changed since the cursor.  Metadata only; nothing here is touched."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dblike_cli.context import Context
from dblike_cli.device import correction
from dblike_cli.entries import UNTRUSTED, remote_of, synced_of
from dblike_cli.fs import OWN
from dblike_cli.state import Known, State
from dblike_cli.state.tombs import Tomb
from dblike_cli.state.tree import NOTHING, is_unsettled
from dblike_delta.errors import FormatError, PathError
from dblike_delta.exchange import Changes, Refused
from dblike_delta.messages import HASH_BYTES, Record
from dblike_delta.paths import check_path, display
from dblike_delta.versions import Kind, vector_in

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
    undead: list[Known] = []
    """Paths that the site has only because it went back in time, to be deleted there again."""


def hear(context: Context) -> int:
    """Take in all changes since the cursor; what to add to our clock to get the site's.

    Each page of changes is remembered together with the cursor that covers it, while the next one
    is on its way.
    """
    _begin(context)
    page, offset = correction(context, lambda: _page(context))
    while True:
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


def _page(context: Context) -> Changes:
    try:
        return _changes(context, context.state.meta.cursor, buried=_is_first(context))
    except Refused as refused:
        if refused.status != _GONE or not context.state.meta.cursor:
            raise
    # The site can't go on from our cursor: its disk went back in time.  What it says now may be
    # older than what is here, so nothing counts as agreed until it was compared; our contexts say
    # that we knew of what it has, so what it lost goes up again and makes no conflict.  What it
    # says was deleted is told from what it lost by what the delete buried.
    with context.state.transaction():
        context.state.tree.unsettle()
        context.state.tombs.doubt()
        context.state.remote.clear()
        context.state.meta.step("")
        context.state.meta.note(_FIRST, "going on")
    context.state.everywhere = True
    return _changes(context, "", buried=True)


def _changes(context: Context, cursor: str, *, buried: bool = False) -> Changes:
    limit = context.config.changes_limit
    return context.exchange.changes(context.folder, cursor, limit=limit, buried=buried)


def _take(context: Context, page: Changes) -> None:
    state, found = context.state, _sort(context, page.records)
    state.remote.put(found.news)
    state.remote.drop(found.known)
    state.tree.renew(found.renewed)
    state.tree.record(found.answered)
    state.tree.record(found.undead)
    state.outbox.drop(known.path for known in found.answered)
    for path, reason in found.refused:
        state.notes.refuse(path, None, reason)
    state.meta.step(page.cursor)
    if not page.more and _is_first(context):
        state.meta.note(_FIRST, "")


def overhear(context: Context) -> dict[bytes, Record]:
    """What the news would be after `hear`, which remembers nothing: for a look from outside."""
    news = context.state.remote.all()
    cursor, more = context.state.meta.cursor, True
    first = not cursor and _is_old_copy(context)
    while more:
        try:
            page = _changes(context, cursor, buried=first)
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
        known, tomb = held.known(record.path), held.tomb(record.path)
        if held.is_over(record, known, tomb):
            if tomb is not None and tomb.doubtful and record.kind != Kind.DELETED:
                gone = msgspec.structs.replace(NOTHING, context=tomb.context)
                found.undead.append(Known(record.path, UNTRUSTED, gone))
            continue
        if known is None or not _is_same(known, record):
            found.news.append(record)
            continue
        found.known.append(record.path)
        if known.synced.context != record.context:
            found.renewed.append((record.path, record.context))
    return found


def _is_same(known: Known, record: Record) -> bool:
    """Whether it is the version that is here.  The dot alone does not tell: what a dot stands for
    is settled later where a copied device has used it twice."""
    entry = known.synced.entry
    if known.synced.dot != (record.device, record.counter) or entry is None:
        return False
    return (entry.kind, entry.hash, entry.target) == (record.kind, record.hash, record.target)


class _Held:
    """What is known here of the paths that are in the news."""

    def __init__(self, state: State) -> None:
        self._tree = None if state.tree.empty() else state.tree
        self._tombs = None if state.tombs.empty() else state.tombs
        self._news = None if state.remote.empty() else state.remote

    def known(self, path: bytes) -> Known | None:
        """What was agreed on."""
        return self._tree.get(path) if self._tree else None

    def tomb(self, path: bytes) -> Tomb | None:
        """What was known of it when it was deleted."""
        return self._tombs.get(path) if self._tombs else None

    def is_over(self, record: Record, known: Known | None, tomb: Tomb | None) -> bool:
        """Whether the site that says so has not heard of all that we know.  It will say what
        becomes of the path when it has."""
        if tomb is not None:
            lacks = is_older if tomb.doubtful else lacks_some
            if lacks(record.context, tomb.context):
                return True
        if known is not None:
            lacks = is_older if is_unsettled(known) else lacks_some
            if lacks(record.context, known.synced.context):
                return True
        news = self._news.get(record.path) if self._news else None
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

    It was accepted then.  Whether the path still is that, the next look will tell.
    """
    if record.device != context.device.id or record.kind == Kind.DELETED:
        return None
    sending = context.state.outbox.get(record.path)
    if sending is None or sending.counter != record.counter:
        return None
    return Known(record.path, UNTRUSTED, synced_of(remote_of(record)))


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
