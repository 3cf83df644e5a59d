"""A Galera cluster of three nodes as the database: writers on all of them, and nodes that die."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, select, update

from conftest import Spawn
from dblike_delta.messages import CommitReply
from dblike_delta.versions import Kind
from dblike_srv import collect
from dblike_srv.errors import Busy
from dblike_srv.models import contents, journal, packs, versions
from dblike_srv.readiness import check_ready
from dblike_srv.store.mem import MemoryStore
from rig.core_site import CoreSite, Device, SeededRandom, send, stream
from rig.galera import Galera, missing
from rig.programs import Program, wait_until, wait_until_same
from rig.servers import PASSWORD as LOGIN
from rig.servers import Server

BLOB = SeededRandom(3).bytes(50_000)
_names = (f"dblike{n}" for n in itertools.count(1))


@pytest.fixture(scope="session")
def galera() -> Iterator[Galera]:
    """Three nodes.  Not in a directory of pytest's, which only its owner may enter."""
    if missing():
        pytest.skip(missing())
    directory = Path(tempfile.mkdtemp(prefix="dblike-galera-"))
    directory.chmod(0o755)
    cluster = Galera(directory / "g")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(directory)


@pytest.fixture
def sites(tmp_path: Path, galera: Galera) -> Iterator[list[CoreSite]]:
    """One site by three hosts, each with another node first."""
    galera.heal()
    name, store = next(_names), MemoryStore()
    galera.create(name)
    made = [CoreSite(tmp_path / "0", store, database=galera.url(name))]
    made += [CoreSite.again(tmp_path / str(n), store, database=galera.url(name, n)) for n in (1, 2)]
    for number, core in enumerate(made):
        core.random = SeededRandom(100 + number)
    yield made
    for core in made:
        core.site.close()


def at(core: CoreSite, device: Device) -> Device:
    """The same device, at another host."""
    moved = Device(core, device.identity)
    moved.counter, moved.contexts = device.counter, device.contexts
    return moved


def patiently(core: CoreSite, device: Device, path: bytes, data: bytes) -> CommitReply:
    """Commit a file as a client does: what the site can't do now is sent again, as it was."""
    changeset = stream([device.file(path, data)])
    while True:
        try:
            return send(core.site, device.identity, core.folder, changeset)
        except Busy:
            continue


def in_threads(work: Callable[[int], None], count: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    return threads


def check_journal(core: CoreSite, count: int) -> None:
    """Every version once, and no number left out."""
    numbers = core.site.database.read(lambda c: list(c.scalars(select(journal.c.number))))
    assert sorted(numbers) == list(range(1, count + 1))
    assert core.count(versions) == count


def test_writers_on_all_nodes_and_readers_elsewhere(sites: list[CoreSite]) -> None:
    """What was refused by the others is run again; who reads at another node sees what was
    acknowledged a moment ago."""
    devices = [sites[0].device(f"device {n}") for n in range(3)]
    stale: list[str] = []

    def write(number: int) -> None:
        here, there = sites[number], sites[(number + 1) % 3]
        for n in range(10):
            path = b"%d/%d" % (number, n)
            [result] = patiently(here, devices[number], path, b"%d" % n).results
            if result.status not in ("accepted", "known") or path not in there.records():
                stale.append(f"{path!r} {result}")

    for thread in in_threads(write, 3):
        thread.join()
    assert stale == []
    check_journal(sites[2], 30 + 3)  # and the directories that they lie in


def test_a_node_that_only_reads_is_passed_over(sites: list[CoreSite], galera: Galera) -> None:
    """A replica may be behind; a failover makes the old first one read-only."""

    def port(connection: Connection) -> int:
        return int(connection.exec_driver_sql("SELECT @@port").scalar_one())

    core, first = sites[0], galera.nodes[0]
    assert core.site.database.read(port) == first.port
    first.root("SET GLOBAL read_only = ON")
    try:
        assert core.laptop.put(b"a", BLOB).status == "accepted"
        assert core.site.database.read(port) == galera.nodes[1].port
        assert sites[2].read(b"a") == BLOB
    finally:
        first.root("SET GLOBAL read_only = OFF")


def beside(
    core: CoreSite, work: Callable[[Connection], object], other: Callable[[], object]
) -> object:
    """Run `work` as a transaction; before its first COMMIT something else happens elsewhere."""
    runs: list[int] = []

    def both(connection: Connection) -> object:
        result = work(connection)
        runs.append(1)
        if len(runs) == 1:
            other()
        return result

    result = core.site.database.transact(both)
    assert len(runs) == 2
    return result


def test_contents_that_a_commit_on_another_node_names_are_not_dropped(
    sites: list[CoreSite],
) -> None:
    """Locks do not meet there: the rows that both write do."""
    one, two = sites[:2]
    one.laptop.put(b"a", BLOB)
    digest = one.records()[b"a"].hash
    [(row, user)] = one.site.database.read(
        lambda c: c.execute(select(contents.c.id, contents.c.user)).all()
    )
    phone = two.device("phone")

    def name_it() -> None:
        record = phone.record(b"b", Kind.FILE, hash=digest, size=len(BLOB))
        assert phone.commit(record).results[0].status == "accepted"

    def drop(connection: Connection) -> None:
        connection.execute(delete(versions).where(versions.c.path == b"a"))
        collect._drop(connection, wanted={row: (user, digest)}, doomed={row})

    beside(one, drop, name_it)
    assert two.read(b"b") == BLOB


def test_a_pack_that_a_commit_on_another_node_claims_is_not_deleted(sites: list[CoreSite]) -> None:
    one, two = sites[:2]
    one.laptop.put(b"a", BLOB)

    def forget(connection: Connection) -> None:
        connection.execute(delete(contents))
        connection.execute(update(packs).values(dying=7))

    one.site.database.transact(forget)
    [row] = one.site.database.read(lambda c: list(c.scalars(select(packs.c.id))))
    phone = two.device("phone")

    def claim() -> None:
        assert phone.put(b"b", BLOB).status == "accepted"  # the very same pack

    assert not beside(one, partial(collect._give_up, row=row, dying=7), claim)
    assert two.read(b"b") == BLOB


@pytest.mark.long
def test_clients_go_on_when_the_servers_node_was_killed(
    tmp_path: Path, galera: Galera, spawn: Spawn
) -> None:
    """A pause, and no error: neither of the clients ends, and nothing conflicts."""
    galera.heal()
    name = next(_names)
    galera.create(name)
    server = Server(tmp_path, "--workers", "2", DBLIKE_DATABASE=galera.url(name))
    try:
        user = server.add_user()
        laptop = Program.link(tmp_path / "laptop", server.url, user, LOGIN, spawn)
        phone = Program.link(tmp_path / "phone", server.url, user, LOGIN, spawn)
        watches = laptop.watch(), phone.watch()
        laptop.write("before", "1")
        wait_until_same(laptop, phone, also=lambda tree: "before" in tree)
        galera.nodes[0].kill()
        for number in range(20):
            laptop.write(f"l{number}", "2")
            phone.write(f"p{number}", "3")
        wait_until_same(laptop, phone, also=lambda tree: len(tree) == 41)
        assert [watch.end() for watch in watches] == [0, 0]
        assert not any("conflicted" in path for path in laptop.tree())
    finally:
        server.stop()


@pytest.mark.long
def test_nodes_are_killed_under_writers(sites: list[CoreSite], galera: Galera) -> None:
    """One dead is a pause; two dead are a site that says 503 until a majority is back; of
    what was acknowledged nothing is lost."""
    devices = [sites[0].device(f"device {n}") for n in range(3)]
    acknowledged: list[bytes] = []
    enough, stop = threading.Event(), threading.Event()

    def write(number: int) -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            path = b"%d/%d" % (number, n)
            patiently(sites[number], devices[number], path, path)
            acknowledged.append(path)
            if n >= 5:
                enough.set()

    threads = in_threads(write, 3)
    assert enough.wait(60)
    galera.nodes[1].kill()
    so_far = len(acknowledged)
    wait_until(lambda: len(acknowledged) > so_far + 15)
    stop.set()
    for thread in threads:
        thread.join()
    galera.heal()
    assert set(acknowledged) <= sites[1].records().keys()
    check_journal(sites[2], len(acknowledged) + 3)

    galera.nodes[0].kill()
    galera.nodes[1].kill()
    with pytest.raises(Busy):
        sites[2].laptop.put(b"refused", b"")
    assert check_ready(sites[2].site) == "the database can't be reached"
    galera.nodes[2].root("SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'")
    wait_until(lambda: check_ready(sites[2].site) == "")
    assert set(acknowledged) <= sites[0].records().keys()
