"""Messages as zstd frames: what was packed comes out, and never more than is allowed."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dblike_delta.errors import FormatError, LimitError
from dblike_delta.zstd import pack, unpack


@given(st.binary(max_size=3000), st.integers(0, 5))
def test_what_was_packed_comes_out(data: bytes, repeated: int) -> None:
    assert unpack(pack(data * repeated), 15_000) == data * repeated


@given(st.binary(max_size=300))
def test_anything_else_is_an_error(data: bytes) -> None:
    with pytest.raises((FormatError, LimitError)):
        unpack(data, 1000)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_damaged_frame_is_an_error_or_bounded(data: bytes, drawn: st.DataObject) -> None:
    frame = bytearray(pack(data))
    frame[drawn.draw(st.integers(0, len(frame) - 1))] ^= drawn.draw(st.integers(1, 255))
    try:
        assert len(unpack(bytes(frame), 1000)) <= 1000
    except (FormatError, LimitError):
        pass


def test_the_claim_is_checked_before_anything_is_unpacked() -> None:
    with pytest.raises(LimitError):
        unpack(pack(bytes(1001)), 1000)
    stream = zstandard.ZstdCompressor().compressobj()
    with pytest.raises(LimitError):
        unpack(stream.compress(b"of unknown size") + stream.flush(), 1000)
    with pytest.raises(FormatError):
        unpack(pack(b"x") + b"more", 1000)
    with pytest.raises(FormatError):
        unpack(pack(b"x" * 500)[:-1], 1000)
