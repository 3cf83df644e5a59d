"""Whether a worker can do its work: what /readyz and `dblike-server status` say."""

from __future__ import annotations

import logging

from sqlalchemy import select

from dblike_srv.models import meta
from dblike_srv.site import Site

log = logging.getLogger(__name__)


def check_ready(site: Site) -> str:
    """What is broken, in words for anyone; empty where all is well."""
    try:
        # Twice: the first try may be the one that finds its connection ended.
        site.database.read(lambda c: c.scalar(select(meta.c.value).limit(1)), attempts=2)
    except Exception:
        log.exception("not ready: the database")
        return "the database can't be reached"
    try:
        site.store.check()
    except Exception:
        log.exception("not ready: the store")
        return "the store can't be reached"
    return ""
