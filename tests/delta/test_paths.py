"""Paths: what is one, and their arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import path_bytes

from dblike_delta import paths
from dblike_delta.errors import DeltaError, PathError


@pytest.mark.parametrize(
    "path",
    [
        b"a",
        b"a/b",
        b"...",
        b".a",
        b"a..",
        b" ",
        b"a/.dblike",
        b".dblike2",
        b".dblik",
        b".dblik\xe2\x84",
        ".dbl\u0131k\u200de".encode(),
        ".dblikeé".encode(),
        "a\u200d/.dbli\u212ae".encode(),
        b"\xff\xfe",
        b"new\nline",
        "ä/é".encode(),
        b"n" * 255,
        b"/".join([b"n" * 255] * 16),
        b"d/" * 2047 + b"dd",
    ],
)
def test_a_path_is_kept_byte_by_byte(path: bytes) -> None:
    assert paths.check_path(path) is path


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (b"", "the path is empty"),
        (b"/", "begins with a slash"),
        (b"/a", "begins with a slash"),
        (b"a/", "ends with a slash"),
        (b"a//b", "empty part"),
        (b".", "'.' or '..'"),
        (b"..", "'.' or '..'"),
        (b"a/./b", "'.' or '..'"),
        (b"a/..", "'.' or '..'"),
        (b"../a", "'.' or '..'"),
        (b"a\0b", "NUL"),
        (b".dblike", "client's own"),
        (b".DBLike/x", "client's own"),
        (".dbli\u212ae/x".encode(), "client's own"),
        (".dbl\u200dike".encode(), "client's own"),
        ("\u200b.DBLike\ufe0f/x".encode(), "client's own"),
        (b"n" * 256, "longer than 255"),
        (b"a/" + b"n" * 256 + b"/b", "longer than 255"),
        (b"d/" * 2048 + b"d", "limit is 4096"),
    ],
)
def test_what_is_no_path_is_refused_with_its_fault(path: bytes, fault: str) -> None:
    with pytest.raises(PathError, match=fault) as caught:
        paths.check_path(path)
    assert caught.value.path == path
    assert isinstance(caught.value, DeltaError)


def plainly_valid(raw: bytes) -> bool:
    """The definition, word by word."""
    parts = raw.split(b"/")
    return (
        len(raw) <= 4096
        and b"\0" not in raw
        and all(part not in {b"", b".", b".."} and len(part) <= 255 for part in parts)
        and parts[0].lower() != b".dblike"
    )


@given(
    st.binary(max_size=12)
    | st.lists(
        st.sampled_from((b"a", b".", b"..", b"", b"\0", b".dblike", b".DBlike", b"n" * 256, b"\n")),
        max_size=5,
    ).map(b"/".join)
)
def test_the_check_is_the_definition(raw: bytes) -> None:
    try:
        assert paths.check_path(raw) is raw
        valid = True
    except PathError:
        valid = False
    assert valid == plainly_valid(raw)


@given(path_bytes)
def test_parent_name_and_ancestors_take_a_path_apart(path: bytes) -> None:
    assert paths.join(paths.parent(path), paths.name(path)) == path
    above = paths.ancestors(path)
    assert list(above) == sorted(above, key=len)
    assert len(above) == path.count(b"/")
    assert (above[-1] if above else b"") == paths.parent(path)
    assert all(paths.is_below(path, directory) for directory in (b"", *above))
    assert not paths.is_below(path, path)
    assert not paths.is_below(path + b"x/y", path)


@given(st.binary(max_size=40))
def test_what_people_see_is_one_printable_line(raw: bytes) -> None:
    assert paths.display(raw).isprintable()


def test_what_people_can_read_is_left_as_it_is() -> None:
    assert paths.display("Größe/名.txt".encode()) == "Größe/名.txt"
    assert paths.display(b"a\xff\x1b[31m\r") == r"a\xff\x1b[31m\r"
    assert paths.display("\u202etxt.exe".encode()) == r"\u202etxt.exe"
