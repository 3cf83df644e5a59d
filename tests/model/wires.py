"""Requests on their way through a world's networks, which may be cut and may lose what they carry.

`fault(number)` says what goes wrong with each request of a wire.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from dblike_delta.exchange import Request, Response, Unreachable
from model.sim import Crash, SiteCrash
from model.site import SimSite
from rig.wsgi import WsgiTransport


class Away(Unreachable):
    """Nothing was sent."""


class Network:
    """Who can reach which site: everyone every one, but for what is cut."""

    def __init__(self, sites: Mapping[str, SimSite]) -> None:
        self._sites = sites
        self.cut: set[tuple[str, str]] = set()

    def ask(self, who: str, name: str, request: Request) -> Response:
        """The reply of a site; a site that dies of the request is there again for the next one."""
        if (who, name) in self.cut:
            raise Away(f"{who} does not reach {name}")
        site = self._sites[name]
        try:
            return WsgiTransport(site.app).request(request)
        except SiteCrash:
            site.restart()
            raise Unreachable(f"{name} has died") from None


class Wire:
    """What one party sends to the first of some sites that it reaches.

    A request that was not sent goes to the next one.  Where the reply was lost nobody knows what
    became of it: that is the caller's to ask about, at the next site.
    """

    def __init__(self, network: Network, who: str, names: Sequence[str]) -> None:
        self._network, self._who = network, who
        self.names = list(names)
        self.requests = 0
        self.fault: Callable[[int], str] = lambda _: ""

    @property
    def serving(self) -> str:
        """The site that is asked first."""
        return self.names[0]

    def move(self) -> None:
        """Go on at the next site."""
        self.names.append(self.names.pop(0))

    def request(self, request: Request) -> Response:
        self.requests += 1
        body = request.body
        if body is not None and not isinstance(body, bytes):
            body = b"".join(body)
        request = Request(request.method, request.target, request.headers, body, request.length)
        match self.fault(self.requests):
            case "crash before":
                raise Crash
            case "unreachable":
                self.move()
                raise Unreachable("the network is away")
            case "lost reply":
                self._drain(request)
                self.move()
                raise Unreachable("the reply was lost")
            case "elsewhere":
                self._drain(request)
                self.move()
            case "crash after":
                self._drain(request)
                raise Crash
            case "twice":
                self._drain(request)
            case "cut":
                return _Cut(self._send(request))
            case "page":
                return _Page()
        return self._send(request)

    def _send(self, request: Request) -> Response:
        for _ in self.names:
            try:
                return self._network.ask(self._who, self.serving, request)
            except Away:
                self.move()
            except Unreachable:
                self.move()
                raise
        raise Away("no site can be reached")

    def _drain(self, request: Request) -> None:
        response = self._send(request)
        with contextlib.closing(response):
            for _ in response.chunks():
                pass

    def close(self) -> None:
        """Nothing is kept open."""


class _Cut:
    """A reply of which only the first half of the first piece arrives."""

    def __init__(self, inner: Response) -> None:
        self._inner = inner
        self.status, self.headers = inner.status, inner.headers

    def chunks(self) -> Iterator[bytes]:
        for chunk in self._inner.chunks():
            yield bytes(chunk[: len(chunk) // 2])
            break
        raise Unreachable("the reply was cut")

    def close(self) -> None:
        self._inner.close()


class _Page:
    """What a hotel's network answers in place of the site."""

    def __init__(self) -> None:
        self.status = 200
        self.headers = {"content-type": "text/html"}

    def chunks(self) -> Iterator[bytes]:
        yield b"<html>please log in</html>"

    def close(self) -> None:
        """Nothing to let go of."""
