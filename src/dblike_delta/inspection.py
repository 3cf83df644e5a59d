"""What a signature or a delta holds, in words and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dblike_delta.delta import Delta
from dblike_delta.formats import Magic
from dblike_delta.signature import Signature
from dblike_delta.streams import Readable, read_up_to

_NAMES = {
    Magic.MD4: "librsync signature, rollsum and MD4",
    Magic.BLAKE2: "librsync signature, rollsum and BLAKE2",
    Magic.RK_MD4: "librsync signature, RabinKarp and MD4",
    Magic.RK_BLAKE2: "librsync signature, RabinKarp and BLAKE2",
    Magic.XXH3: "DBLike signature, anchors and XXH3-128",
}


class _Prefixed:
    """A file whose first bytes were read already."""

    def __init__(self, head: bytes, file: Readable) -> None:
        self._head, self._file = head, file

    def read(self, size: int, /) -> bytes | None:
        if self._head:
            part, self._head = self._head[:size], self._head[size:]
            return part
        return self._file.read(size)


def inspect(file: Readable) -> dict[str, Any]:
    """The fields of a signature or of a delta, whichever the file is; DeltaError where neither."""
    head = read_up_to(file, 4)
    whole = _Prefixed(head, file)
    if head == Magic.DELTA.to_bytes(4, "big"):
        return dict(_delta_fields(whole))
    return dict(_signature_fields(whole))


def _signature_fields(file: Readable) -> Iterator[tuple[str, Any]]:
    signature = Signature.load(file)
    header = signature.header
    yield "kind", _NAMES[header.magic]
    yield "block size", header.block_size
    yield "strong sum", header.strong_size
    yield "blocks", signature.blocks
    yield "bytes", len(signature.pack())
    if header.size is not None:
        yield "base size", header.size
        yield "base hash", header.hash.hex() or "not given"


def _delta_fields(file: Readable) -> Iterator[tuple[str, Any]]:
    with Delta.load(file) as delta:
        yield "kind", "librsync delta"
        yield "commands", delta.commands
        yield "copied", delta.copied
        yield "literal", delta.literal
        yield "new size", delta.size
        yield "bytes", delta.encoded
