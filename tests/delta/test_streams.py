"""Files of every kind that a caller may have."""

from __future__ import annotations

import io
import os

import pytest

from dblike_delta import Delta, DeltaError, delta, patch, signature
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
