"""A site: one database and one pack store, with clock, randomness and notices as parameters."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from dblike_delta.seams import Clock, Random, SystemClock, SystemRandom
from dblike_srv.config import Config, ConfigError
from dblike_srv.db import Database
from dblike_srv.metrics import Meter, Unmetered
from dblike_srv.models import journal, journals, meta, packs
from dblike_srv.notices import MemoryNotices, Notices
from dblike_srv.schema import open_schema
from dblike_srv.seal import Seal
from dblike_srv.store.local import LocalStore

if TYPE_CHECKING:
    from dblike_srv.store.base import PackStore

ID_SECONDS = 1.0

_META = select(meta.c.key, meta.c.value)

log = logging.getLogger(__name__)


class Ahead(Exception):
    """Somebody knows more of this site's own journal than it does itself: see `renew`.  `site` is
    the id under which it was written."""

    def __init__(self, site: bytes) -> None:
        super().__init__(site.hex())
        self.site = site


@dataclasses.dataclass
class Site:
    """All that the core works with.  `known_id` is this site's id when it was last looked up."""

    config: Config
    database: Database
    store: PackStore
    clock: Clock
    random: Random
    notices: Notices
    seal: Seal
    known_id: bytes
    looked: float
    meter: Meter = dataclasses.field(default_factory=Unmetered)

    @property
    def id(self) -> bytes:
        """The id, at most a second old: `renew` changes it, in whatever process.  Whoever
        makes dots or journal numbers asks the database in the same transaction."""
        now = self.clock.monotonic()
        if abs(now - self.looked) > ID_SECONDS:
            query = select(meta.c.value).where(meta.c.key == "site")
            self.known_id = bytes(self.database.read(lambda c: c.execute(query).scalar_one()))
            self.looked = now
        return self.known_id

    def close(self) -> None:
        """Let go of connections and sockets."""
        self.notices.close()
        self.database.close()


def open_site(
    config: Config,
    *,
    clock: Clock | None = None,
    random: Random | None = None,
    notices: Notices | None = None,
    store: PackStore | None = None,
    database: Database | None = None,
) -> Site:
    """The site of this configuration; its database is made where it is absent."""
    random, clock = random or SystemRandom(), clock or SystemClock()
    seal = Seal(config.key)
    Path(config.data).mkdir(parents=True, exist_ok=True, mode=0o700)
    database = database or Database(config.database_url, random)
    database.reach()
    site_id = open_schema(database, random.bytes(16))
    if store is None:
        fresh = database.read(lambda c: c.scalar(select(packs.c.id).limit(1))) is None
        store = open_store(config, random, fresh=fresh)
    return Site(
        config=config,
        database=database,
        store=store,
        clock=clock,
        random=random,
        notices=notices or MemoryNotices(),
        seal=seal,
        known_id=site_id,
        looked=clock.monotonic(),
    )


def open_store(config: Config, random: Random, *, fresh: bool) -> PackStore:
    """The pack store that the configuration names; a directory below `data` by default.  A `fresh`
    one, in which nothing can be yet, is made where it is absent."""
    url = config.store or f"file:{config.data}"
    if url.startswith("file:"):
        return LocalStore(Path(url.removeprefix("file:")), random, fresh=fresh)
    if url.startswith("s3://"):
        from dblike_srv.store.s3 import S3Store  # boto3 is a second of start-up

        return S3Store(url, config.endpoint_url, Path(config.data) / "tmp", random)
    raise ConfigError(f"store: {url} is neither file:DIR nor s3://BUCKET/PREFIX")


def renew(site: Site, old: bytes, *, why: str = "this site's disk went back in time") -> None:
    """Take a new site id, because somebody knows more of this site's journals than it does itself:
    its disk went back in time.  What was accepted since under the old id may be on other sites, and
    its numbers must not be used twice; from now on the old id is just another site's.

    Which of our numbers were used twice already can't be told.  So all entries of our journals get
    new ones under the new id, and the old journals come from the others as if we had none of them.
    """
    fresh = site.random.bytes(16)

    def work(connection: Connection) -> bytes:
        mine = meta.c.key == "site"
        held = bytes(connection.execute(select(meta.c.value).where(mine)).scalar_one())
        if held != old:
            return held  # somebody else did it
        connection.execute(update(meta).where(mine).values(value=fresh))
        connection.execute(insert(meta).values(key=f"former {old.hex()}", value=old))
        for table in (journal, journals):
            connection.execute(update(table).where(table.c.site == old).values(site=fresh))
        return fresh

    site.known_id = site.database.transact(work)
    log.warning("%s: it goes on as site %s", why, site.id.hex())


def own_ids(connection: Connection) -> set[bytes]:
    """The site's id, and those that it had."""
    rows = connection.execute(_META)
    return {bytes(value) for key, value in rows if key == "site" or key.startswith("former ")}
