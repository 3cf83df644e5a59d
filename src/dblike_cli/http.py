"""The transport over HTTP: connections that are kept, and failing over between sites.

Redirects are never followed and proxies of the environment are not asked: the bearer token goes to
the named servers and nowhere else.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from dblike_cli.connection import Address, Connection, HttpResponse, Timeouts, Wire
from dblike_cli.netlimit import TokenBucket
from dblike_delta.exchange import Request, Response, Unreachable
from dblike_delta.seams import Clock, Random

_BUSY: Final = frozenset({500, 502, 503, 504})
"""Answers that another server, or a short wait, may change."""
_RETURN_AFTER: Final = 60.0
"""Seconds after which the first server is tried again while another one serves."""
_LONGEST_WAIT: Final = 30.0

Pause = Callable[[float], object]


class Tries(msgspec.Struct, frozen=True):
    """How often to go round all servers, and the seconds between the first two rounds."""

    rounds: int = 4
    pause: float = 0.25


class Site:
    """One server, and the connections to it that wait for the next request."""

    def __init__(self, address: Address, wire: Wire) -> None:
        self.address = address
        self._wire = wire
        self._lock = threading.Lock()
        self._kept: list[Connection] = []

    def send(self, request: Request) -> HttpResponse:
        """Send and wait for the reply's head; raises Unreachable.

        The server may close a connection just when it is used again; then the request goes out once
        more on a new one, which is safe because every step may be repeated.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, request)
            except Unreachable:
                if not repeatable(request):
                    raise
        return self._exchange(Connection(self.address, self._wire), request)

    def close(self) -> None:
        """Drop the connections that wait."""
        with self._lock:
            kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()

    def _exchange(self, connection: Connection, request: Request) -> HttpResponse:
        def done(reusable: bool) -> None:
            if reusable:
                with self._lock:
                    self._kept.append(connection)
            else:
                connection.close()

        reply = HttpResponse(connection.exchange(request), self._wire.down, done)
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


class HttpTransport:
    """Carries requests to one of several servers, and stays with the one that works.

    `pause` is how it waits: whoever wants to end waits early passes a pause that ends early.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        clock: Clock,
        random: Random,
        pause: Pause,
        rates: tuple[int, int] = (0, 0),
        ca: str = "",
        timeouts: Timeouts | None = None,
        tries: Tries | None = None,
    ) -> None:
        self._clock = clock
        self._random = random
        self._pause = pause
        self._tries = tries or Tries()
        self.addresses = [address_of(url) for url in urls]
        up, down = (TokenBucket(rate, clock, pause) for rate in rates)
        self.tls = _tls(ca) if any(address.secure for address in self.addresses) else None
        wire = Wire(up, down, timeouts or Timeouts(), self.tls)
        self._sites = [Site(address, wire) for address in self.addresses]
        self._current = 0
        self._away_since = 0.0

    @property
    def site(self) -> Address:
        """The server that serves now."""
        return self.addresses[self._current]

    def request(self, request: Request) -> Response:
        """Send and wait for the reply's head; raises Unreachable when no server answers."""
        rounds = self._tries.rounds if repeatable(request) else 1
        for attempt in range(1, rounds):
            try:
                reply = self._round(request)
            except Unreachable:
                wait = self._backoff(attempt)
            else:
                if reply.status not in _BUSY:
                    return reply
                wait = self._asked(reply) or self._backoff(attempt)
                reply.close()
            self._pause(wait)
        return self._round(request)

    def close(self) -> None:
        """Drop all connections that wait."""
        for site in self._sites:
            site.close()

    def _round(self, request: Request) -> HttpResponse:
        """Every server once, from the current one on; where all are busy, the last one's word."""
        start = self._first_choice()
        busy: HttpResponse | None = None
        failures: list[str] = []
        for step in range(len(self._sites) if repeatable(request) else 1):
            index = (start + step) % len(self._sites)
            try:
                reply = self._sites[index].send(request)
            except Unreachable as error:
                failures.append(str(error))
                continue
            if busy is not None:
                busy.close()
            if reply.status not in _BUSY:
                self._stay_with(index)
                return reply
            busy = reply
        if busy is None:
            raise Unreachable("; ".join(failures))
        return busy

    def _first_choice(self) -> int:
        """The current server; after a while away from the first one, that one again."""
        now = self._clock.monotonic()
        if self._current and now - self._away_since > _RETURN_AFTER:
            self._away_since = now
            return 0
        return self._current

    def _stay_with(self, index: int) -> None:
        if index and not self._current:
            self._away_since = self._clock.monotonic()
        self._current = index

    def _asked(self, reply: HttpResponse) -> float:
        """Seconds that the server asks us to wait, a little spread; 0 where it does not."""
        asked = reply.headers.get("retry-after", "")
        if not asked.isdecimal():
            return 0.0
        return min(float(asked), _LONGEST_WAIT) + self._random.uniform(0.0, 0.25)

    def _backoff(self, attempt: int) -> float:
        """A growing pause, with jitter so that devices don't come back all at once."""
        longest = min(self._tries.pause * 2.0 ** (attempt - 1), _LONGEST_WAIT)
        return self._random.uniform(longest / 2, longest)


def address_of(url: str) -> Address:
    """Where a URL that `config` has checked points to."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    return Address(parts.hostname or "", port, secure, parts.path.rstrip("/"))


def repeatable(request: Request) -> bool:
    """Whether the body can be sent twice."""
    return request.body is None or isinstance(request.body, bytes | list | tuple)


def _tls(ca: str) -> ssl.SSLContext:
    """Certificates are always checked: against the system's authorities, or against `ca` alone."""
    return ssl.create_default_context(cafile=ca or None)
