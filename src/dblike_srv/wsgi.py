"""The WSGI entry for one's own gunicorn: `dblike_srv.wsgi:app`, with DBLIKE_CONFIG."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Final

from flask import Flask

from dblike_delta.seams import SystemRandom
from dblike_srv.app import create_app
from dblike_srv.config import Config, ConfigError
from dblike_srv.configfile import find_config
from dblike_srv.errors import Busy
from dblike_srv.notices import LocalNotices, Notices
from dblike_srv.site import Site, open_site

WAITS: Final = 5
"""Looks for the database, before a worker gives way to another one."""


log = logging.getLogger(__name__)


def make_app(config: Config) -> Flask:
    """The application of a configured site, with notices between this host's workers.

    Where the database is away it is waited for; then the process ends, for gunicorn to start
    another one: a worker that fails would end the server.
    """
    os.umask(
        0o077
    )  # what we make is nobody else's to read: gunicorn's own setting is for its files
    for _ in range(WAITS):
        try:
            return create_app(open_configured(config))
        except Busy as error:
            log.warning("not serving yet: %s", error)
            time.sleep(error.retry_after)
    raise SystemExit(1)


def open_configured(config: Config) -> Site:
    """The site, with the notices that the configuration names."""
    return open_site(config, notices=open_notices(config))


def open_notices(config: Config) -> Notices:
    """Notices between this host's processes, and with Redis between all hosts."""
    run = Path(config.data) / "run"
    if config.notify == "local":
        return LocalNotices(run / "notices")
    try:
        from dblike_srv.redis_notices import RedisNotices  # an extra: not everyone has it
    except ImportError:
        raise ConfigError("notify: Redis needs `pip install 'dblike[redis]'`") from None
    return RedisNotices(config.notify, config.key, run, SystemRandom())


def __getattr__(name: str) -> Any:
    """Make `app` when a server asks for it, not when this module is imported."""
    if name != "app":
        raise AttributeError(name)
    globals()["app"] = make_app(find_config())
    return globals()["app"]
