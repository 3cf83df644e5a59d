"""A small S3: objects in a dictionary behind a real HTTP server, with the verbs that we use."""

from __future__ import annotations

import atexit
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from dblike_srv.store.s3 import S3Store
from rig.core_site import SeededRandom

PAGE = 2  # objects in a list: small, so that every list has several pages


class Handler(BaseHTTPRequestHandler):
    """One request; the objects are the server's."""

    protocol_version = "HTTP/1.1"
    server: Objects

    def do_PUT(self) -> None:
        body = self._body()
        key = urlsplit(self.path).path
        with self.server.lock:
            if self.headers.get("If-None-Match") == "*" and key in self.server.objects:
                return self._error(412, "PreconditionFailed")
            self.server.objects[key] = body
        return self._answer(200, b"", {"ETag": '"none"'})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if "list-type=2" in parts.query:
            return self._list(parts.path, parse_qs(parts.query))
        data = self.server.objects.get(parts.path)
        if data is None:
            return self._error(404, "NoSuchKey")
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        if int(first) >= len(data):
            return self._error(416, "InvalidRange")
        return self._answer(206, data[int(first) : int(last) + 1])

    def do_HEAD(self) -> None:
        data = self.server.objects.get(urlsplit(self.path).path)
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()

    def do_DELETE(self) -> None:
        self.server.objects.pop(urlsplit(self.path).path, None)
        self._answer(204, b"")

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        prefix = f"{bucket.rstrip('/')}/{query['prefix'][0]}"
        after = query.get("continuation-token", [""])[0]
        keys = sorted(k for k in self.server.objects if k.startswith(prefix) and k > after)
        page, more = keys[:PAGE], len(keys) > PAGE
        entries = "".join(
            f"<Contents><Key>{escape(key.split('/', 2)[2])}</Key></Contents>" for key in page
        )
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
        flag = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        text = f"<ListBucketResult>{flag}{token}{entries}</ListBucketResult>"
        self._answer(200, text.encode(), {"Content-Type": "application/xml"})

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: a test's output is its own."""


class Objects(ThreadingHTTPServer):
    """The server and its objects."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()


def s3_store(directory: Path) -> S3Store:
    """A store on a server of its own, which ends with the process."""
    server = Objects()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    atexit.register(server.server_close)
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing-secret-key")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    endpoint = f"http://127.0.0.1:{server.server_port}"
    return S3Store("s3://bucket/some/prefix", endpoint, directory / "tmp", SeededRandom())
