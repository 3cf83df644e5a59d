"""Copies grow into the literals beside them, and the new file stays what it was."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from dblike_delta import trim
from dblike_delta.commands import Copy, Literal
from dblike_delta.formats import encode_commands
from edits import applied, commands_for, literal_bytes, noise, pairs, signed

OLD = noise(1, 300_000)


@given(pairs(), st.sampled_from([16, 64, 200, 512]))
def test_the_new_file_stays_the_same(pair: tuple[bytes, bytes], block: int) -> None:
    old, new = pair
    commands = commands_for(signed(old, block), new)
    trimmed = list(trim(commands, io.BytesIO(old)))
    assert applied(old, trimmed) == new
    assert literal_bytes(trimmed) <= literal_bytes(commands)


def test_long_literals_are_trimmed_at_both_ends() -> None:
    new = OLD[:1500] + noise(2, 1_000_000) + OLD[1500:]
    trimmed = list(trim(commands_for(signed(OLD, 2048), new), io.BytesIO(OLD)))
    assert applied(OLD, trimmed) == new
    assert literal_bytes(trimmed) == 1_000_000


def test_an_inserted_byte_costs_tens_of_bytes() -> None:
    new = OLD[:150_000] + b"!" + OLD[150_000:]
    trimmed = list(trim(commands_for(signed(OLD, 2048), new), io.BytesIO(OLD)))
    assert trimmed == [Copy(0, 150_000), Literal(b"!"), Copy(150_000, 150_000)]
    assert len(encode_commands(trimmed)) < 40


def test_an_overwritten_byte_costs_itself() -> None:
    new = OLD[:1000] + bytes([OLD[1000] ^ 1]) + OLD[1001:]
    trimmed = list(trim(commands_for(signed(OLD, 2048), new), io.BytesIO(OLD)))
    assert literal_bytes(trimmed) == 1


def test_a_removed_byte_costs_nothing() -> None:
    new = OLD[:150_000] + OLD[150_001:]
    trimmed = list(trim(commands_for(signed(OLD, 2048), new), io.BytesIO(OLD)))
    assert trimmed == [Copy(0, 150_000), Copy(150_001, 149_999)]
