"""The transport over HTTP: one of several sites carries a request, and another one where it can't.

Redirects are never followed and proxies of the environment are not asked: the bearer token goes to
the named servers and those that they named, and nowhere else.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from dblike_cli.connection import Address, HttpResponse, Timeouts, Wire
from dblike_cli.netlimit import TokenBucket
from dblike_cli.sites import BUSY, Site, Sites, repeatable
from dblike_delta.exchange import Request, Response, Unreachable
from dblike_delta.seams import Clock, Random
from dblike_delta.transport import retry_after

_AWAY: Final = frozenset({502, 503, 504})
"""Those that speak of the server, and not of the request."""
_UNAUTHORIZED: Final = 401
_FULL: Final = 507
_LONGEST_WAIT: Final = 30.0

Pause = Callable[[float], object]


class Tries(msgspec.Struct, frozen=True):
    """How often to go round all servers, and the seconds between the first two rounds."""

    rounds: int = 4
    pause: float = 0.25


class HttpTransport:
    """Carries requests to one of several sites, and stays with the one that works.

    `urls` are in order of preference.  `pause` is how it waits: whoever wants to end waits early
    passes a pause that ends early.  `issuer` is the URL of the site that made the token: on that
    its word alone counts.  `moved` is called each time that another site serves.
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
        self._random = random
        self._pause = pause
        self._tries = tries or Tries()
        self._ca = ca
        self.issuer = ""
        up, down = (TokenBucket(rate, clock, pause) for rate in rates)
        self._wire = Wire(up, down, timeouts or Timeouts(), None)
        self.moved: Callable[[], None] = lambda: None
        self._sites = Sites(clock, random, lambda _: self.moved())
        self._add(urls, learned=False)

    # --- the sites

    def learn(self, urls: Iterable[str]) -> None:
        """Sites that a site named; they come after those of the config."""
        self._add(urls, learned=True)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """How encrypted connections are made; None where no site has such."""
        return self._wire.tls

    @property
    def has_choice(self) -> bool:
        """Whether there is another site to go to."""
        return len(self._sites.all()) > 1

    @property
    def site(self) -> Address | None:
        """The site that serves, if any does at the moment."""
        serving = self._sites.serving
        return serving.address if serving is not None else None

    def find(self) -> Address:
        """The site that serves; one is chosen where none does.  Raises Unreachable."""
        failures: list[str] = []
        site = self._sites.choose((), failures)
        if site is None:
            raise Unreachable("; ".join(failures))
        self._sites.serve(site)
        return site.address

    def others(self) -> list[Address]:
        """The sites that do not serve now, the best first."""
        return [site.address for site in self._sites.all() if site is not self._sites.serving]

    def lost(self, address: Address) -> None:
        """No connection to this site can be made: let the next request go elsewhere."""
        if self.has_choice:
            for site in self._sites.all():
                if site.address == address:
                    self._sites.fail(site)

    def is_there(self) -> bool:
        """Whether the site that serves answers, or at least no other does; it is left if not."""
        site = self._sites.serving
        if site is None or not self.has_choice or self._sites.is_best(site):
            return True
        self._sites.fail(site)
        return False

    def refresh(self) -> None:
        """Make new connections from here on: those that wait may be dead without knowing it."""
        for site in self._sites.all():
            site.close()

    def go_home(self, back: Callable[[], None]) -> None:
        """To be called between two pieces of work: see Sites."""
        self._sites.go_home(back)

    # --- requests

    def request(self, request: Request) -> Response:
        """Send and wait for the reply's head; raises Unreachable when no server answers."""
        rounds = self._tries.rounds if repeatable(request) else 1
        for attempt in range(1, rounds):
            try:
                reply = self._round(request)
            except Unreachable:
                wait = self._backoff(attempt)
            else:
                if reply.status not in BUSY:
                    return reply
                wait = self._asked(reply) or self._backoff(attempt)
                reply.close()
            self._pause(wait)
        return self._round(request)

    def close(self) -> None:
        """Drop all connections that wait."""
        for site in self._sites.all():
            site.close(for_good=True)

    def _add(self, urls: Iterable[str], *, learned: bool) -> None:
        addresses = [address_of(url) for url in urls]
        if self._wire.tls is None and any(address.secure for address in addresses):
            self._wire = msgspec.structs.replace(self._wire, tls=_tls(self._ca))
        self._sites.add(addresses, lambda: self._wire, learned=learned)

    def _round(self, request: Request) -> HttpResponse:
        """Every site once, from the one that serves on; where none can, the last one's word."""
        tried: list[Site] = []
        failures: list[str] = []
        said: HttpResponse | None = None
        while site := self._sites.choose(tried, failures):
            tried.append(site)
            try:
                reply = site.send(request, self._watch(site))
            except Unreachable as error:
                self._sites.fail(site)
                failures.append(str(error))
            else:
                if said is not None:
                    said.close()
                if self._is_final(request, site, reply):
                    self._sites.serve(site)
                    return reply
                said = reply
                if self.has_choice and (reply.status in _AWAY or _is_full(reply)):
                    self._sites.fail(site, _wait_of(reply) if _is_full(reply) else 0.0)
            if not repeatable(request):
                break
        return self._last_word(said, failures)

    def _watch(self, site: Site) -> Callable[[], bool] | None:
        """Who says whether to go on waiting for a silent site; nobody, if there is no other."""
        return (lambda: self._sites.is_best(site)) if self.has_choice else None

    def _is_final(self, request: Request, site: Site, reply: HttpResponse) -> bool:
        """Whether no other site is to be asked."""
        if reply.status == _UNAUTHORIZED and "Authorization" in request.headers:
            return site.address == address_of(self.issuer) or not self.has_choice
        return reply.status not in BUSY and not (self.has_choice and _is_full(reply))

    def _last_word(self, said: HttpResponse | None, failures: list[str]) -> HttpResponse:
        if said is None:
            raise Unreachable("; ".join(dict.fromkeys(failures)))
        if said.status == _UNAUTHORIZED and failures:
            # A token is good at every site: one that says no may not have heard of it yet.
            said.close()
            raise Unreachable(f"a site does not know this login; {'; '.join(failures)}")
        return said

    def _asked(self, reply: HttpResponse) -> float:
        """Seconds that the server asks us to wait, a little spread; 0 where it does not."""
        asked = min(_wait_of(reply), _LONGEST_WAIT)
        return asked and asked + self._random.uniform(0.0, 0.25)

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


def _wait_of(reply: HttpResponse) -> float:
    """Seconds after which the server may be asked again; 0 where it does not say."""
    return retry_after(reply) or 0.0


def _is_full(reply: HttpResponse) -> bool:
    """Whether the site has no room for anyone now; of a user's quota it says nothing of later."""
    return reply.status == _FULL and _wait_of(reply) > 0


def _tls(ca: str) -> ssl.SSLContext:
    """Certificates are always checked: against the system's authorities, or against `ca` alone."""
    return ssl.create_default_context(cafile=ca or None)
