"""Reading what is to be uploaded: small files into memory, as many as make one commit."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from blake3 import blake3

from dblike_cli.answers import Uploads
from dblike_cli.context import Context
from dblike_cli.entries import UNTRUSTED, file_entry, stamp_of, trust, trusted_stamp
from dblike_cli.hashing import StillWriting, disk_time, read_whole
from dblike_cli.outgoing import Outgoing
from dblike_cli.report import Code, Pending
from dblike_delta.plan import Upload
from dblike_delta.reconcile import same_entry
from dblike_delta.versions import Kind

_REPLACED: Final = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP)


class Reader:
    """Turns changes into what can be sent; what can't be sent now goes into `result`."""

    def __init__(
        self, context: Context, stamps: Mapping[bytes, bytes], seen: int, result: Uploads
    ) -> None:
        """`stamps` has what lstat said of each path, at the disk's time `seen` or after it."""
        self._context = context
        self._seen = seen
        self._stamps = stamps
        self._result = result
        self._tick = 0
        self._going: set[bytes] = set()  # contents that an earlier item brings
        self._refused = {item.path for item in context.state.notes.refused()}

    def batches(self, changes: Sequence[Upload]) -> Iterator[list[Outgoing]]:
        """The changes in order, as many together as make one commit; a large file is alone."""
        config = self._context.config
        limit = config.batch_bytes // 4  # the first leaves early: the site waits for it
        batch: list[Outgoing] = []
        size = 0
        self._tick = disk_time(self._context)
        for change in changes:
            item = self._read(change)
            if item is None:
                continue
            size += len(item.data or b"")
            if batch and (item.large or size > limit or len(batch) >= config.batch_records):
                batch = self._with_bodies(batch)
                size = _bytes(batch) + len(item.data or b"")
                full = size > limit // 2 or len(batch) >= config.batch_records
                if item.large or full:
                    yield batch
                    batch, size = [], len(item.data or b"")
                    limit = config.batch_bytes
                    self._tick = disk_time(self._context)
            batch.append(item)
            if item.large:
                yield batch
                batch, size = [], 0
        if batch:
            yield self._with_bodies(batch)

    def _read(self, change: Upload) -> Outgoing | None:
        """None where there is nothing to send."""
        stamp = self._stamps.get(change.path, b"")
        trusted = trust(stamp, self._seen) if stamp else UNTRUSTED
        item: Outgoing | None = Outgoing(change, change.entry, stamp, trusted)
        assert item is not None
        if change.entry is not None and change.entry.kind is Kind.FILE:
            large = change.entry.size >= self._context.config.whole_below
            item = self._large(item) if large else self._small(item)
            if item is None:
                return None
        return None if change.path in self._refused and self._is_refused(item) else item

    def _is_refused(self, item: Outgoing) -> bool:
        """Whether the site said no to just this; then it is not asked again."""
        reason = self._context.state.notes.refusal(item.path, item.entry)
        if reason:
            self._result.refused[item.path] = Pending(item.path, reason, Code.REFUSED)
        return bool(reason)

    def _large(self, item: Outgoing) -> Outgoing:
        """A file to be streamed, unless its hash was needed before and is enough."""
        digest = item.entry.hash if item.entry is not None else b""
        there = digest and self._context.state.tree.find_content(digest)
        return msgspec.structs.replace(item, body=not there)

    def _small(self, item: Outgoing) -> Outgoing | None:
        path, result = item.path, self._result
        try:
            data, st = read_whole(self._context.fs, path, 2 * self._context.config.whole_below)
        except StillWriting:
            result.wait(path, Code.WRITING, "it is still being written")
            return None
        except OSError as error:
            if error.errno in _REPLACED:
                result.wait(path, Code.WRITING, "it was replaced while it was looked at")
                return None
            result.wait(path, Code.UNREADABLE, f"it can't be read: {error.strerror}")
            return None
        entry, trusted = file_entry(st, blake3(data).digest()), trusted_stamp(st, self._tick)
        if same_entry(entry, item.upload.base):
            result.same[path] = trusted
            result.done.add(path)
            return None
        return Outgoing(item.upload, entry, stamp_of(st), trusted, data)

    def _with_bodies(self, batch: list[Outgoing]) -> list[Outgoing]:
        """Let go along what the site does not have by then: what is no rename and no copy.

        The bytes of all others are dropped: should the site lack them after all, they are read
        again.
        """
        hashes = {item.entry.hash for item in batch if _is_open(item) and item.entry}
        there = self._context.state.tree.contents_among(hashes) | (hashes & self._going)
        ready: list[Outgoing] = []
        for item in batch:
            if not _is_open(item) or item.entry is None:
                ready.append(item)
            elif item.entry.hash in there:
                ready.append(msgspec.structs.replace(item, data=None))
            else:
                there.add(item.entry.hash)
                self._going.add(item.entry.hash)
                ready.append(msgspec.structs.replace(item, body=True))
        return ready


def _is_open(item: Outgoing) -> bool:
    """Whether nobody asked yet if its content has to go along."""
    return item.data is not None and not item.body


def _bytes(batch: Sequence[Outgoing]) -> int:
    return sum(len(item.data or b"") for item in batch)
