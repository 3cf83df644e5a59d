"""Replies of whoever answers at a site's address: what is no message is as if nobody had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import pytest

from dblike_delta import messages as m
from dblike_delta.exchange import Exchange, Refused, Request, Response, Unreachable
from dblike_delta.transport import read_message, refusal

JSON = "application/json"
PROBLEM = "application/problem+json"
DEEP = 100_000


class Reply:
    """One that is at hand."""

    def __init__(
        self, body: bytes, media: str, status: int = 200, headers: Mapping[str, str] = {}
    ) -> None:
        self.status, self._body = status, body
        self.headers: Mapping[str, str] = {"content-type": media, **headers}

    def chunks(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        pass


class Answers:
    """A transport that always gets the same reply."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def request(self, request: Request) -> Response:
        return self._reply


NO_MESSAGES = [
    (b'{"time": 1, "more": ' + b"[" * DEEP + b"]" * DEEP + b"}", JSON),
    (b"\x82\xa4time\x01\xa4more" + b"\x91" * DEEP + b"\xc0", m.MSGPACK_TYPE),
    (b'{"time": "noon"}', JSON),
]


@pytest.mark.parametrize(("body", "media"), NO_MESSAGES)
def test_what_is_no_message_is_no_answer(body: bytes, media: str) -> None:
    with pytest.raises(Unreachable):
        read_message(Reply(body, media), m.TimeReply)


def test_text_that_is_none_is_no_answer() -> None:
    body = msgspec.msgpack.encode({"token": "?", "user": "u"}).replace(b"?", b"\xff")
    with pytest.raises(Unreachable):
        read_message(Reply(body, m.MSGPACK_TYPE), m.LoginReply)


@pytest.mark.parametrize("body", [b'{"title": "\xff", "status": 400}', b'{"x":' + b"[" * DEEP])
def test_a_problem_that_can_not_be_read_is_no_refusal(body: bytes) -> None:
    assert isinstance(refusal(Reply(body, PROBLEM, 400)), Unreachable)


@pytest.mark.parametrize(
    ("said", "wait"),
    [("7", 7.0), ("", None), ("soon", None), ("9" * 20, 3600.0), ("9" * 400, 3600.0)],
)
def test_nobody_waits_for_ever(said: str, wait: float | None) -> None:
    body = b'{"title": "busy", "status": 503}'
    error = refusal(Reply(body, PROBLEM, 503, {"retry-after": said}))
    assert isinstance(error, Refused)
    assert error.retry_after == wait


@pytest.mark.parametrize("said", ["", "far", "-1", "9" * 5000])
def test_an_offset_that_is_none_is_no_answer(said: str) -> None:
    exchange = Exchange(Answers(Reply(b"", JSON, headers={"upload-offset": said})))
    with pytest.raises(Unreachable):
        exchange.upload_offset("home", "0" * 32)


def test_a_time_that_is_none_is_not_taken() -> None:
    stamp = {m.TIME_HEADER.lower(): "9" * 5000}
    exchange = Exchange(Answers(Reply(b'{"time": 5}', JSON, headers=stamp)))
    assert exchange.time() == 5
    assert exchange.server_time is None
