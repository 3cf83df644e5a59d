"""The weak sum as a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblike_delta import RollingChecksum

KINDS = st.sampled_from(["polynomial", "rabin-karp", "rollsum"])


@given(KINDS, st.binary(min_size=2, max_size=300), st.data())
def test_rolling_is_recomputing(kind: str, data: bytes, draw: st.DataObject) -> None:
    size = draw.draw(st.integers(1, len(data) - 1))
    window = RollingChecksum(data[:size], kind=kind)
    for at in range(len(data) - size):
        window.roll(data[at], data[at + size])
        assert window.digest() == RollingChecksum(data[at + 1 : at + 1 + size], kind=kind).digest()


@given(KINDS, st.binary(max_size=300), st.binary(max_size=300))
def test_adding_twice_is_adding_once(kind: str, first: bytes, second: bytes) -> None:
    window = RollingChecksum(first, kind=kind)
    window.update(second)
    assert window.digest() == RollingChecksum(first + second, kind=kind).digest()
    assert len(window) == len(first + second)


@given(st.integers(1 << 16, (1 << 30) - 1))
def test_no_collision_is_known_beforehand(multiplier: int) -> None:
    """Thue-Morse words collide in librsync's sum, whose multiplier is fixed, and would for any
    multiplier modulo a power of two; modulo a prime they do not."""
    word, opposite = thue_morse(10)
    theirs = [RollingChecksum(text, kind="rabin-karp").digest() for text in (word, opposite)]
    ours = [RollingChecksum(text, multiplier=multiplier).digest() for text in (word, opposite)]
    assert theirs[0] == theirs[1]
    assert ours[0] != ours[1]


def thue_morse(doublings: int) -> tuple[bytes, bytes]:
    word, opposite = b"a", b"b"
    for _ in range(doublings):
        word, opposite = word + opposite, opposite + word
    return word, opposite


@pytest.mark.parametrize("options", [{"kind": "crc"}, {"multiplier": 1}, {"multiplier": 1 << 30}])
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RollingChecksum(b"", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "out", "new"), [(b"abc", 256, 0), (b"abc", 97, -1), (b"", 0, 0)]
)
def test_a_window_moves_by_bytes_only(window: bytes, out: int, new: int) -> None:
    """One kernel said OverflowError, the other one nothing."""
    with pytest.raises(ValueError, match="window"):
        RollingChecksum(window).roll(out, new)
