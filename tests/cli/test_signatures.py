"""The cache of signatures."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

from dblike_cli.realfs import RealFS
from dblike_cli.signatures import DIRECTORY, load_signature
from dblike_delta.signature import signature


def test_a_signature_costs_the_memory_of_its_size(tmp_path: Path) -> None:
    kept = signature(io.BytesIO(bytes(100_000)), hash=True)
    name = kept.hash.hex()
    place = tmp_path / DIRECTORY.decode() / name[:2] / name
    place.parent.mkdir(parents=True)
    place.write_bytes(kept.pack())
    fs = RealFS(tmp_path)
    tracemalloc.start()
    try:
        found = load_signature(fs, kept.hash)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        fs.close()
    assert found is not None
    assert found.pack() == kept.pack()
    assert peak < 1 << 20
