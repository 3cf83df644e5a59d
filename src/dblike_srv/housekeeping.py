"""What a running site does by itself: one worker of one host at a time, every now and then."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dblike_delta.seams import Clock
from dblike_srv import companion, maintenance, uploads
from dblike_srv.auth import throttle
from dblike_srv.leases import take_lease
from dblike_srv.replication import parts
from dblike_srv.site import Site

log = logging.getLogger(__name__)

FIRST: Final = 300.0
EVERY: Final = 3600.0
"""Seconds from a worker's start to its first round, and between rounds."""
LOOK: Final = 0.5
NICE: Final = 10
LEFT_MS: Final = 24 * 3600 * 1000
"""What was half written for so long is nobody's any more."""


class Housekeeping:
    """Sees to it that somebody keeps house: in a process of its own, since a round takes seconds of
    CPU for each million contents."""

    def __init__(self, site: Site, *, first: float = FIRST, every: float = EVERY) -> None:
        self._site = site
        self._first, self._every = first, every
        self._stopping = threading.Event()

    def run(self) -> None:
        """Rounds until `stop`, each by the one worker of the host that comes first."""
        wait = self._first
        while not self._stopping.wait(wait):
            wait = self._every
            try:
                with turn(Path(self._site.config.data), self._site.clock, self._every) as mine:
                    if mine:
                        self._round()
            except OSError:
                log.exception("housekeeping can't begin")

    def _round(self) -> None:
        with companion.start("dblike_srv.housekeeping", self._site.config) as child:
            while child.poll() is None and not self._stopping.wait(LOOK):
                pass
            child.terminate()

    def stop(self) -> None:
        """No further round, and an end of the one that goes on: the next one continues."""
        self._stopping.set()


def keep_house(site: Site, every: float) -> None:
    """A round: garbage collection, compaction, and forgetting what was left half done."""
    yesterday = site.clock.now_ms() - LEFT_MS
    _try(lambda: uploads.remove_idle_uploads(site))
    _try(lambda: parts.remove_idle_parts(site))
    _try(lambda: site.store.tidy(yesterday))
    if _try(lambda: take_turn(site, every)):
        _try(lambda: throttle.tidy(site))
        _try(lambda: maintenance.gc(site, dry_run=False))
        _try(lambda: maintenance.compact(site))


def _try(task: Callable[[], object]) -> object:
    """What fails is logged, and tried again in the next round."""
    try:
        return task()
    except Exception:
        log.exception("housekeeping failed")
        return None


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
    return take_lease(site, "housekeeping", site.random.bytes(16), int(every * 900))


def main() -> None:
    """The process: one round, when nobody else wants the machine."""
    os.nice(NICE)
    site, ending = companion.open_site()
    work = threading.Thread(target=keep_house, args=(site, EVERY), daemon=True)
    work.start()
    while work.is_alive() and not ending.is_set():
        work.join(LOOK)


if __name__ == "__main__":
    main()
