"""A site of a world: its database and packs in memory, which outlive its process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from flask import Flask
from sqlalchemy import Connection, Engine, select

from dblike_delta.seams import Random
from dblike_srv.app import create_app, serve
from dblike_srv.config import decode_config
from dblike_srv.contents import PackReader, find_contents, pack_names
from dblike_srv.db import Database
from dblike_srv.folders import journal_numbers
from dblike_srv.metrics import Unmetered
from dblike_srv.models import contents, devices, folders, journals, users
from dblike_srv.registers import last_stamp
from dblike_srv.site import Site, open_site
from dblike_srv.store.mem import MemoryStore
from dblike_srv.tree import site_id
from model.sim import SimClock, SimRandom, SiteCrash

_T = TypeVar("_T")

KEY = "k" * 64
Image = tuple[bytes, dict[bytes, bytes]]
"""A backup: the database and the packs."""
_APPLICATIONS: list[Flask] = []
"""Those of worlds that are over: to make one takes as long as a hundred requests."""
_ENGINES: list[Engine] = []
"""Those of databases that are closed: an engine compiles each statement once."""


class SimDatabase(Database):
    """A database at whose commits the site's process can die: `trap` says whether that commit is
    "lost" or "done", `left` before which one."""

    trap = ""
    left = 0

    def __init__(self, random: Random) -> None:
        super().__init__("sqlite://", random)
        if _ENGINES:
            self.engine = _ENGINES.pop()

    def close(self) -> None:
        """The memory is let go of; the engine, and what it compiled, serves another life."""
        super().close()
        _ENGINES.append(self.engine)

    def transact(self, work: Callable[[Connection], _T]) -> _T:
        if self.trap:
            self.left -= 1
            if self.left <= 0:
                trap, self.trap = self.trap, ""
                self._die(work, trap)
        return super().transact(work)

    def _die(self, work: Callable[[Connection], Any], trap: str) -> None:
        def fatal(connection: Connection) -> None:
            work(connection)
            if trap == "lost":
                raise SiteCrash

        super().transact(fatal)
        raise SiteCrash


class _Uncounted(Unmetered):
    """No metrics: they would be saved to a file with each step of the world's time."""

    def request(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        pass

    def save(self, now: float) -> None:
        pass


class SimSite:
    """A site that can be stopped, started again, set back to a backup and replaced."""

    def __init__(
        self, name: str, clock: SimClock, random: SimRandom, directory: Path, copies: int
    ) -> None:
        self.name = name
        self._clock, self._random = clock, random
        replication = {"copies": copies, "wait_ms": 0, "insecure": True}
        values = {
            "data": str(directory / name),
            "cluster_key": KEY,
            "database": "sqlite://",
            "site": {"name": name, "url": f"http://{name}"},
            "replication": replication,
        }
        self._config = decode_config(values)
        self.store = MemoryStore()
        self._starts = 0
        self._application = _APPLICATIONS.pop() if _APPLICATIONS else None
        self._start(None)

    def _start(self, database: bytes | None) -> None:
        self._starts += 1
        self.compared: dict[str, dict[tuple[bytes, bytes], int]] = {}
        """By site, the journals of ours whose end there was looked at."""
        self.database = SimDatabase(self._random)
        if database is not None:
            self._raw().deserialize(database)
        self.site: Site = open_site(
            self._config,
            clock=self._clock,
            random=self._random,
            store=self.store,
            database=self.database,
        )
        if self._application is None:
            self._application = create_app(self.site)
        else:
            serve(self._application, self.site)
        self._application.extensions["dblike-metrics"] = self.site.meter = _Uncounted()
        self.app = self._application.wsgi_app

    def _raw(self) -> Any:
        return self.database.engine.raw_connection().driver_connection

    def close(self) -> None:
        """The process is gone."""
        assert self._application is not None
        self._application.extensions["dblike-hub"].stop(wait=5)
        self.site.close()

    def end(self) -> None:
        """The world is over."""
        self.close()
        assert self._application is not None
        _APPLICATIONS.append(self._application)
        self._application = None

    def arm(self, trap: str, left: int) -> None:
        """Die at one of the next commits, which is "lost" or "done"; never, for an empty trap."""
        self.database.trap, self.database.left = trap, left

    def image(self) -> Image:
        """A backup."""
        return self._raw().serialize(), dict(self.store.packs)

    def restart(self) -> None:
        """The process ends and starts again."""
        database = self._raw().serialize()
        self.close()
        self._start(database)

    def restore(self, image: Image) -> None:
        """The site's disks are what they were."""
        self.close()
        database, packs = image
        self.store.packs = dict(packs)
        self._start(database)

    def replace(self) -> None:
        """The site is lost for good; an empty one has its place."""
        self.close()
        self.store.packs = {}
        self._start(None)

    def incarnation(self) -> tuple[int, bytes]:
        """Which of its lives a site is in, and as whom."""
        return self._starts, self.id_now()

    def standing(self) -> object:
        """Where the site stands: as long as it is the same there is nothing new to be heard."""

        def work(connection: Connection) -> object:
            rows = connection.execute(select(journals)).all()
            return last_stamp(connection), sorted(map(tuple, rows))

        return self._starts, self.database.read(work)

    def id_now(self) -> bytes:
        """The id that the database has."""
        return self.database.read(site_id)

    def numbers(self) -> dict[bytes, dict[bytes, int]]:
        """How much of each journal is here, by folder."""

        def work(connection: Connection) -> dict[bytes, dict[bytes, int]]:
            rows = connection.execute(select(folders.c.row, folders.c.id)).all()
            return {bytes(uid): journal_numbers(connection, row) for row, uid in rows}

        return self.database.read(work)

    def accounts(self) -> dict[bytes, tuple[int, ...]]:
        """What is known of users and devices: each number only grows."""

        def work(connection: Connection) -> dict[bytes, tuple[int, ...]]:
            known = select(users.c.uid, users.c.password_at, users.c.disabled_at)
            ids = select(devices.c.id, devices.c.token_at, devices.c.revoked != 0)
            rows = [*connection.execute(known), *connection.execute(ids)]
            return {bytes(uid): tuple(map(int, numbers)) for uid, *numbers in rows}

        return self.database.read(work)

    def history(self) -> set[bytes]:
        """All contents that the site holds, of all users."""
        found: set[bytes] = set()
        for user in self.database.read(lambda c: list(c.scalars(select(users.c.id)))):
            found |= self.database.read(lambda c, user=user: self._contents(c, user))
        return found

    def _contents(self, connection: Connection, user: int) -> set[bytes]:
        query = select(contents.c.hash).where(contents.c.user == user)
        hashes = [bytes(digest) for digest in connection.scalars(query)]
        held = find_contents(connection, user, hashes)
        names = pack_names(connection, {n for c in held.values() for n in c.recipe.packs})
        reader = PackReader(self.site, names)
        return {b"".join(reader.pieces(content.recipe.extents)) for content in held.values()}
