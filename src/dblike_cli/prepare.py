"""Reading what is to be uploaded: small files into memory, as many as make one commit."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from blake3 import blake3

from dblike_cli.answers import Uploads
from dblike_cli.context import Context
from dblike_cli.durable import sync_seen
from dblike_cli.entries import UNTRUSTED, file_entry, is_racy, trust
from dblike_cli.fs import Stat
from dblike_cli.hashing import StillWriting, disk_time, read_whole
from dblike_cli.outgoing import Outgoing
from dblike_cli.place import has_name
from dblike_cli.report import Code
from dblike_delta.plan import Upload
from dblike_delta.reconcile import same_entry
from dblike_delta.versions import Kind

_REPLACED: Final = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP)


class Reader:
    """Turns changes into what can be sent; what can't be sent now goes into `result`."""

    def __init__(
        self,
        context: Context,
        stamps: Mapping[bytes, bytes],
        seen: int,
        result: Uploads,
        *,
        again: bool = False,
    ) -> None:
        """`stamps` has what lstat said of each path, at the disk's time `seen` or after it.
        `again`: what the site refused is sent once more."""
        self._context = context
        self._seen = seen
        self._stamps = stamps
        self._result = result
        self._tick = 0
        self._going: set[bytes] = set()  # contents that an earlier item brings
        refused = () if again else context.state.notes.refused()
        self._refused = {item.path for item in refused}

    def batches(self, changes: Sequence[Upload]) -> Iterator[list[Outgoing]]:
        """The changes in order, as many together as make one commit; a large file is alone."""
        config = self._context.config
        limit = config.batch_bytes // 4  # the first leaves early: the site waits for it
        batch: list[Outgoing] = []
        fresh: list[Outgoing] = []  # of which nobody asked yet whether their contents have to go
        size = 0
        for change in self._durably(changes):
            item = self._read(change)
            if item is None:
                continue
            size += len(item.data or b"")
            count = len(batch) + len(fresh)
            if count and (item.large or size > limit or count >= config.batch_records):
                batch += self._without_copies(fresh)
                fresh = []
                size = _bytes(batch) + len(item.data or b"")
                if item.large or size > limit // 2 or count >= config.batch_records:
                    yield batch
                    batch, size = [], len(item.data or b"")
                    limit = config.batch_bytes
            if item.large:
                yield [item]
                size = 0
            else:
                fresh.append(item)
        if batch or fresh:
            yield batch + self._without_copies(fresh)

    def _durably(self, changes: Sequence[Upload]) -> Iterator[Upload]:
        """The changes in order, each when it is durable as it was seen.

        Whoever saved it may not have done that.  Once the site has it, a power cut must leave no
        older or empty file here, and no absence, to be taken for an edit or a delete.
        """
        config = self._context.config
        limit = config.batch_bytes // 4
        at = 0
        while at < len(changes):
            end, files, size = at, [], 0
            while end < len(changes) and end - at < config.batch_records and size <= limit:
                entry, path = changes[end].entry, changes[end].path
                end += 1
                if entry is None or entry.kind is not Kind.FILE:
                    continue
                if entry.hash or entry.size < config.whole_below:  # or it is streamed
                    files.append(path)
                    size += entry.size
            sync_seen(self._context, files, [change.path for change in changes[at:end]])
            self._tick = disk_time(self._context)
            yield from changes[at:end]
            at, limit = end, config.batch_bytes

    def _read(self, change: Upload) -> Outgoing | None:
        """None where there is nothing to send."""
        entry = change.entry
        item: Outgoing | None
        if entry is None and self._is_back(change.path):
            self._result.wait(change.path, Code.WRITING, "it was gone, and is there again")
            return None
        if entry is None or entry.kind is not Kind.FILE:
            item = self._seen_so(change)
        elif entry.size < self._context.config.whole_below:
            item = self._small(change)
        else:
            item = self._large(self._seen_so(change))
        return None if item is None or self._is_refused(item) else item

    def _is_back(self, path: bytes) -> bool:
        """Whether something is where nothing was: what goes before a delete may take an hour."""
        try:
            self._context.fs.lstat(path)
            return has_name(self._context.fs, path)
        except OSError:
            return False

    def _seen_so(self, change: Upload) -> Outgoing:
        """What the scan saw is all that there is to know of it."""
        stamp = self._stamps.get(change.path, b"")
        return Outgoing(
            change, change.entry, stamp, trust(stamp, self._seen) if stamp else UNTRUSTED
        )

    def _is_refused(self, item: Outgoing) -> bool:
        """Whether the site said no to just this; then it is not asked again."""
        if item.path not in self._refused:
            return False
        return bool(self._context.state.notes.refusal(item.path, item.entry))

    def _large(self, item: Outgoing) -> Outgoing:
        """A file to be streamed, unless its hash was needed before and is enough."""
        digest = item.entry.hash if item.entry is not None else b""
        there = digest and self._context.state.tree.find_content(digest)
        return msgspec.structs.replace(item, body=not there)

    def _small(self, change: Upload) -> Outgoing | None:
        path, result = change.path, self._result
        try:
            data, st, stamp = self._as_durable(path)
        except StillWriting:
            result.wait(path, Code.WRITING, "it is still being written")
            return None
        except OSError as error:
            if error.errno in _REPLACED:
                result.wait(path, Code.WRITING, "it was replaced while it was looked at")
                return None
            result.wait(path, Code.UNREADABLE, f"it can't be read: {error.strerror}")
            return None
        entry = file_entry(st, blake3(data).digest())
        trusted = UNTRUSTED if is_racy(st, self._tick) else stamp
        if same_entry(entry, change.base):
            result.same[path] = trusted
            result.done.add(path)
            return None
        return Outgoing(change, entry, stamp, trusted, data, body=True)

    def _as_durable(self, path: bytes) -> tuple[bytes, Stat, bytes]:
        """A small file as it was seen, and then made durable; or as it is by now, likewise."""
        seen = self._stamps.get(path)
        for _ in range(2):
            data, st, stamp = read_whole(
                self._context.fs, path, 2 * self._context.config.whole_below
            )
            if stamp == seen:
                return data, st, stamp
            sync_seen(self._context, [path], ())
            seen = stamp
        raise StillWriting

    def _without_copies(self, fresh: list[Outgoing]) -> list[Outgoing]:
        """Let go along what the site does not have by then: what is no rename and no copy.

        The bytes of all others are dropped: should the site lack them after all, they are read
        again.
        """
        hashes = {item.entry.hash for item in fresh if item.data is not None and item.entry}
        there = self._context.state.tree.contents_among(hashes) | (hashes & self._going)
        ready: list[Outgoing] = []
        for item in fresh:
            if item.data is not None and item.entry is not None:
                digest = item.entry.hash
                if digest in there:
                    item = msgspec.structs.replace(item, data=None, body=False)  # noqa: PLW2901
                else:
                    there.add(digest)
                    self._going.add(digest)
            ready.append(item)
        return ready


def _bytes(batch: Sequence[Outgoing]) -> int:
    return sum(len(item.data or b"") for item in batch)
