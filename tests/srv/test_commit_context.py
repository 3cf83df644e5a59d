"""What a device may say that it knows, after its commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from dblike_delta.exchange import Exchange
from dblike_delta.messages import LoginRequest
from rig.writer import Writer
from rig.wsgi import WsgiTransport

if TYPE_CHECKING:
    from flask import Flask

USER, PASSWORD = "ada", "correct horse"


class Knowing(Writer):
    """A writer that says what it knows, and when it wrote."""

    context = b""
    time = 0

    def record(self, path: bytes, content: bytes):
        made = super().record(path, content)
        return msgspec.structs.replace(made, context=self.context, time=self.time)


@pytest.fixture
def two(app: Flask, exchange: Exchange) -> tuple[Knowing, Knowing]:
    other = Exchange(WsgiTransport(app.wsgi_app))
    other.login(LoginRequest(user=USER, password=PASSWORD, device="phone", device_id="b2" * 16))
    return (
        Knowing(exchange, bytes.fromhex("a1" * 16)),
        Knowing(other, bytes.fromhex("b2" * 16)),
    )


def test_an_edit_made_before_the_winner_was_seen_does_not_replace_it(
    two: tuple[Knowing, Knowing],
) -> None:
    """Nothing is lost: one more edit of a loser is no answer to the winner."""
    one, other = two
    one.time, other.time = 2000, 1000
    one.write({b"f": b"the winner"})
    (result,) = other.write({b"f": b"the loser"}).results
    assert result.superseded
    other.context, other.time = result.context, 3000
    (result,) = other.write({b"f": b"the loser, edited"}).results
    assert not result.superseded
    records = one.exchange.changes("home").records
    sizes = {record.size for record in records}
    assert len(records) == 3
    assert sizes == {len(b"the winner"), len(b"the loser"), len(b"the loser, edited")}


def test_after_that_an_edit_answers_all_that_there_was(two: tuple[Knowing, Knowing]) -> None:
    one, other = two
    one.time, other.time = 1000, 2000
    one.write({b"f": b"first"})
    (result,) = other.write({b"f": b"second"}).results
    assert not result.superseded
    other.context, other.time = result.context, 0
    (result,) = other.write({b"f": b"third"}).results
    assert not result.superseded
    assert len(other.exchange.changes("home").records) == 2
