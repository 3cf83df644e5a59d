"""Files and their edits: what the laws of signature, delta and patch are tried on."""

from __future__ import annotations

import io
import random

from hypothesis import strategies as st

from dblike_delta.commands import Command, Copy
from dblike_delta.delta import DeltaEncoder
from dblike_delta.formats import Magic, SignatureHeader
from dblike_delta.parameters import Parameters, parameters
from dblike_delta.signature import Signature, SignatureBuilder

BLOCKS = st.sampled_from([1, 2, 7, 63, 64, 127, 128, 129, 200, 256, 511, 512, 1000, 1024])
SEED = bytes(range(16))


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _lines(count: int) -> bytes:
    return b"".join(
        b"%d: a line of a log, most of which is in each of the lines\n" % n for n in range(count)
    )


PIECES = st.one_of(
    st.builds(noise, st.integers(0, 9), st.integers(0, 2000)),
    st.builds(bytes, st.integers(0, 2000)),
    st.builds(
        lambda part, times: part * times, st.binary(min_size=1, max_size=70), st.integers(0, 40)
    ),
    st.builds(_lines, st.integers(0, 40)),
    st.binary(max_size=40),
)
FILES = st.lists(PIECES, max_size=4).map(b"".join)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A file and one made from parts of it and other bytes."""
    old = draw(FILES)
    parts = [
        draw(PIECES)
        if draw(st.booleans()) or not old
        else slice_of(old, draw(st.integers(0)), draw(st.integers(0, 3000)))
        for _ in range(draw(st.integers(0, 5)))
    ]
    return old, b"".join(parts)


def slice_of(data: bytes, start: int, length: int) -> bytes:
    start %= len(data)
    return data[start : start + length]


def signed(data: bytes, block: int, seed: bytes = SEED, **options: object) -> Signature:
    builder = SignatureBuilder(block, seed, **options)  # type: ignore[arg-type]
    builder.update(data)
    return builder.finish()


def commands_for(signature: Signature, new: bytes, step: int = 1 << 20) -> list[Command]:
    encoder = DeltaEncoder(signature)
    commands = [c for at in range(0, len(new), step) for c in encoder.update(new[at : at + step])]
    return commands + encoder.finish()


def applied(base: bytes, commands: list[Command]) -> bytes:
    out = io.BytesIO()
    for command in commands:
        if isinstance(command, Copy):
            assert command.offset + command.length <= len(base)
            out.write(base[command.offset : command.offset + command.length])
        else:
            out.write(command.data)
    return out.getvalue()


def literal_bytes(commands: list[Command]) -> int:
    return sum(len(command.data) for command in commands if not isinstance(command, Copy))


def numbers(magic: Magic, block: int, strong: int, size: int | None = None) -> Parameters:
    seed = SEED if magic == Magic.XXH3 else b""
    return parameters(
        SignatureHeader(magic=magic, block_size=block, strong_size=strong, seed=seed, size=size)
    )
