"""What a view answers with: messages by Accept, and streams in large pieces."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import msgspec
from flask import Response, request

from dblike_delta import zstd
from dblike_delta.changeset import Part
from dblike_delta.messages import CHANGESET_TYPE, MSGPACK_TYPE
from dblike_srv.api.inbound import JSON_TYPE

GATHER = 512 << 10
"""Bytes of a piece that is given to the server at once: small ones cost a system call each."""
COMPRESSED = 1 << 10
"""Messages from so many bytes on are compressed for those who can read that."""


def reply(message: msgspec.Struct, status: int = 200) -> Response:
    """A message as JSON, or as MessagePack where that is asked for, which may be compressed."""
    if not wants(MSGPACK_TYPE):
        return Response(msgspec.json.encode(message), status, content_type=JSON_TYPE)
    body, headers = msgspec.msgpack.encode(message), {"Vary": "Accept-Encoding"}
    if len(body) >= COMPRESSED and request.accept_encodings.quality(zstd.ENCODING):
        body, headers["Content-Encoding"] = zstd.pack(body), zstd.ENCODING
    return Response(body, status, headers, content_type=MSGPACK_TYPE)


def wants(media: str) -> bool:
    """Whether `media` is asked for, rather than JSON."""
    return request.accept_mimetypes.best_match((JSON_TYPE, media), JSON_TYPE) == media


def nothing(status: int = 204) -> Response:
    """Done, and there is nothing to say."""
    return Response(status=status)


def stream(
    parts: Iterable[Part],
    *,
    media: str = CHANGESET_TYPE,
    status: int = 200,
    headers: dict[str, str] | None = None,
    length: int | None = None,
) -> Response:
    """A body that is made while it is sent.

    The first piece is made before the head goes out, so that an error in it is still a problem; a
    body that is all in it is sent with its length.
    """
    pieces = gathered(parts)
    first = list(itertools.islice(pieces, 2))
    if length is None and len(first) < 2:
        return Response(b"".join(first), status, headers, content_type=media)
    body = itertools.chain(first, pieces)
    response = Response(body, status, headers, content_type=media)
    if length is not None:
        response.content_length = length
    return response


def gathered(parts: Iterable[Part], size: int = GATHER) -> Iterator[bytes]:
    """The same bytes in pieces of about `size`; large parts go through uncopied where they can."""
    held: list[Part] = []
    total = 0
    for part in parts:
        large = whole(part) if len(part) >= size else None
        if large is not None:
            if total:
                yield b"".join(held)
                held, total = [], 0
            yield large
            continue
        held.append(part)
        total += len(part)
        if total >= size:
            yield b"".join(held)
            held, total = [], 0
    if total:
        yield b"".join(held)


def whole(part: Part) -> bytes | None:
    """The bytes object that a part is, or is a view of all of."""
    under = part.obj if isinstance(part, memoryview) else part
    return under if isinstance(under, bytes) and len(under) == len(part) else None
