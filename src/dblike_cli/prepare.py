"""Reading what is to be uploaded: small files into memory, as many as make one commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from blake3 import blake3

from dblike_cli.answers import Uploads
from dblike_cli.context import Context
from dblike_cli.entries import file_entry, stamp_of, trusted_stamp
from dblike_cli.hashing import StillWriting, disk_time, read_whole
from dblike_cli.outgoing import Outgoing
from dblike_cli.report import Code, Pending
from dblike_delta.plan import Upload
from dblike_delta.reconcile import same_entry
from dblike_delta.versions import Kind


class Reader:
    """Turns changes into what can be sent; what can't be sent now goes into `result`."""

    def __init__(self, context: Context, stamps: Mapping[bytes, bytes], result: Uploads) -> None:
        self._context = context
        self._stamps = stamps
        self._result = result
        self._tick = 0
        self._going: set[bytes] = set()  # contents that an earlier item brings

    def batches(self, changes: Sequence[Upload]) -> Iterator[list[Outgoing]]:
        """The changes in order, as many together as make one commit; a large file is alone."""
        config = self._context.config
        batch: list[Outgoing] = []
        size = 0
        self._tick = disk_time(self._context)
        for change in changes:
            item = self._read(change)
            if item is None:
                continue
            size += len(item.data or b"")
            full = size > config.batch_bytes or len(batch) >= config.batch_records
            if batch and (item.large or full):
                yield batch
                batch, size = [], len(item.data or b"")
                self._tick = disk_time(self._context)
            batch.append(item)
            if item.large:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _read(self, change: Upload) -> Outgoing | None:
        """None where there is nothing to send."""
        stamp = self._stamps.get(change.path, b"")
        item: Outgoing | None = Outgoing(change, change.entry, stamp, stamp)
        assert item is not None
        if change.entry is not None and change.entry.kind is Kind.FILE:
            large = change.entry.size >= self._context.config.whole_below
            item = self._large(item) if large else self._small(item)
            if item is None:
                return None
        reason = self._context.state.notes.refusal(change.path, item.entry)
        if reason:
            self._result.refused[change.path] = Pending(change.path, reason, Code.REFUSED)
            return None
        return item

    def _large(self, item: Outgoing) -> Outgoing:
        """A file to be streamed, unless its hash was needed before and is enough."""
        digest = item.entry.hash if item.entry is not None else b""
        return msgspec.structs.replace(item, body=not digest or not self._is_there(digest))

    def _small(self, item: Outgoing) -> Outgoing | None:
        path, result = item.path, self._result
        try:
            data, st = read_whole(self._context.fs, path, 2 * self._context.config.whole_below)
        except StillWriting:
            result.wait(path, Code.WRITING, "it is still being written")
            return None
        except OSError as error:
            result.wait(path, Code.UNREADABLE, f"it can't be read: {error.strerror}")
            return None
        entry, trusted = file_entry(st, blake3(data).digest()), trusted_stamp(st, self._tick)
        if same_entry(entry, item.upload.base):
            result.same[path] = trusted
            result.done.add(path)
            return None
        body = not self._is_there(entry.hash)
        self._going.add(entry.hash)
        return Outgoing(item.upload, entry, stamp_of(st), trusted, data, body)

    def _is_there(self, digest: bytes) -> bool:
        """Whether the site has the content by then: a rename, a copy, or other permissions."""
        return digest in self._going or bool(self._context.state.tree.find_content(digest))
