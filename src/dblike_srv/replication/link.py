"""The steps of following another site, over HTTP."""

from __future__ import annotations

import contextlib
import hmac
import http.client
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec
import urllib3

from dblike_delta import messages as m
from dblike_delta.exchange import Exchange, Refused, Request, Unreachable
from dblike_srv.config import PLAIN, is_plain
from dblike_srv.replication import keys
from dblike_srv.replication.arrival import Entry, Fault, Piece
from dblike_srv.replication.messages import (
    Held,
    Hello,
    HelloReply,
    Opening,
    OpeningReply,
    Position,
    Positions,
    SharedPage,
    SiteState,
)
from dblike_srv.site import Site

_T = TypeVar("_T")

ROOT: Final = "/v1/peer"
_CONNECT: Final = 3.0
SILENCE: Final = 30.0
_LEAST: Final = 32 << 10
"""Seconds without a byte after which nothing more is waited for; bytes that have to come in as many
seconds, since one a second is no better than none."""
_PIECE: Final = 1 << 20


class Left(Fault):
    """The other site was told that we are no site of the cluster any more."""


class _Answer:
    """A reply of urllib3's as a response of the protocol's."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply
        self._ended = False
        self.status: int = reply.status
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in reply.headers.items()}

    def chunks(self) -> Iterator[bytes]:
        """The body; Unreachable where it is cut, or trickles."""
        since, came = time.monotonic(), 0
        try:
            while piece := self._reply.read1(_PIECE):
                came += len(piece)
                if time.monotonic() - since > SILENCE:
                    if came < _LEAST:
                        raise Unreachable("the reply comes too slowly")
                    since, came = time.monotonic(), 0
                yield piece
            self._ended = True
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise Unreachable(f"the reply was cut: {error}") from None

    def close(self) -> None:
        """Give the connection back, or drop it where the body was not read."""
        with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
            if self._ended:
                self._reply.release_conn()
            else:
                self._reply.close()


class SiteTransport:
    """Requests to one site.  Redirects are not followed, proxies of the environment not asked."""

    def __init__(self, url: str, *, silence: float = SILENCE) -> None:
        self.url = url.rstrip("/")
        timeout = urllib3.Timeout(connect=_CONNECT, read=silence)
        self._pool = urllib3.PoolManager(maxsize=4, timeout=timeout, retries=False)

    def request(self, request: Request) -> _Answer:
        """Send and wait for the reply's head; raises Unreachable."""
        body = request.body if isinstance(request.body, bytes | None) else b"".join(request.body)
        try:
            reply = self._pool.request(
                request.method,
                self.url + request.target,
                headers=dict(request.headers),
                body=body,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(_why(error)) from None
        return _Answer(reply)

    def close(self) -> None:
        """Drop all connections."""
        self._pool.clear()


def _why(error: BaseException) -> str:
    """In a few words, without the site, which whoever shows them names."""
    said: BaseException | None = error
    while said is not None:
        if isinstance(said, OSError) and said.strerror:
            return said.strerror
        said = said.__cause__ or said.__context__
    match error:
        case urllib3.exceptions.ReadTimeoutError():
            return "no answer in time"
        case urllib3.exceptions.ConnectTimeoutError():
            return f"no connection within {_CONNECT:g} seconds"
    return str(error)


class Link:
    """A session with another site.  Raises Unreachable, Refused, and Fault for what can't be."""

    def __init__(self, site: Site, url: str, transport: Any | None = None) -> None:
        self._site = site
        self.url = url
        self._transport = transport or SiteTransport(url)
        self._refused = transport is None and is_plain(url) and not site.config.replication.insecure
        self._exchange = Exchange(self._transport, agent="dblike-server", root=ROOT)
        self.peer: SiteState | None = None
        self.prompt = False

    @property
    def token(self) -> str:
        """The session's token."""
        return self._exchange.token

    def begin(self) -> str:
        """An id for what is asked from here on, which the other side's log has as well."""
        self._exchange.trace = self._site.random.bytes(8).hex()
        return self._exchange.trace

    def open(self, mine: SiteState) -> SiteState:
        """Prove to each other that both are of the cluster; who the other one is.

        A URL that others told is none of our config's, which would be refused.
        """
        if self._refused:
            raise Fault(f"{self.url} {PLAIN}")
        nonce = self._site.random.bytes(16)
        self._exchange.token = ""
        hello = self._post("hello", Hello(mine.id, nonce), HelloReply)
        proof = keys.site_proof(self._site, hello.site, mine.id, nonce)
        if not hmac.compare_digest(proof, hello.proof):
            raise Fault("it has another cluster key")
        if hello.protocol != m.PROTOCOL:
            raise Fault(f"it speaks protocol {hello.protocol}; this site speaks {m.PROTOCOL}")
        if hello.site == mine.id:
            raise Fault("it is this very site, or a copy of it")
        proof = keys.follower_proof(self._site, mine.id, hello.site, hello.nonce)
        reply = self._post("session", Opening(mine, hello.nonce, proof), OpeningReply)
        if reply.site.id != hello.site:
            raise Fault("it gave two different site ids")
        if reply.left:
            raise Left("this site left the cluster; `dblike-server join` brings it back")
        self._exchange.token = reply.token
        self.peer, self.prompt = reply.site, reply.prompt
        return reply.site

    def shared(self, since: int) -> SharedPage:
        """What changed of the rows that all sites share."""
        return self._get("shared", SharedPage, since=since)

    def all_shared(self) -> Iterator[SharedPage]:
        """All of the rows that all sites share."""
        since, more = 0, True
        while more:
            yield (page := self.shared(since))
            if page.more and page.upto <= since:
                raise Fault("changes of accounts that do not end")
            since, more = page.upto, page.more

    def positions(self) -> Iterator[Position]:
        """Where all folders stand there."""
        after, more = "", True
        while more:
            page = self._get("folders", Positions, after=after)
            yield from page.positions
            last = max((position.folder.hex() for position in page.positions), default="")
            if page.more and last <= after:
                raise Fault("a list of folders that does not end")
            after, more = last, page.more

    def journal(self, folder: bytes, cursor: str, limit: int) -> tuple[list[Entry], m.CursorMark]:
        """The versions beyond a cursor, and the cursor that covers them."""
        return self._exchange.journal(folder.hex(), cursor, limit=limit)

    def fetch(self, folder: bytes, wants: list[m.Want]) -> Iterator[Piece]:
        """Contents, as deltas against what is here."""
        return self._exchange.fetch(folder.hex(), wants)

    def report_damage(self, folder: bytes, hashes: list[bytes]) -> list[bytes]:
        """Say which contents came wrong; the answer is those that it found to be damaged."""
        return self._exchange.report_damage(folder.hex(), hashes)

    def held(self, said: Held) -> None:
        """Say what is held here, durably, or elsewhere."""
        self._exchange.tell(f"{ROOT}/held", said)

    def close(self) -> None:
        """End the session's connections."""
        self._transport.close()

    @property
    def clocks(self) -> str:
        """What is wrong with its clock or ours; empty where they agree by and large."""
        there = self._exchange.server_time
        apart = 0 if there is None else abs(there - self._site.clock.now_ms())
        days = apart // 86_400_000
        return f"its clock and ours are {days} days apart" if days else ""

    def _get(self, what: str, kind: type[_T], **query: Any) -> _T:
        return self._exchange.get(f"{ROOT}/{what}?{urlencode(query)}", kind)

    def _post(self, what: str, message: msgspec.Struct, kind: type[_T]) -> _T:
        try:
            return self._exchange.post(f"{ROOT}/{what}", message, kind)
        except Refused as refused:
            if refused.status in (401, 422, 426):
                raise Fault(str(refused)) from None
            raise
