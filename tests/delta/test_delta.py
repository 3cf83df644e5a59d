"""Deltas are right, and small."""

from __future__ import annotations

import io

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from dblike_delta import Delta, DeltaEncoder, delta, signature
from dblike_delta.commands import LITERAL_LIMIT, Copy, Literal
from dblike_delta.delta import SPOOL, write_delta
from dblike_delta.errors import FormatError, LimitError
from dblike_delta.signature import Signature
from dblike_delta.streams import FIRST
from edits import BLOCKS, applied, commands_for, literal_bytes, noise, pairs, signed

BLOCK = 1024
OLD = noise(1, 200 * BLOCK + 300)


@settings(max_examples=300)
@given(pairs(), BLOCKS, st.sampled_from(["xxh3", "librsync"]), st.integers(1, 5000))
def test_the_commands_make_the_new_file(
    pair: tuple[bytes, bytes], block: int, kind: str, step: int
) -> None:
    """patch(base, delta(signature(base), new)) == new."""
    old, new = pair
    made = signature(io.BytesIO(old), block_size=block, format=kind, strong_size=16)
    assert applied(old, commands_for(made, new, step)) == new


def test_nothing_comes_after_the_end_of_the_file() -> None:
    """The compiled search went on before its buffer."""
    old = noise(2, 20_000)
    encoder = DeltaEncoder(signed(old, 512))
    commands = encoder.update(old[7:] + b"x") + encoder.finish()
    assert applied(old, commands) == old[7:] + b"x"
    with pytest.raises(ValueError, match="ended"):
        encoder.update(old)
    assert encoder.finish() == []


def test_a_delta_may_be_read_while_it_is_read() -> None:
    old = noise(1, 3_000_000)
    new = b"".join(old[at : at + 1500] + b"!" for at in range(0, len(old), 1500))
    with delta(signature(io.BytesIO(old), block_size=512), io.BytesIO(new)) as found:
        assert found.encoded > 2 * FIRST  # several pieces
        commands, seen = list(found), []
        for command in found:
            seen.append(command)
            if len(seen) in {1, 200, 300}:
                assert list(found) == commands
        assert seen == commands


@given(pairs(), st.sampled_from(["xxh3", "librsync"]))
def test_what_is_dumped_is_loaded(pair: tuple[bytes, bytes], kind: str) -> None:
    old, new = pair
    made = signature(io.BytesIO(old), block_size=128, format=kind, strong_size=16)
    with delta(made, io.BytesIO(new)) as found:
        out = io.BytesIO()
        found.dump(out)
        assert found.hash == blake3(new).digest()
        assert (found.size, found.encoded) == (len(new), len(out.getvalue()))
    with Delta.load(io.BytesIO(out.getvalue())) as loaded:
        assert applied(old, list(loaded)) == new
        assert (loaded.copied, loaded.literal) == (found.copied, found.literal)


def quality(new: bytes, old: bytes = OLD, block: int = BLOCK) -> tuple[int, int]:
    """How many commands, and how many literal bytes."""
    commands = commands_for(signed(old, block), new)
    assert applied(old, commands) == new
    return len(commands), literal_bytes(commands)


def test_an_equal_file_is_one_copy() -> None:
    assert commands_for(signed(OLD, BLOCK), OLD) == [Copy(0, len(OLD))]


def test_an_inserted_byte_costs_one_block() -> None:
    assert quality(OLD[:50_000] + b"!" + OLD[50_000:]) == (3, BLOCK + 1)


def test_bytes_in_front_cost_themselves() -> None:
    assert quality(b"head" + OLD) == (2, 4)


def test_bytes_behind_cost_themselves() -> None:
    assert quality(OLD + b"tail") == (2, 4)


def test_a_removed_block_costs_nothing() -> None:
    assert quality(OLD[: 9 * BLOCK] + OLD[10 * BLOCK :]) == (2, 0)


def test_an_overwritten_byte_costs_its_block() -> None:
    assert quality(OLD[: 9 * BLOCK + 7] + b"!" + OLD[9 * BLOCK + 8 :]) == (3, BLOCK)


def test_shuffled_blocks_are_all_found() -> None:
    blocks = [OLD[at : at + BLOCK] for at in range(0, 200 * BLOCK, BLOCK)]
    assert quality(b"".join(blocks[::-1])) == (200, 0)


def test_the_short_last_block_is_found_alone_and_behind_other_bytes() -> None:
    assert quality(OLD[200 * BLOCK :]) == (1, 0)
    assert quality(b"new" + OLD[200 * BLOCK :]) == (2, 3)


@pytest.mark.parametrize("block", [100, 512, 4096])
@pytest.mark.parametrize("unit", [b"\0", b"ab", b"abc", b"seven b", bytes(range(60))])
def test_runs_and_short_periods_are_found(unit: bytes, block: int) -> None:
    """They have no anchors, or the same at every place."""
    old = (unit * 100_000)[:70_000]
    commands, literal = quality(b"??" + old, old, block)
    assert literal <= 2 + len(unit) + block
    assert commands <= 3 + len(old) // block


def test_zeros_between_noise_are_found() -> None:
    old = noise(1, 30_000) + bytes(30_000) + noise(2, 30_000)
    new = noise(2, 30_000)[5000:] + bytes(20_000) + noise(1, 30_000)
    assert quality(new, old)[1] < 5 * BLOCK


def test_common_lines_do_not_hide_blocks() -> None:
    """Each block begins with the same 200 bytes: anchors are taken from what tells them apart."""
    same = noise(5, 200)
    blocks = [same + noise(100 + n, BLOCK - 200) for n in range(300)]
    new = b"".join(block + b"." for block in blocks[::-1])
    assert quality(new, b"".join(blocks)) == (600, 300)


def test_more_equal_anchors_than_are_looked_at() -> None:
    """Blocks that only differ in a few bytes between zeros: neighbours are found by their sums."""
    blocks = [bytes(500) + b"%08d" % n + bytes(516) for n in range(200)]
    old = b"".join(blocks)
    assert quality(b"x" + old, old)[1] < 4 * BLOCK


def test_large_literals_leave_in_pieces() -> None:
    new = noise(9, 3 << 20)
    commands = commands_for(signed(OLD, BLOCK), new)
    assert all(isinstance(c, Literal) and len(c.data) <= LITERAL_LIMIT for c in commands)
    assert applied(OLD, commands) == new


def test_against_an_empty_base_all_is_literal() -> None:
    assert commands_for(signed(b"", BLOCK), b"abc") == [Literal(b"abc")]
    assert commands_for(signed(b"", BLOCK), b"") == []


def test_the_buffer_may_be_reused() -> None:
    encoder, buffer, commands = DeltaEncoder(signed(OLD, BLOCK)), bytearray(1000), []
    new = noise(7, 300_000)
    for at in range(0, len(new), 1000):
        buffer[:] = new[at : at + 1000]
        commands += encoder.update(buffer)
    assert applied(OLD, commands + encoder.finish()) == new


def test_a_large_delta_waits_in_a_file() -> None:
    new = noise(8, SPOOL + 1_000_000)
    with delta(signed(OLD, BLOCK), io.BytesIO(new)) as found:
        assert found.literal == len(new)
        assert applied(OLD, list(found)) == new


def test_a_delta_can_be_written_to_a_pipe() -> None:
    out = io.BytesIO()
    found = write_delta(signed(OLD, BLOCK), io.BytesIO(OLD + b"x"), out)
    with Delta.load(io.BytesIO(out.getvalue())) as loaded:
        assert applied(OLD, list(loaded)) == OLD + b"x"
    assert found.encoded == len(out.getvalue())


class Full(io.BytesIO):
    """Has room for some megabytes."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        if self.tell() + len(data) > 3 << 20:
            raise OSError("no room")
        return super().write(data)


def test_an_error_of_a_large_write_comes_through() -> None:
    """Much is written by a thread, in order; its error ends the work here."""
    new, out, whole = noise(10, 6 << 20), Full(), io.BytesIO()
    with pytest.raises(OSError, match="no room"):
        write_delta(signed(OLD, BLOCK), io.BytesIO(new), out)
    write_delta(signed(OLD, BLOCK), io.BytesIO(new), whole)
    assert whole.getvalue().startswith(out.getvalue())
    assert out.tell() > 2 << 20


def test_whoever_ends_the_work_finds_the_output_at_rest() -> None:
    def stop(done: int) -> None:
        if done >= 4 << 20:
            raise KeyboardInterrupt

    out = io.BytesIO()
    with pytest.raises(KeyboardInterrupt):
        write_delta(signed(OLD, BLOCK), io.BytesIO(noise(10, 6 << 20)), out, progress=stop)
    out.close()


def test_a_cut_delta_is_refused_when_loaded() -> None:
    with pytest.raises(FormatError), Delta.load(io.BytesIO(b"rs\x02\x36\x05abc")):
        pass


def test_work_in_vain_is_limited() -> None:
    """A signature whose rows promise blocks everywhere: weak sums of zeros, wrong strong ones."""
    honest = signature(io.BytesIO(bytes(4096)), block_size=512, format="librsync")
    lie = Signature(honest.header, b"".join(honest.rows[:4] + bytes([n]) * 32 for n in range(100)))
    new = b"".join(bytes(512) + b"!" for _ in range(1000))
    encoder = DeltaEncoder(lie, vain_limit=100_000)
    with pytest.raises(LimitError, match="collide"):
        encoder.update(new)
    assert applied(b"", commands_for(lie, new)) == new
