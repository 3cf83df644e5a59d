"""The sites that hold the same data: which one serves, which are away, and which is asked next.

The servers of the config come first, in their order; those that a site named come after them, the
nearest first.  A site that failed is left alone for a while, longer each time.  Where there is a
choice, whoever answers a small question first serves, with a head start for the better ones.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dblike_cli.connection import Address, Connection, Deaf, HttpResponse, Wire
from dblike_delta.exchange import Request, Unreachable
from dblike_delta.seams import Clock, Random

BUSY: Final = frozenset({500, 502, 503, 504})
"""Answers that another server, or a short wait, may change."""
_CONNECT: Final = 0.8
"""Seconds for a connection where there is another site to go to, and more where it is far."""
_HEAD_START: Final = 0.2
_DOUBT: Final = 0.35
"""Head start of the site that serves over the others, when it has become silent."""
_ANSWER: Final = 2.0
_FAR: Final = 4.0
_LONGEST_LEAVE: Final = 60.0
_KEPT: Final = 2
"""Connections that wait for the next request: as many as are used at once."""


class Site:
    """One server, and the connections to it that wait for the next request."""

    def __init__(
        self, address: Address, wire: Callable[[], Wire], number: int, *, learned: bool
    ) -> None:
        self.address = address
        self.number = number
        self.learned = learned
        self.failures = 0
        self.away_until = 0.0
        self.latency = math.inf
        """Seconds from nothing to an answer, the last time that this was measured."""
        self._wire = wire
        self._lock = threading.Lock()
        self._kept: list[Connection] = []
        self._closed = False

    def send(self, request: Request, alive: Callable[[], bool] | None) -> HttpResponse:
        """Send and wait for the reply's head; raises Unreachable.

        The server may close a connection just when it is used again; then the request goes out once
        more on a new one, which is safe because every step may be repeated.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, request, alive)
            except Deaf:
                raise
            except Unreachable:
                if not repeatable(request):
                    raise
        connect = None if alive is None else self.patience
        return self._exchange(Connection(self.address, self._wire(), connect), request, alive)

    def probe(self, target: str) -> None:
        """Ask a small question on a new connection, and keep that; raises Unreachable."""
        began = time.monotonic()
        connection = Connection(self.address, self._wire(), _ANSWER)
        reply = self._exchange(connection, Request("GET", target), head=_ANSWER)
        if reply.status in BUSY:  # a site that only does not answer this is there, too
            reply.close()
            raise Unreachable(f"{self.address.name}: status {reply.status} to {target}")
        for _ in reply.chunks():
            pass
        self.latency = time.monotonic() - began

    @property
    def patience(self) -> float:
        """Seconds to wait for it where others are waiting, too."""
        return _CONNECT if math.isinf(self.latency) else max(_CONNECT, _FAR * self.latency)

    def close(self, *, for_good: bool = False) -> None:
        """Drop the connections that wait; `for_good`: none will wait any more."""
        with self._lock:
            kept, self._kept = self._kept, []
            self._closed = self._closed or for_good
        for connection in kept:
            connection.close()

    def _exchange(
        self,
        connection: Connection,
        request: Request,
        alive: Callable[[], bool] | None = None,
        head: float | None = None,
    ) -> HttpResponse:
        def done(reusable: bool) -> None:
            with self._lock:
                if reusable and not self._closed and len(self._kept) < _KEPT:
                    self._kept.append(connection)
                    return
            connection.close()

        reply = HttpResponse(connection.exchange(request, alive, head), self._wire().down, done)
        if 300 <= reply.status < 400:
            reply.close()
            where = reply.headers.get("location", "")[:200]
            name = self.address.name
            raise Unreachable(f"{name}: redirects to {where!r}; name that server if it is the one")
        return reply

    def _take(self) -> Connection | None:
        with self._lock:
            while self._kept:
                connection = self._kept.pop()
                if connection.waits:
                    return connection
                connection.close()
        return None


class Sites:
    """All of them.  `moved` hears each time that another one serves."""

    def __init__(self, clock: Clock, random: Random, moved: Callable[[Address], None]) -> None:
        self._clock = clock
        self._random = random
        self._moved = moved
        self._lock = threading.Lock()
        self._all: list[Site] = []
        self._serving: Site | None = None
        self._home: Site | None = None
        self._looking = False

    def add(self, addresses: Iterable[Address], wire: Callable[[], Wire], *, learned: bool) -> None:
        """More sites, behind those that are known."""
        with self._lock:
            known = {site.address for site in self._all}
            new = [address for address in dict.fromkeys(addresses) if address not in known]
            first = len(self._all)
            made = [Site(each, wire, n, learned=learned) for n, each in enumerate(new, first)]
            self._all = [*self._all, *made]

    def all(self) -> list[Site]:
        """Every site, the best first: those that are not away, and of them the nearest."""
        now = self._clock.monotonic()
        return sorted(
            self._all, key=lambda site: (max(site.away_until - now, 0.0), _nearness(site))
        )

    @property
    def serving(self) -> Site | None:
        """The site that serves; None before the first request, and after a failure."""
        return self._serving

    def choose(self, tried: Sequence[Site], failures: list[str]) -> Site | None:
        """The next site to ask, or None; `failures` gets what was wrong with those that can't be
        asked."""
        serving = self._serving
        if serving is not None and serving not in tried:
            return serving
        left = [site for site in self.all() if site not in tried]
        if len(left) < 2:
            return left[0] if left else None
        found, broken = first_to_answer(left, _HEAD_START)
        for site, reason in broken.items():
            self.fail(site)
            failures.append(reason)
        # Where nobody answered, and not all are known to be broken, one may just be slow.
        return found or next((site for site in left if site not in broken), None)

    def serve(self, site: Site) -> None:
        """The site answered: it serves from here on."""
        site.failures, site.away_until = 0, 0.0
        if self._serving is not site:
            self._serving = site
            self._moved(site.address)

    def fail(self, site: Site, asked: float = 0.0) -> None:
        """Leave the site alone for as long as it asked, else for a while, longer each time."""
        now = self._clock.monotonic()
        if now >= site.away_until:  # what several find at once is one failure
            site.failures += 1
        leave = asked or min(2.0 ** min(site.failures, 10), _LONGEST_LEAVE)
        site.away_until = now + self._random.uniform(leave / 2, leave)
        site.close()
        if self._serving is site:
            self._serving = None

    def is_best(self, site: Site) -> bool:
        """Whether there is no better than to go on waiting for a site that is silent."""
        now = self._clock.monotonic()
        others = [each for each in self.all() if each is not site and each.away_until <= now]
        if not others:
            return True
        start = max(_DOUBT, 0.0 if math.isinf(site.latency) else _FAR * site.latency)
        found, broken = first_to_answer([site, *others], start)
        return found is site or (found is None and site not in broken)

    def go_home(self, back: Callable[[], None]) -> None:
        """Between two pieces of work: go to a nearer site that was found to be ready, else begin to
        look for one; `back` hears when it was found."""
        serving, home = self._serving, self._home
        self._home = None
        if serving is None:
            return
        if home is not None and _is_nearer(home, serving):
            self.serve(home)
            return
        now = self._clock.monotonic()
        nearer = [s for s in self.all() if _is_nearer(s, serving) and s.away_until <= now]
        if nearer and not self._looking:
            self._looking = True
            look = (nearer, back)
            threading.Thread(target=self._look, args=look, name="home", daemon=True).start()

    def _look(self, nearer: list[Site], back: Callable[[], None]) -> None:
        try:
            for site in nearer:
                try:
                    site.probe("/readyz")
                except Unreachable:
                    self.fail(site)
                    continue
                self._home = site
                back()
                return
        finally:
            self._looking = False


def first_to_answer(
    sites: Sequence[Site], head_start: float
) -> tuple[Site | None, dict[Site, str]]:
    """The site that answers first, and what is wrong with those that can't.

    Each is asked `head_start` seconds after the one before it, or at once where that is broken.
    """
    answers: queue.SimpleQueue[tuple[Site, str]] = queue.SimpleQueue()
    broken: dict[Site, str] = {}
    waiting = list(sites)
    asked = 0
    until = time.monotonic() + _ANSWER + head_start * len(waiting)
    while asked > len(broken) or waiting:
        if waiting and asked == len(broken):
            asked += _ask(waiting.pop(0), answers)
        left = until - time.monotonic()
        try:
            patience = min(head_start, left) if waiting else left
            site, reason = answers.get(timeout=max(patience, 0.0))
        except queue.Empty:
            if left <= 0:
                break
            asked += _ask(waiting.pop(0), answers) if waiting else 0
            continue
        if not reason:
            return site, broken
        broken[site] = reason
    return None, broken


def _ask(site: Site, answers: queue.SimpleQueue[tuple[Site, str]]) -> int:
    def ask() -> None:
        try:
            site.probe("/healthz")
        except Deaf:
            return
        except Unreachable as error:
            answers.put((site, str(error)))
        else:
            answers.put((site, ""))

    threading.Thread(target=ask, name="probe", daemon=True).start()
    return 1


def _nearness(site: Site) -> tuple[bool, float, int]:
    """What sites are ordered by."""
    return site.learned, site.latency if site.learned else 0.0, site.number


def _is_nearer(site: Site, than: Site) -> bool:
    """Whether it is worth going there; a little less to wait is not."""
    if site.learned and than.learned:
        return site.latency < than.latency / 2
    return _nearness(site) < _nearness(than)


def repeatable(request: Request) -> bool:
    """Whether the body can be sent twice."""
    return request.body is None or isinstance(request.body, bytes | list | tuple)
