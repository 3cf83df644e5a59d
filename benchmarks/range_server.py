"""A folder over HTTP with several ranges in one reply, as zsync asks for them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_BOUNDARY = "ranges-end-here"


class RangeServer(ThreadingHTTPServer):
    """Counts the bytes of the bodies that it sent."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.sent = folder, 0

    def url(self, name: str) -> str:
        """Where a file of the folder is."""
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_GET(self) -> None:
        path = self.server.folder / Path(self.path).name
        size = path.stat().st_size
        asked = re.findall(r"(\d+)-(\d*)", self.headers.get("Range", ""))
        spans = [(int(first), min(int(last or size), size - 1)) for first, last in asked]
        parts = list(_parts(path, size, spans)) if spans else [path.read_bytes()]
        self.send_response(HTTPStatus.PARTIAL_CONTENT if spans else HTTPStatus.OK)
        if len(spans) > 1:
            self.send_header("Content-Type", f"multipart/byteranges; boundary={_BOUNDARY}")
        elif spans:
            self.send_header("Content-Range", f"bytes {spans[0][0]}-{spans[0][1]}/{size}")
        self.send_header("Content-Length", str(sum(map(len, parts))))
        self.end_headers()
        for part in parts:
            self.wfile.write(part)
            self.server.sent += len(part)

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002
        """Say nothing."""


def _parts(path: Path, size: int, spans: list[tuple[int, int]]) -> Iterator[bytes]:
    with path.open("rb") as file:
        for first, last in spans:
            if len(spans) > 1:
                head = f"\r\n--{_BOUNDARY}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
                yield head.encode()
            file.seek(first)
            yield file.read(last - first + 1)
    if len(spans) > 1:
        yield f"\r\n--{_BOUNDARY}--\r\n".encode()


@contextmanager
def serving(folder: Path) -> Iterator[RangeServer]:
    """A server of this folder, in a thread."""
    with RangeServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
