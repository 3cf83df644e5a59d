"""The state: what is durable together, what is never used twice, and what damage looks like."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from dblike_cli.errors import Failed, StateDamaged
from dblike_cli.exits import Exit
from dblike_cli.report import Code, Pending
from dblike_cli.state import Known, Sending, State, said_plainly
from dblike_delta.messages import Record
from dblike_delta.plan import Entry, Synced
from dblike_delta.versions import Dot, Kind

DEVICE = b"d" * 16


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path / "state.db")
    yield opened
    opened.close()


def known(path: bytes, digest: bytes = b"h" * 32, stamp: bytes = b"stamp", size: int = 1) -> Known:
    entry = Entry(Kind.FILE, digest, size, 0o644, 5)
    return Known(path, stamp, Synced(entry, b"context", Dot(DEVICE, 1)))


def test_what_is_recorded_is_read_back(state: State) -> None:
    link = Known(b"l", b"s", Synced(Entry(Kind.SYMLINK, target=b"t\xff"), b"c", Dot(DEVICE, 2**62)))
    with state.transaction():
        state.tree.record([known(b"a/b"), known(b"a"), link])
    assert state.tree.get(b"a") == known(b"a")
    assert state.tree.get(b"l") == link
    assert state.tree.get(b"x") is None
    assert [row.path for row in state.tree.rows()] == [b"a", b"a/b", b"l"]
    assert state.tree.count() == 3


def test_below_a_path_is_what_has_it_as_a_directory(state: State) -> None:
    names = [b"a", b"a/b", b"a/\xff", b"a/b/c", b"a-b", b"a0", b"ab", b"b"]
    with state.transaction():
        state.tree.record([known(name) for name in names])
    assert set(state.tree.stamps(b"a")) == {b"a", b"a/b", b"a/\xff", b"a/b/c"}
    assert [row.path for row in state.tree.rows(b"a")] == [b"a/b", b"a/b/c", b"a/\xff"]
    assert len(state.tree.stamps()) == len(names)


def test_a_transaction_is_all_or_nothing(state: State) -> None:
    def fail_half_way() -> None:
        with state.transaction():
            state.tree.record([known(b"a")])
            state.meta.step("cursor")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert state.tree.count() == 0
    assert state.meta.cursor == ""


def test_news_of_a_transaction_that_failed_are_none(state: State) -> None:
    """What is held in memory of the table is what the table holds."""
    old, new = (Record(b"a", DEVICE, n, 1, 1, b"h" * 32) for n in (1, 2))
    with state.transaction():
        state.remote.put([old])

    def fail_half_way() -> None:
        with state.transaction():
            state.remote.put([new, Record(b"b", DEVICE, 3, 1, 1, b"h" * 32)])
            state.remote.drop([b"a"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert state.remote.get(b"a") == old
    assert state.remote.all() == {b"a": old}


def test_counters_are_never_given_out_twice(tmp_path: Path) -> None:
    """Durable before a byte that carries one leaves."""
    state = State(tmp_path / "state.db")
    with state.transaction():
        state.meta.become(DEVICE, 7)
        assert state.meta.take_counters(3) == 1
    # The process dies here: another connection sees what is durable.
    other = State(tmp_path / "state.db")
    with other.transaction():
        assert other.meta.take_counters(1) == 4
    other.close()
    state.close()


def test_another_device_counts_anew_and_owes_nothing(state: State) -> None:
    sending = Sending(b"a", 1, 2, Entry(Kind.FILE, b"h" * 32), b"c", b"s", b"u")
    with state.transaction():
        state.meta.become(DEVICE, 7)
        state.meta.take_counters(9)
        state.outbox.put([sending])
    assert state.outbox.get(b"a") == sending
    with state.transaction():
        state.meta.become(b"e" * 16, 8)
    assert (state.meta.device, state.meta.marker) == (b"e" * 16, 8)
    assert state.outbox.all() == []
    with state.transaction():
        assert state.meta.take_counters(1) == 1


def test_contents_are_found_by_hash(state: State) -> None:
    with state.transaction():
        state.tree.record(
            [known(b"a", b"1" * 32), known(b"b", b"1" * 32), known(b"c", size=9 << 20)]
        )
    assert dict(state.tree.find_content(b"1" * 32)) == {b"a": b"stamp", b"b": b"stamp"}
    assert state.tree.find_content(b"2" * 32) == []
    assert state.tree.has_size(9 << 20)
    assert not state.tree.has_size(8 << 20)


@pytest.mark.parametrize("wanted", [3, 2000])
def test_the_view_reads_rows_one_by_one_or_all_at_once(state: State, wanted: int) -> None:
    with state.transaction():
        state.tree.record([known(b"a"), known(b"b")])
    view = state.view([b"%d" % number for number in range(wanted)])
    assert view.get(b"a") == known(b"a").synced
    assert view[b"b"] == known(b"b").synced
    assert view.get(b"c") is None
    assert b"a" in view
    assert b"c" not in view
    assert (sorted(view), len(view)) == ([b"a", b"b"], 2)
    with pytest.raises(KeyError):
        view[b"c"]


def test_news_replace_older_news(state: State) -> None:
    record = Record(b"a", DEVICE, 1, 5, 1, hash=b"h" * 32, size=3)
    newer = Record(b"a", DEVICE, 2, 6, 4)
    with state.transaction():
        state.remote.put([record])
        state.remote.put([newer])
    assert state.remote.get(b"a") == newer
    assert state.remote.all() == {b"a": newer}
    assert not state.remote.empty()
    with state.transaction():
        state.remote.drop([b"a"])
    assert state.remote.empty()


def test_a_refusal_holds_for_what_was_refused_only(state: State) -> None:
    entry = Entry(Kind.FILE, b"h" * 32)
    with state.transaction():
        state.notes.refuse(b"a", entry, "too large")
    assert state.notes.refusal(b"a", entry) == "too large"
    assert state.notes.refusal(b"a", Entry(Kind.FILE, b"i" * 32)) == ""
    assert state.notes.refused() == [Pending(b"a", "too large", Code.REFUSED)]
    with state.transaction():
        state.notes.unrefuse([b"a"])
    assert state.notes.refused() == []


def test_damage_is_said_with_its_exit_code(tmp_path: Path) -> None:
    """Bytes that are no database."""
    (tmp_path / "state.db").write_bytes(b"not a database at all" * 500)
    with pytest.raises(StateDamaged, match="doctor") as caught:
        State(tmp_path / "state.db")
    assert caught.value.exit_code is Exit.STATE_DAMAGED


def test_a_disk_that_is_gone_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="open") as caught:
        State(tmp_path / "unmounted" / "state.db")
    assert caught.value.exit_code is Exit.FAILED


def test_a_flipped_page_is_damage_too(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    with state.transaction():
        state.tree.record(known(b"%05d" % number) for number in range(3000))
    assert state.check() == []
    state.close()
    raw = bytearray((tmp_path / "state.db").read_bytes())
    for at in range(4096 * 3, len(raw), 4096):
        raw[at : at + 64] = b"\xff" * 64
    (tmp_path / "state.db").write_bytes(raw)
    state = State(tmp_path / "state.db")
    assert state.check() != []
    with pytest.raises(StateDamaged), said_plainly():
        list(state.tree.rows())
    state.close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateDamaged, match="newer"):
        State(tmp_path / "state.db")
