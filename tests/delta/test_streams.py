"""Files of every kind that a caller may have."""

from __future__ import annotations

import io
import mmap
import os
import tempfile

import pytest

from dblike_delta import Delta, DeltaError, delta, patch, signature, trim
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
