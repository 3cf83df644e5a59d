"""Sites in memory that follow each other when they are told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select

from dblike_delta.exchange import Exchange
from dblike_delta.messages import LoginRequest
from dblike_delta.seams import Clock
from dblike_srv import accounts
from dblike_srv.app import create_app
from dblike_srv.config import decode_config
from dblike_srv.models import contents, devices, folders, journal, journals, users, versions
from dblike_srv.replication.follower import Follower
from dblike_srv.replication.link import Link
from dblike_srv.replication.sites import announce
from dblike_srv.replication.turns import Locks
from dblike_srv.site import Site, open_site
from dblike_srv.store.mem import MemoryStore
from rig.liar import Liar, Lie
from rig.writer import Writer
from rig.wsgi import WsgiTransport

KEY, PASSWORD = "k" * 64, "correct horse"


class Member:
    """A site in memory, or its database on disk for threads to use, and its application."""

    def __init__(
        self,
        directory: Path,
        key: str = KEY,
        clock: Clock | None = None,
        *,
        on_disk: bool = False,
    ) -> None:
        database = f"sqlite:///{directory}.db" if on_disk else "sqlite://"
        config = {"data": str(directory), "database": database, "cluster_key": key,
                  "site": {"url": f"http://{directory.name}"},
                  "replication": {"insecure": True}}  # fmt: skip
        self.site = open_site(decode_config(config), store=MemoryStore(), clock=clock)
        announce(self.site)
        self.app = create_app(self.site)

    def add_ada(self) -> None:
        self.add_user("ada")

    def add_user(self, name: str) -> None:
        accounts.create_user(self.site, name, PASSWORD)

    def writer(self, device: str, user: str = "ada") -> Writer:
        """A device of the user's here."""
        exchange = Exchange(WsgiTransport(self.app.wsgi_app))
        login = LoginRequest(user=user, password=PASSWORD, device=device)
        return Writer(exchange, bytes.fromhex(exchange.login(login).device_id))

    def follow(self, other: Member, **lies: Lie) -> None:
        """Take in all that another one says."""
        run(self.site, Liar(other.app.wsgi_app, **lies))

    def close(self) -> None:
        self.app.extensions["dblike-hub"].stop()
        self.site.close()


def run(site: Site, transport: Any, locks: Locks | None = None) -> None:
    """One round of following; raises what a folder failed with."""
    follower = Follower(site, Link(site, "http://liar", transport), locks)
    follower.connect()
    if error := follower.catch_up():
        raise error


def held(site: Site) -> dict[str, set[Any]]:
    """What must not change."""
    tables = (users, devices, folders, versions, journal, journals, contents)

    def look(connection: Any) -> dict[str, set[Any]]:
        return {t.name: set(connection.execute(select(t)).all()) for t in tables}

    return site.database.read(look)
