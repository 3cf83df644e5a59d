"""A site, the application on it, and a real server."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from dblike_delta.exchange import Exchange
from dblike_delta.messages import LoginRequest
from dblike_srv import accounts
from dblike_srv.app import create_app
from dblike_srv.config import decode_config
from dblike_srv.configfile import create_config
from dblike_srv.site import Site, open_site
from dblike_srv.store.base import PackStore
from rig.core_site import CoreSite
from rig.members import Member
from rig.plain_http import PlainTransport
from rig.wsgi import WsgiTransport

USER, PASSWORD = "ada", "correct horse"
KEY = "k" * 64


@pytest.fixture(params=["sqlite", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    """What to name in a config: nothing, which is SQLite, then a database of MariaDB's."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("mariadb"))


@pytest.fixture
def core_site(database_url: str) -> Iterator[Callable[..., CoreSite]]:
    """Make a site without HTTP, on SQLite and then on MariaDB."""
    made: list[CoreSite] = []

    def make(directory: Path, store: PackStore | None = None, **config: Any) -> CoreSite:
        made.append(CoreSite(directory, store, database=database_url, **config))
        return made[-1]

    yield make
    for core in made:
        core.site.close()


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """An empty site on local packs, with the user ada; on SQLite, and in a file that asks for
    `database_url` also on MariaDB."""
    asked = "database_url" in request.fixturenames
    url = request.getfixturevalue("database_url") if asked else ""
    values = {"data": str(tmp_path / "data"), "cluster_key": KEY, "database": url}
    opened = open_site(decode_config(values))
    accounts.create_user(opened, USER, PASSWORD)
    yield opened
    opened.close()


@pytest.fixture
def app(site: Site) -> Iterator[Flask]:
    """The application on that site, in this process."""
    made = create_app(site)
    yield made
    made.extensions["dblike-hub"].stop(wait=5)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Flask's client, which is not logged in."""
    return app.test_client()


@pytest.fixture
def exchange(app: Flask) -> Exchange:
    """The protocol over the application, logged in as ada's device."""
    made = Exchange(WsgiTransport(app.wsgi_app))
    made.login(LoginRequest(user=USER, password=PASSWORD, device="laptop", device_id="a1" * 16))
    return made


@dataclasses.dataclass(frozen=True)
class Server:
    """A running `dblike-server run`."""

    url: str
    port: int
    data: Path
    process: subprocess.Popen[bytes]
    log: Path

    def exchange(self, device: str = "laptop", *, user: str = USER) -> Exchange:
        """The protocol over real HTTP, logged in."""
        made = Exchange(PlainTransport(self.url))
        made.login(LoginRequest(user=user, password=PASSWORD, device=device))
        return made

    def command(self, *words: str, text: str = "") -> str:
        """The output of a command of the server's program; raises where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "dblike_srv", *words, "--data", str(self.data)],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def workers(self) -> list[int]:
        """The processes that serve."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


@pytest.fixture
def serve(tmp_path: Path, spawn: Callable[..., Any]) -> Callable[..., Server]:
    """Start a server with these options; it has the user ada."""

    def start(*options: str, **environment: str) -> Server:
        return start_server(spawn, tmp_path, *options, **environment)

    return start


@pytest.fixture
def gunicorn_server(serve: Callable[..., Server]) -> Server:
    """A server with two workers."""
    return serve("--workers", "2")


def start_server(
    spawn: Callable[..., Any], directory: Path, *options: str, **environment: str
) -> Server:
    """Make a site below `directory` with the user ada, and serve it on a free port."""
    data, log = directory / "server", directory / "server.log"
    prepared = open_site(create_config(None, data))
    accounts.create_user(prepared, USER, PASSWORD)
    prepared.close()
    program = [sys.executable, "-m", "dblike_srv"]
    with log.open("wb") as errors:
        process = spawn(
            *program, "run", "--data", data, "--bind", "127.0.0.1:0", *options,
            stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **environment},
        )  # fmt: skip
    line = process.stdout.readline().decode()
    assert line.startswith("DBLike serves at "), log.read_text()
    url = line.rpartition(" ")[2].strip()
    drain = threading.Thread(target=_drain, args=(process.stdout,), daemon=True)
    drain.start()
    return Server(url, int(url.rpartition(":")[2]), data, process, log)


def _drain(stream: Any) -> None:
    with contextlib.suppress(ValueError, OSError):
        while stream.read(4096):
            pass


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Member]]:
    """The site that is lied to, an honest one whose data are there, and the one that lies."""
    made = [Member(tmp_path / name) for name in ("here", "honest", "liar")]
    made[1].add_ada()
    made[1].writer("honest").write({b"kept": b"precious", b"also": b"kept" * 9999})
    made[2].follow(made[1])
    made[0].follow(made[1])
    made[2].writer("liar").write({b"new": b"what the liar has"})
    yield made
    for member in made:
        member.close()
