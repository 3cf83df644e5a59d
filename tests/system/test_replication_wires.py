"""What travels between sites, which ways it takes, and how many hold it when it is answered."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket

import dblike_delta
from conftest import Spawn
from rig.cluster import Cluster, User, eventually
from rig.programs import Program
from rig.proxy import Fault, Proxy
from rig.servers import PASSWORD
from rig.writer import Writer

MIB = 1 << 20


def _logged_in(cluster: Cluster) -> User:
    """A device of ada's, whom every site knows by now."""
    cluster[0].add_user("ada")
    for site in cluster:
        eventually(lambda site=site: site.login("ada").token)
    return cluster[0].login("ada")


def _proxied(cluster: Cluster, follower: int, followed: int) -> Proxy:
    """What the one asks the other goes through this from the follower's start on."""
    proxy = Proxy(("127.0.0.1", cluster[followed].port))
    peers = cluster[follower].config["peers"]
    replaced = [p if p["url"] != cluster[followed].url else {"url": proxy.url} for p in peers]
    cluster[follower].configure(peers=replaced)
    return proxy


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, User, Proxy]]:
    """a - b - c: the ends hear of each other through the middle.  b asks a through a proxy."""
    follows = {0: [1], 1: [0, 2], 2: [1]}
    cluster = Cluster(tmp_path_factory.mktemp("chain"), follows=follows)
    proxy = _proxied(cluster, 1, 0)
    with cluster:
        yield cluster, _logged_in(cluster), proxy
    proxy.close()


Chain = tuple[Cluster, User, Proxy]


def test_a_relay(chain: Chain) -> None:
    """Writes at one end reach the other, both ways, and so does the end of a token."""
    cluster, ada, _ = chain
    far = cluster[2].at(ada.token)
    ada.put("there", b"from a")
    far.put("back", b"from c")
    cluster.converge(ada.token)
    assert far.get("there") == b"from a"
    assert ada.get("back") == b"from c"
    lost = cluster[2].login("ada", "lost")
    device = next(d.id for d in lost.exchange.devices() if d.current)
    eventually(lambda: device in [d.id for d in ada.exchange.devices()])
    ada.exchange.revoke(device)

    def dead() -> bool:
        return device not in [d.id for d in far.exchange.devices() if not d.revoked]

    eventually(dead)


def test_an_edit_of_a_large_file_travels_as_an_edit(chain: Chain) -> None:
    """64 MiB with 20 places changed: the edits travel, and nobody reads the rest."""
    cluster, ada, proxy = chain
    rng = random.Random(1)
    old = bytearray(rng.randbytes(64 * MIB))
    ada.put("large", bytes(old))
    cluster.converge(ada.token)
    signature = dblike_delta.signature(io.BytesIO(old), format="librsync")
    for _ in range(20):
        at = rng.randrange(len(old) - 100)
        old[at : at + 100] = rng.randbytes(100)
    out = io.BytesIO()
    dblike_delta.delta(signature, io.BytesIO(old)).dump(out)
    ada.put("before", b"the edit")
    cluster.converge(ada.token)
    wire, cpu = proxy.received, [sum(p.cpu_times()[:2]) for p in cluster[1].following()]
    ada.patch("large", out.getvalue())
    cluster.converge(ada.token)
    spent = [sum(p.cpu_times()[:2]) for p in cluster[1].following()]
    assert proxy.received - wire < 20 * 16384 + 200_000
    # Reading and hashing 64 MiB is more than this; the rest is a round of questions.
    assert sum(spent) - sum(cpu) < 1.0
    assert cluster[2].at(ada.token).get("large") == bytes(old)


def test_a_large_file_whose_way_is_cut(chain: Chain) -> None:
    """The line goes down, then the process that follows: what came is not sent again."""
    cluster, ada, proxy = chain
    large = random.Random(2).randbytes(24 * MIB)
    proxy.plan = lambda _: Fault(delay=0.003)
    proxy.drop_all()
    before = proxy.received
    ada.put("way", large)
    eventually(lambda: proxy.received - before > 6 * MIB)
    proxy.drop_all()
    eventually(lambda: proxy.received - before > 14 * MIB)
    assert "way" not in map(bytes.decode, cluster[1].at(ada.token).tree())
    for process in cluster[1].following():
        process.kill()
    proxy.plan = lambda _: Fault()
    cluster.converge(ada.token)
    assert proxy.received - before < (24 + 12) * MIB
    assert cluster[2].at(ada.token).get("way") == large


def test_a_link_that_flaps(chain: Chain) -> None:
    """Connections that are cut again and again after a few bytes: it ends when they last."""
    cluster, ada, proxy = chain
    cut = iter(range(100, 10**9, 3000))
    proxy.plan = lambda _: Fault(cut_reply=next(cut), reset=True)
    proxy.drop_all()
    writer = Writer(ada.exchange, ada.login("ada", "flapping"))
    for batch in range(5):
        writer.write({b"flap-%d-%d" % (batch, n): b"%d" % n * 100 for n in range(50)})
        proxy.drop_all()
    cluster.converge(ada.token)
    proxy.plan = lambda _: Fault()


def test_a_one_way_partition(chain: Chain) -> None:
    """b does not reach a, and a still reaches b: what b and c write comes to all at once, what a
    writes when the link is back."""
    cluster, ada, proxy = chain
    proxy.plan = lambda _: Fault(refuse=True)
    proxy.drop_all()
    far = cluster[2].at(ada.token)
    ada.put("both", b"at a")
    far.put("both", b"at c")
    far.put("one-way", b"at c")
    eventually(lambda: ada.get("one-way"))
    assert b"both" in far.tree()
    assert far.get("both") == b"at c"
    proxy.plan = lambda _: Fault()
    cluster.converge(ada.token)
    names = [path for path in far.tree() if path.startswith(b"both")]
    assert len(names) == 2


def test_devices_are_no_sites(chain: Chain) -> None:
    """A device's token opens no socket between sites."""
    cluster, ada, _ = chain
    for token in (ada.token, "dbp_" + "A" * 80):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            websocket.create_connection(
                f"ws://127.0.0.1:{cluster[0].port}/v1/peer/events",
                header=[f"Authorization: Bearer {token}"],
                timeout=30,
            )
        assert refused.value.status_code == 401


# --- copies


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, User]]:
    """Three sites of which two shall hold what is answered."""
    rules = {"copies": 2, "wait_ms": 10_000}
    with Cluster(tmp_path_factory.mktemp("copies"), replication=rules) as cluster:
        yield cluster, _logged_in(cluster)


@pytest.mark.parametrize(
    "follows", [{0: [1], 1: [0, 2], 2: [1]}, {0: [1], 1: [2], 2: [0]}], ids=["chain", "ring"]
)
def test_copies_are_counted_however_sites_are_connected(
    tmp_path: Path, follows: dict[int, list[int]]
) -> None:
    """The site at the other end of a chain is followed by none of ours: the middle one tells."""
    rules = {"copies": 3, "wait_ms": 10_000}
    with Cluster(tmp_path, follows=follows, replication=rules) as cluster:
        ada = _logged_in(cluster)
        writer = Writer(ada.exchange, ada.login("ada", "far"))
        eventually(lambda: writer.write({b"first": b"of all"}).copies == 3)
        for number in range(5):
            assert writer.write({b"copy-%d" % number: b"%d" % number * 5000}).copies == 3
        assert "in vain" not in cluster[0].command("status")


def test_what_one_site_held_alone_comes_from_its_device(tmp_path: Path, spawn: Spawn) -> None:
    """It is lost before the other one could follow it."""
    with Cluster(tmp_path, 2) as cluster:
        ada = _logged_in(cluster)
        urls = ",".join(site.url for site in cluster)
        laptop = Program.link(tmp_path / "laptop", urls, "ada", PASSWORD, spawn)
        cluster[1].kill()
        laptop.write("alone", "at one site")
        laptop.write("large", b"large" * 2_000_000)
        laptop.ok("push")
        cluster[0].kill()
        cluster[1].start()
        laptop.ok("sync")
        assert {b"alone", b"large"} <= cluster[1].at(ada.token).tree().keys()


def test_what_two_sites_hold_survives_the_first_one(copies: tuple[Cluster, User]) -> None:
    """The site that answered is killed at once: what it answered is at the others."""
    cluster, ada = copies
    writer = Writer(ada.exchange, ada.login("ada", "copied"))
    eventually(lambda: writer.write({b"first": b"of all"}).copies >= 2)
    for number in range(10):
        assert writer.write({b"copy-%d" % number: b"%d" % number * 5000}).copies >= 2
    cluster[0].kill()
    others = [site.at(ada.token) for site in cluster.sites[1:]]
    cluster.converge(ada.token)
    for user in others:
        assert all(b"copy-%d" % number in user.tree() for number in range(10))
    cluster.start()
    cluster.converge(ada.token)


def test_alone_a_site_says_so(copies: tuple[Cluster, User]) -> None:
    """Where no other site is there, the answer comes after the wait, and says one."""
    cluster, ada = copies
    for site in cluster.sites[1:]:
        site.kill()
    cluster[0].stop()
    cluster[0].configure(replication={"follow": "all", "copies": 2, "wait_ms": 200})
    cluster[0].start()
    writer = Writer(ada.exchange, ada.login("ada", "alone"))
    reply = writer.write({b"alone": b"at one site"})
    assert (reply.copies, reply.wanted) == (1, 2)
    cluster.start()
    cluster.converge(ada.token)
    eventually(lambda: writer.write({b"together": b"again"}).copies >= 2)


def test_a_failed_disk(copies: tuple[Cluster, User], tmp_path: Path) -> None:
    """A site with an empty data directory and the same config fills itself."""
    cluster, ada = copies
    lost = cluster[1]
    lost.kill()
    lost.data.rename(tmp_path / "broken")
    ada.put("meanwhile", b"at the others")
    lost.start()
    cluster.converge(ada.token)
    assert lost.at(ada.token).get("meanwhile") == b"at the others"
    lost.login("ada")
