"""TLS from end to end: an authority of one's own, nginx with the configuration of the docs, real
clients, and sites that follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Spawn
from rig.cluster import RealSite, eventually, free_ports
from rig.nginx import PROGRAM, Authority, Nginx
from rig.programs import Program, run, wait_until_same
from rig.servers import PASSWORD, Server

pytestmark = pytest.mark.skipif(not Path(PROGRAM).exists(), reason="needs nginx")
KEY = "0123456789abcdef0123456789abcdef"
LOCAL = "127.0.0.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that no machine trusts by itself."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Behind nginx."""
    made = Server(tmp_path / "server", DBLIKE_CLUSTER_KEY=KEY)
    yield made
    made.stop()


def _front(tmp_path: Path, server: Server, authority: Authority, name: str = LOCAL) -> Nginx:
    root = tmp_path / f"nginx-{name}"
    root.mkdir()
    return Nginx(root, [int(server.url.rpartition(":")[2])], authority.certify(name))


def _link(root: Path, url: str, user: str, authority: Authority, spawn: Spawn) -> Program:
    words = ("--user", user, "--password-stdin", "--ca", str(authority.file))
    done = run("init", url, str(root), *words, text=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    return Program(root, spawn)


def test_devices_watch_over_tls(
    server: Server, authority: Authority, tmp_path: Path, spawn: Spawn
) -> None:
    """Saves cross, long files stream, and a front that comes back is found again."""
    nginx, user = _front(tmp_path, server, authority), server.add_user()
    try:
        here, there = (
            _link(tmp_path / n, nginx.url, user, authority, spawn) for n in ("one", "two")
        )
        first, second = here.watch(), there.watch()
        here.write("a", "over TLS")
        second.wait_for("download", path="a")
        nginx.stop()
        there.write("long", bytes(12 << 20))
        second.wait_for("paused")
        nginx.start()
        first.wait_for("download", path="long")
        wait_until_same(here, there)
        assert (first.end(), second.end()) == (0, 0)
    finally:
        nginx.stop()


def test_a_certificate_that_is_not_trusted_is_refused(
    server: Server, authority: Authority, tmp_path: Path, spawn: Spawn
) -> None:
    """In one line, before the password is sent, and nothing is linked.  Where it may be that of an
    authority of one's own, the way to name that is said, once for all sites."""
    user = server.add_user()
    for number, (name, trusted) in enumerate(((LOCAL, False), ("elsewhere.example", True))):
        nginx, root = _front(tmp_path, server, authority, name), tmp_path / f"device{number}"
        words = ("--user", user, "--password-stdin")
        words += ("--ca", str(authority.file)) if trusted else ()
        urls = f"{nginx.url},{nginx.url.replace(LOCAL, 'localhost')}"
        try:
            done = run("init", urls, str(root), *words, text=f"{PASSWORD}\n")
        finally:
            nginx.stop()
        assert done.returncode != 0
        assert done.stderr.count("certificate is not trusted") == 2
        assert done.stderr.count("--ca FILE") == (0 if trusted else 1)
        assert "Traceback" not in done.stderr
        assert not (root / ".dblike").exists()


def test_sites_follow_each_other_over_tls(
    server: Server, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With OpenSSL's variable for an authority of one's own; without it nothing is believed."""
    nginx, user = _front(tmp_path, server, authority), server.add_user()
    other = RealSite(
        tmp_path / "other",
        free_ports(1)[0],
        {"cluster_key": KEY, "peers": [{"url": nginx.url}], "replication": {"follow": "peers"}},
    )
    try:
        other.start()
        eventually(lambda: "certificate" in other.command("status", "--json"), other.log.read_text)
        other.stop()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        other.start()
        token = eventually(lambda: other.login(user).token)
        assert token
    finally:
        other.stop()
        nginx.stop()
