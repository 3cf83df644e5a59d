"""Values for property tests: by hypothesis where shrinking helps, by a seeded generator in bulk.

Bulk tests run a fixed number of cases, the same ones every time.  DBLIKE_TEST_SCALE multiplies it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence

from blake3 import blake3
from hypothesis import strategies as st

from dblike_delta.plan import Entry
from dblike_delta.recipe import Extent, Recipe
from dblike_delta.versions import Dot, Kind, Version, VersionVector, context, heads

SCALE = float(os.environ.get("DBLIKE_TEST_SCALE", "1"))
DEVICES = tuple(bytes([number]) * 16 for number in range(1, 6))
NOTHING = VersionVector()
AUTHORS = ("laptop", "laptop", "phone", "Bob's (work) box", "")

devices = st.sampled_from(DEVICES) | st.binary(min_size=16, max_size=16)
counters = st.integers(1, 5) | st.integers(1, 2**63 - 1)
vectors = st.dictionaries(devices, counters, max_size=5).map(VersionVector.of)
parts = st.binary(min_size=1, max_size=12).map(lambda raw: raw.translate(None, b"/\0") or b"p")
names = st.sampled_from((b"a", b"b.txt", b"c.tar.gz", b".dot")) | parts
path_bytes = (
    st.lists(names.filter(lambda name: name not in {b".", b".."}), min_size=1, max_size=4)
    .map(b"/".join)
    .filter(lambda path: not path.lower().startswith(b".dblike"))
)
extents = st.builds(Extent, st.integers(1, 3), st.integers(0, 40), st.integers(0, 20))
recipes = st.lists(extents, max_size=12).map(Recipe.of)


def cases(number: int) -> Iterator[random.Random]:
    """That many generators, each with a seed of its own."""
    return (random.Random(seed) for seed in range(max(1, int(number * SCALE))))


def content(seed: object) -> bytes:
    """The hash of a content that is told apart by `seed`."""
    return blake3(repr(seed).encode()).digest()


def file(seed: object, **fields: int) -> Entry:
    """A file of that content."""
    return Entry(Kind.FILE, hash=content(seed), size=1, mode=fields.get("mode", 0o644),
                 mtime_ns=fields.get("mtime_ns", 7))  # fmt: skip


def version(
    device: bytes, counter: int, known: VersionVector = NOTHING, **fields: object
) -> Version:
    """A version of the path `f`, by default a file of its own content at the time `counter`."""
    dot = Dot(device, counter)
    stated: dict[str, object] = {
        "path": b"f",
        "time": counter,
        "kind": Kind.FILE,
        "hash": content((device, counter)),
        "author": AUTHORS[DEVICES.index(device)] if device in DEVICES else "",
        **fields,
    }
    if stated["kind"] != Kind.FILE and "hash" not in fields:
        stated["hash"] = b""
    return Version(dot=dot, vector=known.with_dot(dot), **stated)  # type: ignore[arg-type]


def history(rng: random.Random, number: int, path: bytes = b"f") -> list[Version]:
    """Versions of one path, each made with knowledge of some of those before it.

    What a device knows only grows.  Times are as wrong as clocks are.
    """
    made: list[Version] = []
    known: dict[bytes, VersionVector] = {}
    for counter in range(1, number + 1):
        device = rng.choice(DEVICES)
        seen = context(heads(rng.sample(made, rng.randint(0, len(made)))))
        known[device] = known.get(device, VersionVector()).join(seen).with_dot(Dot(device, counter))
        kind = rng.choice((Kind.FILE, Kind.FILE, Kind.FILE, Kind.SYMLINK, *Kind))
        pool = rng.choice((counter, counter, "shared"))
        made.append(
            version(
                device,
                counter,
                known[device],
                path=path,
                kind=kind,
                time=rng.randint(0, 3) * 1000,
                hash=content(pool) if kind == Kind.FILE else b"",
                target=b"to" if kind == Kind.SYMLINK else b"",
                mode=rng.choice((0o600, 0o755)),
            )
        )
    return made


def shuffled(rng: random.Random, items: Sequence[Version]) -> list[Version]:
    """The same in another order, some of them twice."""
    again = [*items, *rng.sample(items, rng.randint(0, len(items)))]
    rng.shuffle(again)
    return again
