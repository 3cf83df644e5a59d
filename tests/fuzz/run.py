"""Fuzz every decoder: `python tests/fuzz/run.py --inputs 1000000 --seed 1`.

Valid inputs of each format are changed in all the ways that break decoders: flipped, cut, repeated,
spliced, with numbers set to their extremes.  The law is the same for all: the right value or a
DeltaError, and nothing else; never another exception, and no memory that the input only claims.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / "src")]

import msgspec
import xxhash

from dblike_delta import messages as m
from dblike_delta.changeset import Encoder, decode
from dblike_delta.commands import Copy, Literal
from dblike_delta.delta import Delta, delta
from dblike_delta.errors import DeltaError
from dblike_delta.formats import DeltaDecoder, encode_commands, whole_literal
from dblike_delta.patch import patch
from dblike_delta.paths import check_path
from dblike_delta.plan import Entry
from dblike_delta.recipe import Extent, Recipe
from dblike_delta.signature import Signature, signature
from dblike_delta.sources import Content, contents_of, name_sources
from dblike_delta.trees import TreeSignature
from dblike_delta.vectors import said_after, vector_in
from dblike_delta.versions import Dot, Kind, VersionVector

BASE = bytes(range(256)) * 8
DEVICE = bytes(range(16))


def decode_changeset(data: bytes) -> None:
    for _ in decode([data]):
        pass


def decode_resealed(data: bytes) -> None:
    """A changeset whose block sums are made right again: what is inside is fuzzed, too."""
    decode_changeset(reseal(data))


def reseal(data: bytes) -> bytes:
    raw = bytearray(data)
    at = 8
    while at + 28 <= len(raw):
        stored = int.from_bytes(raw[at + 8 : at + 12], "big")
        block = raw[at + 28 : at + 28 + stored]
        raw[at + 12 : at + 28] = xxhash.xxh3_128_digest(bytes(block))
        at += 28 + stored
    return bytes(raw)


def decode_delta(data: bytes) -> None:
    decoder = DeltaDecoder(base_size=len(BASE), max_size=1 << 20)
    for at in range(0, len(data), 7):
        decoder.feed(data[at : at + 7])
    decoder.finish()


def apply_delta(data: bytes) -> None:
    with contextlib.closing(Delta.load(io.BytesIO(data))) as loaded:
        patch(io.BytesIO(BASE), loaded, io.BytesIO(), max_size=1 << 16)


def decode_signature(data: bytes) -> None:
    Signature.unpack(data)


def use_signature(data: bytes) -> None:
    """A signature from a stranger, and a file to find matches in."""
    made = delta(Signature.unpack(data), io.BytesIO(BASE))
    made.close()


def decode_tree(data: bytes) -> None:
    """A tree's signature whose sum is made right again."""
    body = data[:-8]
    found = TreeSignature.unpack(body + xxhash.xxh3_64_digest(body))
    for path in found.entries:
        found.of(path)


def use_sources(data: bytes) -> None:
    """A list of sources from a stranger, held against what is here."""
    try:
        sources = msgspec.msgpack.decode(data, type=m.Sources)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DeltaError(str(error)) from None
    contents_of(sources, {Dot(DEVICE, 7): Content(bytes(32), 9)})


def decode_messages(data: bytes) -> None:
    for kind in (m.LoginRequest, m.FetchRequest, m.CommitReply, m.RestoreRequest, m.Record):
        for decoder in (msgspec.msgpack, msgspec.json):
            try:
                decoder.decode(data, type=kind)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue


SOURCES = name_sources([(Dot(DEVICE, 7), bytes(32)), (Dot(DEVICE, 7), bytes(32))])


def _changeset() -> bytes:
    encoder = Encoder(compress=0)
    record = m.Record(b"d/file", DEVICE, 7, 1_700_000_000_000, 1, bytes(32), 9, 0o644, body=True)
    parts = [*encoder.record(record), *encoder.data(encode_commands([Literal(b"some text")]))]
    parts += encoder.trailer(m.Trailer(bytes(32), 9))
    parts += encoder.cursor(m.CursorMark("abc", more=True))
    parts += encoder.sources(SOURCES)
    return b"".join([*parts, *encoder.finish()])


def _compressed() -> bytes:
    encoder = Encoder(compress=1)
    record = m.Record(b"d/file", DEVICE, 7, 1_700_000_000_000, 1, bytes(32), 9, 0o644, body=True)
    return b"".join([*encoder.record(record), *encoder.data(b"text " * 99), *encoder.finish()])


DELTA = encode_commands([Copy(5, 300), Literal(b"x" * 80), Copy(70_000 % 2000, 9), Literal(b"y")])
TREE = TreeSignature(
    {b"d": Entry(Kind.DIRECTORY), b"d/f": Entry(Kind.FILE, bytes(32), 2048, 0o644, 10**18)},
    {b"d/f": signature(io.BytesIO(BASE), block_size=512).pack()},
)
SEALED = bytes([9] * 16) + VersionVector.of({bytes(16): 2**60}).pack()
TARGETS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "changeset": (decode_changeset, [_changeset(), _compressed()]),
    "changeset, sums right": (decode_resealed, [_changeset(), _compressed()]),
    "delta": (decode_delta, [DELTA, encode_commands([])]),
    "patch": (apply_delta, [DELTA]),
    "whole literal": (
        lambda d: whole_literal(memoryview(d)),
        [encode_commands([Literal(b"z" * 70)])],
    ),
    "signature": (
        decode_signature,
        [
            signature(io.BytesIO(BASE), block_size=64).pack(),
            signature(io.BytesIO(BASE), block_size=64, format="librsync").pack(),
        ],
    ),
    "signature in use": (
        use_signature,
        [
            signature(io.BytesIO(BASE), block_size=64).pack(),
            signature(io.BytesIO(BASE), block_size=64, format="librsync").pack(),
        ],
    ),
    "recipe": (
        Recipe.unpack,
        [Recipe.of([Extent(1, 0, 9), Extent(2, 5, 70), Extent(1, 9000, 3)]).pack()],
    ),
    "tree signature": (decode_tree, [TREE.pack()]),
    "sources": (use_sources, [msgspec.msgpack.encode(SOURCES)]),
    "context": (vector_in, [said_after(SEALED, Dot(DEVICE, 8)), said_after(b"", Dot(DEVICE, 8))]),
    "vector": (VersionVector.unpack, [VersionVector.of({DEVICE: 7, bytes(16): 2**60}).pack()]),
    "path": (check_path, [b"a/b/c", b".dblike/x", "ü/e\u0301".encode()]),
    "messages": (
        decode_messages,
        [msgspec.msgpack.encode(m.LoginRequest("u", "p")), b'{"user":"u"}'],
    ),
}

EXTREMES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """A changed copy; sometimes more than once."""
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(raw) + 1)
        match rng.randrange(7):
            case 0 if raw:
                raw[at % len(raw)] ^= 1 << rng.randrange(8)
            case 1:
                del raw[at:]
            case 2:
                raw[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                raw[at : at + rng.randrange(1, 9)] = b""
            case 4:
                raw[at:at] = raw[at : at + rng.randrange(1, 99)] * rng.randrange(1, 3)
            case 5:
                width = rng.choice((1, 2, 4, 8))
                value = rng.choice(EXTREMES) % (1 << (8 * width))
                raw[at : at + width] = value.to_bytes(width, "big")
            case _:
                raw[at : at + 4] = rng.randbytes(4)
    return bytes(raw)


def fuzz(inputs: int, seed: int) -> Counter[str]:
    """Feed so many inputs to the decoders in turn; how many were refused, by decoder."""
    rng = random.Random(seed)
    refused: Counter[str] = Counter()
    names = list(TARGETS)
    for number in range(inputs):
        name = names[number % len(names)]
        target, seeds = TARGETS[name]
        data = mutate(rng, rng.choice(seeds))
        try:
            target(data)
        except DeltaError:
            refused[name] += 1
        except BaseException as error:
            raise AssertionError(f"{name}: {error!r} for bytes.fromhex({data.hex()!r})") from error
    return refused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()
    refused = fuzz(options.inputs, options.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{options.inputs} inputs in {time.monotonic() - start:.0f} s, peak {peak} MiB, "
        f"refused {sum(refused.values())}: {dict(refused)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
