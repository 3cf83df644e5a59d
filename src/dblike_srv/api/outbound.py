"""What a view answers with: messages by Accept, and streams in large pieces."""

from __future__ import annotations

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
    first = next(pieces, b"")
    second = next(pieces, None) if length is None and len(first) < GATHER else b""
    if second is None:
        return Response(first, status, headers, content_type=media)
    response = Response(_chain(first, pieces), status, headers, content_type=media)
    if length is not None:
        response.content_length = length
    return response


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def gathered(parts: Iterable[Part], size: int = GATHER) -> Iterator[bytes]:
    """The same bytes in pieces of about `size`; parts that are large go through uncopied."""
    held: list[Part] = []
    total = 0
    for part in parts:
        held.append(part)
        total += len(part)
        if total >= size:
            yield _joined(held)
            held, total = [], 0
    if total:
        yield _joined(held)


def _joined(held: list[Part]) -> bytes:
    if len(held) == 1 and isinstance(held[0], bytes):
        return held[0]
    return b"".join(held)
