"""librsync through python-librsync, and rdiff: the judges. Files are handed over in all ways."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblike_delta import Delta, delta, librsync, patch, signature
from dblike_delta.errors import DeltaError
from dblike_delta.formats import STRONG_SIZES, Magic
from dblike_delta.signature import Signature
from edits import applied, noise, pairs

OLD = noise(1, 100_000)
NEW = b"head" + OLD[:40_000] + b"!" + OLD[40_500:]


def by_ours(old: bytes, new: bytes, sums: bytes) -> bytes:
    out = io.BytesIO()
    with delta(Signature.unpack(sums), io.BytesIO(new)) as found:
        found.dump(out)
    return out.getvalue()


def by_theirs(sums: bytes, new: bytes) -> bytes:
    out = io.BytesIO()
    librsync.delta(io.BytesIO(sums), io.BytesIO(new), out)
    return out.getvalue()


def signed_by_theirs(old: bytes, **options: object) -> bytes:
    out = io.BytesIO()
    librsync.signature(io.BytesIO(old), out, **options)  # type: ignore[arg-type]
    return out.getvalue()


@given(pairs(), st.sampled_from(list(STRONG_SIZES)), st.sampled_from([16, 100, 512]))
def test_signatures_of_every_magic_are_read(
    pair: tuple[bytes, bytes], magic: Magic, block: int
) -> None:
    old, new = pair
    sums = signed_by_theirs(old, block_size=block, magic=magic)
    assert Signature.unpack(sums).header.magic == magic
    with Delta.load(io.BytesIO(by_ours(old, new, sums))) as found:
        assert applied(old, list(found)) == new


@given(pairs(), st.sampled_from([16, 100, 512]))
def test_our_signature_is_theirs(pair: tuple[bytes, bytes], block: int) -> None:
    ours = signature(io.BytesIO(pair[0]), block_size=block, format="librsync")
    assert ours.pack() == signed_by_theirs(pair[0], block_size=block)


@given(pairs())
def test_their_delta_of_our_signature_is_applied_by_us(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    sums = signature(io.BytesIO(old), block_size=128, format="librsync").pack()
    out = io.BytesIO()
    patch(io.BytesIO(old), io.BytesIO(by_theirs(sums, new)), out)
    assert out.getvalue() == new


@given(pairs(), st.sampled_from(["xxh3", "librsync"]))
def test_our_delta_is_applied_by_them(pair: tuple[bytes, bytes], kind: str) -> None:
    old, new = pair
    sums = signature(io.BytesIO(old), block_size=128, format=kind).pack()
    out = io.BytesIO()
    librsync.patch(io.BytesIO(old), io.BytesIO(by_ours(old, new, sums)), out)
    assert out.getvalue() == new


def test_our_delta_is_no_longer_than_theirs() -> None:
    sums = signed_by_theirs(OLD, block_size=512)
    assert len(by_ours(OLD, NEW, sums)) <= len(by_theirs(sums, NEW))


@pytest.mark.parametrize("data", [b"", b"rs", b"junk" * 10, b"rs\x01\x47\0\0"])
def test_junk_is_an_error_to_them_too(data: bytes) -> None:
    with pytest.raises(DeltaError):
        librsync.delta(io.BytesIO(data), io.BytesIO(NEW), io.BytesIO())
    with pytest.raises(DeltaError):
        librsync.patch(io.BytesIO(OLD), io.BytesIO(data), io.BytesIO())


def test_a_base_that_is_too_short_is_an_error() -> None:
    made = by_ours(OLD, NEW, signed_by_theirs(OLD))
    with pytest.raises(DeltaError):
        librsync.patch(io.BytesIO(OLD[:1000]), io.BytesIO(made), io.BytesIO())


class Failing(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("the disk is gone")


def test_an_error_of_the_base_comes_through() -> None:
    made = by_ours(OLD, NEW, signed_by_theirs(OLD))
    with pytest.raises(OSError, match="the disk is gone"):
        librsync.patch(Failing(OLD), io.BytesIO(made), io.BytesIO())


# --- rdiff, the program ---------------------------------------------------------------------------

STEPS = ("signature", "delta", "patch")


@pytest.mark.parametrize("choice", range(1, 7))
def test_all_hand_overs_with_rdiff(tmp_path: Path, choice: int) -> None:
    """Each step by either program; all by one of them is no hand-over."""
    programs = [
        ["rdiff"] if choice >> step & 1 else [sys.executable, "-m", "dblike_delta"]
        for step in range(3)
    ]
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "new").write_bytes(NEW)
    files = (["old", "sig"], ["sig", "new", "delta"], ["old", "delta", "again"])
    for program, step, names in zip(programs, STEPS, files, strict=True):
        subprocess.run([*program, step, *names], cwd=tmp_path, check=True)
    assert (tmp_path / "again").read_bytes() == NEW


# --- the binding as released ----------------------------------------------------------------------

# No magic number is passed: the library finds whatever a register holds, at times a good one.
SIGN = """
import io, librsync
for size in range(10_000, 10_050):
    librsync.signature(io.BytesIO(b"x" * size)).read()
"""
PATCH = """
import io, sys, librsync
from dblike_delta import librsync as right
old, new = bytes(range(256)) * 400, bytes(range(256)) * 200 + b"!" + bytes(range(256)) * 200
sums, made = io.BytesIO(), io.BytesIO()
right.signature(io.BytesIO(old), sums)
sums.seek(0)
right.delta(sums, io.BytesIO(new), made)
made.seek(0)
again = librsync.patch(io.BytesIO(old), made).read()
sys.exit(0 if again == new else 3)
"""


@pytest.mark.parametrize("code", [SIGN, PATCH], ids=["signature", "patch"])
def test_the_binding_as_released_does_not_work(code: str) -> None:
    """Why librsync.py has prototypes of its own. When this fails, the binding was mended."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return
    assert done.returncode != 0


@settings(max_examples=30)
@given(pairs(), st.integers(0, 2**32))
def test_what_they_accept_we_accept_but_for_the_listed(
    pair: tuple[bytes, bytes], where: int
) -> None:
    """A damaged delta: where librsync makes a file, we make the same one, or refuse on purpose:
    bytes after END, empty commands."""
    old, new = pair
    made = bytearray(by_ours(old, new, signed_by_theirs(old, block_size=64)))
    made[where % len(made)] ^= 1 << where % 8
    theirs, ours = io.BytesIO(), io.BytesIO()
    try:
        librsync.patch(io.BytesIO(old), io.BytesIO(made), theirs)
    except DeltaError:
        return
    try:
        patch(io.BytesIO(old), io.BytesIO(made), ours)
    except DeltaError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert "after the end" in refused or "empty" in refused
        return
    assert ours.getvalue() == theirs.getvalue()
