"""Versions and their merge: what a path is, as a pure function of the set of its versions.

A version dominates another when its vector holds all that the other's holds, and more.  The heads
are the versions that nothing dominates; the winner of them owns the path, and each content that
would be lost by that gets a conflict copy.  Copies and directories that follow from a set of
versions are *derived* versions: every site makes the very same ones, and from then on they are
versions like any other, that can be edited and deleted.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

import msgspec
from blake3 import blake3

from dblike_delta import conflict_names
from dblike_delta.conflict_names import is_conflict_copy, original_path
from dblike_delta.vectors import DEVICE_BYTES, Dot, VersionVector, vector_in

__all__ = [
    "Dot",
    "Kind",
    "Merge",
    "Version",
    "VersionVector",
    "buried",
    "conflict_copy",
    "conflict_path",
    "context",
    "copies",
    "derived_dot",
    "directory_over",
    "dominates",
    "heads",
    "is_conflict_copy",
    "losers",
    "merge",
    "original_path",
    "same_content",
    "same_version",
    "settle",
    "twins",
    "vector_in",
    "winner",
]

DIRECTORY_MODE: Final = 0o755
"""What a directory gets that no device ever recorded."""


class Kind(enum.IntEnum):
    """What a path became."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    DELETED = 4


KINDS: Final = {int(kind): kind for kind in Kind}
"""By their numbers: `Kind(number)` takes five times as long, for every version that is read."""


class Version(msgspec.Struct, frozen=True):
    """What one device said a path became.  `vector` holds what the device knew, and the own dot."""

    path: bytes
    dot: Dot
    vector: VersionVector
    time: int
    kind: Kind
    hash: bytes = b""
    size: int = 0
    mode: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    author: str = ""
    key_id: bytes = b""

    @property
    def live(self) -> bool:
        """Whether the path exists by this version."""
        return self.kind != Kind.DELETED


class Merge(msgspec.Struct, frozen=True):
    """The heads after a version came, whether it changed them, and their conflict copies."""

    heads: tuple[Version, ...]
    added: bool
    copies: tuple[Version, ...] = ()


_HAS_CONTENT = frozenset((Kind.FILE, Kind.SYMLINK))
_by_dot = attrgetter("dot")
_by_age = attrgetter("time", "dot")


def same_content(a: Version, b: Version) -> bool:
    """Whether nobody could tell the two apart by what is in them."""
    return a.kind == b.kind and a.hash == b.hash and a.target == b.target


def same_version(a: Version, b: Version) -> bool:
    """Whether two versions of one dot say the same; if not, a device's counters were used twice."""
    return a == b


def dominates(newer: Version, older: Version) -> bool:
    """Whether `newer` was made with knowledge of `older`, and so replaces it.

    This compares whole vectors.  To look for the older one's dot alone would be the same for
    devices that never forget what they knew, but is no order for others: what a merge makes of
    their versions could then depend on which came first.
    """
    return (
        newer.vector.knows(older.dot)
        and older.vector <= newer.vector
        and older.vector != newer.vector
    )


def merge(heads: tuple[Version, ...], version: Version) -> Merge:
    """The heads with one more version: the same in whatever order, however often they come."""
    merged = _add(heads, version)
    if merged is heads:
        return Merge(heads, False)
    return Merge(merged, True, copies(merged) if len(merged) > 1 else ())


def heads(versions: Iterable[Version]) -> tuple[Version, ...]:
    """The versions of one path that no other of them dominates, sorted by dot."""
    found: tuple[Version, ...] = ()
    for version in versions:
        found = _add(found, version)
    return found


def winner(heads: Sequence[Version]) -> Version:
    """The head that owns the path: the youngest live one, or the youngest if all are deletes."""
    if len(heads) == 1:
        return heads[0]
    return max([head for head in heads if head.live] or heads, key=_by_age)


def buried(versions: Sequence[Version]) -> Version | None:
    """What a deleted path was before: the winner among what its last deletes replaced."""
    deletes = {version.dot for version in heads(versions)}
    before = heads(version for version in versions if version.dot not in deletes)
    if not any(version.live for version in before):  # a delete of what was deleted
        before = heads(version for version in versions if version.live)
    return winner(before) if before else None


def losers(heads: Sequence[Version]) -> tuple[Version, ...]:
    """The heads that need a conflict copy: one for each content that the winner hides."""
    if len(heads) < 2:
        return ()
    return _distinct(heads, hidden_by=winner(heads))


def copies(heads: Sequence[Version]) -> tuple[Version, ...]:
    """The conflict copies of these heads."""
    return tuple(map(conflict_copy, losers(heads)))


def context(heads: Iterable[Version]) -> VersionVector:
    """All that the heads know: an edit made with it dominates them all."""
    joined = VersionVector()
    for head in heads:
        joined = joined.join(head.vector) if joined else head.vector
    return joined


def conflict_copy(loser: Version) -> Version:
    """The version that keeps a loser's content, at a path of its own; derived from nothing else."""
    dot = _copy_dot(loser)
    return msgspec.structs.replace(
        loser,
        path=conflict_path(loser.path, loser),
        dot=dot,
        vector=VersionVector().with_dot(dot),
    )


def conflict_path(path: bytes, loser: Version) -> bytes:
    """Where the conflict copy of a loser at `path` goes."""
    tag = _copy_dot(loser).device.hex()[:8]
    return conflict_names.conflict_path(path, author=loser.author, time=loser.time, tag=tag)


def _copy_dot(loser: Version) -> Dot:
    # With the content: a dot that was used twice must not keep the second content from its copy.
    return derived_dot(b"dblike conflict copy" + loser.hash + loser.target, loser.dot)


def directory_over(path: bytes, heads: Sequence[Version]) -> Version:
    """The directory that a path becomes because something lives in it; dominates the heads."""
    directories = [head for head in heads if head.kind == Kind.DIRECTORY]
    dot = derived_dot(b"dblike directory" + path, *sorted(map(_by_dot, heads)))
    return Version(
        path=path,
        dot=dot,
        vector=context(heads).with_dot(dot),
        time=max((head.time for head in heads), default=0),
        kind=Kind.DIRECTORY,
        mode=winner(directories).mode if directories else DIRECTORY_MODE,
    )


def settle(path: bytes, heads: Sequence[Version], has_live_children: bool) -> tuple[Version, ...]:
    """All versions that follow from a path's heads.  Add them until nothing new comes of it.

    A path with live children is a directory whatever its heads say: these children were written by
    someone who did not know better, and nothing is lost.
    """
    if not has_live_children or (heads and winner(heads).kind == Kind.DIRECTORY):
        return copies(heads)
    displaced = tuple(map(conflict_copy, _distinct(heads)))
    return (*displaced, directory_over(path, heads))


def twins(one: Version, other: Version) -> tuple[Version, tuple[Version, ...]]:
    """Two versions of one dot: what the dot stands for from now on, and, where the two are not the
    same thing, each of them under a dot of its own.

    A device that was cloned makes them, at two sites that don't hear of each other.  Whoever edits
    one of them knew the dot, not the other one: so none rests on that dot alone.  In whatever order
    a site gets to see such versions, it ends with the same ones.
    """
    if _matter(one) == _matter(other):
        return _joined(one, other), ()
    first, second = sorted((one, other), key=_matter)
    return first, (_twin(first), _twin(second))


def _matter(version: Version) -> tuple[bytes, int, bytes, bytes]:
    """What would be lost with a version."""
    return version.path, int(version.kind), version.hash, version.target


def _joined(one: Version, other: Version) -> Version:
    """The same thing, said twice; the lesser of what else is said of it, and all that was known."""
    lesser = min(one, other, key=attrgetter("time", "mode", "mtime_ns", "author", "key_id"))
    return msgspec.structs.replace(lesser, vector=one.vector.join(other.vector))


def _twin(version: Version) -> Version:
    purpose = blake3(repr(_matter(version)).encode()).digest()
    dot = derived_dot(b"dblike twin" + purpose, version.dot)
    return msgspec.structs.replace(version, dot=dot, vector=version.vector.with_dot(dot))


def derived_dot(purpose: bytes, *dots: Dot) -> Dot:
    """The dot of a version that follows from the versions of these dots."""
    hasher = blake3(purpose)
    for device, counter in dots:
        hasher.update(device + counter.to_bytes(8, "big"))
    return Dot(hasher.digest(length=DEVICE_BYTES), 1)


def _add(heads: tuple[Version, ...], version: Version) -> tuple[Version, ...]:
    """The heads with one more version; the very same tuple where nothing changes."""
    if not heads or (len(heads) == 1 and dominates(version, heads[0])):
        return (version,)
    for head in heads:
        if head.dot == version.dot or dominates(head, version):
            return heads
    kept = [head for head in heads if not dominates(version, head)]
    return tuple(sorted([*kept, version], key=_by_dot))


def _distinct(heads: Sequence[Version], hidden_by: Version | None = None) -> tuple[Version, ...]:
    """The oldest file or symlink of each content, other than the content of `hidden_by`."""
    found: dict[tuple[Kind, bytes, bytes], Version] = {}
    for head in sorted(heads, key=_by_age):
        if head.kind in _HAS_CONTENT:
            found.setdefault((head.kind, head.hash, head.target), head)
    if hidden_by is not None:
        found.pop((hidden_by.kind, hidden_by.hash, hidden_by.target), None)
    return tuple(found.values())
