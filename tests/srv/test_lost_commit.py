"""A COMMIT of unknown outcome: the connection is cut when it was sent, and before its reply."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from dblike_delta.commands import Copy, Literal
from dblike_delta.formats import encode_commands
from dblike_srv.errors import PreconditionFailed
from dblike_srv.files import FileWish, Precondition, patch_file, put_file
from dblike_srv.models import journal, packs, users, versions
from dblike_srv.views import version_name
from rig.core_site import CoreSite, SeededRandom
from rig.mariadb import MariaDB
from rig.proxy import FINE, Fault, Proxy

LOST = Fault(lose_reply_to=(b"INSERT INTO journal", b"COMMIT"))
BLOB = SeededRandom(5).bytes(50_000)


@pytest.fixture
def proxy(mariadb_server: MariaDB) -> Iterator[Proxy]:
    """In front of MariaDB's port."""
    made = Proxy(("127.0.0.1", mariadb_server.port))
    yield made
    made.close()


@pytest.fixture
def core(tmp_path: Path, mariadb: str, mariadb_server: MariaDB, proxy: Proxy) -> Iterator[CoreSite]:
    """A site whose database is reached through it."""
    name = mariadb.rpartition("/")[2]
    made = CoreSite(tmp_path, database=mariadb_server.url(name, proxy.port))
    yield made
    made.site.close()


def lose(core: CoreSite, proxy: Proxy, which: set[int]) -> None:
    """From the next connection on, these connections lose the reply to a commit's COMMIT."""
    first = proxy.connections
    proxy.plan = lambda number: LOST if number - first in which else FINE
    core.site.database.engine.dispose()


def test_it_is_run_again_and_finds_its_own_dots(core: CoreSite, proxy: Proxy) -> None:
    core.laptop.put(b"a", b"before")
    lose(core, proxy, {0})
    result = core.laptop.put(b"a", BLOB)
    assert (result.status, proxy.lost) == ("known", 1)
    assert core.laptop.put(b"a", b"after").status == "accepted"  # with the context it was given
    assert core.read(b"a") == b"after"
    assert (core.count(versions), core.count(journal), core.count(packs)) == (3, 3, 3)
    used = core.site.database.read(lambda c: c.scalar(select(users.c.used)))
    assert used == len(b"before") + len(BLOB) + len(b"after")


def test_a_condition_that_held_is_not_asked_of_what_it_led_to(core: CoreSite, proxy: Proxy) -> None:
    """A file that is put where there was none, and a delta that is applied to it."""
    lose(core, proxy, {0, 1})
    me, wish = core.laptop.identity, FileWish()
    new = Precondition(if_none_match=("*",))
    made = put_file(core.site, me, core.folder, b"a/b", [BLOB], wish=wish, condition=new)
    assert proxy.lost == 1
    same = Precondition(if_match=(version_name(made.dot),))
    delta = [encode_commands([Copy(0, 40_000), Literal(b"new")])]
    patch_file(core.site, me, core.folder, b"a/b", delta, condition=same)
    assert (core.read(b"a/b"), proxy.lost) == (BLOB[:40_000] + b"new", 2)
    with pytest.raises(PreconditionFailed):
        put_file(core.site, me, core.folder, b"a/b", [BLOB], wish=wish, condition=new)


def test_writers_at_once_over_a_line_that_cuts_every_third(core: CoreSite, proxy: Proxy) -> None:
    """Every version is acknowledged once it is there, none is there twice."""
    lose(core, proxy, set(range(0, 60, 3)))
    devices = [core.device(f"device {n}") for n in range(4)]
    said: list[str] = []

    def write(number: int) -> None:
        put = devices[number].put
        said.extend(put(b"%d/%d" % (number, n), b"%d" % n).status for n in range(8))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proxy.lost >= 4
    assert len(said) == 32
    assert said.count("known") == proxy.lost
    assert set(said) == {"known", "accepted"}
    numbers = core.site.database.read(lambda c: list(c.scalars(select(journal.c.number))))
    assert sorted(numbers) == list(range(1, core.count(versions) + 1))
    files = {path: core.read(path) for path, record in core.records().items() if record.hash}
    assert files == {b"%d/%d" % (m, n): b"%d" % n for m in range(4) for n in range(8)}
