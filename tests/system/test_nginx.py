"""A real nginx in front of several hosts of a site, and in front of several sites."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websocket

from dblike_delta.exchange import Unreachable
from dblike_delta.messages import TreeList
from rig.cluster import Cluster, RealSite, User, eventually
from rig.nginx import PROGRAM, ROLE, Nginx, render
from rig.writer import Writer

pytestmark = pytest.mark.skipif(not Path(PROGRAM).exists(), reason="needs nginx")


class Front(RealSite):
    """What clients take for a site."""

    def __init__(self, nginx: Nginx, site: RealSite) -> None:
        super().__init__(site.data, nginx.port, site.config)


class Load(threading.Thread):
    """A device that writes and reads until it is told to end.  A reply that is cut once it began is
    asked for once more, as clients do: nothing in between can send it twice."""

    def __init__(self, front: Front, number: int) -> None:
        super().__init__(daemon=True)
        self._user = front.at("")
        device = self._user.login("ada", f"load {number}")
        self._writer, self._number = Writer(self._user.exchange, device), number
        self._ending = threading.Event()
        self.done, self.failed = 0, ""

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                self._twice(self._round)
                self.done += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, a user would have seen it
            self.failed = repr(error)

    def _round(self) -> None:
        self._writer.write({b"%d-%d" % (self._number, self.done): b"x" * 1000})
        self._user.exchange.folders()
        self._user.put(f"put-{self._number}-{self.done}", b"y" * 1000)

    def _twice(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Unreachable as error:
            if "reply was cut" not in str(error):
                raise
            work()

    def end(self) -> None:
        self._ending.set()
        self.join(60)


def _stay_up(front: Front, victim: RealSite) -> User:
    """Kill one of those behind nginx under load, and bring it back: nobody sees an error."""
    loads = [Load(front, number) for number in range(4)]
    for load in loads:
        load.start()
    eventually(lambda: all(load.done > 3 or load.failed for load in loads))
    victim.kill()
    seen = [load.done for load in loads]
    eventually(lambda: all(a.done > b + 5 or a.failed for a, b in zip(loads, seen, strict=True)))
    victim.start()
    seen = [load.done for load in loads]
    eventually(lambda: all(a.done > b + 5 or a.failed for a, b in zip(loads, seen, strict=True)))
    for load in loads:
        load.end()
    assert not [load.failed for load in loads if load.failed]
    return front.login("ada")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two sites that follow each other, and the user ada."""
    with Cluster(tmp_path, 2, proxies=["127.0.0.1"]) as made:
        made[0].add_user("ada")
        for site in made:
            eventually(lambda site=site: site.login("ada").token)
        yield made


def test_the_documentation_has_what_the_role_makes() -> None:
    """With its defaults, word for word."""
    assert (ROLE.parents[2] / "docs" / "nginx.conf").read_text() == render()


def _play(file: Path, **values: object) -> subprocess.CompletedProcess[str]:
    """The real playbook writes the configuration, on this machine."""
    program = Path(sys.executable).parent / "ansible-playbook"
    values = {
        "target": "all", "ansible_connection": "local", "ansible_become": False,
        "ansible_python_interpreter": sys.executable, "dblike_nginx_file": str(file),
        "dblike_certificate": "", "dblike_nginx_runs": False, **values,
    }  # fmt: skip
    command = [str(program), "-i", "here,", "-e", json.dumps(values), "--tags", "config"]
    places = {"ANSIBLE_HOME": str(file.parent), "PATH": f"{file.parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [*command, str(ROLE.parents[1] / "nginx.yml")],
        capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | places | {"LC_ALL": "C.UTF-8"},
    )  # fmt: skip


def _write(file: Path) -> str:
    """What the playbook says."""
    done = _play(file)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_role_writes_it_once(tmp_path: Path) -> None:
    """The second time there is nothing to do."""
    file = tmp_path / "dblike.conf"
    assert "changed=1 " in _write(file)
    assert file.read_text() == render(dblike_certificate="")
    assert "changed=0 " in _write(file)


def test_what_nginx_does_not_take_is_not_left_there(tmp_path: Path) -> None:
    """Else it would not start again, nor take it in the next play, which has nothing to write."""
    file, check = tmp_path / "dblike.conf", tmp_path / "nginx"
    check.write_text("#!/bin/sh\necho no certificate there >&2\nexit 1\n")
    check.chmod(0o755)
    done = _play(file, dblike_nginx_runs=True)
    assert done.returncode != 0
    assert "no certificate there" in done.stdout
    assert not file.exists()
    _write(file)
    assert _play(file, dblike_nginx_runs=True, dblike_name="other.example").returncode != 0
    assert file.read_text() == render(dblike_certificate="")
    assert list(tmp_path.glob("dblike.conf*")) == [file]


def test_sites_behind_nginx(cluster: Cluster, tmp_path: Path) -> None:
    """One of two sites is killed under clients, who see nothing of it."""
    nginx = Nginx(tmp_path, [site.port for site in cluster])
    try:
        ada = _stay_up(Front(nginx, cluster[0]), cluster[1])
        cluster.converge(ada.token)
        _check_streams(nginx, ada)
        _check_long_paths(ada)
    finally:
        nginx.stop()


def _check_streams(nginx: Nginx, ada: User) -> None:
    """Long uploads go through as they come, and sockets stay open."""
    body = bytes(12 << 20)
    ada.put("long", body)
    assert ada.get("long") == body
    assert not list(nginx.log.parent.glob("body/*"))
    header = [f"Authorization: Bearer {ada.token}"]
    socket = websocket.create_connection(f"ws://127.0.0.1:{nginx.port}/v1/events", header=header)
    ada.put("event", b"!")
    assert "cursor" in socket.recv()
    socket.close()


def _check_long_paths(ada: User) -> None:
    """The longest one there is, with each byte escaped; and two of them in one line."""
    path = "%2F".join(["%E9" * 255] * 16)
    ada.put(path, b"far away")
    assert ada.get(path) == b"far away"
    target = f"/v1/folders/home/tree?path={path}&after={path}"
    assert not ada.exchange.get(target, TreeList).entries


def test_hosts_behind_nginx(tmp_path: Path) -> None:
    """Two hosts with one database and store: one is killed under clients, who see nothing of it."""
    with Cluster(tmp_path, 1, proxies=["127.0.0.1"]) as made:
        made[0].add_user("ada")
        first = made[0].data
        shared = {"database": f"sqlite:///{first / 'dblike.db'}", "store": f"file:{first}"}
        port = Cluster(tmp_path / "none", 1)[0].port
        bind = {"bind": f"127.0.0.1:{port}"}
        other = RealSite(tmp_path / "host", port, made[0].config | shared | bind)
        other.start()
        nginx = Nginx(tmp_path, [made[0].port, other.port])
        try:
            _stay_up(Front(nginx, made[0]), other)
        finally:
            nginx.stop()
            other.stop()
