"""What a site asks of the others before its first answer.

In a process of its own, which is ended when there is no more patience.  A thread that waited for an
answer would be one while the workers are forked, and would leave its locks taken in each of them.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import threading
from collections.abc import Collection
from typing import Final

from dblike_srv.config import Config
from dblike_srv.replication.follower import FAILURES, Follower, healing
from dblike_srv.replication.link import Link
from dblike_srv.site import Site, open_site

PATIENCE: Final = 3.0

log = logging.getLogger(__name__)


def hear_first(config: Config, urls: Collection[str], patience: float = PATIENCE) -> None:
    """Ask the sites at these URLs who was revoked while this one was away, and whether its disk is
    the one that they know: numbers that were used must not be used again.

    `patience` is in seconds.  This process may have nothing of the site's open, and one thread.
    """
    arguments = (config, urls, patience)
    child = multiprocessing.get_context("fork").Process(target=_hear, args=arguments)
    child.start()
    child.join()
    if child.exitcode not in (0, -signal.SIGALRM):
        log.error("what the other sites know could not be asked: exit code %s", child.exitcode)
    child.close()


def _hear(config: Config, urls: Collection[str], patience: float) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whoever started us may have it ignored
    signal.setitimer(signal.ITIMER_REAL, patience)  # ends it, and needs nobody's help
    with contextlib.closing(open_site(config)) as site:
        asking = [threading.Thread(target=_ask, args=(site, url), daemon=True) for url in urls]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()


def _ask(site: Site, url: str) -> None:
    with contextlib.closing(Link(site, url)) as link:
        try:
            with healing(site):
                follower = Follower(site, link)
                follower.connect()
                follower.rows.take()
                follower.look_back()
        except FAILURES as error:
            log.info("%s: %s", url, error)
