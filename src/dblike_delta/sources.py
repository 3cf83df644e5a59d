"""Contents named by versions: a file that moved needs no hash where both sides hold what it was.

Whoever sends records puts one `Sources` before them, and leaves hash and size out of as many of
them: these hold, in their order, the contents of the versions that it names.  Its sum is over the
hashes that were left out, so a version that is another content on the other side is noticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from blake3 import blake3
from msgspec.structs import replace

from dblike_delta.errors import DeltaError, LimitError
from dblike_delta.messages import Record, Sources
from dblike_delta.vectors import MAX_COUNTER, Dot
from dblike_delta.versions import Kind

MOST: Final = 100_000
"""Versions that one list may name."""


class Content(NamedTuple):
    """What a file is."""

    hash: bytes
    size: int


class SourcesUnknown(DeltaError):
    """Named versions that are not here, or other contents here: ask for hashes."""


def lacks_content(record: Record) -> bool:
    """Whether the record leaves its content to a source."""
    return record.kind == Kind.FILE and not record.hash and not record.body


def without_content(record: Record) -> Record:
    """The record as it travels behind a source."""
    return replace(record, hash=b"", size=0)


def with_content(record: Record, content: Content) -> Record:
    """The record as it is."""
    return replace(record, hash=content.hash, size=content.size)


def name_sources(named: Iterable[tuple[Dot, bytes]]) -> Sources:
    """The list of these versions, each with its content hash."""
    runs: list[tuple[bytes, int, int]] = []
    hasher = blake3()
    for (device, counter), digest in named:
        hasher.update(digest)
        last = runs[-1] if runs else (b"", 0, 0)
        if last[0] == device and last[1] + last[2] == counter:
            runs[-1] = (device, last[1], last[2] + 1)
        else:
            runs.append((device, counter, 1))
    return Sources(runs, hasher.digest())


def dots_of(sources: Sources) -> list[Dot]:
    """The versions that are named; raises LimitError before a list becomes larger than allowed, and
    SourcesUnknown for numbers that no version has."""
    if sum(count for _, _, count in sources.runs) > MOST:
        raise LimitError(f"more than {MOST} sources")
    if any(first + count - 1 > MAX_COUNTER for _, first, count in sources.runs):
        raise SourcesUnknown("a source beyond the last number that a version can have")
    return [Dot(device, first + n) for device, first, count in sources.runs for n in range(count)]


def contents_of(sources: Sources, held: Mapping[Dot, Content]) -> list[Content]:
    """The contents that are named, of those that are held; raises SourcesUnknown."""
    hasher = blake3()
    found: list[Content] = []
    for dot in dots_of(sources):
        content = held.get(dot)
        if content is None:
            raise SourcesUnknown("a source that is not held here")
        hasher.update(content.hash)
        found.append(content)
    if hasher.digest() != sources.sum:
        raise SourcesUnknown("the sources are other contents here")
    return found


def fill(records: Sequence[Record], contents: Sequence[Content]) -> list[Record]:
    """The records, each that lacks a content with its own; raises SourcesUnknown where there are
    not just as many."""
    if sum(map(lacks_content, records)) != len(contents):
        raise SourcesUnknown("not as many sources as records without a content")
    rest = iter(contents)
    return [with_content(r, next(rest)) if lacks_content(r) else r for r in records]
