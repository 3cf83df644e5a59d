"""A folder's paths on the site against the same history as plain values."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

import trees
from dblike_delta.messages import Record
from dblike_delta.versions import Dot, Kind, Version, winner
from dblike_srv import tree as tree_module
from dblike_srv.models import journal, journals, paths, versions
from dblike_srv.tree import VERSION_COLUMNS, Tree, version_of
from rig.core_site import CoreSite, Device

PATHS = (b"a", b"a/b", b"a/b/c", b"a/d", b"e", b"e/f")
steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # which device
        st.lists(
            st.tuples(st.sampled_from(PATHS), st.sampled_from(Kind), st.integers(0, 2)),
            min_size=1,
            max_size=4,
        ),
        st.booleans(),  # whether the device hears of everything first
        st.integers(-5, 5),  # how wrong its clock is
    ),
    max_size=10,
)


def all_versions(core: CoreSite) -> dict[Dot, Version]:
    query = select(*VERSION_COLUMNS).order_by(versions.c.seq)
    rows = core.site.database.read(lambda c: c.execute(query).all())
    return {version.dot: version for version in map(version_of, rows)}


def record(device: Device, path: bytes, kind: Kind, which: int, shift: int) -> Record:
    device.core.clock.advance(1)
    fields = {"time": device.core.clock.now + 100 * shift, "mode": 0}
    if kind is Kind.SYMLINK:
        return device.record(path, kind, target=b"t%d" % which, **fields)
    if kind is Kind.FILE:
        return device.record(path, kind, hash=CONTENTS[which][0], size=2, **fields)
    return device.record(path, kind, **fields)


CONTENTS: list[tuple[bytes, bytes]] = []


def prepare(core: CoreSite) -> None:
    """Three contents that any file may have."""
    from blake3 import blake3

    CONTENTS.clear()
    for which in range(3):
        data = b"c%d" % which
        CONTENTS.append((blake3(data).digest(), data))
        core.laptop.put(b"contents", data)


def play(core: CoreSite, history: list) -> list[set[Dot]]:  # type: ignore[type-arg]
    """Commit it all; the dots of each commit."""
    devices = [core.laptop, core.device("phone"), core.device("tablet")]
    made = []
    for index, edits, listens, shift in history:
        device = devices[index]
        if listens:
            nothing = core.site.seal.cursor(core.folder.id, {})
            device.contexts = {p: r.context for p, r in core.records(nothing).items()}
        records = [record(device, *edit, shift) for edit in edits]
        reply = device.commit(*records)
        assert {result.status for result in reply.results} == {"accepted"}
        made.append({Dot(r.device, r.counter) for r in records})
    return made


@settings(max_examples=60)
@given(steps)
def test_the_site_is_what_the_set_of_versions_says(history: list) -> None:  # type: ignore[type-arg]
    """The very same heads and derived versions as the pure rules make of each commit."""
    with tempfile.TemporaryDirectory() as directory:
        core = CoreSite(Path(directory), database="sqlite://")
        prepare(core)
        first = set(all_versions(core))
        made = [first, *play(core, history)]
        seen = all_versions(core)
        model = trees.Site()
        for dots in made:
            model.add([version for dot, version in seen.items() if dot in dots])
        assert set(model.seen) == set(seen)
        check(core, model)
        core.site.close()


def check(core: CoreSite, model: trees.Site) -> None:
    with_heads = {path: heads for path, heads in model.heads.items() if heads}

    def work(connection):  # type: ignore[no-untyped-def]
        tree = Tree(connection, core.folder.row)
        tree.load(with_heads)
        return {path: tree.node(path).heads for path in with_heads}

    assert core.site.database.read(work) == with_heads
    live = {path for path, heads in with_heads.items() if winner(heads).live}
    assert set(core.records()) == live
    for path in live:  # nothing lives in what is no directory
        for above in tree_module.pathnames.ancestors(path):
            assert winner(with_heads[above]).kind is Kind.DIRECTORY


@settings(max_examples=25)
@given(steps)
def test_the_journal_has_no_gaps_and_every_version_once(history: list) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as directory:
        core = CoreSite(Path(directory), database="sqlite://")
        prepare(core)
        play(core, history)
        entries = core.site.database.read(
            lambda c: c.execute(select(journal.c.number, journal.c.seq)).all()
        )
        count = len(all_versions(core))
        assert sorted(number for number, _ in entries) == list(range(1, count + 1))
        assert sorted(seq for _, seq in entries) == list(range(1, count + 1))
        head = core.site.database.read(lambda c: c.execute(select(journals.c.head)).scalar())
        assert head == count
        core.site.close()


@settings(max_examples=25)
@given(steps)
def test_equal_path_keys_change_nothing_but_speed(history: list) -> None:  # type: ignore[type-arg]
    """Two bits of key: every path collides with others."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        outcomes = []
        for digest in (tree_module._digest, lambda path: bytes([len(path) % 2]) * 16):
            patch.setattr(tree_module, "_digest", digest)
            core = CoreSite(Path(directory) / str(len(outcomes)), database="sqlite://")
            prepare(core)
            play(core, history)
            nothing = core.site.seal.cursor(core.folder.id, {})
            outcomes.append((core.records(nothing), all_versions(core)))
            rows = core.site.database.read(lambda c: c.execute(select(paths.c.path)).all())
            assert len(rows) == len(set(rows))
            core.site.close()
        assert outcomes[0] == outcomes[1]
