"""Files of every kind that a caller may have."""

from __future__ import annotations

import io
import mmap
import os
import tempfile
from array import array
from typing import Any

import pytest

from dblike_delta import (
    Delta,
    DeltaDecoder,
    DeltaEncoder,
    DeltaError,
    SignatureBuilder,
    delta,
    patch,
    signature,
    trim,
)
from edits import noise


def changed(old: bytes, new: bytes) -> Delta:
    return delta(signature(io.BytesIO(old), block_size=512), io.BytesIO(new))


def test_what_a_pipe_has_no_room_for_is_not_lost_in_silence() -> None:
    """A raw file that would have to wait takes nothing, and says None."""
    ends = os.pipe()
    os.set_blocking(ends[1], False)
    with open(ends[0], "rb") as _, open(ends[1], "wb", buffering=0) as full:
        with changed(b"", noise(1, 300_000)) as change, pytest.raises(DeltaError):
            change.dump(full)
        with changed(b"", noise(1, 300_000)) as change, pytest.raises(DeltaError):
            patch(io.BytesIO(), change, full)


class Taciturn:
    """Takes all, and says nothing of it."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self.data += data


def test_a_writer_may_say_nothing() -> None:
    out = Taciturn()
    patch(io.BytesIO(b"old"), changed(b"old", b"new"), out)
    assert out.data == b"new"


def test_a_map_is_a_file() -> None:
    """Its `seek` says nothing before Python 3.13."""
    old = noise(2, 40_000)
    new = old[:20_000] + b"in between" + old[20_000:]
    with tempfile.TemporaryFile() as file:
        file.write(old)
        file.flush()
        with mmap.mmap(file.fileno(), 0) as base:
            base.seek(30_000)
            assert signature(base).size == 10_000
            base.seek(0)
            out = io.BytesIO()
            with delta(signature(base), io.BytesIO(new)) as change:
                patch(base, change, out)
                assert out.getvalue() == new
                assert sum(len(c[0]) for c in trim(change, base) if len(c) == 1) == 10


@pytest.mark.parametrize(
    "wrong",
    [
        memoryview(array("I", [1, 2, 3])),
        memoryview(array("b", [-5, 1, 1])),
        memoryview(b"abcdef")[::2],
        memoryview(b"abcdef").cast("B", (2, 3)),
        None,
        "text",
    ],
)
def test_what_is_no_bytes_is_refused_wherever_bytes_come_in(wrong: Any) -> None:
    """Three numbers were signed as three bytes, None as nothing; a literal had -5 bytes."""
    takers = (
        SignatureBuilder(512).update,
        DeltaEncoder(signature(io.BytesIO(b"old"))).update,
        DeltaDecoder().feed,
    )
    for take in takers:
        with pytest.raises((ValueError, TypeError)) as caught:
            take(wrong)
        assert not isinstance(caught.value, DeltaError)


def test_bytes_of_every_kind_are_taken() -> None:
    for data in (b"", bytearray(b"abc"), memoryview(b"xabc")[1:], array("B", b"abc")):
        builder = SignatureBuilder(512)
        builder.update(data)  # type: ignore[arg-type]
        assert builder.finish().size == len(data)
        encoder = DeltaEncoder(signature(io.BytesIO(b"old")))
        assert encoder.update(data) == []  # type: ignore[arg-type]
        DeltaDecoder().feed(bytes(data)[:0])
