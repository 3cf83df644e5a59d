"""Three real sites: what is done at one of them is so at all of them."""

from __future__ import annotations

import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import quote

import pytest

from dblike_delta.exchange import Refused, Unreachable
from rig import mariadb
from rig.cluster import PROGRAM, Cluster, RealSite, User, eventually, listens
from rig.processes import has_ended
from rig.writer import Writer


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """Three sites that all follow each other, the last one on MariaDB, and the user ada."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    if not mariadb.missing():
        server: mariadb.MariaDB = request.getfixturevalue("mariadb_server")
        made[2].configure(database=server.create())
    with made:
        made[0].add_user("ada")
        for site in made:
            eventually(lambda site=site: site.login("ada").token)
        yield made


@pytest.fixture
def ada(cluster: Cluster) -> User:
    """A device of ada's, logged in at the first site."""
    cluster.start()
    return cluster[0].login("ada")


def test_a_user_made_at_one_site_logs_in_at_another(cluster: Cluster) -> None:
    """Accounts are where the sites are."""
    cluster[0].add_user("bob")
    eventually(lambda: cluster[2].login("bob").token)


def test_a_token_is_good_everywhere_at_once(cluster: Cluster, ada: User) -> None:
    """A token proves itself: nothing needs to have been heard of the login."""
    user = cluster[0].login("ada")
    assert cluster[1].at(user.token).exchange.folders()
    assert cluster[2].at(user.token).exchange.folders()


def test_an_edit_reaches_all(cluster: Cluster, ada: User) -> None:
    """Writes at three sites are one tree at all."""
    for site in cluster:
        site.at(ada.token).put(f"from-{site.name}", site.name.encode() * 1000)
    cluster.converge(ada.token)
    assert cluster[2].at(ada.token).get("from-a") == b"a" * 1000


def test_a_token_outlives_the_site_that_made_it(cluster: Cluster) -> None:
    """The site dies right after the login; its token is good at the others, which never heard."""
    user = cluster[0].login("ada")
    cluster[0].kill()
    for site in cluster.sites[1:]:
        assert site.at(user.token).exchange.folders()
    cluster.start()


def test_a_revoked_token_is_dead_at_all_sites(cluster: Cluster, ada: User) -> None:
    """Whichever site is told; and at one that was away, from its first answer on."""
    lost = cluster[1].login("ada", "lost phone")
    device = next(d.id for d in lost.exchange.devices() if d.current)
    for site in cluster:
        here = site.at(ada.token).exchange
        eventually(lambda here=here: device in [d.id for d in here.devices()])
    cluster[2].kill()
    ada.exchange.revoke(device)
    eventually(lambda: is_dead(cluster[1], lost.token))
    cluster[2].start()
    assert is_dead(cluster[2], lost.token)


def is_dead(site: RealSite, token: str) -> bool:
    """Whether the site refuses the token."""
    try:
        site.at(token).exchange.folders()
    except Refused as refused:
        return refused.status == 401
    return False


def test_a_conflict_is_the_same_everywhere(cluster: Cluster, ada: User) -> None:
    """Two sites that don't hear of each other take a path each their own way; both are kept."""
    ada.put("report.txt", b"first")
    cluster.converge(ada.token)
    for site in cluster:
        site.kill()
    for site, text in ((cluster[0], b"at a"), (cluster[1], b"at b")):
        site.start()
        site.at(ada.token).put("report.txt", text)
        site.kill()
    cluster.start()
    cluster.converge(ada.token)
    for site in cluster:
        user = site.at(ada.token)
        reports = [path for path in user.tree() if path.startswith(b"report")]
        assert len(reports) == 2
        assert {user.get(quote(path)) for path in reports} == {b"at a", b"at b"}


def gauge(site: RealSite, name: str, peer: RealSite) -> float:
    """What the site counts of a peer."""
    with urllib.request.urlopen(f"{site.url}/metrics", timeout=60) as reply:
        lines = reply.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith(f'{name}{{peer="{peer.url}"}}')]
    return float(line.split()[-1])


def test_who_holds_what_is_known_while_writes_go_on(cluster: Cluster, ada: User) -> None:
    """A site that is asked for more all the time still says, every few seconds, what it has."""
    cluster.converge(ada.token)
    lags = [0.0]

    def write() -> bool:
        ada.put(f"steady-{len(lags) % 9}", b"%d" % len(lags))
        lags.append(gauge(cluster[0], "dblike_peer_ahead_versions", cluster[1]))
        return sum(after < before for before, after in pairwise(lags)) == 4

    eventually(write, "what is held is said in rounds that look at everything alone")


def test_catching_up_after_an_absence(cluster: Cluster, ada: User) -> None:
    """What happened meanwhile, deletes included, is there when the site is back."""
    for number in range(20):
        ada.put(f"old-{number}", b"%d" % number)
    cluster.converge(ada.token)
    cluster[2].stop()
    writer = Writer(ada.exchange, ada.login("ada", "tablet"))
    for at in range(3):
        writer.write({b"new-%d-%d" % (at, n): b"%d" % n for n in range(300)})
    for number in range(20):
        ada.delete(f"old-{number}")
    cluster[2].start()
    cluster.converge(ada.token)
    tree = cluster[2].at(ada.token).tree()
    assert sum(path.startswith(b"new-") for path in tree) == 900
    assert not any(path.startswith(b"old-") for path in tree)


def test_the_following_process_is_started_again(cluster: Cluster, ada: User) -> None:
    """Killed without a word, or with the worker that keeps it."""
    for kill in (RealSite.following, RealSite.workers):
        eventually(cluster[2].following)
        victims = kill(cluster[2])
        assert len(victims) == 1
        victims[0].kill()
        ada.put(f"after-{victims[0].pid}", b"word")
        cluster.converge(ada.token)


def test_ending_drains(cluster: Cluster, ada: User) -> None:
    """SIGTERM lets what was begun be finished, and leaves no process behind."""
    site = cluster[1]
    eventually(site.following)
    family = site.family()
    sender = socket.create_connection(("127.0.0.1", site.port))
    head = "PUT /v1/folders/home/files/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n"
    head += f"Authorization: Bearer {ada.token}\r\n\r\nhalf"
    sender.sendall(head.encode())
    eventually(site.at(ada.token).exchange.folders)
    site.process.send_signal(signal.SIGTERM)
    eventually(lambda: not listens(site.port))
    sender.sendall(b"done")
    assert sender.recv(12) == b"HTTP/1.1 200"
    sender.close()
    assert site.stop() == 0
    assert not [p for p in family if p.is_running() and p.status() != "zombie"]
    site.start()
    cluster.converge(ada.token)
    assert ada.get("slow") == b"halfdone"


def test_the_first_process_is_killed(cluster: Cluster, ada: User) -> None:
    """The others notice, and end; the site starts again as if nothing had been."""
    site = cluster[1]
    eventually(site.following)
    family = site.family()
    assert site.process is not None
    site.process.kill()
    site.process.wait()
    eventually(lambda: all(map(has_ended, family[1:])))
    site.kill()
    site.start()
    ada.put("after-the-first", b"here")
    cluster.converge(ada.token)


def test_a_reload(cluster: Cluster, ada: User) -> None:
    """SIGHUP: other workers with the config as it is now; clients try again once at most."""
    site = cluster[1]
    workers = {p.pid for p in site.workers()}
    writer = Writer(site.at(ada.token).exchange, ada.login("ada", "reloaded"))
    failed, count = 0, 0
    assert site.process is not None
    site.process.send_signal(signal.SIGHUP)

    def write() -> bool:
        nonlocal failed, count
        count += 1
        try:
            writer.write({b"reload-%d" % count: b"!"})
        except Unreachable:
            failed += 1
        return not workers & {p.pid for p in site.workers()} and bool(site.following())

    eventually(write)
    assert failed <= 1
    cluster.converge(ada.token)


def test_a_second_start_is_refused(cluster: Cluster, ada: User) -> None:
    """Two servers on one port and data directory: the second one ends, the first one serves."""
    command = [*PROGRAM, "run", "--data", str(cluster[0].data)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == 11
    assert b"another server runs" in done.stderr
    ada.put("still", b"here")
    cluster.converge(ada.token)
