"""librsync's deltas, to bytes and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblike_delta.commands import Copy, End, Event, Literal, coalesce
from dblike_delta.errors import DeltaError, FormatError, LimitError
from dblike_delta.formats import (
    DELTA_MAGIC,
    END,
    DeltaDecoder,
    Magic,
    SignatureHeader,
    encode_command,
    encode_commands,
    encode_copy,
    encode_literal_header,
    pack_signature_header,
    unpack_signature_header,
)
from dblike_delta.limits import Limits

SIZES = st.integers(1, 70) | st.sampled_from([255, 256, 65535, 65536])
COPIES = st.builds(
    Copy,
    st.integers(0, 2**40) | st.sampled_from([255, 256, 65535, 65536, 2**32 - 1, 2**32]),
    st.integers(1, 2**40) | st.sampled_from([255, 256, 65535, 65536, 2**32 - 1, 2**32]),
)
COMMANDS = st.lists(COPIES | SIZES.map(lambda size: Literal(b"x" * size)), max_size=8)


def decode(data: bytes, step: int = 1 << 20, **limits: int) -> list[Event]:
    decoder = DeltaDecoder(**limits)
    events = [e for at in range(0, len(data), step) for e in decoder.feed(data[at : at + step])]
    decoder.finish()
    return events


def plain(events: list[Event]) -> list[Event]:
    return coalesce([event for event in events if not isinstance(event, End)])


@given(COMMANDS, st.integers(1, 50))
def test_what_is_written_is_read(commands: list[Event], step: int) -> None:
    events = decode(encode_commands(commands), step)
    assert events[-1] == End()
    assert plain(events) == plain(commands)


@given(COMMANDS)
def test_every_prefix_is_cut_short(commands: list[Event]) -> None:
    data = encode_commands(commands)
    for end in range(min(len(data), 300)):
        with pytest.raises(FormatError):
            decode(data[:end])


@pytest.mark.parametrize(
    ("command", "encoded"),
    [
        (Copy(0, 1), "45 00 01"),
        (Copy(255, 256), "46 ff 0100"),
        (Copy(256, 1), "49 0100 01"),
        (Copy(1, 65536), "47 01 00010000"),
        (Copy(2**32, 2**32), "54 0000000100000000 0000000100000000"),
        (Literal(b"a"), "01 61"),
        (Literal(b"b" * 64), "40" + "62" * 64),
        (Literal(b"c" * 65), "41 41" + "63" * 65),
        (Literal(b"d" * 256), "42 0100" + "64" * 256),
    ],
)
def test_a_command_is_as_short_as_can_be(command: Event, encoded: str) -> None:
    assert encode_command(command) == bytes.fromhex(encoded)
    assert plain(decode(DELTA_MAGIC + bytes.fromhex(encoded) + END)) == [command]


@pytest.mark.parametrize("wide", range(16))
def test_wider_parameters_than_needed_are_read(wide: int) -> None:
    at, long = (1, 2, 4, 8)[wide >> 2], (1, 2, 4, 8)[wide & 3]
    data = bytes([0x45 + wide]) + (7).to_bytes(at, "big") + (9).to_bytes(long, "big")
    assert decode(DELTA_MAGIC + data + END)[0] == Copy(7, 9)


def test_long_literals_come_out_in_pieces() -> None:
    decoder, size = DeltaDecoder(), 3 << 20
    events = decoder.feed(DELTA_MAGIC + encode_literal_header(size))
    assert events == []
    pieces = [event for _ in range(3) for event in decoder.feed(b"z" * (1 << 20))]
    assert [len(piece.data) for piece in pieces if isinstance(piece, Literal)] == [1 << 20] * 3
    assert decoder.feed(END) == [End()]


@pytest.mark.parametrize(
    ("data", "offset", "words"),
    [
        (b"", 0, "cut short"),
        (DELTA_MAGIC[:3], 3, "cut short"),
        (DELTA_MAGIC, 4, "cut short"),
        (b"\x36\x02\x73\x72", 0, "not a delta"),
        (b"rsXY", 0, "not a delta"),
        (Magic.RK_BLAKE2.to_bytes(4, "big") + b"\0" * 8, 0, "a signature"),
        (Magic.XXH3.to_bytes(4, "big") + b"\0" * 8, 0, "a signature"),
        (DELTA_MAGIC + END + b"x", 5, "after the end"),
        (DELTA_MAGIC + END + END, 5, "after the end"),
        (DELTA_MAGIC + b"\x01a" + b"\x55", 6, "reserved"),
        (DELTA_MAGIC + b"\xff", 4, "reserved"),
        (DELTA_MAGIC + b"\x41\x00", 4, "empty literal"),
        (DELTA_MAGIC + b"\x44" + b"\xff" * 7, 12, "cut short"),
        (DELTA_MAGIC + b"\x45\x00\x00", 4, "empty copy"),
        (DELTA_MAGIC + b"\x01a" + b"\x45\x63\x02", 6, "beyond"),
        (DELTA_MAGIC + b"\x54" + b"\xff" * 16, 4, "beyond"),
        (DELTA_MAGIC + b"\x54" + (2**63).to_bytes(8, "big") + b"\0" * 7 + b"\1", 4, "beyond"),
        (DELTA_MAGIC + b"\x05abc", 8, "cut short"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(data: bytes, offset: int, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        decode(data, base_size=100)
    assert caught.value.offset == offset


@pytest.mark.parametrize("opcode", range(0x55, 0x100))
def test_reserved_opcodes_are_refused(opcode: int) -> None:
    with pytest.raises(FormatError, match="reserved"):
        decode(DELTA_MAGIC + bytes([opcode]) + bytes(20))


def test_a_literal_that_claims_a_tebibyte_is_refused_before_its_bytes() -> None:
    claim = DELTA_MAGIC + encode_literal_header(1 << 40) + b"ab"
    with pytest.raises(LimitError):
        DeltaDecoder(max_size=1 << 30).feed(claim)


def test_a_bomb_stops_at_the_declared_size() -> None:
    bomb = DELTA_MAGIC + encode_copy(0, 1000) * 1000 + END
    decoder = DeltaDecoder(base_size=1000, max_size=10_500)
    with pytest.raises(LimitError) as caught:
        decoder.feed(bomb)
    assert caught.value.available == 10_500
    assert caught.value.wanted == 11_000
    assert caught.value.offset == 4 + 10 * len(encode_copy(0, 1000))


def test_limits_hold_without_a_declared_size() -> None:
    decoder = DeltaDecoder(Limits(max_file_size=10))
    with pytest.raises(LimitError):
        decoder.feed(DELTA_MAGIC + encode_copy(0, 11))


@given(st.binary(max_size=200))
def test_junk_is_an_error_and_nothing_else(junk: bytes) -> None:
    for data in (junk, DELTA_MAGIC + junk):
        try:
            decode(data, base_size=1000, max_size=100_000)
        except DeltaError:
            continue


@given(
    st.sampled_from([magic for magic in Magic if magic not in {Magic.DELTA, Magic.XXH3}]),
    st.integers(1, 8 << 20),
    st.integers(1, 16),
)
def test_headers_of_librsync(magic: Magic, block: int, strong: int) -> None:
    header = SignatureHeader(magic=magic, block_size=block, strong_size=strong)
    assert unpack_signature_header(pack_signature_header(header)) == header


@given(
    st.integers(1, 8 << 20),
    st.integers(8, 16),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**50),
    st.sampled_from([b"", b"h" * 32]),
)
def test_headers_of_our_own(block: int, strong: int, seed: bytes, size: int, digest: bytes) -> None:
    header = SignatureHeader(
        magic=Magic.XXH3, block_size=block, strong_size=strong, seed=seed, size=size, hash=digest
    )
    assert unpack_signature_header(pack_signature_header(header)) == header
