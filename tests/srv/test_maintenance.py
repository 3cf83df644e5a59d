"""Garbage collection, compaction, scrub and backup on a working site."""

from __future__ import annotations

import io
import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from sqlalchemy import select, update

from dblike_delta.commands import Copy, Literal
from dblike_delta.formats import encode_commands
from dblike_delta.messages import Refusal, Want
from dblike_delta.signature import signature
from dblike_delta.versions import Kind, Version
from dblike_srv import collect, compact
from dblike_srv.configfile import find_config
from dblike_srv.contents import check_contents
from dblike_srv.db import Database
from dblike_srv.errors import Busy, Conflict, NotFound
from dblike_srv.files import find_version, patch_file
from dblike_srv.folders import create_folder
from dblike_srv.housekeeping import take_turn
from dblike_srv.maintenance import backup, gc, prune, scrub
from dblike_srv.models import contents, journal, leases, packs, users, versions
from dblike_srv.packs import Pack, SeenPack, name_pack, see_pack
from dblike_srv.readiness import check_ready
from dblike_srv.reading import delta_for, read_content, signature_of
from dblike_srv.site import Site, open_site
from dblike_srv.store.base import Away, PackStore, is_sound
from dblike_srv.store.local import LocalStore
from dblike_srv.store.mem import MemoryStore
from rig.core_site import DAY_MS, HOUR_MS, CoreSite, SeededRandom, send, stream

BLOB = SeededRandom(5).bytes(200_000)


@pytest.fixture
def core(tmp_path: Path, core_site: Callable[..., CoreSite]) -> CoreSite:
    return core_site(tmp_path, retention={"days": 30, "versions": 0})


def age(core: CoreSite, days: float) -> None:
    core.clock.advance(int(days * DAY_MS))


def used(core: CoreSite) -> int:
    return int(core.site.database.read(lambda c: c.execute(users.select()).one()).used)


def test_old_versions_go_and_then_their_bytes(core: CoreSite) -> None:
    core.laptop.put(b"a", BLOB)
    core.laptop.put(b"a", b"new")
    assert gc(core.site) == collect.GcReport()
    age(core, 31)
    would = gc(core.site, dry_run=True)
    first = gc(core.site)
    assert would == first == collect.GcReport(versions=1, contents=1)
    assert len(core.store.inner.packs) == 2  # type: ignore[attr-defined]
    age(core, 2)
    assert gc(core.site) == collect.GcReport(packs=1, bytes=len(BLOB))
    assert len(core.store.inner.packs) == 1  # type: ignore[attr-defined]
    assert core.read(b"a") == b"new"
    assert core.count(versions) == core.count(journal) == core.count(contents) == 1


def test_a_dry_run_says_what_would_go(core: CoreSite) -> None:
    for n in range(4):
        core.laptop.put(b"a", b"%d" % n * 999)
        core.laptop.put(b"b", b"%d" % n * 999)
    core.laptop.put(b"c", b"0" * 999)  # which keeps that content
    core.device("phone", core.user).put(b"a", b"concurrent")
    age(core, 31)
    would = gc(core.site, dry_run=True)
    assert core.count(contents) == 5
    assert would == gc(core.site)
    assert (would.versions, would.contents) == (6, 2)


def test_a_deleted_file_goes_but_its_tombstone_stays(core: CoreSite) -> None:
    core.laptop.put(b"a", BLOB)
    core.laptop.delete(b"a")
    age(core, 31)
    assert gc(core.site).versions == 1
    age(core, 2)
    gc(core.site)
    assert core.store.inner.packs == {}  # type: ignore[attr-defined]
    nowhere = core.site.seal.cursor(core.folder.id, {})
    assert core.records(nowhere)[b"a"].kind == Kind.DELETED


def test_a_content_that_got_the_number_of_one_that_went_stays(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two collect at once, and SQLite gives a number again when the last row went."""
    core.laptop.put(b"a", BLOB)
    core.laptop.delete(b"a")
    age(core, 31)
    prune(core.site)
    transact = core.site.database.transact

    def meanwhile(work: Callable[..., Any]) -> Any:
        monkeypatch.setattr(core.site.database, "transact", transact)
        assert gc(core.site).contents == 1
        core.laptop.put(b"b", b"other")
        return transact(work)

    monkeypatch.setattr(core.site.database, "transact", meanwhile)
    gc(core.site)
    assert core.read(b"b") == b"other"


def test_used_space_is_counted_anew(core: CoreSite) -> None:
    core.laptop.put(b"a", BLOB)
    core.laptop.put(b"a", b"new")
    assert used(core) == len(BLOB) + 3
    age(core, 31)
    gc(core.site)
    assert used(core) == 3


def test_what_comes_while_contents_are_read_counts_once(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.laptop.put(b"a", BLOB)
    look = collect._needed_by_user

    def slowly(site: Site) -> dict[int, set[int]]:
        core.laptop.put(b"b", b"new")
        return look(site)

    monkeypatch.setattr(collect, "_needed_by_user", slowly)
    gc(core.site)
    assert used(core) == len(BLOB) + len(b"new")


def test_a_commit_takes_the_mark_off_a_dying_pack(core: CoreSite) -> None:
    core.laptop.put(b"a", BLOB)
    core.laptop.delete(b"a")
    age(core, 31)
    gc(core.site)
    age(core, 0.5)
    core.laptop.put(b"b", BLOB)  # the very same pack again
    age(core, 2)
    assert gc(core.site).packs == 0
    assert core.read(b"b") == BLOB


def give_up(core: CoreSite) -> None:
    """What is left of a collection that was killed before it deleted the file."""
    dying = update(packs).where(packs.c.dying > 0).values(dying=-packs.c.dying)
    core.site.database.transact(lambda connection: connection.execute(dying))


def test_a_pack_that_is_being_deleted_is_as_good_as_gone(core: CoreSite) -> None:
    core.laptop.put(b"a", BLOB)
    core.laptop.delete(b"a")
    age(core, 31)
    gc(core.site)
    give_up(core)
    with pytest.raises(Busy):
        core.laptop.put(b"b", BLOB)
    assert gc(core.site).packs == 1
    assert core.laptop.put(b"b", BLOB).status == "accepted"
    assert core.read(b"b") == BLOB


@pytest.mark.parametrize("before", ["a row", "no row"])
def test_a_pack_that_went_before_it_was_named_is_no_pack(core: CoreSite, before: str) -> None:
    """It was seen in the store, and then the collection of an older one of the same bytes ended."""
    core.laptop.put(b"a", BLOB)
    known = Pack(blake3(BLOB).digest(), len(BLOB))
    pack = see_pack(core.site, known) if before == "a row" else SeenPack(known.name, known.size, 0)
    mark_all(core)
    give_up(core)
    if before == "a row":
        core.laptop.delete(b"a")
        age(core, 31)
        gc(core.site)
        assert core.count(packs) == 0
    with pytest.raises(Busy):
        core.site.database.transact(lambda connection: name_pack(connection, pack, 1))


class Watched(MemoryStore):
    """Says whether somebody asked for a size while a transaction kept other writers waiting."""

    database: Database

    def size(self, name: bytes) -> int:
        assert not self.database._writing.locked()
        return super().size(name)


def test_a_slow_store_keeps_no_writer_waiting(tmp_path: Path) -> None:
    store = Watched()
    core = CoreSite(tmp_path, store)
    store.database = core.site.database
    core.laptop.put(b"a", BLOB)
    core.laptop.put(b"b", BLOB + b"more")
    store.packs[bytes(32)] = b"orphan"
    gc(core.site)
    assert core.count(packs) == 3


def test_a_base_that_is_being_deleted_is_missed(core: CoreSite) -> None:
    core.laptop.put(b"a", BLOB)
    doomed = update(packs).values(dying=-1)
    core.site.database.transact(lambda connection: connection.execute(doomed))
    change = [Literal(b"head"), Copy(0, len(BLOB))]
    assert core.laptop.edit(b"b", BLOB, change).status == "base-missing"


def test_one_host_of_a_site_keeps_house(core: CoreSite) -> None:
    def let_pass(milliseconds: int) -> None:
        """By the clock that counts, which may be the database server's."""
        sooner = update(leases).values(until=leases.c.until - milliseconds)
        core.site.database.transact(lambda connection: connection.execute(sooner))

    assert [take_turn(core.site, 3600) for _ in range(2)] == [True, False]
    let_pass(HOUR_MS)
    assert take_turn(core.site, 3600)
    let_pass(-3 * HOUR_MS)  # a clock that was set back keeps nobody from it
    assert take_turn(core.site, 3600)


def test_shared_bytes_stay_as_long_as_anything_needs_them(core: CoreSite) -> None:
    core.laptop.put(b"a", BLOB)
    core.laptop.edit(b"a", BLOB, [Literal(b"head"), Copy(0, len(BLOB))])
    age(core, 31)
    assert gc(core.site).contents == 1
    age(core, 2)
    assert gc(core.site).packs == 0
    assert core.read(b"a") == b"head" + BLOB


def test_files_that_a_crash_left_in_the_store_go_after_the_grace(core: CoreSite) -> None:
    writer = core.store.writer()
    writer.write(b"orphan")
    writer.commit(b"\7" * 32)
    gc(core.site)
    assert core.count(packs) == 1
    age(core, 0.5)
    assert gc(core.site).packs == 0
    age(core, 2)
    assert gc(core.site) == collect.GcReport(packs=1, bytes=6)
    assert core.store.inner.packs == {}  # type: ignore[attr-defined]


def test_compaction_joins_tiny_packs(core: CoreSite) -> None:
    wanted = {b"f%d" % n: b"content %d" % n for n in range(compact.ENOUGH)}
    for path, data in wanted.items():
        core.laptop.put(path, data)
    core.clock.advance(2 * HOUR_MS)
    report = compact.compact(core.site)
    assert (report.rewritten, report.packs) == (compact.ENOUGH, 1)
    age(core, 1)
    gc(core.site)
    age(core, 2)
    assert gc(core.site).packs == compact.ENOUGH
    assert {path: core.read(path) for path in wanted} == wanted
    assert compact.compact(core.site) == compact.CompactReport()


def test_compaction_charges_nobody_for_what_others_share(core: CoreSite) -> None:
    """Packs of equal bytes are one; those of other people are not joined with it."""
    for pair, names in enumerate(((b"bob", b"eve"), (b"mal", b"sue"))):
        for name in names:
            device = core.device("phone", core.add_user(name))
            folder = create_folder(core.site, device.identity, "home")
            for n in range(compact.ENOUGH):
                item = device.file(b"f%d" % n, b"%d of pair %d" % (n, pair) * 10 ** (pair + 1))
                send(core.site, device.identity, folder, stream([item]))
    core.clock.advance(2 * HOUR_MS)
    assert compact.compact(core.site).packs == 2
    gc(core.site)
    space = [row.used for row in core.site.database.read(lambda c: c.execute(users.select()).all())]
    assert space[1] == space[2] < space[3] == space[4] == 10 * space[1]


def test_compaction_drops_what_is_dead_in_a_pack(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "TINY", 1000)
    core.laptop.put(b"a", BLOB)
    kept = core.laptop.edit(b"a", BLOB, [Copy(1000, 50_000)])
    assert kept.status == "accepted"
    age(core, 31)
    gc(core.site)
    assert compact.compact(core.site).bytes == 50_000
    age(core, 1)
    gc(core.site)
    age(core, 2)
    assert gc(core.site).bytes == len(BLOB)
    assert core.read(b"a") == BLOB[1000:51_000]


def test_compaction_keeps_the_difference_of_versions(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipes that shared extents share them afterwards: a fetch still sends only the edit."""
    monkeypatch.setattr(compact, "EXTENTS", 8)
    old = BLOB
    core.laptop.put(b"a", old)
    for n in range(10):
        at = 10_000 * n
        commands = [Copy(0, at), Literal(b"edit %d" % n), Copy(at + 6, len(old) - at - 6)]
        core.laptop.edit(b"a", old, [c for c in commands if c != Copy(0, 0)])
        before, old = old, old[:at] + b"edit %d" % n + old[at + 6 :]
    age(core, 1)
    assert len(BLOB) <= compact.compact(core.site).bytes < len(BLOB) + 200
    record = core.records()[b"a"]
    have = {blake3(before).digest(): before}
    parts = core.fetched([Want(record.device, record.counter, list(have))])
    assert sum(map(len, parts)) < 600
    assert core.read(b"a", have) == old == core.read(b"a")
    age(core, 1)
    core.store.bytes_read = 0
    assert compact.compact(core.site) == compact.CompactReport()  # the old ones stay in pieces
    assert core.store.bytes_read == 0


def test_compaction_leaves_a_content_that_repeats_what_it_has(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever pack, it names the same bytes as often."""
    monkeypatch.setattr(compact, "EXTENTS", 8)
    core.laptop.put(b"a", BLOB)
    assert core.laptop.edit(b"a", BLOB, [Copy(0, 4096)] * 20).status == "accepted"
    age(core, 1)
    core.store.bytes_read = 0
    assert compact.compact(core.site) == compact.CompactReport()
    assert core.store.bytes_read == 0


def test_compaction_leaves_what_a_damaged_pack_keeps_in_pieces(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "EXTENTS", 8)
    core.laptop.put(b"a", BLOB)
    name = next(iter(core.store.inner.packs))  # type: ignore[attr-defined]
    commands = [each for n in range(10) for each in (Copy(n * 9999, 9), Literal(b"%d, " % n))]
    assert core.laptop.edit(b"a", BLOB, commands).status == "accepted"
    core.store.inner.packs[name] = bytes(len(BLOB))  # type: ignore[attr-defined]
    age(core, 1)
    assert compact.compact(core.site) == compact.CompactReport()
    assert not scrub(core.site).sound
    core.store.bytes_read = 0
    assert compact.compact(core.site) == compact.CompactReport()
    assert core.store.bytes_read == 0


def test_compaction_leaves_damaged_packs_to_scrub(core: CoreSite) -> None:
    for n in range(compact.ENOUGH):
        core.laptop.put(b"f%d" % n, b"content %d" % n)
    held = core.store.inner.packs  # type: ignore[attr-defined]
    name = next(iter(held))
    held[name] = b"\0" + held[name][1:]
    core.clock.advance(2 * HOUR_MS)
    compact.compact(core.site)
    assert scrub(core.site).damaged_packs == (name.hex(),)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_scrub_finds_damage_and_no_one_is_served_it(core: CoreSite, damage: str) -> None:
    core.laptop.put(b"a", BLOB)
    core.laptop.put(b"b", b"fine")
    assert scrub(core.site).sound
    held = core.store.inner.packs  # type: ignore[attr-defined]
    name = next(name for name, data in held.items() if len(data) == len(BLOB))
    match damage:
        case "flip":
            held[name] = held[name][:777] + bytes([held[name][777] ^ 1]) + held[name][778:]
        case "cut":
            held[name] = held[name][:-1]
        case _:
            del held[name]
    report = scrub(core.site)
    record = core.records()[b"a"]
    assert report.damaged_packs == (name.hex(),)
    assert report.damaged_contents == (record.hash.hex(),)
    [answer] = core.fetch([Want(record.device, record.counter)])
    assert isinstance(answer, Refusal)
    assert answer.status == "damaged"
    assert core.read(b"b") == b"fine"


def rot(core: CoreSite, at: int = -1) -> None:
    """Flip a bit of the largest pack, or take the pack away."""
    held = core.store.inner.packs  # type: ignore[attr-defined]
    name = max(held, key=lambda each: len(held[each]))
    if at < 0:
        del held[name]
    else:
        held[name] = held[name][:at] + bytes([held[name][at] ^ 1]) + held[name][at + 1 :]


def get(core: CoreSite) -> bytes:
    version = find_version(core.site, core.folder, b"a")
    return b"".join(read_content(core.site, core.laptop.identity, version))


def sign(core: CoreSite) -> bytes:
    version = find_version(core.site, core.folder, b"a")
    return signature_of(core.site, core.laptop.identity, version, block_size=None, strong=None)


def compare(core: CoreSite) -> bytes:
    version = find_version(core.site, core.folder, b"a")
    theirs = signature(io.BytesIO(b"old"), format="librsync").pack()
    return b"".join(delta_for(core.site, core.laptop.identity, version, theirs))


def append(core: CoreSite) -> Version:
    change = encode_commands([Copy(0, len(BLOB)), Literal(b"more")])
    return patch_file(core.site, core.laptop.identity, core.folder, b"a", [change])


@pytest.mark.parametrize("at", [0, 777, len(BLOB) - 1, -1], ids=["first", "inside", "last", "gone"])
@pytest.mark.parametrize("use", [get, sign, compare, append])
def test_damage_that_nobody_found_yet_is_found_by_who_reads_it(
    core: CoreSite, use: Callable[[CoreSite], object], at: int
) -> None:
    core.laptop.put(b"a", BLOB)
    rot(core, at)
    with pytest.raises(NotFound, match="damaged"):
        use(core)
    record = core.records()[b"a"]
    assert record.hash == blake3(BLOB).digest()
    [answer] = core.fetch([Want(record.device, record.counter)])
    assert isinstance(answer, Refusal)
    core.device("phone").put(b"b", BLOB)
    use(core)


def test_a_large_file_that_is_damaged_at_its_end_never_comes_to_its_end(core: CoreSite) -> None:
    data = BLOB * 20
    core.laptop.put(b"a", data)
    rot(core, len(data) - 1)
    version = find_version(core.site, core.folder, b"a")
    pieces: list[memoryview] = []
    with pytest.raises(NotFound):
        pieces.extend(read_content(core.site, core.laptop.identity, version))
    came = b"".join(pieces)
    assert came == data[: len(came)]
    assert 0 < len(came) < len(data)


def test_a_store_that_goes_away_while_a_file_is_read_is_no_damage(tmp_path: Path) -> None:
    core = CoreSite(tmp_path / "data", LocalStore(tmp_path / "store", SeededRandom(3)))
    core.laptop.put(b"a", BLOB)
    (tmp_path / "store").rename(tmp_path / "unmounted")
    for use in (get, sign, compare, append):
        with pytest.raises(Away):
            use(core)
    (tmp_path / "unmounted").rename(tmp_path / "store")
    assert get(core) == BLOB


def test_a_base_that_is_moved_while_its_delta_comes_is_patched(core: CoreSite) -> None:
    for n in range(compact.ENOUGH):
        core.laptop.put(b"f%d" % n, b"content %d" % n)
    core.clock.advance(2 * HOUR_MS)

    def chunks() -> Iterator[bytes]:
        assert compact.compact(core.site).packs == 1
        yield encode_commands([Copy(0, 9), Literal(b" and more")])

    patch_file(core.site, core.laptop.identity, core.folder, b"f1", chunks())
    assert core.read(b"f1") == b"content 1 and more"


def test_what_is_collected_during_a_scrub_is_no_damage(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes days to read terabytes, and the site goes on meanwhile."""
    core.laptop.put(b"a", BLOB)

    def slowly(store: PackStore, name: bytes, size: int) -> bool:
        core.laptop.delete(b"a")
        for days in (31, 2):
            age(core, days)
            gc(core.site)
        return is_sound(store, name, size)

    monkeypatch.setattr("dblike_srv.scrub.is_sound", slowly)
    report = scrub(core.site)
    assert (report.packs, report.sound) == (1, True)


def test_a_device_that_has_the_content_heals_it(core: CoreSite) -> None:
    core.laptop.put(b"a", BLOB)
    held = core.store.inner.packs  # type: ignore[attr-defined]
    held.clear()
    assert not scrub(core.site).sound
    core.device("phone").put(b"b", BLOB)
    assert scrub(core.site).sound
    assert core.read(b"a") == BLOB


class Starved(LocalStore):
    """A store of a process that has no descriptor left to read a pack with."""

    def read(self, name: bytes, offset: int, length: int) -> bytes:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            return super().read(name, offset, length)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_trouble_of_the_host_is_no_damage(tmp_path: Path) -> None:
    core = CoreSite(tmp_path / "data", LocalStore(tmp_path / "data", SeededRandom(3)))
    core.laptop.put(b"a", BLOB)
    digest = blake3(BLOB).digest()
    sound = core.store.inner
    core.store.inner = Starved(tmp_path / "data", SeededRandom(4))
    with pytest.raises(Away):
        check_contents(core.site, core.user, [digest])
    with pytest.raises(Away):
        scrub(core.site)
    core.store.inner = sound
    (tmp_path / "data" / "packs").rename(tmp_path / "unmounted")
    with pytest.raises(Away):
        scrub(core.site)
    (tmp_path / "unmounted").rename(tmp_path / "data" / "packs")
    assert core.read(b"a") == BLOB
    assert scrub(core.site).sound


def test_a_store_whose_disk_is_not_mounted_is_not_made_anew(tmp_path: Path) -> None:
    """Not by a server that runs, and not by a process that opens the site meanwhile."""
    mount, disk = tmp_path / "mount", tmp_path / "disk"
    core = CoreSite(tmp_path / "data", LocalStore(mount, SeededRandom(3)))
    config = msgspec.structs.replace(core.site.config, store=f"file:{mount}")
    core.laptop.put(b"a", BLOB)
    mount.rename(disk)
    mount.mkdir()
    running = core.site
    for site in (running, open_site(config), running):
        core.site = site
        assert check_ready(site)
        with pytest.raises(Away, match="mount its disk"):
            site.store.check()
        with pytest.raises(Away):
            core.laptop.put(b"b", BLOB + b"more")
        with pytest.raises(Away):
            check_contents(site, core.user, [blake3(BLOB).digest()])
        with pytest.raises(Away):
            scrub(site)
        assert core.laptop.make(b"d").status in ("accepted", "known")
    assert list(mount.iterdir()) == []
    mount.rmdir()
    disk.rename(mount)
    (mount / "tmp").rmdir()  # as on a disk that a backup was copied to
    core.site = open_site(config)
    assert core.read(b"a") == BLOB
    assert core.laptop.put(b"b", BLOB + b"more").status == "accepted"
    assert scrub(running).sound


def test_a_store_that_has_no_packs_yet_may_be_somewhere_else(tmp_path: Path) -> None:
    core = CoreSite(tmp_path / "data")
    place = tmp_path / "not" / "there"
    core.site = open_site(msgspec.structs.replace(core.site.config, store=f"file:{place}"))
    assert not check_ready(core.site)
    core.laptop.put(b"a", BLOB)
    assert core.read(b"a") == BLOB


def test_scrub_reads_what_came_as_a_delta(core: CoreSite) -> None:
    core.laptop.put(b"a", BLOB)
    core.laptop.edit(b"a", BLOB, [Copy(0, 100), Literal(b"x")])
    assert scrub(core.site).contents == 1
    assert scrub(core.site).contents == 0


def test_a_backup_is_a_site(tmp_path: Path) -> None:
    core = CoreSite(tmp_path / "data", LocalStore(tmp_path / "data", SeededRandom(3)))
    core.laptop.put(b"a", BLOB)
    report = backup(core.site, tmp_path / "copy")
    assert (report.packs, report.bytes) == (1, len(BLOB))
    core.laptop.put(b"a", b"after the backup")
    config = find_config(data=tmp_path / "copy")
    assert config.cluster_key == core.site.config.cluster_key
    copy = open_site(config)
    assert copy.id == core.site.id
    assert scrub(copy).sound
    core.site = copy
    assert core.read(b"a") == BLOB
    with pytest.raises(Conflict):
        backup(core.site, tmp_path / "copy")
    with sqlite3.connect(tmp_path / "copy" / "dblike.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_a_backup_stands_by_itself(tmp_path: Path) -> None:
    """Wherever the site keeps its parts: started beside it, the copy must not collect its packs."""
    here = tmp_path / "here"
    (here / "store").mkdir(parents=True)
    (here / "key").write_text("s" * 40)
    places = {
        "database": f"sqlite:///{here / 'database'}",
        "cluster_key": "",
        "cluster_key_file": str(here / "key"),
    }
    core = CoreSite(here / "data", LocalStore(here / "store", SeededRandom(3)), **places)
    core.site.config = msgspec.structs.replace(core.site.config, store=f"file:{here / 'store'}")
    core.laptop.put(b"a", BLOB)
    backup(core.site, tmp_path / "copy")
    core.site.close()
    here.rename(tmp_path / "lost")
    core.site = open_site(find_config(data=tmp_path / "copy"))
    assert core.site.config.key == b"s" * 40
    assert core.read(b"a") == BLOB
    core.site.close()


def compact_beside_gc(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch, rounds: int = 1
) -> dict[bytes, bytes]:
    """Small files that are made one pack, which nothing needs yet when garbage is collected."""
    wanted = {b"f%d" % n: b"content %d" % n for n in range(compact.ENOUGH)}
    for path, data in wanted.items():
        core.laptop.put(path, data)
    core.clock.advance(2 * HOUR_MS)
    copied = compact._copy

    def copy(*what: Any) -> Any:
        done = copied(*what)
        for _ in range(rounds):
            core.clock.advance(1000)
            gc(core.site)
        return done

    monkeypatch.setattr(compact, "_copy", copy)
    assert compact.compact(core.site).packs == 1
    return wanted


def test_a_new_pack_that_contents_moved_to_does_not_die(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = compact_beside_gc(core, monkeypatch)
    marks = core.site.database.read(lambda c: set(c.scalars(select(packs.c.dying))))
    assert marks == {0}
    assert {path: core.read(path) for path in wanted} == wanted


def test_contents_do_not_move_to_a_pack_that_is_gone(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compaction stood still until garbage collection had deleted what it wrote."""
    monkeypatch.setattr(collect, "GRACE_MS", 0)
    with pytest.raises(Busy):
        compact_beside_gc(core, monkeypatch, rounds=2)
    assert core.read(b"f0") == b"content 0"


def mark_all(core: CoreSite) -> None:
    """What garbage collection does to packs that contents come to need while it looks."""
    marked = update(packs).values(dying=core.clock.now)
    core.site.database.transact(lambda connection: connection.execute(marked))


def test_a_backup_has_packs_that_were_marked_wrongly(tmp_path: Path) -> None:
    core = CoreSite(tmp_path / "data", LocalStore(tmp_path / "data", SeededRandom(3)))
    core.laptop.put(b"a", BLOB)
    core.laptop.put(b"gone", BLOB[:1000])
    mark_all(core)
    core.site.store.delete(blake3(BLOB[:1000]).digest())
    assert backup(core.site, tmp_path / "copy").packs == 1
    copy = CoreSite.again(tmp_path / "copy", LocalStore(tmp_path / "copy", SeededRandom(4)))
    assert copy.read(b"a") == BLOB
    assert len(list(copy.site.store.names())) == 1


def test_packs_that_were_marked_wrongly_are_compacted(core: CoreSite) -> None:
    wanted = {b"f%d" % n: b"content %d" % n for n in range(compact.ENOUGH)}
    for path, data in wanted.items():
        core.laptop.put(path, data)
    core.clock.advance(2 * HOUR_MS)
    mark_all(core)
    assert compact.compact(core.site).packs == 1
    assert {path: core.read(path) for path in wanted} == wanted


def test_a_crash_at_any_step_of_gc_loses_nothing(tmp_path: Path) -> None:
    """The store fails at its n-th delete; the next run goes on."""

    class Failing(MemoryStore):
        left = 0

        def delete(self, name: bytes) -> None:
            if self.left == 0:
                raise OSError("the power is gone")
            self.left -= 1
            super().delete(name)

    store = Failing()
    core = CoreSite(tmp_path, store, retention={"days": 1, "versions": 0})
    for n in range(4):
        core.laptop.put(b"a", b"version %d" % n)
    age(core, 2)
    gc(core.site)
    age(core, 2)
    for _ in range(2):  # of three packs to go
        store.left = 1
        with pytest.raises(OSError, match="power"):
            gc(core.site)
        assert core.read(b"a") == b"version 3"
    store.left = 9
    gc(core.site)
    assert len(store.packs) == 1
