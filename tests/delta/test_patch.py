"""The base and a delta make the new file, or an error."""

from __future__ import annotations

import io
import random

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from dblike_delta import Copy, Delta, Literal, delta, patch, signature
from dblike_delta.errors import (
    BaseMismatch,
    Cancelled,
    DeltaError,
    FormatError,
    IntegrityError,
    LimitError,
)
from dblike_delta.formats import DELTA_MAGIC, END, encode_commands, encode_copy
from edits import applied, noise, pairs, signed

OLD = noise(1, 20_000)
NEW = OLD[:5000] + b"new" + OLD[6000:]


def encoded(old: bytes = OLD, new: bytes = NEW, block: int = 256) -> bytes:
    out = io.BytesIO()
    with delta(signed(old, block), io.BytesIO(new)) as found:
        found.dump(out)
    return out.getvalue()


@given(pairs(), st.sampled_from([64, 300]))
def test_patch_undoes_delta(pair: tuple[bytes, bytes], block: int) -> None:
    old, new = pair
    out = io.BytesIO()
    with delta(signed(old, block), io.BytesIO(new)) as found:
        result = patch(io.BytesIO(old), found, out)
    assert out.getvalue() == new
    assert (result.size, result.hash) == (len(new), blake3(new).digest())
    assert (result.copied, result.literal) == (found.copied, found.literal)


def test_a_file_that_holds_a_delta_will_do() -> None:
    out = io.BytesIO()
    patch(io.BytesIO(OLD), io.BytesIO(encoded()), out)
    assert out.getvalue() == NEW


def test_the_declared_size_is_the_most_that_is_written() -> None:
    out = io.BytesIO()
    bomb = DELTA_MAGIC + encode_copy(0, 20_000) * 1000 + END
    with pytest.raises(LimitError):
        patch(io.BytesIO(OLD), io.BytesIO(bomb), out, max_size=50_000)
    assert len(out.getvalue()) <= 50_000
    assert patch(io.BytesIO(OLD), io.BytesIO(encoded()), io.BytesIO(), max_size=len(NEW))


def test_a_base_of_another_size_is_refused() -> None:
    base = io.BytesIO(OLD[:-1])
    with delta(signed(OLD, 256), io.BytesIO(NEW)) as found, pytest.raises(BaseMismatch):
        patch(base, found, io.BytesIO())
    assert base.getvalue() == OLD[:-1]


def test_a_base_of_other_content_is_found_out() -> None:
    with delta(signed(OLD, 256), io.BytesIO(NEW)) as found, pytest.raises(IntegrityError):
        patch(io.BytesIO(noise(2, 20_000)), found, io.BytesIO())


def test_a_copy_beyond_the_base_is_refused() -> None:
    with pytest.raises(FormatError, match="beyond"):
        patch(io.BytesIO(OLD[:100]), io.BytesIO(encoded()), io.BytesIO())


class Shrinking:
    """Loses its bytes once its size was asked; has no `readinto`."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return len(OLD)

    def read(self, size: int, /) -> bytes:
        return b""


def test_a_base_that_shrinks_is_an_error() -> None:
    with pytest.raises(BaseMismatch, match="shorter"):
        patch(Shrinking(), io.BytesIO(encoded()), io.BytesIO())


class Slow:
    """Reads and writes few bytes at once, as anything may."""

    def __init__(self, data: bytes = b"") -> None:
        self.file = io.BytesIO(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self.file.seek(offset, whence)

    def read(self, size: int, /) -> bytes:
        return self.file.read(min(size, 7))

    def write(self, data: bytes, /) -> int:
        return self.file.write(data[:1000])


def test_large_and_small_commands_take_their_turns() -> None:
    chance, old = random.Random(1), noise(7, 300_000)
    lengths = [1, 50, 5000, 70_000, 200_000]
    commands: list[Copy | Literal] = []
    for _ in range(60):
        length = chance.choice(lengths)
        if chance.random() < 0.5:
            commands.append(Copy(chance.randrange(len(old) - length), length))
        else:
            commands.append(Literal(noise(chance.randrange(99), length)))
    out, made = Slow(), encode_commands(commands)
    done: list[int] = []
    result = patch(io.BytesIO(old), io.BytesIO(made), out, progress=done.append)
    assert out.file.getvalue() == applied(old, commands)
    assert done == sorted(set(done))
    assert done[-1] == result.size
    again = io.BytesIO()
    assert patch(Slow(old), Slow(made), again) == result
    assert again.getvalue() == out.file.getvalue()


def test_every_prefix_is_an_error() -> None:
    data = encoded()
    for end in range(len(data)):
        with pytest.raises(DeltaError):
            patch(io.BytesIO(OLD), io.BytesIO(data[:end]), io.BytesIO())


def test_every_flip_is_an_error_or_makes_a_file() -> None:
    """Where the hash is known, it makes the right file or an error."""
    data = encoded()
    for at in range(len(data)):
        for bit in (1, 0x10, 0x80):
            broken = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            try:
                result = patch(io.BytesIO(OLD), io.BytesIO(broken), io.BytesIO(), max_size=100_000)
            except DeltaError:
                continue
            assert result.hash != blake3(NEW).digest()


def test_a_loaded_delta_knows_no_hash() -> None:
    with Delta.load(io.BytesIO(encoded())) as loaded:
        assert (loaded.hash, loaded.base_size, loaded.size) == (b"", None, len(NEW))
        assert patch(io.BytesIO(OLD), loaded, io.BytesIO()).size == len(NEW)


def test_progress_is_told_and_may_end_the_work() -> None:
    old, new = noise(5, 3 << 20), noise(5, 3 << 20) + b"end"
    told: dict[str, list[int]] = {"signature": [], "delta": [], "patch": []}
    made = signature(io.BytesIO(old), progress=told["signature"].append)
    with delta(made, io.BytesIO(new), progress=told["delta"].append) as found:
        patch(io.BytesIO(old), found, io.BytesIO(), progress=told["patch"].append)
        assert [steps[-1] for steps in told.values()] == [len(old), len(new), len(new)]
        assert all(steps == sorted(steps) for steps in told.values())
        with pytest.raises(Cancelled):
            patch(io.BytesIO(old), found, io.BytesIO(), progress=stop)
    with pytest.raises(Cancelled):
        signature(io.BytesIO(old), progress=stop)
    with pytest.raises(Cancelled):
        delta(made, io.BytesIO(new), progress=stop)


def stop(done: int) -> None:
    if done >= 2 << 20:
        raise Cancelled("enough")
