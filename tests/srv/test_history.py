"""Trees of now and then, page by page, and bringing things back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from dblike_delta.messages import RestoreRequest, TreeList
from dblike_delta.paths import is_below, parent
from dblike_delta.versions import Kind
from dblike_srv import history
from dblike_srv.contents import State
from dblike_srv.errors import Conflict, Invalid, NotFound, PreconditionFailed
from dblike_srv.files import FileWish, Precondition, delete_path, put_file
from dblike_srv.listing import walk
from dblike_srv.maintenance import gc
from dblike_srv.models import contents, versions
from dblike_srv.views import version_name
from rig.core_site import DAY_MS, HOUR_MS, CoreSite

names = st.sampled_from((b"a", b"a-b", b"a.b", b"b", b"\xff", b"0"))
some_paths = st.lists(st.lists(names, min_size=1, max_size=3).map(b"/".join), max_size=12)


@pytest.fixture
def core(tmp_path: Path, core_site: Callable[..., CoreSite]) -> CoreSite:
    return core_site(tmp_path)


def by_parts(path: bytes) -> list[bytes]:
    return path.split(b"/")


def listed(core: CoreSite, below: bytes = b"", **options: int) -> list[str]:
    found = history.tree(core.site, core.folder, below, **options)  # type: ignore[arg-type]
    return [entry.path for entry in found.entries]


def put(core: CoreSite, path: bytes, data: bytes) -> None:
    """Over HTTP."""
    put_file(core.site, core.laptop.identity, core.folder, path, [data], wish=FileWish())


@settings(max_examples=40)
@given(some_paths, some_paths, names, st.integers(1, 4))
def test_pages_of_a_walk_are_the_whole_of_it(
    made: list[bytes], gone: list[bytes], below: bytes, page: int
) -> None:
    """As the sorted list of what lives, wherever the pages end and wherever it begins."""
    with tempfile.TemporaryDirectory() as directory:
        core = CoreSite(Path(directory), database="sqlite://")
        for path in made:
            core.laptop.put(path, path)
        for path in gone:
            if core.records().get(path) is not None:
                core.laptop.delete(path)
        live = sorted(core.records(), key=by_parts)
        for root in (b"", below):
            expected = [p for p in live if not root or p == root or is_below(p, root)]
            assert paged(core, root, page) == expected
            near = [p for p in expected if root in (p, parent(p))]
            assert paged(core, root, page, deep=False) == near
        core.site.close()


def paged(core: CoreSite, below: bytes, page: int, *, deep: bool = True) -> list[bytes]:
    seen: list[bytes] = []
    while True:
        after = seen[-1] if seen else b""

        def work(connection, after=after):  # type: ignore[no-untyped-def]
            places = walk(connection, core.folder.row, below, after=after, deep=deep)
            return [place.path for _, place in zip(range(page), places, strict=False)]

        found = core.site.database.read(work)
        if not found:
            return seen
        seen += found


def test_the_tree_as_it_was(core: CoreSite) -> None:
    core.clock.advance(HOUR_MS)
    core.laptop.make(b"d")
    moments = []
    steps = [
        lambda: core.laptop.put(b"d/a", b"one"),
        lambda: core.laptop.put(b"d/a", b"two"),
        lambda: core.laptop.delete(b"d/a"),
        lambda: core.laptop.put(b"e", b"three"),
    ]
    for step in steps:
        core.clock.advance(HOUR_MS)
        step()
        moments.append(core.clock.now)
    assert [listed(core, at=moment) for moment in moments] == [
        ["d", "d/a"], ["d", "d/a"], ["d"], ["d", "e"],
    ]  # fmt: skip
    assert listed(core) == ["d", "e"]
    assert listed(core, at=moments[0] - 2 * HOUR_MS) == []
    then = history.tree(core.site, core.folder, b"d/a", at=moments[0])
    assert isinstance(then, TreeList)
    assert then.entries[0].size == 3


def restore(core: CoreSite, **fields: object) -> int:
    request = RestoreRequest(**fields)  # type: ignore[arg-type]
    return history.restore(core.site, core.laptop.identity, core.folder, request).restored


def test_a_deleted_directory_comes_back_whole(core: CoreSite) -> None:
    files = {b"d/a": b"1", b"d/sub/b": b"2", b"d/sub/c\xff": b"3", b"other": b"4"}
    for path, data in files.items():
        core.laptop.put(path, data)
    core.laptop.contexts = {path: record.context for path, record in core.records().items()}
    for path in sorted(core.records(), reverse=True):
        core.laptop.delete(path)
    before = core.store.bytes_read
    assert restore(core, path="d") == 5
    assert core.store.bytes_read == before
    assert {p: core.read(p) for p in files if p != b"other"} == {
        p: data for p, data in files.items() if p != b"other"
    }
    assert b"other" not in core.records()
    assert restore(core, path="d", at=core.clock.now) == 0  # it is so already


def test_the_winner_of_a_conflict_is_what_was_and_what_comes_back(core: CoreSite) -> None:
    """The loser's device was away when it wrote: its version came later."""
    core.clock.advance(HOUR_MS)
    wrote = core.clock.now
    core.laptop.put(b"a", b"winner", time=wrote)
    core.device("phone").put(b"a", b"loser", time=wrote - 60_000)
    core.clock.advance(40 * DAY_MS)
    core.laptop.contexts = {path: record.context for path, record in core.records().items()}
    core.laptop.delete(b"a")
    core.clock.advance(HOUR_MS)
    [then] = history.tree(core.site, core.folder, b"a", at=wrote).entries
    assert then.size == len(b"winner")
    assert gc(core.site).versions == 0  # both were there until an hour ago
    assert restore(core, path="a") == 1
    assert core.read(b"a") == b"winner"


def test_an_old_version_comes_back_over_the_new_one(core: CoreSite) -> None:
    core.laptop.put(b"a", b"old")
    core.laptop.put(b"a", b"new")
    name = f"{core.laptop.identity.device.hex()}.1"
    assert restore(core, path="a", version=name) == 1
    assert core.read(b"a") == b"old"
    assert len(history.versions_of(core.site, core.folder, b"a").versions) == 3
    assert set(core.records()) == {b"a"}


def test_restoring_to_another_place_leaves_the_first_alone(core: CoreSite) -> None:
    core.laptop.put(b"d/a", b"old")
    moment = core.clock.now
    core.clock.advance(HOUR_MS)
    core.laptop.put(b"d/a", b"new")
    assert restore(core, path="d", at=moment, to="back/then") == 2
    assert core.read(b"back/then/a") == b"old"
    assert core.read(b"d/a") == b"new"


def test_the_whole_folder_comes_back_below_another_place(core: CoreSite) -> None:
    core.laptop.put(b"d/a", b"old")
    core.laptop.put(b"b", b"there")
    moment = core.clock.now
    core.clock.advance(HOUR_MS)
    core.laptop.delete(b"d/a")
    assert restore(core, at=moment, to="back/then") == 3
    assert listed(core, b"back/then") == [
        "back/then",
        "back/then/b",
        "back/then/d",
        "back/then/d/a",
    ]
    assert core.read(b"back/then/d/a") == b"old"


def test_a_version_comes_back_as_what_it_is_to_be_called(core: CoreSite) -> None:
    core.laptop.put(b"d/a", b"old")
    name = f"{core.laptop.identity.device.hex()}.1"
    assert restore(core, version=name, to="back") == 1
    assert core.read(b"back") == b"old"


def test_directories_above_what_is_brought_back_have_a_time_and_an_author(core: CoreSite) -> None:
    core.laptop.put(b"a", b"x")
    core.clock.advance(HOUR_MS)
    restored = restore(core, path="a", at=core.clock.now, to="one/two/a")
    assert restored == 1
    for path in (b"one", b"one/two"):
        [made] = history.versions_of(core.site, core.folder, path).versions
        assert (made.time, made.device) == (core.clock.now, "laptop")
    logged = [view.path for view in history.log(core.site, core.folder).versions]
    assert logged == ["one/two/a", "one/two", "one", "a"]


def test_a_content_that_is_damaged_is_named_and_keeps_no_other_away(core: CoreSite) -> None:
    for path in (b"d/a", b"d/b", b"d/c"):
        core.laptop.put(path, path * 100)
        core.laptop.delete(path)
    bad = update(contents).where(contents.c.hash == blake3(b"d/b" * 100).digest())
    core.site.database.transact(lambda c: c.execute(bad.values(state=int(State.DAMAGED))))
    for _ in range(2):
        with pytest.raises(Invalid, match=r"content of d/b is damaged .*: all else is there"):
            restore(core, path="d")
        assert listed(core, b"d") == ["d", "d/a", "d/c"]


def test_what_is_put_over_what_began_later_and_was_faster(core: CoreSite) -> None:
    """Who ends last is the last: a slow PUT is not refused for one that overtook it."""

    me = core.laptop.identity
    made = put_file(core.site, me, core.folder, b"d/f", overtaken(core, b"d/f"), wish=FileWish())
    assert core.read(b"d/f") == b"slow"
    assert sorted(core.records()) == [b"d", b"d/f"]
    kept = history.versions_of(core.site, core.folder, b"d/f").versions
    assert kept[0].version == version_name(made.dot)
    assert len(kept) == 2
    wish, new = FileWish(), Precondition(if_none_match=("*",))
    slow = overtaken(core, b"d/g")
    with pytest.raises(PreconditionFailed):
        put_file(core.site, me, core.folder, b"d/g", slow, wish=wish, condition=new)


def overtaken(core: CoreSite, path: bytes) -> Iterator[bytes]:
    put(core, path, b"fast")
    yield b"slow"


def test_a_directory_that_goes_and_comes_knows_no_more_than_before(core: CoreSite) -> None:
    """What is known of a path has to fit into a record, however often it was made anew."""
    sizes = set()
    for number in range(4):
        put(core, b"one/two/a", b"%d" % number)
        delete_path(core.site, core.laptop.identity, core.folder, b"one")
        records = core.records(core.site.seal.cursor(core.folder.id, {}))
        sizes |= {len(records[path].context) for path in (b"one", b"one/two")}
    assert len(sizes) == 1
    put(core, b"one/two/a", b"last")
    assert listed(core) == ["one", "one/two", "one/two/a"]


def test_a_directory_comes_back_as_itself_and_once(core: CoreSite) -> None:
    core.laptop.commit(core.laptop.record(b"d", Kind.DIRECTORY, mode=0o700))
    core.laptop.put(b"d/a", b"x")
    core.laptop.contexts = {path: record.context for path, record in core.records().items()}
    for path in (b"d/a", b"d"):
        core.laptop.delete(path)
    assert restore(core, path="d") == 2
    last = history.versions_of(core.site, core.folder, b"d").versions[0]
    assert last.mode == 0o700
    assert len(history.versions_of(core.site, core.folder, b"d").versions) == 3


def test_a_directory_without_a_time_was_not_before_it_came(core: CoreSite) -> None:
    before = core.clock.now
    core.clock.advance(HOUR_MS)
    core.laptop.put(b"d/a", b"x")
    [made] = history.versions_of(core.site, core.folder, b"d").versions
    assert made.time == 0
    assert listed(core, at=before) == []
    assert listed(core, at=core.clock.now) == ["d", "d/a"]


@pytest.mark.parametrize("to", ["full", "empty", "a/below", "a/far/below"])
def test_what_would_be_hidden_where_it_is_brought_back_is_refused(core: CoreSite, to: str) -> None:
    core.laptop.put(b"a", b"x")
    core.laptop.put(b"full/b", b"y")
    core.laptop.make(b"empty")
    core.laptop.put(b"gone", b"z")
    core.laptop.delete(b"gone")
    before = core.count(versions)
    with pytest.raises(Conflict, match="director"):
        restore(core, path="gone", to=to)
    assert core.count(versions) == before


def test_a_directory_comes_back_over_the_file_that_took_its_name(core: CoreSite) -> None:
    core.laptop.put(b"d/a", b"old")
    moment = core.clock.now
    core.clock.advance(HOUR_MS)
    core.laptop.contexts = {path: record.context for path, record in core.records().items()}
    core.laptop.delete(b"d/a")
    core.laptop.put(b"d", b"file")
    assert restore(core, path="d", at=moment) == 2
    assert set(core.records()) == {b"d", b"d/a"}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"path": "nothing"}, NotFound),
        ({"path": "../etc"}, Invalid),
        ({"path": "a", "to": "../out"}, Invalid),
        ({"path": "a", "to": ".dblike/x"}, Invalid),
        ({"path": "a", "version": "nonsense"}, (Invalid, NotFound)),
        ({"path": "a", "version": "ff" * 16 + ".1"}, NotFound),
        ({"path_b64": "!!"}, Invalid),
        ({}, Invalid),
    ],
)
def test_what_can_not_be_restored(
    core: CoreSite, fields: dict[str, object], error: type[Exception]
) -> None:
    core.laptop.put(b"a", b"x")
    core.laptop.delete(b"a")
    with pytest.raises(error):
        restore(core, **fields)
    assert core.records() == {}


def test_a_version_of_another_folder_is_not_found(core: CoreSite) -> None:
    from dblike_srv.folders import create_folder

    core.laptop.put(b"a", b"x")
    core.folder = create_folder(core.site, core.laptop.identity, "second")
    with pytest.raises(NotFound):
        restore(core, path="a", version=f"{core.laptop.identity.device.hex()}.1")
