"""The server's work is that of the change, counted and not timed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blake3 import blake3
from sqlalchemy import event

from dblike_delta.commands import Copy, Literal
from dblike_delta.messages import RestoreRequest, Want
from dblike_delta.versions import Dot, Kind
from dblike_srv import history, retention
from dblike_srv.changes import changes
from dblike_srv.fetch import find_versions
from dblike_srv.sources import name_moved
from rig.core_site import CoreSite, SeededRandom

BLOB = SeededRandom(13).bytes(8 << 20)


@pytest.fixture
def core(tmp_path: Path) -> CoreSite:
    made = CoreSite(tmp_path)
    made.laptop.put(b"big", BLOB)
    made.store.reads = made.store.bytes_read = 0
    return made


@contextmanager
def statements(core: CoreSite) -> Iterator[list[str]]:
    """The statements that the database is asked meanwhile."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(core.site.database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(core.site.database.engine, "before_cursor_execute", note)


@contextmanager
def writing(core: CoreSite) -> Iterator[list[str]]:
    """The transactions that write meanwhile, as SQLite itself sees them begin."""
    seen: list[str] = []

    def note(statement: str) -> None:
        if statement.startswith("BEGIN IMMEDIATE"):
            seen.append(statement)

    def watch(raw: sqlite3.Connection, *_: object) -> None:
        raw.set_trace_callback(note)

    event.listen(core.site.database.engine, "checkout", watch)
    yield seen
    event.remove(core.site.database.engine, "checkout", watch)


@contextmanager
def steps(core: CoreSite) -> Iterator[list[None]]:
    """An item for each ten steps that SQLite takes meanwhile."""
    taken: list[None] = []

    def watch(raw: sqlite3.Connection, *_: object) -> None:
        raw.set_progress_handler(lambda: taken.append(None), 10)

    def leave(raw: sqlite3.Connection, *_: object) -> None:
        raw.set_progress_handler(None, 10)

    engine = core.site.database.engine
    event.listen(engine, "checkout", watch)
    event.listen(engine, "checkin", leave)
    yield taken
    event.remove(engine, "checkout", watch)
    event.remove(engine, "checkin", leave)


def edit(core: CoreSite, old: bytes, at: int, text: bytes) -> bytes:
    commands = [Copy(0, at), Literal(text), Copy(at + len(text), len(old) - at - len(text))]
    assert core.laptop.edit(b"big", old, commands).status == "accepted"
    return old[:at] + text + old[at + len(text) :]


def test_committing_an_edit_reads_no_content(core: CoreSite) -> None:
    old = BLOB
    for n in range(5):
        old = edit(core, old, 1000 + n * 1_000_000, b"edit")
    assert core.store.bytes_read == 0


def test_an_edit_stores_what_is_new_and_no_more(core: CoreSite) -> None:
    packs = core.store.inner.packs  # type: ignore[attr-defined]
    before = sum(map(len, packs.values()))
    edit(core, BLOB, 5_000_000, b"twelve bytes")
    assert sum(map(len, packs.values())) == before + 12


def test_serving_an_edit_reads_the_edit(core: CoreSite) -> None:
    new = edit(core, BLOB, 1_000_000, b"a hundred bytes or so" * 5)
    core.store.bytes_read = 0
    record = core.records()[b"big"]
    have = {blake3(BLOB).digest(): BLOB}
    assert core.fetch([Want(record.device, record.counter, list(have))], have) == [new]
    assert core.store.bytes_read <= 105


def test_a_rename_and_a_restore_read_nothing(core: CoreSite) -> None:
    laptop = core.laptop
    laptop.commit(
        laptop.record(b"moved", hash=blake3(BLOB).digest(), size=len(BLOB)),
        laptop.record(b"big", laptop.record(b"x").kind.__class__(4), mode=0),
    )
    history.restore(core.site, laptop.identity, core.folder, RestoreRequest(path="big"))
    assert set(core.records()) == {b"moved", b"big"}
    assert core.store.bytes_read == 0


def test_the_database_is_asked_as_much_in_a_large_folder(tmp_path: Path) -> None:
    """Neither the number of other paths, nor the length of a path's history matters."""
    counts = []
    for files, edits in ((1, 1), (2000, 1), (1, 40)):
        core = CoreSite(tmp_path / f"{files}-{edits}")
        many = [core.laptop.file(b"d/f%d" % n, b"%d" % n) for n in range(files)]
        core.laptop.commit(*many)
        for n in range(edits):
            core.laptop.put(b"d/f0", b"edit %d" % n)
        with statements(core) as seen:
            core.laptop.put(b"d/f0", b"the last")
        counts.append(len(seen))
    assert counts[0] == counts[1] == counts[2]


def _find_versions(core: CoreSite, _cursor: str) -> None:
    dots = [Dot(core.laptop.identity.device, n) for n in range(5, 25)]
    found = core.site.database.read(lambda c: find_versions(c, core.folder, dots))
    assert len(found) == len(dots)


def _list_a_path(core: CoreSite, _cursor: str) -> None:
    assert len(history.versions_of(core.site, core.folder, b"d/f7").versions) == 2


def _look_at_a_moment(core: CoreSite, _cursor: str) -> None:
    at = core.site.clock.now_ms()
    assert len(history.tree(core.site, core.folder, b"d/f7", at=at).entries) == 1


def _restore_what_was_deleted(core: CoreSite, _cursor: str) -> None:
    request = RestoreRequest(path="d/f9")
    assert history.restore(core.site, core.laptop.identity, core.folder, request).restored == 1


def _hear_what_a_delete_buried(core: CoreSite, cursor: str) -> None:
    (record,), _, _ = changes(core.site, core.folder, cursor, 100, buried=True)
    assert (record.path, record.hash) == (b"d/f9", blake3(b"9").digest())


@pytest.mark.parametrize(
    "look",
    [
        _find_versions,
        _list_a_path,
        _look_at_a_moment,
        _restore_what_was_deleted,
        _hear_what_a_delete_buried,
    ],
)
def test_versions_are_found_for_as_much_in_a_large_folder(
    tmp_path: Path, look: Callable[[CoreSite, str], None]
) -> None:
    """Also where SQLite could take all of the folder for the better start."""
    counts = []
    for files in (30, 3000):
        core = CoreSite(tmp_path / f"{files}")
        core.laptop.commit(*(core.laptop.file(b"d/f%d" % n, b"%d" % n) for n in range(files)))
        core.laptop.put(b"d/f7", b"once more")
        cursor = changes(core.site, core.folder, "", 10_000)[1]
        core.laptop.commit(core.laptop.record(b"d/f9", Kind.DELETED, mode=0))
        with steps(core) as taken:
            look(core, cursor)
        counts.append(len(taken))
    assert counts[1] < 1.2 * counts[0]


def test_a_page_of_the_tree_as_it_was_costs_as_much_in_a_large_folder(tmp_path: Path) -> None:
    """Also where SQLite could take all of the folder for the better start to each path."""
    work = []
    for others in (30, 3000):
        core = CoreSite(tmp_path / f"{others}")
        files = [core.laptop.file(b"d/%d" % n, b"%d" % n) for n in range(20)]
        core.laptop.commit(*files, *(core.laptop.file(b"e/%d" % n, b"x") for n in range(others)))
        with steps(core) as taken:
            page = history.tree(core.site, core.folder, b"d", at=core.clock.now)
        assert len(page.entries) == 21
        work.append(len(taken))
    assert work[1] < work[0] * 1.2


@contextmanager
def work_of_writers(core: CoreSite) -> Iterator[list[int]]:
    """How much SQLite does meanwhile in each transaction that writes."""
    done: list[int] = []
    writes = False

    def begin_or_end(statement: str) -> None:
        nonlocal writes
        if statement.startswith("BEGIN"):
            writes = statement == "BEGIN IMMEDIATE"
            done.extend([0] * writes)

    def step() -> None:
        if writes:
            done[-1] += 1

    def watch(raw: sqlite3.Connection, *_: object) -> None:
        raw.set_trace_callback(begin_or_end)
        raw.set_progress_handler(step, 10)

    event.listen(core.site.database.engine, "checkout", watch)
    yield done
    event.remove(core.site.database.engine, "checkout", watch)


def test_nobody_waits_longer_for_what_is_forgotten_in_a_large_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is all of it read for each of the transactions that this takes."""
    monkeypatch.setattr(retention, "PATHS", 5)
    monkeypatch.setattr(retention, "LOOK", 15)
    work = []
    for files in (30, 3000):
        core = CoreSite(tmp_path / f"{files}", retention={"days": 0, "versions": 0})
        core.laptop.commit(*(core.laptop.file(b"d/f%d" % n, b"%d" % n) for n in range(files)))
        for n in range(20):
            core.laptop.put(b"d/f%d" % n, b"edited")
        with statements(core) as seen, work_of_writers(core) as done:
            assert retention.prune(core.site) == 20
        assert len(done) == 4
        assert len([each for each in seen if "HAVING" in each]) == 2
        work.append(max(done))
    assert work[1] < work[0] * 1.2


def test_a_page_of_a_large_directory_is_looked_up_and_no_more(tmp_path: Path) -> None:
    counts = []
    for files in (20, 5000):
        core = CoreSite(tmp_path / f"{files}")
        many = [core.laptop.file(b"d/%05d" % n, b"%d" % n) for n in range(files)]
        core.laptop.commit(core.laptop.record(b"d", Kind.DIRECTORY), *many)
        with statements(core) as seen:
            page = history.tree(core.site, core.folder, b"d", limit=10, after=b"d/00005")
        assert [entry.path for entry in page.entries] == [f"d/{n:05}" for n in range(6, 16)]
        counts.append(len(seen))
    assert counts[0] == counts[1]


def test_a_directory_is_listed_for_as_much_whatever_lies_below_what_is_in_it(
    tmp_path: Path,
) -> None:
    work = []
    for files in (30, 3000):
        core = CoreSite(tmp_path / f"{files}")
        below = [core.laptop.file(b"d/e/%d" % n, b"%d" % n) for n in range(files)]
        core.laptop.commit(core.laptop.file(b"d/a", b"near"), *below)
        with steps(core) as taken:
            page = history.tree(core.site, core.folder, b"d", deep=False)
        assert [entry.path for entry in page.entries] == ["d", "d/a", "d/e"]
        work.append(len(taken))
    assert work[1] < work[0] * 1.2


def test_a_page_of_the_log_asks_as_much_however_many_paths_it_names(core: CoreSite) -> None:
    items = [core.laptop.file(b"d/f%d" % n, b"%d" % n) for n in range(500)]
    core.laptop.commit(*items)
    counts = []
    for limit in (1, 500):
        with statements(core) as seen:
            found = history.log(core.site, core.folder, limit=limit)
        assert len(found.versions) == limit
        assert all(version.current for version in found.versions)
        counts.append(len(seen))
    assert counts[0] == counts[1]


def test_many_files_are_one_transaction(core: CoreSite) -> None:
    items = [core.laptop.file(b"d/f%d" % n, b"%d" % n) for n in range(2000)]
    with statements(core) as seen, writing(core) as transactions:
        core.laptop.commit(*items)
    # Some for the transaction itself, and one for each 900 values that are looked up.
    assert len(seen) < 35
    assert len(transactions) == 1


def move_big(core: CoreSite) -> list[bytes]:
    """Give the large file another name; its hashes in what a device hears that had it."""
    old = core.records()[b"big"]
    _, heard, _ = changes(core.site, core.folder, "", 1000)
    core.laptop.commit(core.laptop.record(b"moved", hash=old.hash, size=old.size))
    core.laptop.delete(b"big")
    news, _, _ = changes(core.site, core.folder, heard, 1000)
    records, sources = name_moved(core.site, core.folder, heard, news)
    assert sources is not None
    return [record.hash for record in records if record.path == b"moved"]


def test_every_lookup_has_an_index(core: CoreSite) -> None:
    """A scan of a table would make the cost that of the folder."""
    core.laptop.put(b"d/e/f", b"x")
    with statements(core) as seen:
        core.laptop.put(b"d/e/f", b"y")
        core.laptop.delete(b"d/e/f")
        core.laptop.delete(b"d/e")
        record = core.records()[b"big"]
        core.fetch([Want(record.device, record.counter, [b"h" * 32])])
        assert move_big(core) == [b""]
    raw = core.site.database.engine.raw_connection()
    try:
        for statement in set(seen):
            if statement.startswith(("SELECT", "UPDATE", "DELETE")):
                marks = statement.count("?")
                plan = raw.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * marks)
                # These hold a handful of rows, whatever the site holds, and what is asked for.
                small = ("SCAN meta", "SCAN sites", "SCAN wanted", "SCAN CONSTANT ROW")
                found = [row[3] for row in plan.fetchall() if row[3] not in small]
                scans = [each for each in found if each.startswith("SCAN ")]
                assert not scans, f"{scans} in {statement}"
    finally:
        raw.close()
