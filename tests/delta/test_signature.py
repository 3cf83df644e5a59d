"""Signatures: made, written, read."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dblike_delta import DeltaEncoder, SignatureBuilder, choose_block_size, kernel, signature
from dblike_delta.commands import Copy
from dblike_delta.errors import DeltaError, FormatError, IntegrityError, LimitError
from dblike_delta.limits import Limits
from dblike_delta.signature import Signature
from edits import BLOCKS, FILES, SEED, commands_for, noise, pairs, signed


class Dribble:
    """A pipe: gives a few bytes at a time and can't be sought in."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, 5))


class Writer:
    """Takes a few bytes at a time."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.taken += bytes(data[:7])
        return min(7, len(data))


@given(FILES, BLOCKS, st.integers(0, 3000), st.sampled_from(["xxh3", "librsync"]))
@example(noise(1, 2000), 512, 1500, "xxh3")  # long enough for an anchor
def test_a_file_may_be_signed_so_far(data: bytes, block: int, cut: int, kind: str) -> None:
    """`finish` twice says the same twice; it gave a row too many, which crashed the search."""
    seed = SEED if kind == "xxh3" else None
    builder = SignatureBuilder(block, seed, format=kind)
    builder.update(data[:cut])
    so_far = builder.finish()
    assert builder.finish() == so_far
    builder.update(data[cut:])
    whole = builder.finish()
    assert whole.blocks == -(-len(data) // block)
    assert Signature.unpack(whole.pack()) == whole
    assert commands_for(whole, data) == ([Copy(0, len(data))] if data else [])


@pytest.mark.parametrize("blocks", [0, 1, 3, 5])
def test_a_signature_of_other_rows_than_its_size_has_is_not_searched(blocks: int) -> None:
    """The compiled search would read where nothing is."""
    made = signed(noise(1, 900), 512)
    wrong = Signature(made.header, (made.rows * 3)[: blocks * made.header.row_size])
    with pytest.raises(ValueError, match="rows"):
        DeltaEncoder(wrong)


@given(FILES, BLOCKS, st.lists(st.integers(0, 3000), max_size=6))
def test_pieces_do_not_matter(data: bytes, block: int, cuts: list[int]) -> None:
    builder, at = SignatureBuilder(block, SEED), 0
    for cut in cuts:
        builder.update(data[at : at + cut])
        at += cut
    builder.update(data[at:])
    assert builder.finish() == signed(data, block)


@settings(max_examples=300)
@given(pairs(), BLOCKS, st.sampled_from(["xxh3", "librsync"]), st.integers(1, 5000))
def test_a_file_is_signed_while_it_is_compared(
    pair: tuple[bytes, bytes], block: int, kind: str, step: int
) -> None:
    """Blocks that are found in the old file are not hashed again; the signature is no worse."""
    old, new = pair
    known = signature(io.BytesIO(old), block_size=block, format=kind, strong_size=16)
    builder = SignatureBuilder(block, format=kind, known=known)
    search = DeltaEncoder(known, signer=builder)
    for at in range(0, len(new), step):
        search.update(new[at : at + step])
    search.finish()
    made = builder.finish()
    assert Signature.unpack(made.pack()) == made
    strong = [_strong_sums(each) for each in (made, signed(new, block, **_like(known)))]
    assert strong[0] == strong[1]
    assert commands_for(made, new) == ([Copy(0, len(new))] if new else [])


def _like(known: Signature) -> dict[str, Any]:
    kind = "xxh3" if known.header.seed else "librsync"
    return {"seed": known.header.seed or None, "format": kind, "strong_size": 16}


def _strong_sums(made: Signature) -> list[bytes]:
    size = made.header.row_size
    return [made.rows[at + size - 16 : at + size] for at in range(0, len(made.rows), size)]


def test_known_blocks_are_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    block, old = 1024, noise(1, 100 * 1024 + 300)
    known, new = signed(old, block), old[:50_000] + b"!" * 100 + old[50_100:]
    hashed = []

    class Signer(kernel.Signer):
        def rows(self, data: Any) -> bytes:
            hashed.append(len(data))
            return super().rows(data)

    monkeypatch.setattr(kernel, "Signer", Signer)
    builder = SignatureBuilder(block, known=known)
    search = DeltaEncoder(known, signer=builder)
    search.update(new)
    search.finish()
    assert commands_for(builder.finish(), new) == [Copy(0, len(new))]
    assert sum(hashed) == block + 300


@pytest.mark.parametrize("options", [{"block_size": 512}, {"seed": b"t" * 16}, {"strong_size": 8}])
def test_a_known_signature_must_be_of_the_same_kind(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="another kind"):
        SignatureBuilder(**{"block_size": 1024, **options}, known=signed(b"", 1024))


@given(FILES, BLOCKS, st.sampled_from(["xxh3", "librsync"]), st.sampled_from([8, 12, 16]))
def test_what_is_written_is_read(data: bytes, block: int, kind: str, strong: int) -> None:
    made = signature(io.BytesIO(data), block_size=block, format=kind, strong_size=strong)
    assert Signature.unpack(made.pack()) == made
    assert Signature.load(Dribble(made.pack())) == made
    assert made.blocks == -(-len(data) // block)
    slow = Writer()
    made.dump(slow)
    assert slow.taken == made.pack()


def test_size_and_hash_of_the_base_are_kept() -> None:
    data = noise(1, 5000)
    made = signature(io.BytesIO(data), hash=True)
    assert (made.size, made.hash) == (5000, blake3(data).digest())
    assert Signature.unpack(made.pack()) == made


def test_a_pipe_gets_the_usual_block() -> None:
    assert signature(Dribble(b"x" * 10_000)).block_size == 2048


def test_two_signatures_have_two_keys() -> None:
    one, other = (signature(io.BytesIO(b"same" * 1000)) for _ in range(2))
    assert one.header.seed != other.header.seed
    assert one.rows != other.rows


@given(st.integers(0, 2**50))
def test_block_sizes_are_powers_of_two_that_grow(size: int) -> None:
    block = choose_block_size(size)
    assert 512 <= block <= 1 << 20
    assert block & (block - 1) == 0
    assert block <= choose_block_size(2 * size)


def test_a_kept_signature_is_small() -> None:
    """A 1 GiB file's takes at most 8 MB, a 6 GiB file's index under 32 MB."""
    assert (1 << 30) / choose_block_size(1 << 30) * 22 < 8e6
    assert 6 * (1 << 30) / choose_block_size(6 << 30) * 32 < 32e6


@given(FILES, st.sampled_from([100, 512, 2048]), st.sampled_from([1, 8, 31, 32]))
def test_ours_is_rdiffs_byte_for_byte(data: bytes, block: int, strong: int) -> None:
    ours = signature(io.BytesIO(data), block_size=block, format="librsync", strong_size=strong)
    theirs = rdiff("-b", str(block), "-S", str(strong), "signature", "-", "-", given=data)
    assert ours.pack() == theirs


@pytest.mark.parametrize("size", [0, 1, 255, 65_536, 65_537, 1_000_000, 3_000_001])
def test_defaults_are_rdiffs(tmp_path: Path, size: int) -> None:
    path = tmp_path / "base"
    path.write_bytes(noise(size, size))
    with path.open("rb") as file:
        assert signature(file, format="librsync").pack() == rdiff("signature", str(path), "-")


def rdiff(*arguments: str, given: bytes = b"") -> bytes:
    return subprocess.run(
        ["rdiff", *arguments], input=given, capture_output=True, check=True
    ).stdout


# --- what is refused ------------------------------------------------------------------------------

OWN = signed(noise(3, 3000), 256).pack()
THEIRS = signature(io.BytesIO(noise(3, 3000)), block_size=256, format="librsync").pack()


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    ("data", "offset", "words"),
    [
        (b"", 0, "too short"),
        (b"rs\x01", 0, "too short"),
        (OWN[:4], 4, "cut short"),
        (THEIRS[:4], 4, "cut short"),
        (b"rs\x02\x36" + bytes(30), 0, "a delta"),
        (THEIRS[3::-1] + THEIRS[4:], 0, "not a signature"),
        (b"junk" + bytes(100), 0, "not a signature"),
        (patched(THEIRS, 4, bytes(4)), 4, "block size 0"),
        (patched(THEIRS, 4, (1 << 31).to_bytes(4, "big")), 4, "block size"),
        (patched(THEIRS, 4, b"\xff" * 4), 4, "block size"),
        (patched(THEIRS, 8, bytes(4)), 8, "strong sums of 0"),
        (patched(THEIRS, 8, (33).to_bytes(4, "big")), 8, "strong sums of 33"),
        (patched(THEIRS, 8, b"\xff" * 4), 8, "strong sums"),
        (patched(THEIRS[:12], 0, b"rs\x01\x46\0\0\1\0\0\0\0\x11"), 8, "strong sums of 17"),
        (THEIRS + b"x", len(THEIRS), "last row"),
        (patched(OWN, 4, b"\2"), 4, "version 2"),
        (patched(OWN, 5, b"\2"), 5, "flags"),
        (patched(OWN, 6, b"\7"), 6, "strong sums of 7"),
        (patched(OWN, 6, b"\x11"), 6, "strong sums of 17"),
        (patched(OWN, 7, b"\4"), 7, "places"),
        (patched(OWN, 8, bytes(4)), 8, "block size 0"),
        (OWN + b"x", len(OWN), "after the end"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(data: bytes, offset: int, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        Signature.unpack(data)
    assert caught.value.offset == offset


@pytest.mark.parametrize("size", [2**50 + 1, 2**63, 2**64 - 1])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(LimitError):
        Signature.unpack(patched(OWN, 28, size.to_bytes(8, "big")))


def test_rows_beyond_the_limit_are_refused_unread() -> None:
    claim = patched(OWN, 28, (1 << 40).to_bytes(8, "big"))
    with pytest.raises(LimitError, match="signature of"):
        Signature.unpack(claim, Limits(max_signature=1 << 20))
    with pytest.raises(LimitError, match="over"):
        Signature.unpack(THEIRS, Limits(max_signature=100))


def test_a_claim_costs_nothing() -> None:
    """2^32 bytes of rows are claimed, a few follow: an error, found by reading what is there."""
    claim = patched(OWN, 28, (48 << 30).to_bytes(8, "big"))
    with pytest.raises((FormatError, LimitError)):
        Signature.unpack(claim)


def test_every_prefix_is_refused() -> None:
    for end in range(len(OWN)):
        with pytest.raises(DeltaError):
            Signature.unpack(OWN[:end])


def test_every_flip_is_found() -> None:
    for at in range(len(OWN)):
        for bit in (1, 0x80):
            with pytest.raises(DeltaError):
                Signature.unpack(patched(OWN, at, bytes([OWN[at] ^ bit])))


def test_a_place_beyond_its_block_is_refused_even_where_the_sum_is_right() -> None:
    made = signed(noise(3, 3000), 256)
    rows = patched(made.rows, made.header.row_size + 4, (161).to_bytes(2, "big"))
    with pytest.raises(FormatError, match="place") as caught:
        Signature.unpack(Signature(made.header, rows).pack())
    assert caught.value.offset == 36 + made.header.row_size + 4


def test_damage_is_told_from_a_wrong_format() -> None:
    with pytest.raises(IntegrityError):
        Signature.unpack(patched(OWN, len(OWN) - 20, b"damage"))


@pytest.mark.parametrize(
    "options",
    [
        {"block_size": 0},
        {"block_size": (8 << 20) + 1},
        {"block_size": 512, "strong_size": 7},
        {"block_size": 512, "strong_size": 17},
        {"block_size": 512, "format": "librsync", "strong_size": 33},
        {"block_size": 512, "format": "md5"},
        {"block_size": 512, "seed": b"short"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|a seed has"):
        SignatureBuilder(**options)  # type: ignore[arg-type]
