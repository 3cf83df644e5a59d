"""Remote: what the site says changed since the cursor.  Metadata only; nothing here is touched."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dblike_cli.context import Context
from dblike_cli.device import correction
from dblike_delta.errors import PathError
from dblike_delta.exchange import Changes, Refused
from dblike_delta.messages import HASH_BYTES, Record
from dblike_delta.paths import check_path, display
from dblike_delta.versions import Kind

_GONE = 410


class _Sorted(msgspec.Struct):
    """Records, by what they mean here."""

    news: list[Record] = []
    known: list[bytes] = []
    renewed: list[tuple[bytes, bytes]] = []
    refused: list[tuple[bytes, str]] = []


def hear(context: Context) -> int:
    """Take in all changes since the cursor; what to add to our clock to get the site's.

    Each page of changes is remembered together with the cursor that covers it.
    """
    state = context.state
    offset, more = 0, True
    while more:
        page, step = correction(context, lambda: _page(context, state.meta.cursor))
        offset = offset or step
        found = _sort(context, page.records)
        with state.transaction():
            state.remote.put(found.news)
            state.remote.drop(found.known)
            state.tree.renew(found.renewed)
            for path, reason in found.refused:
                state.notes.refuse(path, None, reason)
            state.meta.step(page.cursor)
        more = page.more
    return offset


def overhear(context: Context) -> dict[bytes, Record]:
    """What the news would be after `hear`, which remembers nothing: for a look from outside."""
    news = context.state.remote.all()
    cursor, more = context.state.meta.cursor, True
    while more:
        page = _page(context, cursor)
        found = _sort(context, page.records)
        news.update((record.path, record) for record in found.news)
        for path in found.known:
            news.pop(path, None)
        cursor, more = page.cursor, page.more
    return news


def _page(context: Context, cursor: str) -> Changes:
    limit = context.config.changes_limit
    try:
        return context.exchange.changes(context.folder, cursor, limit=limit)
    except Refused as refused:
        if refused.status != _GONE or not cursor:
            raise
        # The site can't go on from there (its disk is an older one): hear everything again.
        return context.exchange.changes(context.folder, "", limit=limit)


def _sort(context: Context, records: Iterable[Record]) -> _Sorted:
    """Our own versions that come back are no news."""
    found = _Sorted()
    tree = context.state.tree
    empty = tree.empty()
    for record in records:
        fault = _fault(record)
        if fault:
            found.refused.append((record.path, fault))
            continue
        known = None if empty else tree.get(record.path)
        if known is None or known.synced.dot != (record.device, record.counter):
            found.news.append(record)
            continue
        found.known.append(record.path)
        if known.synced.context != record.context:
            found.renewed.append((record.path, record.context))
    return found


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
