"""The process that follows all other sites of the cluster.

One of a site's processes is its parent: the one that holds the lease.  Following has a process of
its own, so that catching up takes nothing from those that answer requests; when it fails it is
started again, and when its parent ends it does, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import socket
import threading
from pathlib import Path
from typing import IO, Any, Final

from blake3 import blake3

from dblike_delta.errors import DeltaError
from dblike_delta.exchange import Refused, Unreachable
from dblike_srv import companion
from dblike_srv.errors import Busy
from dblike_srv.leases import take_lease
from dblike_srv.metrics import Metrics, metrics_directory
from dblike_srv.registers import RETURNS
from dblike_srv.replication.arrival import Fault
from dblike_srv.replication.aside import QUARANTINE, Aside
from dblike_srv.replication.followed import (
    AWAY,
    FAILED,
    NOT_BELIEVED,
    followed_urls,
    forget,
    forget_others,
    met,
    note,
)
from dblike_srv.replication.follower import FAILURES, Follower, healing
from dblike_srv.replication.link import Link
from dblike_srv.replication.listener import Listener
from dblike_srv.replication.relay import Relay
from dblike_srv.replication.sites import begin, has_left, known_sites
from dblike_srv.replication.turns import Locks
from dblike_srv.site import Site

LEASE_MS: Final = 15_000
_MARK: Final = 16
RENEW: Final = 5.0
AGAIN: Final = 0.5
LOOK: Final = 2.0
"""Seconds between looks for sites that are new or gone."""
LONGEST: Final = 5.0
"""Seconds until a site that is away is tried again, at most."""

log = logging.getLogger(__name__)


class Supervisor:
    """Keeps the following process running, while this process holds the lease for it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._holder = b""
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopping.is_set():
            try:
                self._run()
            except Exception:  # a full disk, no more processes: later it may go again
                log.exception("other sites can't be followed")
            self._stopping.wait(AGAIN)

    def _run(self) -> None:
        run = Path(self._site.config.data) / "run"
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (run / "following").open("a+b", buffering=0) as turn:
            while not self._stopping.is_set():
                if _locked(turn) and self._is_needed() and self._lease(turn) and self._urls():
                    self._follow(turn)
                self._stopping.wait(AGAIN)

    def stop(self) -> None:
        """End it, and let another process take over."""
        self._stopping.set()

    def _is_needed(self) -> bool:
        """Whether there is anyone to follow, or to forget."""
        try:
            return bool(Following(self._site).urls() or followed_urls(self._site))
        except Exception:
            log.exception("the other sites can't be looked up")
            return False

    def _urls(self) -> set[str]:
        """Whom this host is to follow.  All others are forgotten: nobody follows them while it has
        the lease."""
        urls = Following(self._site).urls()
        forget_others(self._site, urls)
        return urls

    def _host(self, turn: IO[bytes]) -> bytes:
        """Who takes the lease: this host, so that whoever comes after a process that was killed
        need not wait for the end of its lease.  Of this host's processes one has the turn."""
        if self._holder:
            return self._holder
        turn.seek(0)
        mark = turn.read(_MARK)
        if len(mark) < _MARK:
            mark = self._site.random.bytes(_MARK)
            with contextlib.suppress(OSError):  # a full disk: the next process is another one then
                turn.truncate(0)
                turn.write(mark)
        self._holder = blake3(mark + socket.gethostname().encode()).digest(length=16)
        return self._holder

    def _lease(self, turn: IO[bytes]) -> bool:
        """Whether this host's processes are to follow: on one database there may be many hosts."""
        if self._site.database.embedded:
            return True
        try:
            return take_lease(self._site, "following", self._host(turn), LEASE_MS)
        except Exception:
            log.exception("the lease for following can't be had")
            return False

    def _follow(self, turn: IO[bytes]) -> None:
        """Run the process until it ends, we are stopped, or the lease is another's."""
        with companion.start("dblike_srv.replication.supervisor", self._site.config) as child:
            looks = 0
            while child.poll() is None and not self._stopping.wait(AGAIN):
                looks += 1
                if looks * AGAIN % RENEW == 0 and not self._lease(turn):
                    break
            child.terminate()


def _locked(turn: IO[Any]) -> bool:
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Work:
    """The following of one site."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.prodded = threading.Event()
        self.compared: dict[tuple[bytes, bytes], int] = {}
        self.aside = Aside()

    def end(self) -> None:
        """No longer."""
        self.ended.set()
        self.prodded.set()


class Following:
    """A thread for each site that is to be followed."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._locks = Locks()
        self._relay = Relay(site)
        self._work: dict[str, _Work] = {}

    def look(self) -> None:
        """Follow those that are new, and no longer those that are gone."""
        wanted = self.urls()
        for url in self._work.keys() - wanted:
            self._work.pop(url).end()
        for url in wanted - self._work.keys():
            work = self._work[url] = _Work()
            threading.Thread(target=self._follow, args=(url, work), name=url, daemon=True).start()

    def hear(self, what: bytes, text: str) -> None:
        """A notice: where it says that a site came back, those that are away are tried at once."""
        self._relay.hear(what, text)
        if what == RETURNS:
            for work in tuple(self._work.values()):
                work.prodded.set()

    def urls(self) -> set[str]:
        """The configured peers, and (unless only these are to be followed) all sites we know of."""
        config, here = self._site.config, self._site.id
        if has_left(self._site, here):
            return set()
        named = {peer.url.rstrip("/") for peer in config.peers}
        if config.replication.follow == "peers":
            return named
        near = met(self._site, named) | {here}
        known = {s.url.rstrip("/") for s in known_sites(self._site) if s.url and s.id not in near}
        return (named | known) - {config.site.url.rstrip("/")}

    def _follow(self, url: str, work: _Work) -> None:
        failures, now = 0, self._site.clock.monotonic
        while not work.ended.is_set():
            since = now()
            error = self._follow_once(url, work)
            passing, lasted = _is_passing(error), now() - since
            if lasted > (LONGEST if passing else QUARANTINE):
                failures = 0
            failures += 1
            longest = min(0.2 * 2.0 ** min(failures, 10), LONGEST if passing else QUARANTINE)
            if passing:
                work.ended.wait(0.1)
                work.prodded.clear()
                work.prodded.wait(self._site.random.uniform(longest / 2, longest))
            else:
                work.ended.wait(longest)
        forget(self._site, url)

    def _follow_once(self, url: str, work: _Work) -> Exception | None:
        """Until it fails, and why."""
        link = Link(self._site, url)
        try:
            with healing(self._site):
                follower = Follower(
                    self._site,
                    link,
                    self._locks,
                    work.compared,
                    work.aside,
                    early=True,
                    relay=self._relay,
                )
                follower.connect()
                Listener(self._site, link, follower, work.ended).run()
        except FAILURES as error:
            self._say(url, error)
            return error
        except Exception as error:
            log.exception("following %s failed", url)
            self._say(url, error)
            return error
        finally:
            link.close()
        return None

    def _say(self, url: str, error: Exception) -> None:
        level = logging.ERROR if isinstance(error, Fault | DeltaError) else logging.INFO
        log.log(level, "%s: %s", url, _problem(error))
        try:
            note(self._site, url, problem=_problem(error))
        except Exception:
            log.exception("the state of following can't be written")


def _is_passing(error: Exception | None) -> bool:
    """Whether nothing is wrong but that the site is away, busy, or ended a session that is over."""
    if isinstance(error, Refused):
        return error.temporary or error.status == 401
    return isinstance(error, Unreachable | Busy | None)


def _problem(error: Exception) -> str:
    """For `status`: what kind of trouble it is, and what happened."""
    kind = AWAY
    if isinstance(error, Fault | DeltaError):
        kind = NOT_BELIEVED
    elif not _is_passing(error):
        kind = FAILED
    return f"{kind}: {error}"[:500]


def main() -> None:
    """The process."""
    site, ending = companion.open_site()
    begin(site)
    site.meter = metrics = Metrics(metrics_directory(site.config))
    following = Following(site)
    site.notices.subscribe(following.hear)
    while not ending.is_set():
        following.look()
        metrics.save(site.clock.monotonic())
        ending.wait(LOOK)


if __name__ == "__main__":
    main()
