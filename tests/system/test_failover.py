"""Real sites that die or hang under real clients: work goes on at another one, and comes home."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Spawn
from rig.cluster import Cluster, RealSite, eventually
from rig.programs import PROGRAM, Program, wait_until, wait_until_same
from rig.servers import PASSWORD


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(
        tmp_path_factory.mktemp("cluster"), replication={"copies": 2, "wait_ms": 200}
    ) as made:
        yield made


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """Three sites that all run."""
    running.start()
    return running


_numbers = itertools.count(1)


class Devices:
    """Links devices of one user."""

    def __init__(self, cluster: Cluster, directory: Path, spawn: Spawn, name: str) -> None:
        self._cluster, self._directory, self._spawn = cluster, directory, spawn
        self.user = cluster[0].add_user(name)
        for site in cluster:
            eventually(lambda site=site: site.login(name).token)

    def link(self, name: str, *order: int) -> Program:
        """A device with the sites of these numbers in its config."""
        urls = ",".join(self._cluster[number].url for number in order)
        return Program.link(self._directory / name, urls, self.user, PASSWORD, self._spawn)


@pytest.fixture
def devices(cluster: Cluster, tmp_path: Path, spawn: Spawn) -> Devices:
    return Devices(cluster, tmp_path, spawn, f"user{next(_numbers)}")


def name_of(site: RealSite) -> str:
    return site.url.removeprefix("http://")


def conflicts(*programs: Program) -> list[str]:
    return [path for p in programs for path in p.tree() if "conflicted copy" in path]


def test_the_site_in_use_is_killed_and_returns(cluster: Cluster, devices: Devices) -> None:
    one, two = devices.link("one", 0, 1, 2), devices.link("two", 1, 2, 0)
    first, second = one.watch(), two.watch()
    one.write("before", "all is well")
    second.wait_for("download", path="before")
    cluster[0].kill()
    one.write("after", "the site is gone")
    two.write("before", "edited meanwhile")
    second.wait_for("download", path="after")
    wait_until_same(one, two, also=lambda tree: tree["before"] == b"edited meanwhile")
    assert first.wait_for("site", server=name_of(cluster[1]))
    first.forget()
    cluster[0].start()
    first.wait_for("site", server=name_of(cluster[0]))
    one.write("home", "again")
    second.wait_for("download", path="home")
    wait_until_same(one, two)
    assert not conflicts(one, two)
    assert (first.end(), second.end()) == (0, 0)


def test_the_site_in_use_stops_to_answer(cluster: Cluster, devices: Devices) -> None:
    one, two = devices.link("one", 0, 1), devices.link("two", 1, 0)
    first, second = one.watch(), two.watch()
    one.write("before", "all is well")
    second.wait_for("download", path="before")
    stopped = cluster[0].family()
    try:
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        one.write("after", "nobody is at home")
        second.wait_for("download", path="after")
        two.write("back", "and the other way")
        first.wait_for("download", path="back")
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)
    wait_until_same(one, two)
    assert not conflicts(one, two)


def test_a_site_dies_in_the_middle_of_a_large_push(cluster: Cluster, devices: Devices) -> None:
    one, two = devices.link("one", 0, 1, 2), devices.link("two", 1, 2)
    content = os.urandom(48 << 20)
    one.write("large", content)
    one.write("small", "x")
    before = used(cluster[0])
    push = devices._spawn(*PROGRAM, "-C", str(one.root), "push", "--bwlimit", "24M")
    wait_until(lambda: used(cluster[0]) > before + (16 << 20), "the first part of the upload")
    cluster[0].kill()
    assert push.wait(60) == 0
    two.ok("pull")
    assert two.tree()["large"] == content
    cluster.start()
    one.ok("sync")
    two.ok("sync")
    assert one.tree() == two.tree()
    assert not conflicts(one, two)


def test_a_site_that_was_never_named_is_learned_of(cluster: Cluster, devices: Devices) -> None:
    one = devices.link("one", 0)
    status = one.json("status")
    assert set(status["others"]) == {cluster[1].url, cluster[2].url}
    cluster[0].kill()
    one.write("f", "x")
    one.ok("sync")
    assert one.json("status")["server"] in {name_of(site) for site in cluster.sites[1:]}


def test_what_one_site_holds_alone_is_shown_and_offered(cluster: Cluster, devices: Devices) -> None:
    one, two = devices.link("one", 0, 1, 2), devices.link("two", 1, 2)
    cluster[1].kill()
    cluster[2].kill()
    one.write("f", "precious")
    pushed = one.run("push")
    assert pushed.returncode == 0
    assert "fewer sites than wanted hold 1 version" in pushed.stderr
    assert one.json("status")["short"] == 1
    cluster[0].kill()
    cluster[1].start()
    cluster[2].start()
    # The version goes to a site that never heard of it, and from there to the other.
    wait_until(lambda: one.json("push")["short"] == 0, "a second copy")
    two.ok("pull")
    assert two.tree()["f"] == b"precious"
    cluster.start()
    one.ok("sync")
    assert not conflicts(one, two)
    assert one.json("status")["in_sync"]


def used(site: RealSite) -> int:
    """Bytes below a site's data."""
    found = 0
    for directory, _, files in os.walk(site.data):
        for name in files:
            try:
                found += os.lstat(os.path.join(directory, name)).st_size
            except FileNotFoundError:
                continue
    return found
