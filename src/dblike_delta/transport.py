"""What carries the protocol's requests, and how their replies are read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

import msgspec

from dblike_delta import messages as m
from dblike_delta import zstd
from dblike_delta.changeset import Part
from dblike_delta.decoding import read_json, unpack
from dblike_delta.errors import DeltaError, FormatError

_T = TypeVar("_T")
_LARGEST_MESSAGE = 64 << 20
_LONGEST_RETRY = 3600.0
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, DeltaError)
"""What reading a reply that is no message raises."""


class Request(msgspec.Struct, frozen=True):
    """A request: `target` is path and query, `length` the body's bytes where they are known."""

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: bytes | Iterable[Part] | None = None
    length: int | None = None


class Response(Protocol):
    """A reply whose body is read as it comes.  `close` may be called at any time, and twice."""

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces; Unreachable where it is cut short."""

    def close(self) -> None:
        """Give the connection back, or drop it where the body was not read to its end."""


class Transport(Protocol):
    """Carries requests to a site.  Header names of replies are lower case."""

    def request(self, request: Request) -> Response:
        """Send and wait for the reply's head; raises Unreachable."""


class ExchangeError(Exception):
    """A step failed.  Nothing was changed by it unless the step says otherwise."""


class Unreachable(ExchangeError):
    """No reply, or a reply that was cut: try again, here or at another site.  The request may have
    been carried out; every step may be repeated."""


class Refused(ExchangeError):
    """The site answered no.  `problem` says why; `retry_after` is in seconds."""

    def __init__(self, problem: m.Problem, retry_after: float | None = None) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem
        self.status = problem.status
        self.retry_after = retry_after

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (408, 425, 429, 500, 502, 503, 504)


def _body(reply: Response) -> bytes:
    body = bytearray()
    with contextlib.closing(reply):
        for chunk in reply.chunks():
            body += chunk
            if len(body) > _LARGEST_MESSAGE:
                raise FormatError("a reply larger than any message", offset=len(body))
    if reply.headers.get("content-encoding") == zstd.ENCODING:
        return zstd.unpack(bytes(body), _LARGEST_MESSAGE)
    return bytes(body)


def read_message(reply: Response, kind: type[_T]) -> _T:
    """The reply as a message.  Anything else (a proxy's page) is never taken for an answer."""
    media = reply.headers.get("content-type", "").split(";")[0].strip()
    try:
        body = _body(reply)
        if media == m.MSGPACK_TYPE:
            return unpack(body, kind)
        if media == "application/json":
            return read_json(body, kind)
    except _UNREADABLE as error:
        raise Unreachable(f"the reply is not a {kind.__name__}: {error}") from None
    raise Unreachable(f"the reply is {media or 'of no type'}, not ours: is that a DBLike server?")


def retry_after(reply: Response) -> float | None:
    """Seconds after which a site says that it may be asked again, as far as anyone waits for that:
    a number of many digits would be more than a clock has."""
    said = reply.headers.get("retry-after", "")
    return min(float(said), _LONGEST_RETRY) if said.isdecimal() else None


def refusal(reply: Response) -> Refused | Unreachable:
    """The error that a reply of status 3xx-5xx stands for.

    An answer that is not a problem of ours comes from something in between, and says nothing about
    the user's data or credentials: it is as if the site could not be reached.
    """
    media = reply.headers.get("content-type", "").split(";")[0].strip()
    try:
        body = _body(reply)
        if not body and reply.headers.get(m.PROTOCOL_HEADER.lower()):  # HEAD has no body
            return Refused(m.Problem(title="refused", status=reply.status))
        if media == "application/problem+json":
            problem = read_json(body, m.Problem)
            return Refused(problem, retry_after(reply))
    except _UNREADABLE as error:
        return Unreachable(f"status {reply.status} with an unreadable problem: {error}")
    return Unreachable(f"status {reply.status} that is not a DBLike server's")
