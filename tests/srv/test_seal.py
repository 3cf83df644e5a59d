"""Seals: nobody can invent a context or a cursor, nor use one where it was not handed out."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblike_delta.vectors import SEAL_BYTES, VersionVector
from dblike_srv.errors import Gone, Invalid
from dblike_srv.seal import Seal

FOLDER, OTHER = b"f" * 16, b"g" * 16
SEAL = Seal(b"k" * 32)
devices = st.binary(min_size=16, max_size=16)
vectors = st.dictionaries(devices, st.integers(1, 2**63 - 1), max_size=4)


@given(vectors, st.binary(max_size=30))
def test_contexts_come_back(counters: dict[bytes, int], path: bytes) -> None:
    vector = VersionVector.of(counters)
    sealed = SEAL.context(FOLDER, path, vector.pack())
    assert SEAL.open_context(FOLDER, path, sealed) == vector


def test_no_context_is_the_empty_one() -> None:
    assert SEAL.open_context(FOLDER, b"a", b"") == VersionVector()


@given(vectors, st.integers(min_value=0), st.integers(1, 255))
def test_a_changed_context_is_refused(counters: dict[bytes, int], at: int, flip: int) -> None:
    sealed = bytearray(SEAL.context(FOLDER, b"a", VersionVector.of(counters).pack()))
    sealed[at % len(sealed)] ^= flip
    with pytest.raises(Invalid):
        SEAL.open_context(FOLDER, b"a", bytes(sealed))


@pytest.mark.parametrize(("folder", "path", "key"), [
    (OTHER, b"a", b"k" * 32),
    (FOLDER, b"b", b"k" * 32),
    (FOLDER, b"a", b"K" * 32),
])  # fmt: skip
def test_a_context_is_good_for_its_path_folder_and_cluster_only(
    folder: bytes, path: bytes, key: bytes
) -> None:
    sealed = SEAL.context(FOLDER, b"a", VersionVector.of({b"d" * 16: 7}).pack())
    with pytest.raises(Invalid):
        Seal(key).open_context(folder, path, sealed)


def test_path_and_vector_do_not_run_together() -> None:
    """No split of path and vector gives the sum of another one: paths hold no NUL."""
    packed = VersionVector.of({b"d" * 16: 7}).pack()
    sealed = SEAL.context(FOLDER, b"a", packed)
    assert sealed[SEAL_BYTES:] == packed
    with pytest.raises(Invalid):
        SEAL.open_context(FOLDER, b"a\0" + packed[:4], sealed[:SEAL_BYTES] + packed[4:])


@given(st.dictionaries(devices, st.integers(0, 2**63 - 1), max_size=4))
def test_cursors_come_back_and_are_equal_for_equal_places(numbers: dict[bytes, int]) -> None:
    text = SEAL.cursor(FOLDER, numbers)
    assert SEAL.open_cursor(FOLDER, text) == {site: n for site, n in numbers.items() if n}
    assert text == SEAL.cursor(FOLDER, dict(reversed(numbers.items())))


BAD = ["x", "====", "AAAA", "é", "\0", "a" * 10_000, "-1", "0"]


@pytest.mark.parametrize("text", BAD)
def test_garbage_is_no_cursor(text: str) -> None:
    with pytest.raises(Gone):
        SEAL.open_cursor(FOLDER, text)


@given(st.text(max_size=100))
def test_any_text_is_a_cursor_or_gone(text: str) -> None:
    try:
        SEAL.open_cursor(FOLDER, text)
    except Gone:
        pass


def test_a_cursor_is_good_for_its_folder_and_kind_only() -> None:
    text = SEAL.cursor(FOLDER, {b"s" * 16: 3})
    for folder, seal in ((OTHER, SEAL), (FOLDER, Seal(b"K" * 32))):
        with pytest.raises(Gone):
            seal.open_cursor(folder, text)
    packed = VersionVector.of({b"s" * 16: 3}).pack()
    as_context = SEAL.context(FOLDER, b"", packed)
    with pytest.raises(Gone):
        SEAL.open_cursor(FOLDER, base64.urlsafe_b64encode(as_context).rstrip(b"=").decode())
