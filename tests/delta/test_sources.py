"""Sources: contents named by versions come back as they were, or not at all."""

from __future__ import annotations

from itertools import groupby

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from dblike_delta.errors import FormatError, LimitError
from dblike_delta.messages import Record, Sources
from dblike_delta.sources import (
    MOST,
    Content,
    SourcesUnknown,
    contents_of,
    dots_of,
    fill,
    name_sources,
    without_content,
)
from dblike_delta.vectors import VersionVector, handed_out, said_after, vector_in
from dblike_delta.versions import Dot, Kind
from strategies import DEVICES, vectors

dots = st.builds(Dot, st.sampled_from(DEVICES), st.integers(1, 30))


def content(seed: object) -> Content:
    return Content(blake3(repr(seed).encode()).digest(), len(repr(seed)))


def file(number: int, held: Content) -> Record:
    return Record(b"f%d" % number, DEVICES[0], number, 7, Kind.FILE, held.hash, held.size)


@given(st.lists(dots, max_size=40))
def test_versions_come_back_in_their_order(named: list[Dot]) -> None:
    sources = name_sources((dot, content(dot).hash) for dot in named)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(sources), type=Sources)
    assert dots_of(again) == named
    held = {dot: content(dot) for dot in named}
    assert contents_of(again, held) == [held[dot] for dot in named]


@given(st.lists(dots, max_size=40))
def test_each_run_is_said_once(named: list[Dot]) -> None:
    steps = groupby(enumerate(named), key=lambda at: (at[1].device, at[1].counter - at[0]))
    assert len(name_sources((dot, b"") for dot in named).runs) == sum(1 for _ in steps)


@given(st.lists(dots, min_size=1, max_size=40), st.data())
def test_what_is_absent_or_other_is_noticed(named: list[Dot], data: st.DataObject) -> None:
    sources = name_sources((dot, content(dot).hash) for dot in named)
    held = {dot: content(dot) for dot in named}
    at = data.draw(st.sampled_from(named))
    with pytest.raises(SourcesUnknown):
        contents_of(sources, {**held, at: content("other")})
    del held[at]
    with pytest.raises(SourcesUnknown):
        contents_of(sources, held)


def test_no_version_has_a_number_beyond_the_last() -> None:
    last = 2**63 - 1
    assert dots_of(Sources([(DEVICES[0], last, 1)], bytes(32))) == [Dot(DEVICES[0], last)]
    with pytest.raises(SourcesUnknown):
        dots_of(Sources([(DEVICES[0], last, 2)], bytes(32)))


def test_a_list_that_claims_more_than_allowed_costs_nothing() -> None:
    runs = [(DEVICES[0], 1, MOST), (DEVICES[1], 1, 1)]
    with pytest.raises(LimitError):
        dots_of(Sources(runs, bytes(32)))


@pytest.mark.parametrize(
    "run", [(DEVICES[0], 0, 1), (DEVICES[0], 1, 0), (DEVICES[0], 1, MOST + 1), (b"short", 1, 1)]
)
def test_runs_that_are_none(run: tuple[bytes, int, int]) -> None:
    raw = msgspec.msgpack.encode([[run], bytes(32)])
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(raw, type=Sources)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=20))
def test_records_get_back_what_was_left_out(files: list[tuple[bool, int]]) -> None:
    """Those that said their content keep it; directories and deletes have none to get."""
    records = [file(n, content(seed)) for n, (_, seed) in enumerate(files, 1)]
    bare = [without_content(r) if left else r for r, (left, _) in zip(records, files, strict=True)]
    others = [Record(b"d", DEVICES[0], 99, 7, Kind.DIRECTORY), Record(b"x", DEVICES[0], 98, 7, 4)]
    left_out = [content(seed) for left, seed in files if left]
    assert fill([*bare, *others], left_out) == [*records, *others]
    with pytest.raises(SourcesUnknown):
        fill([*bare, *others], [*left_out, content("one too many")])
    if left_out:
        with pytest.raises(SourcesUnknown):
            fill(bare, left_out[1:])


@given(vectors, st.lists(dots, max_size=4))
def test_what_the_device_said_itself_is_known_and_never_sent_back(
    known: VersionVector, said: list[Dot]
) -> None:
    """A context carries the last version that was made in its knowledge, and its seal stays."""
    sealed = b"s" * 16 + known.pack() if known else b""
    context = sealed
    for dot in said:
        context = said_after(context, dot)
        assert vector_in(context) == known.join(VersionVector.of({dot.device: dot.counter}))
        assert handed_out(context) == sealed


def test_a_context_that_nobody_can_read_is_sent_back_as_it_came() -> None:
    for strange in (b"x", b"x" * 16, b"x" * 16 + b"\x01cut"):
        assert handed_out(strange) == strange
        with pytest.raises(FormatError):
            vector_in(strange)
