"""join, leave, scrub --repair: a site that comes, mends itself from another one, and goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dblike_delta.exchange import Exchange, Refused
from dblike_delta.messages import LoginRequest
from dblike_srv.replication.link import SiteTransport
from rig.cluster import Cluster, eventually
from rig.servers import PASSWORD, Server

PATIENCE = 30.0


def run(*words: str, text: str = "", code: int = 0) -> str:
    program = [sys.executable, "-m", "dblike_srv", *words]
    done = subprocess.run(program, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


def until(done: Callable[[], Any]) -> None:
    """Ask until the answer is yes."""
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "it did not come to pass"
        pause.wait(0.5)


def config_of(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / "config.json").read_text())
    return found


def status(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("status", "--json", "--data", str(data)))
    return found


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Server]:
    """A site that was alone so far, with a user and some files."""
    (tmp_path / "one").mkdir()
    server = Server(tmp_path / "one")
    server.stop()
    config = config_of(server.data) | {"site": {"name": "one", "url": server.url}}
    (server.data / "config.json").write_text(json.dumps(config))
    server.start()
    yield server
    server.stop()


def put(server: Server, user: str, name: str, data: bytes) -> None:
    transport = SiteTransport(server.url)
    exchange = Exchange(transport)
    exchange.login(LoginRequest(user, PASSWORD))
    folder = exchange.folders()[0].id
    exchange._send("PUT", f"/v1/folders/{folder}/files/{name}", data).close()
    transport.close()


def test_a_site_joins_mends_itself_and_leaves(one: Server, tmp_path: Path, free_port: int) -> None:
    user = one.add_user()
    for number in range(20):
        put(one, user, f"f{number}", os.urandom(5000))
    key = config_of(one.data)["cluster_key"]
    data, url = tmp_path / "two" / "data", f"http://127.0.0.1:{free_port}"
    place = ("--data", str(data))
    run("join", one.url, "--url", url, "--name", "two", "--bind", f"127.0.0.1:{free_port}",
        "--cluster-key-stdin", *place, text=key + "\n")  # fmt: skip
    two = Server(tmp_path / "two", bind=f"127.0.0.1:{free_port}")
    try:
        until(lambda: status(data)["versions"] == 20 and not status(data)["peers"][0]["behind"])
        put(two, user, "from-two", b"written at two")
        until(lambda: status(one.data)["versions"] == 21)

        pack = max((data / "packs").glob("*/*"), key=lambda path: path.stat().st_size)
        pack.chmod(0o600)
        raw = bytearray(pack.read_bytes())
        raw[100] ^= 1
        pack.write_bytes(raw)
        run("scrub", *place, code=6)
        assert "contents came from other sites" in run("scrub", "--repair", *place)
        run("scrub", *place)

        until(lambda: not status(data)["peers"][0]["ahead"])
        assert "left the cluster" in run("leave", *place)
        until(lambda: status(one.data)["peers"] == [] and status(data)["peers"] == [])
        put(one, user, "later", b"x")
        run("join", one.url, *place, "--url", url)
        until(lambda: status(data)["versions"] == 22)
    finally:
        two.stop()


def test_what_can_not_join(one: Server, tmp_path: Path) -> None:
    place = ("--data", str(tmp_path / "new"))
    assert "cluster's key" in run("join", one.url, *place, code=2)
    wrong = "0" * 32
    said = run("join", one.url, "--cluster-key-stdin", *place, text=wrong, code=1)
    assert "cluster key" in said
    nobody = "http://127.0.0.1:1"
    run("join", nobody, "--cluster-key-stdin", *place, text=wrong, code=1)
    assert not (tmp_path / "new" / "config.json").exists()
    assert "no http" in run("join", "one.example", *place, code=2)
    itself = run("join", one.url, "--url", f"{one.url}/", *place, code=2)
    assert "where another one is" in itself
    assert "this very site" in run("join", one.url, "--data", str(one.data), code=2)
    assert "peers" not in config_of(one.data)
    words = ("join", "http://two.invalid", "--cluster-key-stdin", "--data", str(tmp_path / "far"))
    assert "not encrypted" in run(*words, text="1" * 40, code=2)
    assert "not encrypted" not in run(*words, "--insecure", text="1" * 40, code=1)
    assert "another cluster key" in run(
        "join", one.url, "--cluster-key-stdin", "--data", str(one.data), text="1" * 40, code=2
    )


def test_the_last_holder_stays(tmp_path: Path) -> None:
    """What came from a site that is lost by now, and is at no other one, keeps a site from leaving;
    what another one said that it holds is good only as long as it can be asked."""
    with Cluster(tmp_path) as cluster:
        one, two, lost = cluster
        one.add_user()
        ada = one.login()
        cluster.converge(ada.token)
        one.stop()
        eventually(lambda: lost.at(ada.token).put("alone", b"from the lost one"))
        cluster.converge(ada.token)
        lost.kill()
        place = ("leave", "--data", str(two.data))
        said = run(*place, code=1)
        assert "no other site holds all" in said
        assert said.count("can't be asked") == 2
        one.start()
        cluster.converge(ada.token)
        gone = status(lost.data)["site_id"]
        run("leave", gone, "--data", str(one.data))
        assert config_of(one.data)["peers"] == [{"url": two.url}]
        assert "left the cluster" in run(*place)
        assert config_of(two.data)["peers"] == []
        assert "Joined a at" in run("join", one.url, "--data", str(lost.data))
        assert status(lost.data)["site_id"] != gone


def test_who_alone_knows_of_a_revocation_stays(tmp_path: Path) -> None:
    """Else a device that was revoked, or a password that got out, would be good at all others for
    good."""
    with Cluster(tmp_path, 2) as cluster:
        one, two = cluster
        one.add_user()
        kept, lost = one.login(device="kept"), one.at()
        device = lost.login("ada", "lost")
        cluster.converge(kept.token)
        assert two.at(lost.token).exchange.folders()
        two.stop()
        kept.exchange.revoke(device.hex())
        one.command("user", "add", "carol", "--password-stdin", text=PASSWORD)
        one.stop()
        two.start()
        place = ("leave", "--data", str(one.data))
        said = run(*place, code=1)
        assert "lacks 3 changes of accounts)" in said  # a device, a user, and her folder
        one.start()
        eventually(lambda: "carol" in two.command("user", "list"))
        assert "left the cluster" in run(*place)
        with pytest.raises(Refused):
            two.at(lost.token).exchange.folders()


def test_a_join_that_failed_is_repeated_with_other_words(one: Server, tmp_path: Path) -> None:
    place = ("--data", str(tmp_path / "new"))
    run("join", one.url, "--cluster-key-stdin", *place, text="0" * 32, code=1)
    key = config_of(one.data)["cluster_key"]
    assert "Joined one" in run("join", one.url, "--cluster-key-stdin", *place, text=key)
    assert config_of(tmp_path / "new")["peers"] == [{"url": one.url}]


def test_a_site_that_runs_already_keeps_its_peers_where_a_join_fails(one: Server) -> None:
    place = ("--data", str(one.data))
    before = config_of(one.data)
    run("join", "http://127.0.0.1:1", *place, "--name", "other", code=1)
    assert config_of(one.data) == before


def test_a_site_that_is_alone_can_not_leave(one: Server) -> None:
    place = ("--data", str(one.data))
    assert "in no cluster" in run("leave", *place, code=1)
    assert "in no cluster" in run("leave", "--force", *place, code=1)
    assert status(one.data)["problem"] == ""
