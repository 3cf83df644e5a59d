"""A transport to a WSGI application in the same process; bodies stream in both directions."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from dblike_delta.changeset import Part
from dblike_delta.exchange import Request, Unreachable

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class WsgiTransport:
    """Carries requests to `app` as if they came from `address`."""

    def __init__(self, app: WsgiApp, *, address: str = "127.0.0.1") -> None:
        self._app = app
        self._address = address

    def request(self, request: Request) -> WsgiResponse:
        """Call the application; its reply's body is made as it is read."""
        return WsgiResponse(self._app, self._environ(request))

    def _environ(self, request: Request) -> dict[str, Any]:
        path, _, query = request.target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "RAW_URI": request.target,
            "QUERY_STRING": query,
            "SERVER_NAME": "site",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "site",
            "REMOTE_ADDR": self._address,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.input": io.BufferedReader(_Input(request.body), 64 << 10),
        }
        for name, value in request.headers.items():
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        if request.length is not None:
            environ["CONTENT_LENGTH"] = str(request.length)
        return environ


class _Input(io.RawIOBase):
    """A request's body: its parts are asked for when they are read."""

    def __init__(self, body: bytes | Iterable[Part] | None) -> None:
        self._parts = iter([body] if isinstance(body, bytes) else body or [])
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._held = memoryview(part).cast("B")
        size = min(len(buffer), len(self._held))
        buffer[:size] = self._held[:size]
        self._held = self._held[size:]
        return size


class WsgiResponse:
    """The application's reply."""

    def __init__(self, app: WsgiApp, environ: dict[str, Any]) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._body = app(environ, self._start)
        self._pieces = iter(self._body)
        self._first: bytes | None = None
        if not self.status:  # an application may begin with its first piece only
            self._first = next(self._pieces, None)

    def _start(self, status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
        self.status = int(status.split(maxsplit=1)[0])
        self.headers = {name.lower(): value for name, value in headers}

    def chunks(self) -> Iterator[bytes]:
        """The body; an application that fails half-way is a connection that was cut."""
        if self._first is not None:
            yield self._first
        try:
            yield from self._pieces
        except Exception as error:
            raise Unreachable(f"the reply was cut short: {error!r}") from error

    def close(self) -> None:
        """Let the application go."""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
