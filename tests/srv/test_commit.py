"""The write path: what becomes of each version of a changeset, and what nothing is changed by."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from sqlalchemy import delete, select

from dblike_delta.changeset import FRAMES, Encoder, Part
from dblike_delta.commands import Copy, Literal
from dblike_delta.errors import DeltaError, LimitError
from dblike_delta.formats import encode_commands
from dblike_delta.messages import CursorMark, Record, Refusal, RestoreRequest, Trailer
from dblike_delta.versions import Kind, VersionVector
from dblike_srv import history, intake
from dblike_srv.changes import changes, since
from dblike_srv.collect import gc
from dblike_srv.contents import EMPTY_HASH
from dblike_srv.errors import Gone, QuotaExceeded
from dblike_srv.folders import cursor_of, list_folders
from dblike_srv.intake import Intake
from dblike_srv.metrics import Metrics
from dblike_srv.models import contents, journal, packs, paths, users, versions
from dblike_srv.store.local import LocalStore
from dblike_srv.store.mem import MemoryStore
from rig.core_site import DAY_MS, CoreSite, Device, SeededRandom, send, stream

BLOB = SeededRandom(7).bytes(300_000)


@pytest.fixture
def core(tmp_path: Path, core_site: Callable[..., CoreSite]) -> CoreSite:
    return core_site(tmp_path)


@pytest.fixture
def laptop(core: CoreSite) -> Device:
    return core.laptop


def statuses(core: CoreSite, device: Device, *items: Record | tuple[Record, bytes]) -> list[str]:
    reply = send(core.site, device.identity, core.folder, stream(items))
    return [result.status for result in reply.results]


def tables(core: CoreSite) -> list[int]:
    return [core.count(table) for table in (versions, journal, paths, contents, packs)]


# --- what is accepted


@pytest.mark.parametrize("size", [0, 1, 64, 65, 255, 256, 70_000, 1 << 20, (3 << 20) + 5])
def test_a_whole_file_comes_back(core: CoreSite, laptop: Device, size: int) -> None:
    data = (BLOB * 12)[:size]
    assert laptop.put(b"a/b", data).status == "accepted"
    assert core.read(b"a/b") == data
    assert core.records()[b"a"].kind == Kind.DIRECTORY


def test_every_kind_of_path(core: CoreSite, laptop: Device) -> None:
    laptop.make(b"d")
    laptop.commit(laptop.record(b"link", Kind.SYMLINK, target=b"../away\xff"))
    laptop.put(b"\xff\xfe not utf-8\n", b"x")
    laptop.put(b"d/gone", b"x")
    laptop.delete(b"d/gone")
    found = core.records(cursor_of_nothing(core))
    assert {path: record.kind for path, record in found.items()} == {
        b"d": 2, b"link": 3, b"\xff\xfe not utf-8\n": 1, b"d/gone": 4,
    }  # fmt: skip
    assert found[b"link"].target == b"../away\xff"
    assert b"d/gone" not in core.records()


def cursor_of_nothing(core: CoreSite) -> str:
    return core.site.seal.cursor(core.folder.id, {})


def test_many_small_files_are_one_pack(core: CoreSite, laptop: Device) -> None:
    files = {b"f%03d" % n: BLOB[n : n + 500] for n in range(300)}
    reply = laptop.commit(*[laptop.file(path, data) for path, data in files.items()])
    assert {result.status for result in reply.results} == {"accepted"}
    assert core.count(packs) == 1
    assert {path: core.read(path) for path in files} == files


def test_the_folder_knows_what_it_holds(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", b"12345")
    laptop.put(b"b", b"123")
    laptop.put(b"a", b"1")
    laptop.delete(b"b")
    laptop.make(b"d")
    [view] = list_folders(core.site, laptop.identity)
    assert (view.files, view.bytes) == (1, 1)
    assert view.cursor == cursor_of(core.site, core.folder)


def test_a_device_may_step_over_its_own_commit(core: CoreSite, laptop: Device) -> None:
    start = cursor_of(core.site, core.folder)
    reply = laptop.commit(laptop.file(b"a", b"x"), laptop.file(b"b", b"y"))
    assert reply.before == start
    assert reply.cursor == cursor_of(core.site, core.folder)
    assert core.records(reply.cursor) == {}
    assert set(core.records(start)) == {b"a", b"b"}


def test_a_delta_is_applied_to_the_recipe(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", BLOB)
    commands = [Copy(1000, 5000), Literal(b"new"), Copy(0, 900), Literal(b"end")]
    assert laptop.edit(b"a", BLOB, commands).status == "accepted"
    assert core.read(b"a") == BLOB[1000:6000] + b"new" + BLOB[:900] + b"end"


def test_a_base_may_come_in_the_same_changeset_order(core: CoreSite, laptop: Device) -> None:
    """A delta names content, not a path: another file's content serves as well."""
    laptop.put(b"a", BLOB)
    assert laptop.edit(b"copy", BLOB, [Copy(0, len(BLOB)), Literal(b"!")]).status == "accepted"
    assert core.read(b"copy") == BLOB + b"!"


def test_a_rename_moves_no_bytes(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"old", BLOB)
    before = core.count(packs)
    digest = blake3(BLOB).digest()
    again = laptop.record(b"new", hash=digest, size=len(BLOB))
    reply = laptop.commit(again, laptop.record(b"old", Kind.DELETED, mode=0))
    assert [result.status for result in reply.results] == ["accepted", "accepted"]
    assert core.count(packs) == before
    assert core.read(b"new") == BLOB


def test_content_that_came_as_a_delta_is_read_before_it_serves_another_path(
    core: CoreSite, laptop: Device
) -> None:
    laptop.put(b"a", BLOB)
    laptop.edit(b"a", BLOB, [Copy(0, 1000)])
    core.store.reads = 0
    good = laptop.record(b"b", hash=blake3(BLOB[:1000]).digest(), size=1000)
    assert statuses(core, laptop, good) == ["accepted"]
    assert core.store.reads > 0
    assert core.read(b"b") == BLOB[:1000]


def test_a_lying_delta_never_becomes_another_files_content(core: CoreSite, laptop: Device) -> None:
    """Whoever says that a delta makes some hash, which it does not, fools their own path only."""
    laptop.put(b"a", BLOB)
    wanted = blake3(b"secret").digest()
    base = blake3(BLOB).digest()
    lie = laptop.record(b"a", hash=wanted, size=6, body=True, base=base)
    body = encode_commands([Copy(0, 6)])
    assert statuses(core, laptop, (lie, body)) == ["accepted"]
    assert statuses(core, laptop, laptop.record(b"b", hash=wanted, size=6)) == ["content-missing"]
    assert laptop.put(b"b", b"secret").status == "accepted"
    assert core.read(b"b") == b"secret"


# --- retries, and dots


def test_a_retry_changes_nothing(core: CoreSite, laptop: Device) -> None:
    items = [laptop.file(b"a", BLOB), laptop.record(b"d", Kind.DIRECTORY, mode=0o755)]
    first = laptop.commit(*items)
    before = tables(core)
    again = laptop.commit(*items)
    assert [result.status for result in again.results] == ["known", "known"]
    assert [r.context for r in again.results] == [r.context for r in first.results]
    assert tables(core) == before
    assert again.before == again.cursor == first.cursor


def test_a_retry_after_others_went_on_is_known(core: CoreSite, laptop: Device) -> None:
    mine = laptop.file(b"a", b"mine")
    laptop.commit(mine)
    phone = core.device("phone")
    phone.contexts = dict(laptop.contexts)
    phone.put(b"a", b"theirs")
    [result] = send(core.site, laptop.identity, core.folder, stream([mine])).results
    assert (result.status, result.superseded) == ("known", True)
    assert core.read(b"a") == b"theirs"


@pytest.mark.parametrize(
    "other",
    [
        {"path": b"b"},
        {"kind": 2, "hash": b"", "size": 0},
        {"kind": 4, "hash": b"", "size": 0},
        {"hash": blake3(b"old").digest(), "size": 3},
    ],
)
def test_a_dot_used_twice_is_refused_with_the_highest_counter(
    core: CoreSite, laptop: Device, other: dict[str, object]
) -> None:
    """A device that returned to an old state must not write over what it wrote since."""
    laptop.put(b"x", b"old")
    laptop.put(b"a", b"new")
    laptop.put(b"y", b"newest")
    before = tables(core)
    laptop.counter = 1
    laptop.contexts = {}
    values = {"path": b"a", "hash": blake3(b"new").digest(), "size": 3, **other}
    record = laptop.record(values.pop("path"), **values)  # type: ignore[arg-type]
    [result] = send(core.site, laptop.identity, core.folder, stream([record])).results
    assert (result.status, result.superseded, result.highest) == ("dot-reused", False, 3)
    assert tables(core) == before


def test_a_dot_that_says_the_same_in_greater_knowledge_is_another_version(
    core: CoreSite, laptop: Device
) -> None:
    """Two copies of a device delete a file; one of them had seen an edit that the other had not.
    Were its delete taken for the other's, it would believe the edit deleted, and nobody else."""
    laptop.put(b"a", b"old")
    phone = core.device("phone")
    phone.contexts = dict(laptop.contexts)
    unseen = laptop.record(b"a", Kind.DELETED, mode=0)
    assert laptop.commit(unseen).results[0].status == "accepted"
    phone.put(b"a", b"edited")
    knew = VersionVector.of({laptop.identity.device: 1, phone.identity.device: 1})
    sealed = core.site.seal.context(core.folder.id, b"a", knew.pack())
    seen = msgspec.structs.replace(unseen, context=sealed)
    said = [
        (result.status, result.highest)
        for record in (seen, unseen, msgspec.structs.replace(unseen, context=b""))
        for result in send(core.site, laptop.identity, core.folder, stream([record])).results
    ]
    assert said == [("dot-reused", 2), ("known", 0), ("known", 0)]
    assert core.read(b"a") == b"edited"


def test_a_dot_that_the_heads_know_of_is_not_new(core: CoreSite, laptop: Device) -> None:
    """Its version was forgotten by the retention: that must not make the old edit vanish."""
    laptop.counter = 9
    laptop.put(b"a", b"nine")
    laptop.counter = 4
    five = stream([laptop.file(b"a", b"five")])
    [result] = send(core.site, laptop.identity, core.folder, five).results
    assert (result.status, result.superseded, result.highest) == ("dot-reused", True, 10)
    assert core.read(b"a") == b"nine"


def test_the_same_dot_twice_in_one_changeset(core: CoreSite, laptop: Device) -> None:
    first = laptop.file(b"a", b"one")
    laptop.counter -= 1
    other = laptop.file(b"b", b"two")
    assert statuses(core, laptop, first, first, other) == ["accepted", "known", "dot-reused"]
    assert set(core.records()) == {b"a"}


def test_two_versions_of_a_path_in_one_changeset(core: CoreSite, laptop: Device) -> None:
    reply = laptop.commit(laptop.file(b"a", b"one"), laptop.file(b"a", b"two"))
    assert [result.status for result in reply.results] == ["accepted", "accepted"]
    assert set(core.records()) == {b"a"}
    assert core.read(b"a") == b"two"


# --- conflicts


def test_concurrent_edits_make_one_conflict_copy(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a.txt", b"base")
    phone = core.device("phone")
    phone.contexts = dict(laptop.contexts)
    laptop.put(b"a.txt", b"from laptop")
    core.clock.advance(1000)
    result = phone.put(b"a.txt", b"from phone")
    assert not result.superseded
    assert core.read(b"a.txt") == b"from phone"
    [copy] = core.records().keys() - {b"a.txt"}
    assert b"(conflicted copy from laptop " in copy
    assert core.read(copy) == b"from laptop"


@pytest.mark.parametrize("late", [0, -5000])
def test_a_conflict_is_counted_whoever_wins_it(
    core: CoreSite, laptop: Device, tmp_path: Path, late: int
) -> None:
    core.site.meter = Metrics(tmp_path)
    laptop.put(b"a", b"base")
    phone = core.device("phone")
    phone.contexts = dict(laptop.contexts)
    core.clock.advance(10_000)
    laptop.put(b"a", b"from laptop")
    core.clock.advance(1000)
    phone.put(b"a", b"from phone", time=core.clock.now + late)
    phone.put(b"b", b"no conflict")
    core.site.meter.save(9.0)
    assert "dblike_conflicts_total 1" in core.site.meter.render().splitlines()


def test_the_loser_hears_that_it_lost(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", b"base")
    phone = core.device("phone")
    phone.contexts = dict(laptop.contexts)
    core.clock.advance(1000)
    laptop.put(b"a", b"winner")
    result = phone.put(b"a", b"loser", time=core.clock.now - 500)
    assert (result.status, result.superseded) == ("accepted", True)
    assert core.read(b"a") == b"winner"


def test_equal_content_is_no_conflict(core: CoreSite, laptop: Device) -> None:
    phone = core.device("phone")
    laptop.put(b"a", b"same")
    phone.put(b"a", b"same", mtime_ns=5)
    assert set(core.records()) == {b"a"}


def test_an_edit_beats_a_delete(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", b"base")
    phone = core.device("phone")
    phone.contexts = dict(laptop.contexts)
    laptop.put(b"a", b"edited")
    core.clock.advance(1000)
    assert phone.delete(b"a").superseded
    assert {path: core.read(path) for path in core.records()} == {b"a": b"edited"}


def test_a_stale_delete_of_a_full_directory_brings_it_back(core: CoreSite, laptop: Device) -> None:
    """A live child wins over a delete of what it lives in, by someone who did not know of it."""
    laptop.make(b"d")
    phone = core.device("phone")
    phone.contexts = dict(laptop.contexts)
    laptop.put(b"d/new", b"x")
    phone.delete(b"d")
    found = core.records()
    assert found[b"d"].kind == Kind.DIRECTORY
    assert core.read(b"d/new") == b"x"


def test_a_file_where_others_have_a_directory_becomes_a_copy(
    core: CoreSite, laptop: Device
) -> None:
    laptop.put(b"d/inside", b"x")
    phone = core.device("phone")
    phone.put(b"d", b"a file")
    found = core.records()
    assert found[b"d"].kind == Kind.DIRECTORY
    [copy] = found.keys() - {b"d", b"d/inside"}
    assert core.read(copy) == b"a file"


def test_a_directory_is_deleted_with_its_children_in_any_order(
    core: CoreSite, laptop: Device
) -> None:
    for order in (sorted, lambda paths: sorted(paths, reverse=True)):
        laptop.commit(
            laptop.record(b"d", Kind.DIRECTORY),
            laptop.file(b"d/a", b"1"),
            laptop.file(b"d/b", b"2"),
        )
        doomed = order([b"d", b"d/a", b"d/b"])
        laptop.commit(*[laptop.record(path, Kind.DELETED, mode=0) for path in doomed])
        assert core.records() == {}


def test_a_deleted_conflict_copy_stays_deleted(core: CoreSite, laptop: Device) -> None:
    phone = core.device("phone")
    laptop.put(b"a", b"one")
    core.clock.advance(1000)
    phone.put(b"a", b"two")
    [copy] = core.records().keys() - {b"a"}
    laptop.contexts = {path: record.context for path, record in core.records().items()}
    laptop.delete(copy)
    laptop.put(b"a", b"three")
    phone.contexts = {}
    assert set(core.records()) == {b"a"}


# --- what is refused, one by one


REFUSED = {
    "path-dots": {"path": b"a/../b"},
    "path-absolute": {"path": b"/etc/passwd"},
    "path-empty-part": {"path": b"a//b"},
    "path-nul": {"path": b"a\0b"},
    "path-own": {"path": b".DBLike/state"},
    "path-long-part": {"path": b"x" * 256},
    "kind-directory-with-size": {"kind": 2, "size": 5},
    "kind-directory-with-hash": {"kind": 2, "hash": b"h" * 32},
    "kind-deleted-with-hash": {"kind": 4, "hash": b"h" * 32},
    "symlink-without-target": {"kind": 3},
    "symlink-nul": {"kind": 3, "target": b"a\0b"},
    "file-with-target": {"target": b"x", "hash": blake3(b"").digest()},
    "file-without-anything": {},
    "file-short-hash": {"hash": b"short"},
    "key-id": {"kind": 2, "key_id": b"k"},
    "vector": {"kind": 2, "vector": b"\0"},
    "context-invented": {"kind": 2, "context": b"c" * 40},
    "counter-jump": {"kind": 2, "counter": 1 << 40},
    "base-without-body": {"hash": blake3(b"").digest(), "base": b"b" * 32},
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_version_is_refused_and_the_rest_goes_on(
    core: CoreSite, laptop: Device, fields: dict[str, object]
) -> None:
    values = {"path": b"bad", "kind": 1, **fields}
    bad = laptop.record(values.pop("path"), Kind(values.pop("kind")), **values)  # type: ignore[arg-type]
    assert statuses(core, laptop, bad, laptop.file(b"good", b"x")) == ["refused", "accepted"]
    assert set(core.records()) == {b"good"}


@pytest.mark.parametrize(
    "fields",
    [
        {"mtime_ns": -(2**63)}, {"mtime_ns": 2**63 - 1}, {"time": -(2**53)}, {"time": 2**53},
        {"size": 2**63 - 1}, {"mode": 0o7777}, {"counter": 1 << 32}, {"counter": 2**63 - 1},
    ],
    ids=str,
)  # fmt: skip
def test_the_farthest_numbers_have_a_result(
    core: CoreSite, laptop: Device, fields: dict[str, int]
) -> None:
    record = laptop.record(b"a", **{"hash": blake3(b"").digest(), **fields})
    (result,) = statuses(core, laptop, record)
    assert result in ("accepted", "refused")
    if result == "accepted" and "mtime_ns" in fields:
        assert core.records()[b"a"].mtime_ns == fields["mtime_ns"]


def test_another_devices_dot_is_refused(core: CoreSite, laptop: Device) -> None:
    phone = core.device("phone")
    forged = phone.record(b"a", Kind.DIRECTORY)
    assert statuses(core, laptop, forged) == ["refused"]


def test_a_context_of_another_path_or_folder_is_refused(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", b"x")
    stolen = laptop.contexts[b"a"]
    assert statuses(core, laptop, laptop.record(b"b", Kind.DIRECTORY, context=stolen)) == [
        "refused"
    ]


def test_a_version_dominates_no_more_than_its_device_knew(core: CoreSite, laptop: Device) -> None:
    """Without a sealed context an edit is concurrent, whatever else the record claims."""
    laptop.put(b"a", b"old")
    phone = core.device("phone")
    core.clock.advance(1000)
    phone.put(b"a", b"new")
    assert len(core.records()) == 2


def test_setuid_is_dropped_and_the_future_is_bounded(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", b"x", mode=0o6755, time=core.clock.now + 1000 * DAY_MS)
    record = core.records()[b"a"]
    assert record.mode == 0o755
    assert record.time == core.clock.now + DAY_MS
    assert laptop.put(b"b", b"x", time=-(2**53)).status == "accepted"


def test_content_of_another_user_is_no_base_and_no_content(core: CoreSite, laptop: Device) -> None:
    """A hash is never a way to someone else's bytes, nor says whether they have them."""
    laptop.put(b"a", BLOB)
    stranger = core.device("laptop", core.add_user(b"eve"))
    core_folder, core.folder = core.folder, _folder_of(core, stranger)
    digest = blake3(BLOB).digest()
    wanted = stranger.record(b"mine", hash=digest, size=len(BLOB))
    based = stranger.record(b"too", hash=b"h" * 32, size=9, body=True, base=digest)
    body = encode_commands([Copy(0, 9)])
    assert statuses(core, stranger, wanted, (based, body)) == ["content-missing", "base-missing"]
    assert stranger.put(b"mine", BLOB).status == "accepted"
    core.folder = core_folder


def _folder_of(core: CoreSite, device: Device):  # type: ignore[no-untyped-def]
    from dblike_srv.folders import create_folder

    return create_folder(core.site, device.identity, "home")


# --- bodies


def body_of(commands: list[Copy | Literal]) -> bytes:
    return encode_commands(commands)


@pytest.mark.parametrize(
    ("fields", "body", "status"),
    [
        ({}, body_of([Literal(b"wrong")]), "bad-content"),
        ({}, body_of([Literal(b"righ")]), "bad-content"),
        ({}, body_of([Literal(b"righ"), Literal(b"t!")]), "bad-content"),
        ({}, body_of([Literal(b"right")])[:-1], "bad-content"),
        ({}, body_of([Literal(b"right")]) + b"\0", "bad-content"),
        ({}, b"", "bad-content"),
        ({}, b"rs\x026\x55", "bad-content"),
        ({}, body_of([Copy(0, 5)]), "bad-content"),
        ({"base": b"b" * 32}, body_of([Copy(0, 5)]), "base-missing"),
        ({"size": 6}, body_of([Literal(b"right")]), "bad-content"),
        ({"size": 1 << 60}, body_of([Literal(b"right")]), "refused"),
    ],
)
def test_a_body_that_is_not_what_was_said(
    core: CoreSite, laptop: Device, fields: dict[str, object], body: bytes, status: str
) -> None:
    """Nothing of it is kept, and the next one is not harmed."""
    values = {"hash": blake3(b"right").digest(), "size": 5, "body": True, **fields}
    bad = laptop.record(b"bad", **values)  # type: ignore[arg-type]
    assert statuses(core, laptop, (bad, body), laptop.file(b"good", b"fine")) == [
        status,
        "accepted",
    ]
    assert set(core.records()) == {b"good"}
    assert core.read(b"good") == b"fine"
    assert core.count(contents) == 1


def test_a_hash_may_follow_in_the_trailer(core: CoreSite, laptop: Device) -> None:
    record = laptop.record(b"a", size=5, body=True)
    encoder = Encoder()
    parts = encoder.record(record) + encoder.data(encode_commands([Literal(b"right")]))
    parts += encoder.trailer(Trailer(blake3(b"right").digest(), 5)) + encoder.finish()
    [result] = send(core.site, laptop.identity, core.folder, b"".join(parts)).results
    assert result.status == "accepted"
    assert core.read(b"a") == b"right"


def test_a_delta_bomb_stops_at_the_declared_size(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", BLOB)
    bomb = [Copy(0, len(BLOB))] * 10_000
    record = laptop.record(
        b"bomb", hash=b"h" * 32, size=1000, body=True, base=blake3(BLOB).digest()
    )
    assert statuses(core, laptop, (record, encode_commands(bomb))) == ["bad-content"]


def copied(laptop: Device, path: bytes, pairs: int) -> tuple[Record, bytes]:
    """A version that two bytes of BLOB make, copied over and over."""
    digest, base = blake3((BLOB[:1] + BLOB[2:3]) * pairs).digest(), blake3(BLOB).digest()
    record = laptop.record(path, hash=digest, size=2 * pairs, body=True, base=base)
    return record, encode_commands([Copy(0, 1), Copy(2, 1)] * pairs)


def test_copies_of_a_whole_changeset_are_bounded(
    core: CoreSite, laptop: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there is no room for is sent in full."""
    monkeypatch.setattr(intake, "MAX_PIECES", 1000)
    laptop.put(b"base", BLOB)
    few, more = copied(laptop, b"few", 250), copied(laptop, b"more", 251)
    told = statuses(core, laptop, few, more, laptop.file(b"whole", b"x" * 1000))
    assert told == ["accepted", "base-missing", "accepted"]


def test_what_the_versions_of_a_changeset_say_is_bounded(core: CoreSite, laptop: Device) -> None:
    """A context of zeros takes nothing on the wire."""
    context, encoder = bytes(65_000), Encoder()
    parts: list[Part] = []
    for number in range(intake.MAX_SAID // len(context) + 1):
        parts += encoder.record(laptop.record(b"p%d" % number, context=context))
    data = b"".join([*parts, *encoder.finish()])
    assert len(data) < 1 << 20
    with pytest.raises(LimitError, match="say more than"):
        send(core.site, laptop.identity, core.folder, data)


def test_many_versions_of_long_paths_are_one_changeset(core: CoreSite, laptop: Device) -> None:
    said = (b"x" * 200 + b"/") * 3
    taken = Intake(MemoryStore().writer(), lambda _: None, file_limit=1, allowance=1)
    record = laptop.record(said + b"a", Kind.DIRECTORY, context=bytes(600))
    for number in range(intake.MAX_ITEMS):
        taken.take(msgspec.structs.replace(record, counter=number + 1))
    assert len(taken.items) == intake.MAX_ITEMS


def test_copies_of_a_block_are_not_all_held(
    core: CoreSite, laptop: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_PIECES", 1000)
    laptop.put(b"base", BLOB)
    item = copied(laptop, b"many", 150_000)
    tracemalloc.start()
    try:
        assert statuses(core, laptop, item) == ["base-missing"]
        assert tracemalloc.get_traced_memory()[1] < 25 << 20
    finally:
        tracemalloc.stop()


def sent(*items: tuple[Record, bytes]) -> bytes:
    """A changeset that is compressed."""
    encoder = Encoder()
    parts: list[Part] = []
    for record, body in items:
        trailer = Trailer(record.hash, record.size)
        parts += encoder.record(record) + encoder.data(body) + encoder.trailer(trailer)
    return b"".join([*parts, *encoder.finish()])


@pytest.mark.parametrize("command", [Literal(b"x"), Copy(0, 1)])
def test_commands_are_bounded_by_the_bytes_that_they_came_in(
    core: CoreSite, laptop: Device, command: Literal | Copy
) -> None:
    """A file in more of them, which take nearly nothing on the way, is sent in full."""
    laptop.put(b"base", b"x" + BLOB)
    few, more = intake.COMMANDS // 2, 3 * intake.COMMANDS
    for number, status in ((few, "accepted"), (more, "base-missing")):
        record = laptop.record(
            b"a", size=number, body=True, hash=blake3(b"x" * number).digest(),
            base=blake3(b"x" + BLOB).digest(), context=laptop.contexts.get(b"a", b""),
        )  # fmt: skip
        body = encode_commands([command] * number)
        data = sent((record, body), laptop.file(b"z", b"whole"))
        assert len(data) < 1000
        told = send(core.site, laptop.identity, core.folder, data).results
        assert [result.status for result in told] == [status, "accepted"]
        laptop.contexts = {}


@pytest.mark.parametrize("path", [b"a", b".dblike/x"])
def test_pieces_of_nothing_are_bounded(core: CoreSite, laptop: Device, path: bytes) -> None:
    """Also those of what is refused already."""
    record = laptop.record(path, hash=blake3(b"right").digest(), size=5, body=True)
    encoder = Encoder()
    parts = encoder.record(record)
    for _ in range(10 * FRAMES):
        parts += encoder.data(b"")
    data = b"".join(parts + encoder.finish())
    assert len(data) < 1000
    with pytest.raises(LimitError, match="more frames"):
        send(core.site, laptop.identity, core.folder, data)


@pytest.mark.parametrize("cut", [0, 3, 6, 11])
def test_a_piece_of_nothing_is_nothing(core: CoreSite, laptop: Device, cut: int) -> None:
    record, body = laptop.file(b"a", b"right")
    encoder = Encoder()
    parts = encoder.record(record)
    for piece in (body[:cut], b"", body[cut:]):
        parts += encoder.data(piece)
    parts += encoder.trailer(Trailer(record.hash, record.size)) + encoder.finish()
    [result] = send(core.site, laptop.identity, core.folder, b"".join(parts)).results
    assert result.status == "accepted"
    assert core.read(b"a") == b"right"


def test_zeros_are_a_file_like_any_other(core: CoreSite, laptop: Device) -> None:
    zeros = bytes(32 << 20)
    data = sent(laptop.file(b"zeros", zeros))
    assert len(data) < 10_000
    [result] = send(core.site, laptop.identity, core.folder, data).results
    assert result.status == "accepted"
    assert core.read(b"zeros") == zeros


def test_copies_count_for_the_quota(tmp_path: Path) -> None:
    """A few bytes of copy commands must not make a terabyte of files."""
    core = CoreSite(tmp_path, limits={"quota": 2_000_000})
    core.laptop.put(b"a", BLOB)
    refused = core.laptop.edit(b"b", BLOB, [Copy(0, len(BLOB))] * 13)
    assert (refused.status, refused.detail[:10]) == ("refused", "over quota")
    assert set(core.records()) == {b"a"}
    assert core.laptop.edit(b"b", BLOB, [Copy(0, len(BLOB))] * 2).status == "accepted"


def test_what_is_over_the_quota_keeps_nothing_else_from_going(tmp_path: Path) -> None:
    core = CoreSite(tmp_path, limits={"quota": 2 * len(BLOB)})
    laptop = core.laptop
    laptop.put(b"a", BLOB)
    digest = core.records()[b"a"].hash
    copies = [laptop.record(b"copy %d" % n, hash=digest, size=len(BLOB)) for n in range(4)]
    said = statuses(core, laptop, *copies, laptop.file(b"small", b"x"))
    assert said == ["accepted", "accepted", "accepted", "refused", "accepted"]
    laptop.contexts = {path: record.context for path, record in core.records().items()}
    laptop.delete(b"copy 0")
    again = laptop.record(b"copy 3", hash=digest, size=len(BLOB))
    assert statuses(core, laptop, again) == ["refused"]  # by the one byte of the small file
    laptop.delete(b"small")
    again = laptop.record(b"copy 3", hash=digest, size=len(BLOB))
    assert statuses(core, laptop, again) == ["accepted"]


def test_all_that_is_within_the_quota_can_be_renamed(tmp_path: Path) -> None:
    """The new names come before the old ones go."""
    core = CoreSite(tmp_path, limits={"quota": len(BLOB)})
    laptop = core.laptop
    laptop.put(b"a", BLOB)
    digest = core.records()[b"a"].hash
    new = laptop.record(b"b", hash=digest, size=len(BLOB))
    assert statuses(core, laptop, new) == ["accepted"]
    assert statuses(core, laptop, laptop.record(b"a", Kind.DELETED, mode=0)) == ["accepted"]


def test_a_restore_over_the_quota_is_none(tmp_path: Path) -> None:
    core = CoreSite(tmp_path, limits={"quota": 2 * len(BLOB)})
    laptop = core.laptop
    laptop.put(b"d/a", BLOB)
    digest = core.records()[b"d/a"].hash
    laptop.commit(*(laptop.record(b"d/%d" % n, hash=digest, size=len(BLOB)) for n in range(2)))
    before = set(core.records())
    with pytest.raises(QuotaExceeded):
        history.restore(
            core.site, laptop.identity, core.folder,
            RestoreRequest(path="d", at=core.clock.now, to="e"),
        )  # fmt: skip
    assert set(core.records()) == before


def test_over_the_quota_is_said_before_a_byte_is_written(tmp_path: Path) -> None:
    core = CoreSite(tmp_path, limits={"quota": 100_000})
    laptop = core.laptop
    small, large = laptop.file(b"small", b"x" * 1000), laptop.file(b"large", BLOB)
    assert statuses(core, laptop, large, small) == ["refused", "accepted"]
    assert sum(map(len, core.store.inner.packs.values())) == 1000  # type: ignore[attr-defined]
    query = users.select()
    assert core.site.database.read(lambda c: c.execute(query).one()).used == 1000


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"context": b"no context"}, "refused"),
        ({"counter": 1 << 40}, "refused"),
        ({"device": b"x" * 16}, "refused"),
        ({"counter": 1}, "dot-reused"),
    ],
)
def test_what_is_refused_takes_nothing_of_the_quota(
    tmp_path: Path, fields: dict[str, object], status: str
) -> None:
    core = CoreSite(tmp_path, limits={"quota": 310_000})
    laptop = core.laptop
    laptop.put(b"a", b"x")
    before = tables(core)
    assert statuses(core, laptop, laptop.file(b"b", BLOB, **fields)) == [status]
    assert tables(core) == before
    assert core.site.database.read(lambda c: c.execute(users.select()).one()).used == 1
    assert laptop.put(b"c", BLOB).status == "accepted"


def used(core: CoreSite, device: Device) -> int:
    """The space that is counted as that of a device's user."""
    query = select(users.c.used).where(users.c.id == device.identity.user)
    return int(core.site.database.read(lambda c: c.execute(query).scalar_one()))


def test_what_is_counted_does_not_tell_what_others_have(core: CoreSite, laptop: Device) -> None:
    """Packs of the same bytes are one, and are space of each user whose contents lie in them."""
    guessed, own = BLOB, b"own" * 1000
    laptop.put(b"secret", guessed)
    laptop.commit(laptop.file(b"x", own), laptop.file(b"y", guessed[:9]))
    for name in (b"eve", b"bob"):
        device = core.device("phone", core.add_user(name))
        core.folder = _folder_of(core, device)
        counted = []
        for files in (
            {b"a": guessed},  # what one other user has as a pack
            {b"b": guessed},  # what is one's own already
            {b"c": own, b"d": guessed[:9]},  # what one other user has as a pack of two files
            {b"e": own},  # one's own, in another pack
            {b"f": own},  # and as what is a pack by now, if anybody's
        ):
            told = statuses(core, device, *[device.file(p, d) for p, d in files.items()])
            assert set(told) == {"accepted"}
            counted.append(used(core, device))
        first, both = len(guessed), len(guessed) + len(own) + 9
        assert counted == [first, first, both, both, both]
        gc(core.site)
        assert used(core, device) == both


def test_of_one_changeset_only_what_is_accepted_is_kept(core: CoreSite, laptop: Device) -> None:
    """Also where a refused version said the same content first."""
    bad, good = laptop.file(b"a", BLOB, context=b"no context"), laptop.file(b"b", BLOB)
    other = laptop.file(b"c", b"other", context=b"no context")
    assert statuses(core, laptop, bad, good, other) == ["refused", "accepted", "refused"]
    assert core.count(contents) == 1
    assert core.read(b"b") == BLOB


def test_a_content_that_came_with_a_refused_version_serves_the_others(
    core: CoreSite, laptop: Device
) -> None:
    """Of two equal files only the first one has a body, and that one is refused."""
    bad = laptop.file(b"a", BLOB, context=b"no context")
    good = laptop.record(b"b", hash=blake3(BLOB).digest(), size=len(BLOB))
    assert statuses(core, laptop, bad, good) == ["refused", "accepted"]
    assert core.read(b"b") == BLOB
    assert core.site.database.read(lambda c: c.execute(users.select()).one()).used == len(BLOB)


def test_literals_that_were_not_declared_stop_at_the_quota(tmp_path: Path) -> None:
    core = CoreSite(tmp_path, limits={"quota": 350_000})
    core.laptop.put(b"a", BLOB)
    result = core.laptop.edit(b"b", BLOB, [Literal(b"x" * 60_000)])
    assert (result.status, core.count(packs)) == ("refused", 1)


# --- streams that fail


def broken_streams(laptop: Device) -> dict[str, bytes]:
    whole = stream([laptop.file(b"a", b"hello world"), laptop.file(b"b", b"x")])
    encoder = Encoder
    orphan = encoder()
    data = b"".join(orphan.data(b"rs\x026\0") + orphan.finish())
    inside = encoder()
    record = laptop.record(b"c", hash=b"h" * 32, size=1, body=True)
    nested = b"".join(inside.record(record) + inside.record(record) + inside.finish())
    opened = encoder()
    unfinished = b"".join(opened.record(record) + opened.finish())
    refusing = encoder()
    refusal = b"".join(refusing.refusal(Refusal(b"d" * 16, 1, "no")) + refusing.finish())
    marking = encoder()
    mark = b"".join(marking.cursor(CursorMark("x")) + marking.finish())
    return {
        "empty": b"",
        "magic-only": whole[:8],
        "cut": whole[:-1],
        "flipped": whole[:60] + bytes([whole[60] ^ 1]) + whole[61:],
        "trailing": whole + b"x",
        "data-without-record": data,
        "record-in-body": nested,
        "unfinished-body": unfinished,
        "refusal": refusal,
        "cursor": mark,
        "other-format": b"PK\3\4" + whole,
    }


NAMES = list(
    {
        "empty", "magic-only", "cut", "flipped", "trailing", "data-without-record",
        "record-in-body", "unfinished-body", "refusal", "cursor", "other-format",
    }
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_stream_that_fails_changes_nothing(tmp_path: Path, name: str) -> None:
    store = LocalStore(tmp_path / "store", SeededRandom(2))
    core = CoreSite(tmp_path / "data", store)
    data = broken_streams(core.laptop)[name]
    with pytest.raises(DeltaError):
        send(core.site, core.laptop.identity, core.folder, data)
    assert tables(core) == [0] * 5
    assert list((tmp_path / "store" / "tmp").iterdir()) == []
    assert list(store.names()) == []


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_size_of_what_is_received_does_not_matter(
    core: CoreSite, laptop: Device, size: int
) -> None:
    from dblike_srv.commit import Commit

    data = stream([laptop.file(b"a", BLOB[:5000]), laptop.file(b"b", BLOB[:70])], piece=100)
    running = Commit(core.site, laptop.identity, core.folder)
    for at in range(0, len(data), size):
        running.receive(data[at : at + size])
    assert {result.status for result in running.finish().results} == {"accepted"}
    assert core.read(b"a") == BLOB[:5000]


# --- cursors


def test_changes_page_by_page_lead_to_the_same_place(core: CoreSite, laptop: Device) -> None:
    for n in range(10):
        laptop.put(b"f%d" % (n % 7), b"%d" % n)
    cursor, seen, rounds = "", dict[bytes, bytes](), 0
    more = True
    while more:
        found, cursor, more = changes(core.site, core.folder, cursor, 3)
        seen.update({record.path: record.hash for record in found})
        rounds += 1
    assert rounds == 4
    assert cursor == cursor_of(core.site, core.folder)
    assert seen == {path: record.hash for path, record in core.records().items()}


def test_changes_since_a_moment(core: CoreSite, laptop: Device) -> None:
    """By the site's clock; what the device's said does not matter."""
    start = core.clock.now
    for n in range(9):
        core.clock.now = start + n * 1000
        laptop.put(b"f%d" % n, b"x", time=5)
    for n in range(10):
        for moment in (start + n * 1000, start + n * 1000 - 999):
            found, cursor, more = since(core.site, core.folder, moment, 100)
            assert {record.path for record in found} == {b"f%d" % k for k in range(n, 9)}
            assert (cursor, more) == (cursor_of(core.site, core.folder), False)


def test_a_cursor_ahead_of_the_journal_is_gone(core: CoreSite, laptop: Device) -> None:
    """Only a site whose disk went back in time sees one."""
    laptop.put(b"a", b"x")
    ahead = core.site.seal.cursor(core.folder.id, {core.site.id: 2})
    with pytest.raises(Gone):
        changes(core.site, core.folder, ahead, 10)


def test_the_name_of_a_copy_is_derived(core: CoreSite, laptop: Device) -> None:
    phone = core.device("phone")
    laptop.put(b"dir/a.txt", b"one")
    core.clock.advance(1000)
    phone.put(b"dir/a.txt", b"two")
    [copy] = core.records().keys() - {b"dir", b"dir/a.txt"}
    assert copy.startswith(b"dir/a (conflicted copy from laptop ")
    assert core.read(copy) == b"one"


def test_a_first_look_may_ask_what_deletes_buried(core: CoreSite, laptop: Device) -> None:
    laptop.make(b"d")
    laptop.put(b"d/f", b"one")
    laptop.put(b"d/f", b"newest")
    laptop.put(b"lives", b"x")
    for path in (b"d/f", b"d"):
        laptop.delete(path)
    assert set(core.records()) == {b"lives"}
    found, _, _ = changes(core.site, core.folder, "", 100, buried=True)
    tombs = {r.path: (r.hash, r.size, r.mode) for r in found if r.kind == Kind.DELETED}
    assert tombs == {b"d/f": (blake3(b"newest").digest(), 6, 0), b"d": (b"", 0, 0o755)}
    # What could not be brought back is not named.
    core.site.database.transact(lambda c: c.execute(delete(versions).where(versions.c.kind == 1)))
    found, _, _ = changes(core.site, core.folder, "", 100, buried=True)
    assert {r.path: r.hash for r in found if r.path == b"d/f"} == {b"d/f": b""}


def test_a_delete_of_a_conflict_buried_the_winner(core: CoreSite, laptop: Device) -> None:
    """Whichever came first."""
    now = core.clock.now
    laptop.put(b"f", b"winner", time=now)
    core.device("phone").put(b"f", b"loser", time=now - 1000)
    laptop.contexts = {path: record.context for path, record in core.records().items()}
    laptop.delete(b"f")
    found, _, _ = changes(core.site, core.folder, "", 100, buried=True)
    assert {r.hash for r in found if r.path == b"f"} == {blake3(b"winner").digest()}


def test_what_calls_itself_empty_has_no_bytes(core: CoreSite) -> None:
    """A delta's content is not read: this one would be a version that no other site can believe,
    nor anything else of this one from then on."""
    core.laptop.put(b"f", b"hello")
    base = blake3(b"hello").digest()
    record = core.laptop.record(b"g", hash=EMPTY_HASH, size=5, body=True, base=base)
    result = core.laptop.commit((record, encode_commands([Copy(0, 5)]))).results[0]
    assert result.status == "bad-content"
    assert core.records().keys() == {b"f"}
