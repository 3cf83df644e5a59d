"""A version on its way up: what it is made from, and its record and body in a changeset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from dblike_cli.context import Context
from dblike_cli.signatures import load_signature
from dblike_cli.state import Sending
from dblike_delta.changeset import Encoder, Part
from dblike_delta.commands import Command, Copy
from dblike_delta.delta import DeltaEncoder
from dblike_delta.formats import DELTA_MAGIC, END, encode_copy, encode_literal_header
from dblike_delta.messages import Record, Sources, Trailer
from dblike_delta.plan import Entry, Upload
from dblike_delta.signature import Signature
from dblike_delta.sources import name_sources, without_content
from dblike_delta.vectors import handed_out
from dblike_delta.versions import Dot, Kind

_JOIN_BELOW: Final = 256 << 10
"""A body up to this size goes in one frame, which the site takes at once."""


class Outgoing(msgspec.Struct, frozen=True):
    """What is to be sent.

    `stamp` is what lstat said when the content was read, `trusted` the stamp to remember for it;
    `data` is the content of a small file.  `body` says that the content goes along, `again` that
    its dot was sent before.
    """

    upload: Upload
    entry: Entry | None
    stamp: bytes = b""
    trusted: bytes = b""
    data: bytes | None = None
    body: bool = False
    sending: Sending | None = None
    again: bool = False

    @property
    def large(self) -> bool:
        """Whether its content is streamed."""
        return self.body and self.data is None

    @property
    def path(self) -> bytes:
        """Where it is."""
        return self.upload.path

    @property
    def dot(self) -> int:
        """The counter of its dot, which it has by now."""
        assert self.sending is not None
        return self.sending.counter


def dot_of(context: Context, item: Outgoing) -> Dot:
    """The version's identity."""
    return Dot(context.device.id, item.dot)


def base_signature(context: Context, item: Outgoing) -> Signature | None:
    """What a delta of it can be made against: the agreed content's signature, where it is kept."""
    base, entry = item.upload.base, item.entry
    if entry is None or base is None or base.kind is not Kind.FILE:
        return None
    if min(base.size, entry.size) < context.config.signature_from:
        return None
    return load_signature(context.fs, base.hash)


def record_for(context: Context, item: Outgoing, base: bytes = b"") -> Record:
    """The record of it; `base` is the content that its body is a delta against."""
    sending, entry = item.sending, item.entry
    assert sending is not None
    if entry is None:
        entry = Entry(Kind.DELETED)
    return Record(
        path=item.path,
        device=context.device.id,
        counter=sending.counter,
        time=sending.time,
        kind=int(entry.kind),
        hash=entry.hash,
        size=entry.size,
        mode=entry.mode,
        mtime_ns=entry.mtime_ns,
        target=entry.target,
        author=context.device.name,
        context=handed_out(item.upload.context),
        base=base,
        body=item.body,
    )


def name_contents(
    context: Context, batch: Sequence[Outgoing]
) -> tuple[Sources | None, frozenset[bytes]]:
    """Sources for what goes without its content and lies at another path of the folder, and the
    paths that are to go without their hashes."""
    bare = {item.path: item.entry.hash for item in batch if item.entry and _is_bare(item)}
    dots = context.state.tree.versions_of(bare.values()) if bare else {}
    named = [(path, digest) for path, digest in bare.items() if digest in dots]
    if not named:
        return None, frozenset()
    sources = name_sources((dots[digest], digest) for _, digest in named)
    return sources, frozenset(path for path, _ in named)


def _is_bare(item: Outgoing) -> bool:
    """Whether only the content's hash would go along."""
    return item.entry is not None and item.entry.kind is Kind.FILE and not item.body


def encode_item(
    context: Context, encoder: Encoder, item: Outgoing, *, whole: bool, named: bool = False
) -> list[Part]:
    """A version whose content is in memory, as parts of the changeset; `whole`: as no delta,
    `named`: a source says what it holds."""
    data, entry = item.data, item.entry
    if not item.body or data is None or entry is None:
        record = record_for(context, item)
        return encoder.record(without_content(record) if named else record)
    trailer = Trailer(entry.hash, entry.size)
    signature = None if whole else base_signature(context, item)
    if signature is None and len(data) <= _JOIN_BELOW:
        return encoder.whole(record_for(context, item), _literal(data), trailer)
    parts = encoder.record(record_for(context, item, signature.hash if signature else b""))
    for piece in _delta(data, signature):
        parts += encoder.data(piece)
    return parts + encoder.trailer(trailer)


def _delta(data: bytes, signature: Signature | None) -> Iterator[Part]:
    """The body that makes `data`, out of the signature's content where there is one."""
    if signature is None:
        yield from _literal(data)
        return
    search = DeltaEncoder(signature)
    yield DELTA_MAGIC
    yield from command_parts(search.update(data) + search.finish())
    yield END


def _literal(data: bytes) -> tuple[Part, ...]:
    """The body that makes `data` out of nothing."""
    if not data:
        return (DELTA_MAGIC + END,)
    return DELTA_MAGIC + encode_literal_header(len(data)), data, END


def command_parts(commands: list[Command]) -> Iterator[Part]:
    """Commands in librsync's format; small ones are put together, literals are not copied."""
    small = bytearray()
    for command in commands:
        if isinstance(command, Copy):
            small += encode_copy(*command)
            continue
        small += encode_literal_header(len(command.data))
        yield bytes(small)
        yield command.data
        small.clear()
    if small:
        yield bytes(small)
