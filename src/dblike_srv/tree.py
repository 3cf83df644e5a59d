"""The paths of a folder while versions are added to it: heads in, versions and new heads out.

A `Tree` lives as long as one transaction.  It reads the paths that it is asked about, applies the
merge of `dblike_delta.versions` to them, and writes what came of it.  This is the only writer of
versions, journals and paths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import xxhash
from sqlalchemy import Connection, bindparam, insert, select, update

from dblike_delta import paths as pathnames
from dblike_delta.conflict_names import is_conflict_copy
from dblike_delta.varints import put_varint, take_varints
from dblike_delta.versions import (
    Dot,
    Kind,
    Version,
    VersionVector,
    context,
    merge,
    same_version,
    settle,
    twins,
    winner,
)
from dblike_srv.db import find_rows, insert_many
from dblike_srv.models import folders, journal, journals, meta, paths, versions

VERSION_COLUMNS = (
    versions.c.seq, versions.c.path, versions.c.device, versions.c.counter, versions.c.vector,
    versions.c.time, versions.c.kind, versions.c.hash, versions.c.size, versions.c.mode,
    versions.c.mtime_ns, versions.c.target, versions.c.author, versions.c.key_id,
)  # fmt: skip


_digest = xxhash.xxh3_128_digest


_VERSION = (
    "folder", "seq", "path_key", "path", "device", "counter", "vector", "time", "kind", "hash",
    "size", "mode", "mtime_ns", "target", "author", "key_id", "accepted",
)  # fmt: skip
_JOURNAL = ("folder", "site", "number", "seq")
_PLACE = ("folder", "path_key", "parent_key", "path")
_STANDING = ("winner", "heads", "context", "live")
_PATH_COLUMNS = (paths.c.id, paths.c.path, paths.c.winner, paths.c.heads)
_SITE = select(meta.c.value).where(meta.c.key == "site")


def path_key(path: bytes) -> bytes:
    """The key under which a path is looked for; equal keys are no proof of equal paths."""
    return _digest(path)


def version_of(row: Any) -> Version:
    """A version from a row of VERSION_COLUMNS."""
    (_, path, device, counter, vector, time, kind, digest, size, mode, mtime_ns, target, author,
     key_id) = row  # fmt: skip
    return Version(
        path=bytes(path),
        dot=Dot(bytes(device), counter),
        vector=VersionVector.unpack(bytes(vector)),
        time=time,
        kind=Kind(kind),
        hash=bytes(digest),
        size=size,
        mode=mode,
        mtime_ns=mtime_ns,
        target=bytes(target),
        author=author,
        key_id=bytes(key_id),
    )


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    """A path: its heads, and where it stands in the database.  `row` is 0 for a new one."""

    path: bytes
    row: int = 0
    heads: tuple[Version, ...] = ()
    before: Version | None = None
    touched: bool = False

    @property
    def winner(self) -> Version | None:
        return winner(self.heads) if self.heads else None

    @property
    def is_directory(self) -> bool:
        return bool(self.heads) and winner(self.heads).kind == Kind.DIRECTORY

    @property
    def live(self) -> bool:
        return bool(self.heads) and winner(self.heads).live


class Tree:
    """The paths of one folder within one transaction, which holds the folder's row locked.

    What is added goes to the site's own journal; what comes from another site's journal goes to the
    copy of that one, with the number that it has there.
    """

    def __init__(self, connection: Connection, folder: int, *, now: int = 0) -> None:
        self._connection = connection
        self._now = now
        self._folder = folder
        self.site = site_id(connection)
        self._nodes: dict[bytes, Node] = {}
        self._children: dict[bytes, set[bytes]] = {}
        self._seqs: dict[Dot, int] = {}
        self._known: dict[Dot, Version] = {}
        self._new: list[Version] = []
        self._replaced: dict[int, Version] = {}
        self._own: list[int] = []  # seqs, in the order of the own journal
        self._copied: list[tuple[bytes, int, int]] = []  # site, number, seq
        query = select(folders.c.seq).where(folders.c.row == folder).with_for_update()
        self._seq: int = connection.execute(query).scalar_one()
        self._head = self._journal_head()
        self.before = self._head
        self.copies = 0  # conflict copies that came about

    @property
    def head(self) -> int:
        """The site's last journal number, with what was added."""
        return self._head + len(self._own)

    def load(self, wanted: Iterable[bytes]) -> None:
        """Read paths, so that `node` need not ask for each by itself."""
        missing = []
        for path in wanted:  # and what is above it, which is needed next
            while path and path not in self._nodes:
                self._nodes[path] = Node(path)
                missing.append(path)
                path = pathnames.parent(path)  # noqa: PLW2901 - upwards
        keys = {path_key(path) for path in missing} if self._seq else ()
        where, columns = {paths.c.folder: self._folder}, _PATH_COLUMNS
        rows: dict[Node, list[int]] = {}
        for row, path, best, packed in find_rows(
            self._connection, columns, where, paths.c.path_key, keys
        ):
            node = self._nodes.get(path)
            if node is not None and not node.row and not node.touched:
                node.row = row
                rows[node] = take_varints(packed, 0) if packed else [best]
        self._load_heads(rows)

    def node(self, path: bytes) -> Node:
        """A path as it is now."""
        if path not in self._nodes:
            self.load([path])
        return self._nodes[path]

    def unfounded(self, path: bytes, sound: set[bytes]) -> list[bytes]:
        """Paths above a live one that are no directories.  `sound` remembers those that are."""
        wrong = []
        above = pathnames.parent(path)
        while above and above not in sound:
            if self.node(above).is_directory:
                sound.add(above)
                break  # and what is above it was seen to when it became one
            wrong.append(above)
            above = pathnames.parent(above)
        return wrong

    def add(self, version: Version) -> bool:
        """A new version.  False where it does not change the path.

        What follows from it is made by `write`: what is to be added may still change it.
        """
        merged = merge(self.node(version.path).heads, version)
        self._record(version)
        if merged.added:
            self._set_heads(self._nodes[version.path], merged.heads)
        return merged.added

    def recall(self, dots: Iterable[Dot]) -> None:
        """Read which versions of these dots are here, for `copy`."""
        counters: dict[bytes, list[int]] = {}
        for device, counter in dots:
            counters.setdefault(device, []).append(counter)
        for device, wanted in counters.items():
            where = {versions.c.folder: self._folder, versions.c.device: device}
            rows = find_rows(self._connection, VERSION_COLUMNS, where, versions.c.counter, wanted)
            for row in rows:
                version = version_of(row)
                self._known[version.dot] = version
                self._seqs[version.dot] = row[0]

    def copy(self, origin: bytes, number: int, version: Version) -> None:
        """An entry of another site's journal, whose dot `recall` was asked about."""
        known = self._known.get(version.dot)
        if known is None:
            merged = merge(self.node(version.path).heads, version)
            self._record(version, own=False)
            if merged.added:
                self._set_heads(self._nodes[version.path], merged.heads)
        elif not same_version(known, version):
            self._part(known, version)
        self._copied.append((origin, number, self._seqs[version.dot]))

    def _part(self, known: Version, version: Version) -> None:
        """A version that comes with a dot which is taken."""
        keeper, parted = twins(known, version)
        if keeper != known:
            self._replace(known, keeper)
        for twin in parted:
            self._derive(twin)

    def _replace(self, known: Version, keeper: Version) -> None:
        """The dot stands for another version from now on."""
        node = self.node(known.path)
        kept = tuple(head for head in node.heads if head.dot != known.dot)
        if len(kept) < len(node.heads):
            self._set_heads(node, kept)
        self._replaced[self._seqs[known.dot]] = self._known[known.dot] = keeper
        node = self.node(keeper.path)
        self._set_heads(node, merge(node.heads, keeper).heads)

    def _settle(self) -> None:
        """Add the versions that follow from what the paths became, until nothing new comes of it:
        conflict copies, and directories where something lives in what is none.
        """
        queue = [path for path, node in self._nodes.items() if node.touched]
        sound = {b""}
        while queue:
            node = self.node(queue.pop())
            crowded = not node.is_directory and self._has_children(node)
            if crowded or len(node.heads) > 1:
                follow = settle(node.path, node.heads, crowded)
                queue += [version.path for version in follow if self._derive(version)]
            if pathnames.parent(node.path) not in sound and node.live:
                queue += self.unfounded(node.path, sound)

    def _derive(self, version: Version) -> bool:
        """A version that follows from others: made once, whoever makes it."""
        node = self.node(version.path)
        merged = merge(node.heads, version)
        if not merged.added or self._is_here(version.dot):
            return False
        self._record(version)
        self._set_heads(node, merged.heads)
        self.copies += version.live and is_conflict_copy(version.path)
        return True

    def _is_here(self, dot: Dot) -> bool:
        if dot not in self._seqs:
            self.recall([dot])
        return dot in self._seqs

    def _set_heads(self, node: Node, heads: tuple[Version, ...]) -> None:
        if not node.touched:
            node.before, node.touched = node.winner, True
        node.heads = heads
        self._children.setdefault(pathnames.parent(node.path), set()).add(node.path)

    def _record(self, version: Version, *, own: bool = True) -> None:
        self._new.append(version)
        self._known[version.dot] = version
        self._seqs[version.dot] = seq = self._seq + len(self._new)
        if own:
            self._own.append(seq)

    def _has_children(self, node: Node) -> bool:
        """Whether anything lives directly in a path, with what this transaction did."""
        touched = self._children.get(node.path, ())
        if touched and any(self._nodes[child].live for child in touched):
            return True
        if node.before is None or node.before.kind != Kind.DIRECTORY:
            return False  # nothing lived in it before
        query = select(paths.c.path).where(
            paths.c.parent_key == path_key(node.path),
            paths.c.folder == self._folder,
            paths.c.live == 1,
        )
        return any(
            bytes(child) not in touched and pathnames.parent(bytes(child)) == node.path
            for (child,) in self._connection.execute(query)
        )

    def _journal_head(self) -> int:
        query = select(journals.c.head).where(
            journals.c.folder == self._folder, journals.c.site == self.site
        )
        return int(self._connection.execute(query).scalar() or 0)

    def _load_heads(self, rows: dict[Node, list[int]]) -> None:
        seqs = {seq: node for node, wanted in rows.items() for seq in wanted}
        where = {versions.c.folder: self._folder}
        for row in find_rows(self._connection, VERSION_COLUMNS, where, versions.c.seq, seqs):
            version = version_of(row)
            self._seqs[version.dot] = row[0]
            node = seqs[row[0]]
            node.heads = tuple(sorted((*node.heads, version), key=lambda head: head.dot))

    # --- writing

    def write(self) -> None:
        """Write all that was added, and what follows from it."""
        if not self._new and not self._copied:
            return
        self._settle()
        touched = [node for node in self._nodes.values() if node.touched]
        rows = [self._version_row(seq, v) for seq, v in enumerate(self._new, self._seq + 1)]
        insert_many(self._connection, versions, _VERSION, rows)
        self._write_replaced()
        insert_many(self._connection, journal, _JOURNAL, self._journal_rows())
        self._write_paths(touched)
        self._write_folder(touched)
        if self._own:
            self.reach(self.site, self.head)

    def reach(self, origin: bytes, number: int) -> None:
        """A journal is here up to this number."""
        write_journal_head(self._connection, self._folder, origin, number)

    def _write_replaced(self) -> None:
        for seq, version in self._replaced.items():
            mine = (versions.c.folder == self._folder, versions.c.seq == seq)
            row = dict(zip(_VERSION, self._version_row(seq, version), strict=True))
            self._connection.execute(update(versions).where(*mine).values(row))

    def _version_row(self, seq: int, version: Version) -> tuple[Any, ...]:
        path, (device, counter) = version.path, version.dot
        return (
            self._folder, seq, path_key(path), path, device, counter, version.vector.pack(),
            version.time, int(version.kind), version.hash, version.size, version.mode,
            version.mtime_ns, version.target, version.author, version.key_id, self._now,
        )  # fmt: skip

    def _journal_rows(self) -> list[tuple[Any, ...]]:
        folder, site = self._folder, self.site
        own = [(folder, site, number, seq) for number, seq in enumerate(self._own, self._head + 1)]
        return own + [(folder, *copied) for copied in self._copied]

    def _write_paths(self, touched: list[Node]) -> None:
        fresh = [(*self._place(node), *self._standing(node)) for node in touched if not node.row]
        known = [(node.row, *self._standing(node)) for node in touched if node.row]
        insert_many(self._connection, paths, _PLACE + _STANDING, fresh)
        if known:
            change = update(paths).where(paths.c.id == bindparam("row"))
            change = change.values({name: bindparam(f"new_{name}") for name in _STANDING})
            keys = ("row", *(f"new_{name}" for name in _STANDING))
            self._connection.execute(change, [dict(zip(keys, row, strict=True)) for row in known])

    def _place(self, node: Node) -> tuple[Any, ...]:
        """What a path is found by."""
        path = node.path
        return self._folder, path_key(path), path_key(pathnames.parent(path)), path

    def _standing(self, node: Node) -> tuple[Any, ...]:
        """What has become of a path."""
        heads = node.heads
        best, packed = winner(heads), bytearray()
        if len(heads) > 1:
            for head in heads:
                put_varint(packed, self._seqs[head.dot])
        known = context(heads) if len(heads) > 1 else best.vector
        return self._seqs[best.dot], bytes(packed), known.pack(), int(best.live)

    def _write_folder(self, touched: list[Node]) -> None:
        files = size = 0
        for node in touched:
            after, before = node.winner, node.before
            if after is not None and after.kind is Kind.FILE:
                files, size = files + 1, size + after.size
            if before is not None and before.kind is Kind.FILE:
                files, size = files - 1, size - before.size
        self._connection.execute(
            update(folders)
            .where(folders.c.row == self._folder)
            .values(
                seq=self._seq + len(self._new),
                files=folders.c.files + files,
                bytes=folders.c.bytes + size,
            )
        )


def site_id(connection: Connection) -> bytes:
    """The site's id now: one whose disk went back in time takes a new one while it runs."""
    return bytes(connection.execute(_SITE).scalar_one())


def write_journal_head(connection: Connection, folder: int, site: bytes, number: int) -> None:
    """A site's journal of the folder is here up to this number."""
    where = (journals.c.folder == folder, journals.c.site == site)
    if not connection.execute(update(journals).where(*where).values(head=number)).rowcount:
        connection.execute(insert(journals).values(folder=folder, site=site, head=number))
