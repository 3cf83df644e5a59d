"""A site: one database and one pack store, with clock, randomness and notices as parameters."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from dblike_delta.seams import Clock, Random, SystemClock, SystemRandom
from dblike_srv.config import Config, ConfigError
from dblike_srv.db import Database
from dblike_srv.notices import MemoryNotices, Notices
from dblike_srv.schema import open_schema
from dblike_srv.seal import Seal
from dblike_srv.store.local import LocalStore

if TYPE_CHECKING:
    from dblike_srv.store.base import PackStore


@dataclasses.dataclass(frozen=True)
class Site:
    """All that the core works with.  `id` is this site's, made with its database."""

    config: Config
    database: Database
    store: PackStore
    clock: Clock
    random: Random
    notices: Notices
    seal: Seal
    id: bytes

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
) -> Site:
    """The site of this configuration; its database is made where it is absent."""
    random = random or SystemRandom()
    seal = Seal(config.key)
    Path(config.data).mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(config.database_url, random)
    site_id = open_schema(database, random.bytes(16))
    return Site(
        config=config,
        database=database,
        store=store or open_store(config, random),
        clock=clock or SystemClock(),
        random=random,
        notices=notices or MemoryNotices(),
        seal=seal,
        id=site_id,
    )


def open_store(config: Config, random: Random) -> PackStore:
    """The pack store that the configuration names; a directory below `data` by default."""
    url = config.store or f"file:{config.data}"
    if url.startswith("file:"):
        return LocalStore(Path(url.removeprefix("file:")), random)
    if url.startswith("s3://"):
        from dblike_srv.store.s3 import S3Store  # boto3 is a second of start-up

        return S3Store(url, config.endpoint_url, Path(config.data) / "tmp", random)
    raise ConfigError(f"store: {url} is neither file:DIR nor s3://BUCKET/PREFIX")
