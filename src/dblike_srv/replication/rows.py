"""The rows that all sites share, as one site tells them: taken in here also while a folder of that
site takes long, since nobody who was revoked may stay for as long as a large file comes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

from dblike_srv.replication import shared, sites
from dblike_srv.replication.arrival import Fault
from dblike_srv.replication.followed import note_taken_in, taken_in
from dblike_srv.replication.link import Link
from dblike_srv.replication.messages import SiteState
from dblike_srv.site import Site

EVERY: Final = 2.0
"""Seconds between questions for what is new of them."""
LARGEST: Final = 2**53
"""No site has seen as many changes."""

log = logging.getLogger(__name__)


class Rows:
    """What is new of them at one site, in one session with it."""

    def __init__(self, site: Site, link: Link) -> None:
        self.double = ""
        self._site, self._link = site, link
        self._lock = threading.Lock()
        self._asked_at = site.clock.monotonic()

    def take(self) -> None:
        """All of it.  Raises Fault."""
        with self._lock:
            try:
                self._take()
            finally:
                self._asked_at = self._site.clock.monotonic()

    def take_beside(self, ended: threading.Event) -> None:
        """For a thread: the same, whenever whoever follows has not come to it lately."""
        while not ended.wait(EVERY / 2):
            if self._site.clock.monotonic() - self._asked_at > EVERY:
                try:
                    self.take()
                except Exception as error:  # noqa: BLE001 - whoever follows will find it, too
                    log.info("%s: %s", self._link.url, error)

    def _take(self) -> None:
        assert self._link.peer is not None
        peer = self._link.peer.id
        since, more = taken_in(self._site, self._link.url), True
        while more:
            page = self._link.shared(since)
            if page.upto < since:
                # It was set back: what it says now is all new.  Its own journals tell it the same.
                page = self._link.shared(0)
                since = 0
            if page.upto > LARGEST or (page.more and page.upto <= since):
                raise Fault("changes of accounts that do not end")
            self._look_for_double(page.sites)
            try:
                shared.take_in(self._site, page)
            except shared.Clash as clash:
                raise Fault(str(clash)) from None
            since, more = page.upto, page.more
            note_taken_in(self._site, self._link.url, peer, since)

    def _look_for_double(self, states: Sequence[SiteState]) -> None:
        """Whether somebody else said who we are, later than we did: only a copy of us does."""
        for state in states:
            if state.id != self._site.id:
                continue
            mine = sites.announce(self._site)
            if state.changed > mine.changed and state.url != mine.url:
                self.double = f"another server has this site's id, at {state.url or 'no URL'}"
                log.error("%s, says %s: one's data are a copy", self.double, self._link.url)
