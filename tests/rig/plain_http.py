"""The simplest transport to a real server: one connection a request, nothing is tried again."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from dblike_delta.exchange import Request, Unreachable


class PlainTransport:
    """Carries requests to the server at `url`."""

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        self._netloc = urlsplit(url).netloc
        self._timeout = timeout

    def request(self, request: Request) -> PlainResponse:
        """Send and wait for the reply's head."""
        connection = http.client.HTTPConnection(self._netloc, timeout=self._timeout)
        headers = dict(request.headers)
        if request.length is not None:
            headers["Content-Length"] = str(request.length)
        try:
            connection.request(request.method, request.target, request.body, headers)
            return PlainResponse(connection, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(str(error)) from error


class PlainResponse:
    """A reply; its connection ends with it."""

    def __init__(
        self, connection: http.client.HTTPConnection, reply: http.client.HTTPResponse
    ) -> None:
        self._connection = connection
        self._reply = reply
        self.status = reply.status
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in reply.getheaders()
        }

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces."""
        try:
            while piece := self._reply.read1(1 << 20):
                yield piece
            if self._reply.length:
                raise Unreachable("the reply was cut short")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(str(error)) from error

    def close(self) -> None:
        """Drop the connection."""
        self._reply.close()
        self._connection.close()
