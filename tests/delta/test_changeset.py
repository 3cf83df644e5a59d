"""The changeset: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import os
import struct

import msgspec
import pytest
import xxhash
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dblike_delta.changeset import (
    BLOCK_LIMIT,
    FRAMES,
    FRAMES_PER_BYTE,
    MAGIC,
    PIECE,
    UNBOUNDED,
    Body,
    Decoder,
    Encoder,
    End,
    Event,
    Part,
    decode,
)
from dblike_delta.errors import DeltaError, FormatError, IntegrityError, LimitError
from dblike_delta.messages import CursorMark, Record, Refusal, Sources, Trailer

DEVICE = bytes(range(16))


def record(n: int = 1, *, body: bool = False) -> Record:
    return Record(b"d/f%d" % n, DEVICE, n, 1_700_000_000_000, 1, bytes(32), 5, body=body)


frames = st.lists(
    st.one_of(
        st.builds(record, st.integers(1, 2**62), body=st.booleans()),
        st.binary(max_size=300).map(lambda data: Body(memoryview(data))),
        st.builds(Trailer, st.binary(min_size=32, max_size=32), st.integers(0, 2**62)),
        st.builds(Refusal, st.just(DEVICE), st.integers(1, 9), st.text(max_size=9)),
        st.builds(CursorMark, st.text(max_size=30), st.booleans()),
        st.builds(
            Sources,
            st.lists(st.tuples(st.just(DEVICE), st.integers(1, 2**62), st.integers(1, 9))),
            st.just(bytes(32)),
        ),
    ),
    max_size=30,
)


def encode(events: list[Event], *, compress: int = 1, flush_every: int = 0) -> bytes:
    encoder = Encoder(compress=compress)
    out: list[bytes | bytearray | memoryview] = []
    for number, event in enumerate(events, 1):
        match event:
            case Record():
                out += encoder.record(event)
            case Body():
                out += encoder.data(event.data)
            case Trailer():
                out += encoder.trailer(event)
            case Refusal():
                out += encoder.refusal(event)
            case CursorMark():
                out += encoder.cursor(event)
            case Sources():
                out += encoder.sources(event)
            case _:
                raise AssertionError(event)
        if flush_every and number % flush_every == 0:
            out += encoder.flush()
    out += encoder.finish()
    stream = b"".join(out)
    assert encoder.sent == len(stream)
    return stream


def plain(events: list[Event]) -> list[object]:
    return [bytes(e.data) if isinstance(e, Body) else e for e in events]


@given(frames, st.integers(0, 3), st.integers(0, 5), st.data())
def test_what_goes_in_comes_out_however_it_is_cut(
    events: list[Event], level: int, flush_every: int, data: st.DataObject
) -> None:
    """decode(encode(events)) == events, for every chunking, level and flushing."""
    stream = encode(events, compress=level, flush_every=flush_every)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert plain(list(decode(chunks))) == plain([*events, End()])


@pytest.mark.parametrize("level", [0, 1])
@given(st.lists(st.tuples(st.binary(max_size=200), st.integers(0, 90)), max_size=9))
def test_whole_versions_are_those_that_come_in_steps(
    level: int, versions: list[tuple[bytes, int]]
) -> None:
    """The same events, whichever way they went in."""
    at_once, in_steps = Encoder(compress=level), Encoder(compress=level)
    one: list[Part] = []
    other: list[Part] = []
    for data, times in versions:
        body, trailer = (b"head", data * times * 30, b"tail"), Trailer(bytes(32), len(data))
        one += at_once.whole(record(body=True), body, trailer)
        other += in_steps.record(record(body=True))
        other += in_steps.data(b"".join(body))
        other += in_steps.trailer(trailer)
    one += at_once.finish()
    other += in_steps.finish()
    assert plain(list(decode(one))) == plain(list(decode(other)))
    assert at_once.sent == sum(map(len, one))


def test_large_pieces_are_split_and_joined() -> None:
    """A body of any length travels in frames of at most one piece."""
    data = os.urandom(3 * PIECE + 17)
    encoder = Encoder()
    stream = b"".join([*encoder.record(record(body=True)), *encoder.data(data), *encoder.finish()])
    bodies = [bytes(e.data) for e in decode([stream]) if isinstance(e, Body)]
    assert b"".join(bodies) == data
    assert max(map(len, bodies)) <= PIECE


def two_pieces() -> tuple[bytes, bytes, bytes]:
    """A block of one large frame: what is before its payload, the payload, what is after it."""
    payload = os.urandom(PIECE)
    encoder = Encoder()
    head = b"".join([*encoder.record(record(body=True)), *encoder.flush()])
    *frame, last = encoder.data(payload)
    assert bytes(last) == payload
    return head + b"".join(frame), payload, b"".join(encoder.finish())


def test_a_large_payload_that_came_in_one_piece_is_not_copied() -> None:
    head, payload, end = two_pieces()
    decoder = Decoder()
    events = [e for piece in (head, payload, end) for e in decoder.receive(piece)]
    [body] = [event for event in events if isinstance(event, Body)]
    assert body.data.obj is payload
    assert decoder.finished


def test_a_block_that_came_in_one_piece_is_not_copied() -> None:
    """Whoever receives as much as is `wanted` gets the head of a block with the block before it."""
    encoder, payload = Encoder(), os.urandom(3 * PIECE)
    parts = [*encoder.record(record(body=True)), *encoder.data(payload), *encoder.finish()]
    stream, decoder, at = b"".join(parts), Decoder(), 0
    as_they_came = []
    while at < len(stream):
        piece = stream[at : at + decoder.wanted]
        events = decoder.receive(piece)
        as_they_came += [event.data.obj is piece for event in events if isinstance(event, Body)]
        at += len(piece)
    assert as_they_came[1:] == [True, True]  # of the first one nothing was known


@pytest.mark.parametrize("where", [-5, -4, -1])
def test_a_damaged_head_of_a_large_payload_is_an_error(where: int) -> None:
    head, payload, _ = two_pieces()
    damaged = bytearray(head)
    damaged[where] ^= 1
    with pytest.raises(IntegrityError):
        list(decode([bytes(damaged), payload]))


@pytest.mark.parametrize("claimed", [PIECE - 1, PIECE + 1])
def test_a_large_frame_of_another_length_than_its_block_is_an_error(claimed: int) -> None:
    payload, frame = os.urandom(PIECE), struct.pack(">BI", ord("D"), claimed)
    digest = xxhash.xxh3_128_digest(frame + payload)
    size = len(frame) + PIECE
    head = MAGIC + struct.pack(">BBHII16s", 0, 1, 0, size, size, digest) + frame
    with pytest.raises(FormatError):
        list(decode([head, payload]))


def test_text_is_compressed_and_noise_is_not() -> None:
    """Compression is used where it pays: many small texts share a block, noise travels plain."""
    text = [Body(memoryview(b"the same words again and again\n" * 30))] * 100
    assert len(encode(text)) < 2_000
    noise = [Body(memoryview(os.urandom(1 << 20)))]
    assert (1 << 20) < len(encode(noise)) < (1 << 20) + 200


def test_a_cut_stream_resumes_at_the_last_block() -> None:
    """`boundary` names the byte from which a second sender goes on, and nothing comes twice."""
    events: list[Event] = [record(n) for n in range(1, 9)]
    stream = encode(events, flush_every=2)
    for cut in range(len(stream)):
        first = Decoder()
        got = list(first.receive(stream[:cut]))
        with pytest.raises(FormatError):
            first.close()
        second = Decoder(start=first.boundary)
        got += list(second.receive(stream[first.boundary :]))
        second.close()
        assert plain(got) == plain([*events, End()])


SMALL = encode(
    [record(1, body=True), Body(memoryview(b"hello")), Trailer(bytes(32), 5)], compress=0
)


@pytest.mark.parametrize("level", [0, 1])
def test_every_flipped_byte_is_an_error(level: int) -> None:
    """No single changed byte of a stream goes unseen."""
    stream = encode([record(1, body=True), Body(memoryview(b"hello" * 99))], compress=level)
    good = plain(list(decode([stream])))
    for at in range(len(stream)):
        for flip in (1, 0x80):
            bad = bytearray(stream)
            bad[at] ^= flip
            with pytest.raises(DeltaError):
                assert plain(list(decode([bytes(bad)]))) != good


def test_every_prefix_is_an_error() -> None:
    """A stream that ends early says so."""
    for cut in range(len(SMALL)):
        with pytest.raises(FormatError):
            list(decode([SMALL[:cut]]))


def test_bytes_after_the_end_are_an_error() -> None:
    """Trailing bytes are refused in the same chunk and in a later one."""
    with pytest.raises(FormatError, match="after the end"):
        list(decode([SMALL + b"x"]))
    with pytest.raises(FormatError, match="after the end"):
        list(decode([SMALL, b"x"]))


def block(payload: bytes, *, codec: int = 0, length: int | None = None, last: int = 1) -> bytes:
    head = struct.pack(
        ">BBHII", codec, last, 0, len(payload) if length is None else length, len(payload)
    )
    return MAGIC + head + xxhash.xxh3_128_digest(payload) + payload


def frame(tag: bytes, payload: bytes, length: int | None = None) -> bytes:
    return tag + struct.pack(">I", len(payload) if length is None else length) + payload


def test_a_block_larger_than_the_limit_is_refused_before_it_is_read() -> None:
    """The claim alone is enough: nothing is buffered for it."""
    head = struct.pack(">BBHII", 0, 0, 0, BLOCK_LIMIT + 1, BLOCK_LIMIT + 1) + bytes(16)
    with pytest.raises(LimitError):
        list(Decoder().receive(MAGIC + head))


def many_frames(number: int) -> bytes:
    """A stream of tiny pieces, which takes less than a kilobyte."""
    return encode([record(body=True), *[Body(memoryview(b"x"))] * number])


def test_frames_are_bounded_by_the_bytes_that_they_came_in() -> None:
    """Over all blocks; whoever is trusted may send as many as there are."""
    stream = many_frames(FRAMES)
    assert len(plain(list(decode([stream])))) == FRAMES + 2
    stream = many_frames(10 * FRAMES)
    assert FRAMES_PER_BYTE * len(stream) < FRAMES
    with pytest.raises(LimitError, match="more frames"):
        list(decode([stream]))
    assert len(list(Decoder(frames=UNBOUNDED).receive(stream))) == 10 * FRAMES + 2
    halves = encode([Body(memoryview(b"x"))] * 2000, flush_every=1000)
    bound = 2000 - FRAMES_PER_BYTE * len(halves)
    assert bound > 0
    with pytest.raises(LimitError, match="more frames"):
        list(Decoder(frames=bound).receive(halves))


@pytest.mark.parametrize("level", [1, 19])
def test_many_empty_files_are_no_flood_of_frames(level: int) -> None:
    """Each of them is three frames, and what they say is nearly the same."""
    encoder, files = Encoder(compress=level), 30_000
    parts: list[Part] = []
    for number in range(1, files + 1):
        parts += encoder.whole(record(number, body=True), (b"rs\x026\0",), Trailer(bytes(32), 0))
    parts += encoder.finish()
    assert len(list(Decoder(frames=0).receive(b"".join(parts)))) == 3 * files + 1


def test_a_piece_tells_what_it_took_on_the_way() -> None:
    for level, least, most in ((0, 1.0, 1.0), (1, 0.0, 0.01)):
        stream = encode([record(body=True), Body(memoryview(bytes(100_000)))], compress=level)
        [body] = [event for event in decode([stream]) if isinstance(event, Body)]
        assert least <= body.packed <= most


def test_a_compressed_block_makes_exactly_what_it_claims() -> None:
    """Bombs, appended frames, dictionaries and wrong claims end as errors, within the limit."""
    bomb = zstandard.ZstdCompressor().compress(bytes(BLOCK_LIMIT * 4))
    cases = [
        block(bomb, codec=1, length=100),
        block(zstandard.compress(b"abc") + zstandard.compress(b"abc"), codec=1, length=3),
        block(zstandard.compress(b"abc") + b"tail", codec=1, length=3),
        block(b"not zstd", codec=1, length=3),
        block(b"\x50\x2a\x4d\x18\x04\0\0\0skip", codec=1, length=4),
        block(
            zstandard.ZstdCompressor(write_content_size=False).compress(b"abc"), codec=1, length=3
        ),
    ]
    for stream in cases:
        with pytest.raises(DeltaError):
            list(decode([stream]))


def test_malformed_frames_are_named() -> None:
    """Unknown kinds, cut frames, wrong types and wrong lengths: FormatError with the place."""
    cases = [
        block(frame(b"Z", b"")),
        block(b"R\0\0"),
        block(frame(b"R", b"abc", length=99)),
        block(frame(b"R", b"\xc1")),
        block(frame(b"R", msgspec.msgpack.encode([b"p", b"short", 1, 0, 1]))),
        block(frame(b"R", msgspec.msgpack.encode([b"p", DEVICE, 0, 0, 1]))),
        block(frame(b"R", msgspec.msgpack.encode([b"p", DEVICE, 1, 0, 9]))),
        block(frame(b"R", msgspec.msgpack.encode([b"", DEVICE, 1, 0, 1]))),
        block(frame(b"R", msgspec.msgpack.encode([b"p" * 4097, DEVICE, 1, 0, 1]))),
        block(frame(b"T", msgspec.msgpack.encode([b"x", 1]))),
        block(frame(b"R", msgspec.msgpack.encode([b"p", DEVICE, 1, 0, 1]) + b"\0")),
        block(b"", codec=2),
    ]
    for stream in cases:
        with pytest.raises(FormatError) as caught:
            list(decode([stream]))
        assert caught.value.offset >= len(MAGIC)


def test_a_wrong_sum_is_an_integrity_error() -> None:
    """Damage on the way is told apart from a bad sender."""
    bad = bytearray(SMALL)
    bad[-1] ^= 1
    with pytest.raises(IntegrityError):
        list(decode([bytes(bad)]))


@given(st.binary(max_size=400))
def test_noise_is_an_error_and_never_another_exception(noise: bytes) -> None:
    """Whatever arrives, only DeltaError is raised; also behind a valid header and sum."""
    for stream in (noise, MAGIC + noise, block(noise), block(noise, codec=1, length=50)):
        try:
            list(decode([stream]))
        except DeltaError:
            continue
