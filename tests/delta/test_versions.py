"""Versions: the merge is a function of a set, and keeps what the invariants promise."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import DEVICES, NOTHING, cases, content, history, shuffled, vectors, version

from dblike_delta.errors import FormatError
from dblike_delta.vectors import SEAL_BYTES
from dblike_delta.versions import (
    Dot,
    Kind,
    Version,
    VersionVector,
    buried,
    conflict_copy,
    context,
    directory_over,
    dominates,
    heads,
    losers,
    merge,
    same_content,
    same_version,
    settle,
    vector_in,
    winner,
)

A, B, C, D, E = DEVICES


def deleted(device: bytes, counter: int, *known: Version) -> Version:
    return version(device, counter, context(known), kind=Kind.DELETED)


def merged(versions: list[Version]) -> tuple[Version, ...]:
    found: tuple[Version, ...] = ()
    for each in versions:
        found = merge(found, each).heads
    return found


# --- vectors --------------------------------------------------------------------------------------


@given(vectors, vectors, vectors)
def test_vectors_are_a_lattice(a: VersionVector, b: VersionVector, c: VersionVector) -> None:
    both = a.join(b)
    assert a <= both
    assert b <= both
    assert both == b.join(a)
    assert both.join(c) == a.join(b.join(c))
    assert a.join(a) == a
    assert (a <= b) == (both == b)
    assert (a <= b <= a) == (a == b)
    assert (a <= c and b <= c) == (both <= c)
    assert all(both.get(device) == max(a.get(device), b.get(device)) for device, _ in both.items())


@given(vectors, vectors)
def test_to_know_a_vector_is_to_know_each_of_its_dots(a: VersionVector, b: VersionVector) -> None:
    assert (a <= b) == all(b.knows(dot) for dot in a)


@given(vectors, st.sampled_from(DEVICES), st.integers(1, 9))
def test_with_a_dot_the_dot_is_known_and_nothing_forgotten(
    vector: VersionVector, device: bytes, counter: int
) -> None:
    dot = Dot(device, counter)
    longer = vector.with_dot(dot)
    assert longer.knows(dot)
    assert vector <= longer
    assert longer == vector.join(VersionVector.of({device: counter}))
    assert hash(longer) == hash(VersionVector.of(dict(longer.items())))


@given(vectors)
def test_pack_and_unpack_are_opposites(vector: VersionVector) -> None:
    assert VersionVector.unpack(vector.pack()) == vector


@given(st.binary(max_size=40) | vectors.map(VersionVector.pack))
def test_bytes_are_a_vector_in_one_way_or_in_none(raw: bytes) -> None:
    for data in (raw, raw[:-1], raw + b"\0", raw[:1] + raw[2:]):
        try:
            vector = VersionVector.unpack(data)
        except FormatError:
            continue
        assert vector.pack() == data


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "no end"),
        (b"\x01" + A[:15], "cut or not sorted"),
        (b"\x02" + B + b"\x01" + A + b"\x01", "cut or not sorted"),
        (b"\x02" + A + b"\x01" + A + b"\x02", "cut or not sorted"),
        (b"\x01" + A + b"\x00", "out of range"),
        (b"\x01" + A + b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "out of range"),
        (b"\x01" + A + b"\x81\x00", "longer than it needs"),
        (b"\x00\x00", "after the end"),
        (b"\xff\xff\xff\xff\x7f", "cut or not sorted"),
    ],
)
def test_a_malformed_vector_is_refused_with_its_fault(raw: bytes, fault: str) -> None:
    with pytest.raises(FormatError, match=fault):
        VersionVector.unpack(raw)


@pytest.mark.parametrize("counters", [{A: 0}, {A: 2**63}, {b"short": 1}])
def test_what_is_no_vector_is_refused(counters: dict[bytes, int]) -> None:
    with pytest.raises(ValueError, match="no entry"):
        VersionVector.of(counters)


# --- the merge ------------------------------------------------------------------------------------


def test_the_heads_are_a_function_of_the_set_of_versions() -> None:
    """All converge, in whatever order, however often they saw the versions."""
    for rng in cases(10_000):
        versions = history(rng, rng.randint(1, 7))
        expected = tuple(
            sorted(
                (one for one in versions if not any(dominates(other, one) for other in versions)),
                key=lambda one: one.dot,
            )
        )
        assert heads(versions) == expected
        assert merged(shuffled(rng, versions)) == expected
        for each in versions:
            again = merge(expected, each)
            assert not again.added
            assert again.heads is expected


def test_the_merge_is_the_same_in_every_order() -> None:
    for rng in cases(60):
        versions = history(rng, 5)
        assert len({merged(list(order)) for order in itertools.permutations(versions)}) == 1


def test_even_vectors_that_nobody_should_make_merge_the_same_in_every_order() -> None:
    """A device that forgets, or two versions that know each other, can't split the sites."""
    for rng in cases(2000):
        counters = [Dot(rng.choice(DEVICES[:3]), rng.randint(1, 4)) for _ in range(5)]
        versions = []
        for dot in set(counters):
            known = {
                device: rng.randint(1, 4) for device in rng.sample(DEVICES[:3], rng.randint(0, 3))
            }
            known[dot.device] = dot.counter
            versions.append(version(dot.device, dot.counter, VersionVector.of(known)))
        expected = merged(versions)
        assert expected
        for _ in range(5):
            assert merged(shuffled(rng, versions)) == expected


def test_heads_of_heads_are_the_heads_of_all() -> None:
    for rng in cases(3000):
        versions = history(rng, 8)
        some, others = rng.sample(versions, 5), rng.sample(versions, 5)
        assert merged([*heads(some), *heads(others)]) == heads([*some, *others])


def test_a_devices_later_version_dominates_its_earlier_one() -> None:
    first = version(A, 1)
    assert heads([first, version(A, 2)]) == (version(A, 2),)
    assert heads([version(A, 2), first]) == (version(A, 2),)


def test_the_context_of_the_heads_makes_an_edit_that_dominates_them_all() -> None:
    for rng in cases(2000):
        found = heads(history(rng, 6))
        edit = version(E, 99, context(found))
        assert merge(found, edit).heads == (edit,)


def test_one_dot_with_other_content_is_told() -> None:
    one = version(A, 1)
    assert same_version(one, version(A, 1))
    assert not same_version(one, version(A, 1, hash=content("other")))
    assert not merge((one,), version(A, 1, hash=content("other"))).added


# --- winner, losers, copies -----------------------------------------------------------------------


def test_an_edit_beats_a_concurrent_delete_whatever_the_clocks_say() -> None:
    """An edit beats a concurrent delete, on all devices, without a copy."""
    for times in ((1, 10**15), (10**15, 1), (-(10**12), 0)):
        edit = version(A, 1, time=times[0])
        delete = version(B, 1, time=times[1], kind=Kind.DELETED)
        both = heads([edit, delete])
        assert winner(both) == edit
        assert losers(both) == ()
        assert settle(b"f", both, has_live_children=False) == ()


def test_a_delete_removes_only_what_it_knew() -> None:
    first, second = version(A, 1), version(B, 1)
    delete = version(C, 1, first.vector, kind=Kind.DELETED)
    assert winner(heads([first, second, delete])) == second
    assert not winner(heads([first, version(C, 1, first.vector, kind=Kind.DELETED)])).live


def test_what_was_deleted_with_knowledge_does_not_reappear() -> None:
    """Nothing comes back."""
    for rng in cases(2000):
        versions = history(rng, 5)
        delete = version(E, 99, context(versions), kind=Kind.DELETED)
        assert merged(shuffled(rng, [*versions, delete])) == (delete,)


def test_a_delete_buried_the_winner_of_what_it_knew() -> None:
    older, newer = version(B, 1, time=5), version(A, 1, time=9)
    tomb = deleted(A, 2, older, newer)
    for known in itertools.permutations((older, newer, tomb)):
        assert buried(known) == newer


def test_a_delete_buried_what_had_come_over_an_earlier_delete_whatever_the_clocks_say() -> None:
    first, late = version(A, 1, time=9), version(B, 1, time=5)
    before = deleted(A, 2, first)
    tomb = deleted(A, 3, before, late)
    for known in itertools.permutations((first, before, late, tomb)):
        assert buried(known) == late
    assert buried((first, before, deleted(A, 3, before))) == first  # deleted twice
    assert buried((first, before)) == first
    assert buried((before,)) is None


def test_two_deletes_that_knew_not_of_each_other_buried_the_winner_of_both() -> None:
    one, two = version(A, 1, time=9), version(B, 1, time=5)
    for known in itertools.permutations((one, two, deleted(A, 2, one), deleted(B, 2, two))):
        assert buried(known) == one


def test_the_winner_is_the_youngest_and_the_dot_settles_a_tie() -> None:
    assert winner([version(A, 1, time=5), version(B, 1, time=4)]).dot.device == A
    assert winner([version(A, 1, time=5), version(B, 1, time=5)]).dot.device == B
    assert winner([version(A, 1, kind=Kind.DELETED), version(B, 2, kind=Kind.DELETED)]).time == 2


def test_k_concurrent_contents_make_k_minus_1_copies_in_whatever_order() -> None:
    """The same copies on every site, for real conflicts only."""
    for rng in cases(3000):
        number = rng.randint(2, 5)
        kinds = (Kind.FILE, Kind.SYMLINK)
        concurrent = [
            version(device, 1, time=rng.randint(0, 2), kind=rng.choice(kinds), target=device,
                    hash=content(device))
            for device in DEVICES[:number]
        ]  # fmt: skip
        best = winner(concurrent)
        rng.shuffle(concurrent)
        found: tuple[Version, ...] = ()
        copies: dict[Dot, Version] = {}
        for each in concurrent:
            merge_ = merge(found, each)
            found = merge_.heads
            copies.update((copy.dot, copy) for copy in merge_.copies)
        assert copies.keys() == {conflict_copy(v).dot for v in concurrent if v != best}
        kept = [*copies.values(), best]
        assert {(v.hash, v.target) for v in kept} == {(v.hash, v.target) for v in concurrent}


def test_equal_content_and_other_metadata_make_no_copy() -> None:
    same = content("same")
    versions = [
        version(device, 1, hash=same, mode=mode, mtime_ns=mode)
        for device, mode in zip(DEVICES, (0o600, 0o644, 0o755, 0o777, 0), strict=True)
    ]
    found = heads(versions)
    assert len(found) == 5
    assert losers(found) == ()
    assert winner(found).mode == 0
    # Two contents are one copy, however many said them; it is that of who said it first.
    other = version(E, 9, time=99, hash=content("other"))
    assert losers(heads([*versions[:3], other])) == (versions[0],)


def test_directories_never_need_a_copy() -> None:
    directories = [version(device, 1, kind=Kind.DIRECTORY, mode=0o700) for device in (A, B)]
    assert same_content(*directories)
    assert losers(heads(directories)) == ()
    file = version(C, 1, time=-5)
    assert losers(heads([*directories, file])) == (file,)
    assert losers(heads([*directories, version(C, 1, time=99)])) == ()


def test_a_copy_is_a_version_like_any_other() -> None:
    """A copy is an ordinary file: deleting it never brings it back."""
    a, b = version(A, 1), version(B, 2)
    copy = conflict_copy(a)
    assert merge(heads([a]), b).copies == (copy,) == merge(heads([b]), a).copies
    assert same_content(copy, a)
    assert (copy.time, copy.mode, copy.author) == (a.time, a.mode, a.author)
    assert copy.vector == NOTHING.with_dot(copy.dot)
    assert copy.dot.counter == 1
    delete = version(C, 7, copy.vector, path=copy.path, kind=Kind.DELETED)
    assert merged([copy, delete, copy]) == merged([delete, copy]) == (delete,)


# --- settle ---------------------------------------------------------------------------------------


def test_nothing_follows_from_a_path_without_conflict() -> None:
    assert settle(b"f", (), has_live_children=False) == ()
    assert settle(b"f", (version(A, 1),), has_live_children=False) == ()
    directory = version(A, 1, kind=Kind.DIRECTORY)
    assert settle(b"f", (directory,), has_live_children=True) == ()


@pytest.mark.parametrize(
    "stated",
    [
        [],
        [version(A, 1)],
        [version(A, 1, kind=Kind.SYMLINK, target=b"x")],
        [version(A, 1, kind=Kind.DELETED)],
        [version(A, 1), version(B, 1), version(C, 1, kind=Kind.DELETED)],
        [version(A, 1), version(B, 0x7F, kind=Kind.DELETED)],
        [version(A, 9), version(B, 1, kind=Kind.DIRECTORY, mode=0o700)],
    ],
)
def test_a_path_with_live_children_is_a_directory_and_nothing_is_lost(
    stated: list[Version],
) -> None:
    """A live child wins over a file, a symlink or a delete at its ancestor."""
    found = heads(stated)
    *copies, directory = settle(b"f", found, has_live_children=True)
    assert directory == directory_over(b"f", tuple(reversed(found)))
    assert merge(found, directory).heads == (directory,)
    assert directory.mode == (0o700 if any(v.mode == 0o700 for v in stated) else 0o755)
    displaced = {v.hash + v.target for v in stated if v.kind in {Kind.FILE, Kind.SYMLINK}}
    assert {copy.hash + copy.target for copy in copies} == displaced
    assert settle(b"f", (directory,), has_live_children=True) == ()


def test_directories_that_two_sites_derived_are_one_directory() -> None:
    file, other = version(A, 1), version(B, 2)
    one, two = directory_over(b"f", (file,)), directory_over(b"f", (file, other))
    assert one.dot != two.dot
    for found in itertools.permutations([one, two, file, other]):
        assert settle(b"f", heads(found), has_live_children=True) == ()
        assert losers(heads(found)) == ()


@given(vectors, st.binary(min_size=SEAL_BYTES, max_size=SEAL_BYTES))
def test_the_vector_in_a_sealed_context(vector: VersionVector, mac: bytes) -> None:
    assert vector_in(mac + vector.pack()) == vector


@given(st.binary(min_size=1, max_size=80))
def test_what_is_no_sealed_context_is_an_error(junk: bytes) -> None:
    try:
        assert vector_in(junk).pack() == junk[SEAL_BYTES:]
    except FormatError:
        pass
    assert vector_in(b"") == VersionVector()
