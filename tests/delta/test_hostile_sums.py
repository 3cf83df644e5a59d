"""Sums that collide on purpose change the cost, within bounds, and never the result.

Cost is counted, not timed: weak sums that lied (`alarms`) and bytes hashed for them (`vain`).
"""

from __future__ import annotations

import io
import subprocess
import sys

import msgspec
import pytest

from dblike_delta import DeltaEncoder, _kernel, _kernel_py, kernel, signature
from dblike_delta._kernel_py import CHAIN_LIMIT, VAIN_FACTOR, VAIN_SLACK
from dblike_delta._sums_py import selected
from dblike_delta.errors import LimitError
from dblike_delta.formats import Magic, SignatureHeader
from dblike_delta.signature import Signature
from edits import SEED, applied, commands_for, noise, numbers, signed


def thue_morse(doublings: int) -> tuple[bytes, bytes]:
    word, opposite = b"a", b"b"
    for _ in range(doublings):
        word, opposite = word + opposite, opposite + word
    return word, opposite


def colliding_blocks(count: int) -> bytes:
    """Blocks of 2,048 bytes, all different, with one and the same RabinKarp sum."""
    parts = thue_morse(7)
    return b"".join(b"".join(parts[n >> bit & 1] for bit in range(16)) for n in range(count))


def test_rabin_karp_collisions_cost_a_bounded_chain() -> None:
    old, new = colliding_blocks(4000), colliding_blocks(6000)[4000 * 2048 :]
    sums = signature(io.BytesIO(old), block_size=2048, format="librsync")
    assert len({sums.rows[at : at + 4] for at in range(0, len(sums.rows), 36)}) == 1
    encoder = DeltaEncoder(sums)
    commands = encoder.update(new) + encoder.finish()
    assert applied(old, commands) == new
    assert encoder.vain <= VAIN_FACTOR * len(new) + VAIN_SLACK + 2048
    assert encoder.alarms <= CHAIN_LIMIT * (encoder.vain // 2048 + len(new) // 2048)


def test_both_kernels_tire_at_the_same_byte() -> None:
    p = numbers(Magic.RK_BLAKE2, 2048, 16)
    rows = _kernel_py.Signer(p).rows(colliding_blocks(40))
    new = colliding_blocks(100)[60 * 2048 :]
    scanners = [k.Scanner(p, rows, None, 4 * 2048 + 5000) for k in (_kernel, _kernel_py)]
    ops = [scanner.feed(new) + scanner.finish() for scanner in scanners]
    literals = [b"".join(op for op in found if isinstance(op, bytes)) for found in ops]
    assert literals[0] == literals[1]
    assert scanners[0].vain == scanners[1].vain > VAIN_SLACK


def test_the_same_blocks_do_not_collide_in_our_sums() -> None:
    old, new = colliding_blocks(4000), colliding_blocks(6000)[4000 * 2048 :]
    encoder = DeltaEncoder(signed(old, 2048))
    assert applied(old, encoder.update(new) + encoder.finish()) == new
    assert encoder.alarms <= 2 * len(new) // 2048


def forged(weak: bytes, place: bytes, count: int, block: int = 2048) -> Signature:
    """A stranger's signature: chosen weak sums, arbitrary strong ones."""
    header = SignatureHeader(
        magic=Magic.XXH3, block_size=block, strong_size=8, seed=SEED, size=count * block
    )
    rows = b"".join(weak + place + n.to_bytes(8, "big") for n in range(count))
    return Signature(header, rows)


def test_a_million_equal_weak_sums_are_indexed_and_searched() -> None:
    lie = forged(b"\0\0\0\0", b"\xff\xff", 1_000_000)
    new = bytes(100_000)
    encoder = DeltaEncoder(lie)
    assert applied(b"", encoder.update(new) + encoder.finish()) == new
    assert encoder.alarms <= 2 * CHAIN_LIMIT  # a run of zeros is looked at once


def test_anchors_that_claim_every_place_cost_a_bounded_sum() -> None:
    """The key is known to the one who forged it: the anchor of a repeated text, at every place."""
    p = numbers(Magic.XXH3, 2048, 8)
    text = noise(3, 4096)
    place = next(at for at in range(100, 1200) if _is_selected(text, at))
    unit = text[place : place + p.anchor_size]
    weak = kernel.Signer(p).rows(unit + bytes(2048 - len(unit)))[:4]
    places = 2048 - p.anchor_size
    rows = b"".join(weak + n.to_bytes(2, "big") + bytes(8) for n in range(places))
    header = forged(weak, b"", 0).header
    lie = Signature(msgspec.structs.replace(header, size=places * 2048), rows)
    new = unit * 2000
    encoder = DeltaEncoder(lie)
    assert applied(b"", encoder.update(new) + encoder.finish()) == new
    assert encoder.alarms > 1000
    assert encoder.vain <= VAIN_FACTOR * len(new) + VAIN_SLACK + CHAIN_LIMIT * 2048


def _is_selected(data: bytes, at: int) -> bool:
    return bool(list(selected(numbers(Magic.XXH3, 2048, 8), data[at : at + 8], 0, 1)))


def test_work_for_a_stranger_has_a_limit() -> None:
    old, new = colliding_blocks(4000), colliding_blocks(6000)[4000 * 2048 :]
    sums = signature(io.BytesIO(old), block_size=2048, format="librsync")
    encoder = DeltaEncoder(sums, vain_limit=4 * len(new))
    with pytest.raises(LimitError, match="collide"):
        encoder.update(new)
    honest = DeltaEncoder(signed(old, 2048), vain_limit=4 * len(new))
    assert applied(old, honest.update(new) + honest.finish()) == new


@pytest.mark.parametrize("size", [100_000, 400_000])
def test_runs_of_equal_blocks_are_not_quadratic(size: int) -> None:
    encoder = DeltaEncoder(signed(bytes(size), 512))
    commands = encoder.update(b"x" + bytes(size)) + encoder.finish()
    assert applied(bytes(size), commands) == b"x" + bytes(size)
    assert encoder.alarms <= 4
    assert len(commands) <= 4


CLAIM = """
import io, resource, sys
from dblike_delta.errors import DeltaError
from dblike_delta.signature import Signature
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
head = sys.stdin.buffer.read()
try:
    Signature.load(io.BytesIO(head))
except DeltaError:
    sys.exit(0)
"""


def test_a_claim_of_gigabytes_allocates_nothing() -> None:
    """3 GB of rows are claimed, within the limits, in a process that may have 1 GB in all."""
    made = signed(noise(1, 3000), 512).pack()
    claim = made[:28] + (70 << 30).to_bytes(8, "big") + made[36:]
    done = subprocess.run([sys.executable, "-c", CLAIM], input=claim, check=False)
    assert done.returncode == 0


STREAM = """
import os
from dblike_delta import signature, DeltaEncoder
class Endless:
    def __init__(self, size): self.left, self.piece = size, os.urandom(1 << 20)
    def read(self, size):
        part = self.piece[: min(size, self.left)]
        self.left -= len(part)
        return part
SIZE = 1 << 30
made = signature(Endless(SIZE), block_size=4096)
search, file = DeltaEncoder(made), Endless(SIZE)
for piece in iter(lambda: file.read(1 << 20), b""): search.update(piece)
search.finish()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_is_bounded_whatever_the_size() -> None:
    """1 GiB signed and searched: under 64 MiB and 32 bytes a block."""
    done = subprocess.run(
        [sys.executable, "-c", STREAM], capture_output=True, text=True, check=True
    )
    used = int(done.stdout.split()[1]) * 1024
    assert used < (64 << 20) + 32 * (1 << 30) // 4096


def test_nothing_is_lost_where_chains_are_cut() -> None:
    """More blocks with one anchor than are kept: the others are found as neighbours."""
    unit = noise(6, 100)
    blocks = [unit * 10 + b"%024d" % n for n in range(300)]
    old = b"".join(blocks)
    assert applied(old, commands_for(signed(old, 1024), b"-" + old)) == b"-" + old
