"""Housekeeping as a running site does it: in a process of its own."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import select

from dblike_srv.configfile import create_config
from dblike_srv.housekeeping import Housekeeping
from dblike_srv.models import leases, packs
from dblike_srv.site import Site, open_site
from rig.programs import wait_until


def _orphans(site: Site) -> list[bytes]:
    rows = site.database.read(lambda c: c.scalars(select(packs.c.hash)).all())
    return [bytes(row) for row in rows]


def test_a_round_is_kept_and_then_no_other(tmp_path: Path) -> None:
    """What a crash left in the store is found; a second worker finds the turn taken."""
    site = open_site(create_config(None, tmp_path / "site"))
    writer = site.store.writer()
    writer.write(b"orphan")
    writer.commit(b"\7" * 32)
    done = tmp_path / "site" / "run" / "housekeeping"
    keeping = [Housekeeping(site, first=0) for _ in range(2)]
    threads = [threading.Thread(target=each.run) for each in keeping]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: done.exists() and done.read_text().isdecimal())
    finally:
        for each, thread in zip(keeping, threads, strict=True):
            each.stop()
            thread.join()
    assert _orphans(site) == [b"\7" * 32]
    assert site.database.read(lambda c: c.scalars(select(leases.c.name)).all()) == ["housekeeping"]
    site.close()
