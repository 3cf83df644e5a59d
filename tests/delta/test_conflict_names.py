"""The names of conflict copies: derived, bounded, readable, and never a path that is none."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.strategies import DEVICES, names, path_bytes, version

from dblike_delta import paths
from dblike_delta.versions import (
    Version,
    conflict_copy,
    conflict_path,
    is_conflict_copy,
    original_path,
)

NOON = 1795403527000  # 2026-11-23 03:12:07 UTC


def loser(path: bytes, author: str = "laptop", time: int = NOON, counter: int = 1) -> Version:
    return version(DEVICES[0], counter, path=path, author=author, time=time)


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("report.txt", "report (conflicted copy from laptop 2026-11-23 03.12.07).txt"),
        ("d/report.txt", "d/report (conflicted copy from laptop 2026-11-23 03.12.07).txt"),
        ("d.e/report", "d.e/report (conflicted copy from laptop 2026-11-23 03.12.07)"),
        ("x.tar.gz", "x.tar (conflicted copy from laptop 2026-11-23 03.12.07).gz"),
        (".bashrc", ".bashrc (conflicted copy from laptop 2026-11-23 03.12.07)"),
        (".a.txt", ".a (conflicted copy from laptop 2026-11-23 03.12.07).txt"),
        ("..x", "..x (conflicted copy from laptop 2026-11-23 03.12.07)"),
        ("end.", "end (conflicted copy from laptop 2026-11-23 03.12.07)."),
        (
            "Mr. Smith went to town and stayed there",
            (
                "Mr. Smith went to town and stayed there"
                " (conflicted copy from laptop 2026-11-23 03.12.07)"
            ),
        ),
    ],
)
def test_the_extension_is_kept(name: str, copy: str) -> None:
    assert conflict_path(name.encode(), loser(name.encode())) == copy.encode()
    assert original_path(copy.encode()) == name.encode()


@pytest.mark.parametrize(
    ("author", "said"),
    [
        ("Bob's (work) box", "Bob's work box"),
        ("a/b\n\tc\x00\x1b", "a b c"),
        ("\u202eevil\ud800", "evil"),
        ("", "unknown"),
        ("/()", "unknown"),
        ("ä" * 64, "ä" * 32),
        ("名" * 64, "名" * 21),
    ],
)
def test_the_author_is_made_fit_for_a_name(author: str, said: str) -> None:
    copy = conflict_path(b"f", loser(b"f", author))
    assert copy.decode() == f"f (conflicted copy from {said} 2026-11-23 03.12.07)"
    assert original_path(copy) == b"f"


@pytest.mark.parametrize(
    ("time", "date"),
    [
        (0, "1970-01-01 00.00.00"),
        (-1, "1970-01-01 00.00.00"),
        (-(2**53), "1970-01-01 00.00.00"),
        (2**53, "9999-12-31 23.59.59"),
        (2**62, "9999-12-31 23.59.59"),
    ],
)
def test_times_from_broken_clocks_have_a_date(time: int, date: str) -> None:
    assert conflict_path(b"f", loser(b"f", time=time)).endswith(f"{date})".encode())


def test_the_copy_of_a_copy_replaces_the_suffix() -> None:
    """A conflict of a conflict has a bounded name, still unique and derived."""
    copy = conflict_copy(loser(b"d/f.txt"))
    for _ in range(3):
        other = conflict_copy(copy)
        assert other.path.startswith(b"d/f (conflicted copy from laptop 2026-11-23 03.12.07 ")
        assert other.path.endswith(b").txt")
        assert (
            len(other.path)
            == len(b"d/f (conflicted copy from laptop 2026-11-23 03.12.07 .txt)") + 8
        )
        assert other.path != copy.path
        assert original_path(other.path) == b"d/f.txt"
        copy = other


@pytest.mark.parametrize("size", [33, 150, 200, 208])
@pytest.mark.parametrize("author", ["laptop", "n" * 64])
def test_a_long_last_part_of_the_copy_of_a_copy_leaves_room_for_the_suffix(
    author: str, size: int
) -> None:
    """Anybody may call a file so: a name that is looked for for ever would stop a site."""
    path = b"a (conflicted copy from x 2026-11-23 03.12.07)." + b"e" * size
    copy = conflict_copy(loser(path, author)).path
    assert paths.check_path(copy) != path
    assert original_path(copy) is not None
    assert copy.startswith(b"a.eee")


many_names = st.one_of(
    names,
    st.text(min_size=1, max_size=90).map(lambda s: s.encode("utf-8", "replace")),
    st.binary(min_size=200, max_size=255),
    st.sampled_from(
        (b"\x80" * 255, "ä".encode() * 127, "名".encode() * 85, b"x" * 200 + b"." * 55)
    ),
).map(lambda raw: raw.translate(None, b"/\0") or b"n")
deep = st.sampled_from(
    (b"", b"d/", b"d/" * 1900, b"d/" * 1990, b"d/" * 2047, b"n" * 200 + b"/" + b"d/" * 1920)
)


@given(deep, many_names, st.text(max_size=64), st.integers(-(2**53), 2**53))
@example(b"", b".dblike (conflicted copy from x 2026-11-23 03.12.07)", "x", 0)
@example(b"", b".. (conflicted copy from x 2026-11-23 03.12.07)", "x", 0)
@example(b"", b" (conflicted copy from x 2026-11-23 03.12.07).txt", "x", 0)
def test_the_name_of_a_copy_is_a_path_within_all_limits(
    directory: bytes, name: bytes, author: str, time: int
) -> None:
    path = directory + name
    try:
        paths.check_path(path)
    except paths.PathError:
        return
    copy = loser(path, author, time)
    taken = {path}
    for _ in range(3):
        copy = conflict_copy(copy)
        assert paths.check_path(copy.path) == copy.path
        assert copy.path not in taken
        assert paths.is_below(path, paths.parent(copy.path))
        original = original_path(copy.path)
        assert original is None or paths.check_path(original)
        taken.add(copy.path)


@given(path_bytes, st.text(max_size=64), st.integers(0, 2**48))
def test_the_original_is_read_back_from_the_name(path: bytes, author: str, time: int) -> None:
    copy = conflict_copy(loser(path, author, time))
    if not is_conflict_copy(path):
        assert original_path(copy.path) == path
    assert original_path(conflict_copy(copy).path) == original_path(copy.path)


def test_a_copy_goes_further_up_where_its_directory_leaves_no_room() -> None:
    """At every length of the directory's path, and no file's own name is cut to nothing."""
    for length in range(3980, 4095):
        directory = b"top/" + (b"d/" * 2048)[: length - 5] + b"e"
        assert len(directory) == length
        for own in (b"f" * min(60, 4095 - length), b"f"):
            path = paths.check_path(directory + b"/" + own)
            copy = conflict_path(path, loser(path))
            assert paths.check_path(copy) == copy
            assert paths.name(copy).startswith(b"f")
            assert paths.is_below(path, paths.parent(copy))
        in_place = len(directory) + len("/f (conflicted copy from laptop 2026-11-23 03.12.07)")
        assert (paths.parent(copy) == directory) == (in_place <= paths.MAX_PATH)


def test_a_name_is_cut_between_characters() -> None:
    for letter in ("ä", "名", "😀"):
        for front in range(4):
            name = "n" * front + letter * ((255 - front) // len(letter.encode()))
            cut = conflict_path(name.encode(), loser(name.encode()))
            assert cut.decode()
            assert 250 < len(cut) <= 255


@pytest.mark.parametrize(
    "name",
    [
        b"f",
        b"f (conflicted copy from laptop)",
        b"f (conflicted copy from laptop 2026-11-23)",
        b" (conflicted copy from laptop 2026-11-23 03.12.07)",
        b".. (conflicted copy from laptop 2026-11-23 03.12.07)",
        b".dblike (conflicted copy from laptop 2026-11-23 03.12.07)",
        b"f (conflicted copy from a/b 2026-11-23 03.12.07)",
        b"f (conflicted copy from laptop 2026-11-23 03.12.07) and more",
        b"f (conflicted copy from laptop 2026-11-23 03.12.07)/x",
    ],
)
def test_other_names_are_no_conflict_copies(name: bytes) -> None:
    assert not is_conflict_copy(name)
