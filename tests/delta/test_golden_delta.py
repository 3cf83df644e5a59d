"""Bytes that may never change; tests/golden/delta/README.md says why."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dblike_delta import Delta, librsync, patch, signature
from dblike_delta.formats import Magic, encode_commands
from dblike_delta.signature import Signature
from edits import SEED, applied, commands_for, signed

GOLDEN = Path(__file__).parent.parent / "golden" / "delta"
OLD, NEW = ((GOLDEN / name).read_bytes() for name in ("old", "new"))


def test_our_signature() -> None:
    assert signed(OLD, 512, SEED).pack() == (GOLDEN / "xxh3.sig").read_bytes()


def test_our_delta() -> None:
    made = Signature.unpack((GOLDEN / "xxh3.sig").read_bytes())
    assert encode_commands(commands_for(made, NEW)) == (GOLDEN / "xxh3.delta").read_bytes()


def test_rdiffs_signature() -> None:
    made = signature(io.BytesIO(OLD), block_size=512, format="librsync", strong_size=12)
    assert made.pack() == (GOLDEN / "rk_blake2.sig").read_bytes()


@pytest.mark.parametrize("name", ["rk_blake2", "rk_md4", "blake2", "md4"])
def test_every_kind_of_signature(name: str) -> None:
    made = Signature.unpack((GOLDEN / f"{name}.sig").read_bytes())
    assert made.header.magic == Magic[name.upper()]
    commands = commands_for(made, NEW)
    assert applied(OLD, commands) == NEW
    assert len(encode_commands(commands)) <= (GOLDEN / "rdiff.delta").stat().st_size


@pytest.mark.parametrize("name", ["rdiff", "xxh3"])
def test_every_delta(name: str) -> None:
    data = (GOLDEN / f"{name}.delta").read_bytes()
    ours, theirs = io.BytesIO(), io.BytesIO()
    with Delta.load(io.BytesIO(data)) as loaded:
        patch(io.BytesIO(OLD), loaded, ours)
    librsync.patch(io.BytesIO(OLD), io.BytesIO(data), theirs)
    assert ours.getvalue() == theirs.getvalue() == NEW
