"""What a running site does by itself: one worker of one host at a time, every now and then."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, insert, select, update

from dblike_delta.seams import Clock
from dblike_srv import maintenance, uploads
from dblike_srv.auth import throttle
from dblike_srv.models import leases
from dblike_srv.replication import parts
from dblike_srv.site import Site

log = logging.getLogger(__name__)

FIRST: Final = 300.0
EVERY: Final = 3600.0
"""Seconds from a worker's start to its first round, and between rounds."""
LEFT_MS: Final = 24 * 3600 * 1000
"""What was half written for so long is nobody's any more."""


class Housekeeping:
    """Garbage collection, compaction, and forgetting old failures."""

    def __init__(self, site: Site, *, first: float = FIRST, every: float = EVERY) -> None:
        self._site = site
        self._first, self._every = first, every
        self._stopping = threading.Event()

    def run(self) -> None:
        """Rounds until `stop`, each by the one worker of the host that comes first."""
        wait = self._first
        while not self._stopping.wait(wait):
            wait = self._every
            with turn(Path(self._site.config.data), self._site.clock, self._every) as mine:
                if mine:
                    self.host_round()
                if mine and self._is_ours():
                    self.round()

    def host_round(self) -> None:
        """What each host does for itself."""
        site, yesterday = self._site, self._site.clock.now_ms() - LEFT_MS
        self._do(
            lambda: uploads.remove_idle_uploads(site),
            lambda: parts.remove_idle_parts(site),
            lambda: site.store.tidy(yesterday),
        )

    def round(self) -> None:
        """Everything of the site once."""
        self._do(
            lambda: throttle.tidy(self._site),
            lambda: maintenance.gc(self._site, dry_run=False),
            lambda: maintenance.compact(self._site),
        )

    def _is_ours(self) -> bool:
        try:
            return take_turn(self._site, self._every)
        except Exception:
            log.exception("housekeeping can't reach the database")
            return False

    def _do(self, *tasks: Callable[[], object]) -> None:
        """What fails is logged, and tried again in the next round."""
        for task in tasks:
            if self._stopping.is_set():
                return
            try:
                task()
            except Exception:
                log.exception("housekeeping failed")

    def stop(self) -> None:
        """No further round."""
        self._stopping.set()


@contextlib.contextmanager
def turn(data: Path, clock: Clock, every: float) -> Iterator[bool]:
    """Whether it is this process's turn to keep house: nobody does, and nobody did lately."""
    run = data / "run"
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (run / "housekeeping").open("a+") as last:
        try:
            fcntl.flock(last, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        last.seek(0)
        text = last.read()
        due = not text.isdecimal() or abs(clock.now_ms() - int(text)) >= every * 900
        yield due
        if due:
            last.truncate(0)
            last.write(str(clock.now_ms()))


def take_turn(site: Site, every: float) -> bool:
    """Whether no host of the site keeps house, or did so lately; then the turn is this one's."""
    lease = int(every * 900)

    def work(connection: Connection) -> bool:
        now, mine = site.clock.now_ms(), leases.c.name == "housekeeping"
        until = connection.scalar(select(leases.c.until).where(mine).with_for_update())
        if until is not None and now < until <= now + lease:
            return False
        values = {"holder": bytes(16), "until": now + lease}
        if until is None:
            connection.execute(insert(leases).values(name="housekeeping", **values))
        else:
            connection.execute(update(leases).where(mine).values(values))
        return True

    return site.database.transact(work)
