"""A site that has the cluster's key, and lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from dblike_delta.changeset import Decoder, Encoder, Event
from dblike_delta.exchange import Request
from dblike_delta.messages import MSGPACK_TYPE, CursorMark, JournalMark, Record, Refusal, Trailer
from rig.wsgi import WsgiTransport

Lie = Callable[[Any], Any]


class Said:
    """A reply with another body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {k: v for k, v in headers.items() if k != "content-length"}
        self._body = body

    def chunks(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        pass


class Liar:
    """Carries requests to a real site; what comes back is changed by the lies.

    A lie is known by the end of its path.  It is given what the site said, decoded: a message as
    plain values, a changeset as a list of events; and gives what to say instead.
    """

    def __init__(self, app: Any, **lies: Lie) -> None:
        self._inner = WsgiTransport(app)
        self.lies = lies

    def request(self, request: Request) -> Any:
        reply = self._inner.request(request)
        lie = self.lies.get(request.target.partition("?")[0].rpartition("/")[2])
        if lie is None or reply.status >= 300:
            return reply
        body = b"".join(reply.chunks())
        if reply.headers.get("content-type") == MSGPACK_TYPE:
            said = msgspec.msgpack.encode(lie(msgspec.msgpack.decode(body)))
        else:
            said = encode(lie(decode(body)))
        return Said(reply.status, reply.headers, said)

    def close(self) -> None:
        pass


def decode(body: bytes) -> list[Event]:
    """A changeset's events; bodies are copied."""
    found: list[Event] = []
    for event in Decoder().receive(body):
        data = getattr(event, "data", None)
        found.append(event if data is None else msgspec.structs.replace(event, data=bytes(data)))
    return found


def encode(events: list[Event]) -> bytes:
    """The changeset of these events."""
    encoder, parts = Encoder(), []
    for event in events:
        match event:
            case Record():
                parts += encoder.record(event)
            case Trailer():
                parts += encoder.trailer(event)
            case Refusal():
                parts += encoder.refusal(event)
            case CursorMark():
                parts += encoder.cursor(event)
            case JournalMark():
                parts += encoder.journal(event)
            case _ if hasattr(event, "data"):
                parts += encoder.data(event.data)
            case _:
                pass
    return b"".join(bytes(part) for part in parts + encoder.finish())
