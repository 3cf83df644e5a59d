"""Two hosts of one site, real throughout: MariaDB, S3, Redis, and a client on each host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Spawn
from rig.programs import Program, wait_until_same
from rig.redis import Redis, missing
from rig.seaweed import BUCKET, SeaweedFS
from rig.servers import PASSWORD, Server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of the test's own, which it may kill."""
    if missing():
        pytest.skip(missing())
    server = Redis(tmp_path / "redis")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def hosts(
    tmp_path: Path, mariadb: str, seaweed: SeaweedFS, redis: Redis
) -> Iterator[tuple[Server, Server]]:
    """Two servers with data directories of their own."""
    shared = {
        "DBLIKE_DATABASE": mariadb,
        "DBLIKE_STORE": f"s3://{BUCKET}/{tmp_path.name}",
        "DBLIKE_ENDPOINT_URL": seaweed.url,
        "DBLIKE_NOTIFY": redis.url,
        "DBLIKE_CLUSTER_KEY": "k" * 64,
    }
    made = [Server(tmp_path / name, "--workers", "2", **shared) for name in ("one", "two")]
    yield made[0], made[1]
    for server in made:
        server.stop()


def test_what_is_saved_by_one_host_appears_by_the_other(
    tmp_path: Path, hosts: tuple[Server, Server], redis: Redis, spawn: Spawn
) -> None:
    """Also while Redis is away: notices are hints."""
    user = hosts[0].add_user()
    laptop = Program.link(tmp_path / "laptop", hosts[0].url, user, PASSWORD, spawn)
    phone = Program.link(tmp_path / "phone", hosts[1].url, user, PASSWORD, spawn)
    watches = laptop.watch(), phone.watch()
    blob = bytes(range(256)) * 40_000
    laptop.write("notes/first", blob)
    wait_until_same(laptop, phone, also=lambda tree: "notes/first" in tree)
    phone.write("notes/first", blob + b"more")
    wait_until_same(laptop, phone, also=lambda tree: tree["notes/first"] != blob)

    redis.kill()
    laptop.write("notes/meanwhile", "1")
    wait_until_same(laptop, phone, also=lambda tree: "notes/meanwhile" in tree)
    redis.start()
    phone.write("notes/after", "2")
    wait_until_same(laptop, phone, also=lambda tree: "notes/after" in tree)

    hosts[1].kill()
    laptop.write("notes/by one", "3")
    hosts[1].start()
    wait_until_same(laptop, phone, also=lambda tree: "notes/by one" in tree)
    assert [watch.end() for watch in watches] == [0, 0]
    assert not any("conflicted" in path for path in laptop.tree())
