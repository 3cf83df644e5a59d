"""Idle devices: what it costs a server to hold their sockets, and whether it still answers.

Starts `dblike-server run` on a fresh directory, opens `--sockets` WebSockets from devices of their
own, and measures: the server's memory (proportional set size of all its processes) before and
after, its threads, REST latency while all sockets are held, and the time from a commit until the
first, the median and the last of its user's sockets have heard of it.

    python -m benchmarks.connections --sockets 2000
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil

from dblike_srv import accounts
from dblike_srv.configfile import create_config
from dblike_srv.site import open_site

PASSWORD: Final = "benchmark"
USERS: Final = 10
REQUESTS: Final = 300
ROUNDS: Final = 20


class Server:
    """A fresh server with its users."""

    def __init__(self, directory: Path, workers: int) -> None:
        site = open_site(create_config(None, directory))
        for number in range(USERS):
            accounts.create_user(site, f"user{number}", PASSWORD)
        site.close()
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "dblike_srv", "run", "--data", directory,
                "--bind", "127.0.0.1:0", "--workers", str(workers),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "DBLIKE_LIMITS": '{"sockets_per_user": 100000}'},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(b":")[2])

    def tree(self) -> list[psutil.Process]:
        """Its processes."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def memory(self) -> float:
        """Proportional set size of them all, in MiB."""
        return float(sum(each.memory_full_info().pss for each in self.tree())) / 2**20

    def threads(self) -> int:
        """Threads of them all."""
        return sum(each.num_threads() for each in self.tree())

    def cpu(self) -> float:
        """Seconds of CPU that they have used."""
        return float(sum(sum(each.cpu_times()[:2]) for each in self.tree()))


class Client:
    """One kept-alive connection."""

    def __init__(self, port: int, token: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def __call__(self, method: str, target: str, body: Any = None) -> Any:
        """A request and its JSON reply."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        self._connection.request(method, target, data, self._headers)
        reply = self._connection.getresponse()
        text = reply.read()
        if reply.status >= 300:
            raise SystemExit(f"{method} {target}: {reply.status} {text!r}")
        return json.loads(text) if text else None


def login(port: int, user: str) -> str:
    """A token."""
    reply = Client(port)("POST", "/v1/login", {"user": user, "password": PASSWORD})
    return str(reply["token"])


def connect(port: int, token: str) -> socket.socket:
    """A WebSocket after its handshake; what follows is left unread."""
    opened = socket.create_connection(("127.0.0.1", port), timeout=60)
    opened.sendall(
        f"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        piece = opened.recv(4096)
        if not piece:
            raise SystemExit(f"no handshake: {head!r}")
        head += piece
    if b" 101 " not in head.split(b"\r\n")[0]:
        raise SystemExit(f"no handshake: {head!r}")
    return opened


def latencies(client: Client, target: str) -> list[float]:
    """Milliseconds of each of many requests, one after the other."""
    taken = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        client("GET", target)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def drain(sockets: list[socket.socket]) -> None:
    """Read what is there already."""
    for each in sockets:
        each.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while each.recv(65536):
                pass


def notice_times(client: Client, sockets: list[socket.socket]) -> list[float]:
    """Milliseconds from before a PUT until each socket became readable."""
    drain(sockets)
    taken: list[float] = []
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ)
        began = time.perf_counter()
        client("PUT", "/v1/folders/home/files/f", os.urandom(100))
        while len(taken) < len(sockets):
            for key, _ in selector.select(10):
                taken.append((time.perf_counter() - began) * 1000)
                selector.unregister(key.fileobj)
    return sorted(taken)


def spread(values: list[float]) -> dict[str, float]:
    """Median and tail."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 3),
        "p95": round(ordered[int(len(ordered) * 0.95)], 3),
        "max": round(ordered[-1], 3),
    }


def measure(server: Server, count: int, settle: float) -> dict[str, Any]:
    """All figures."""
    owners = [login(server.port, f"user{number}") for number in range(USERS)]
    clients = [Client(server.port, token) for token in owners]
    before, quiet = server.memory(), latencies(clients[0], "/v1/folders")
    began, sockets = time.perf_counter(), []
    for number in range(count):
        token = clients[number % USERS]("POST", "/v1/devices", {"device": f"d{number}"})["token"]
        sockets.append(connect(server.port, token))
    opened = time.perf_counter() - began
    time.sleep(settle)
    cpu = server.cpu()
    time.sleep(10)
    cpu = (server.cpu() - cpu) / 10
    held = latencies(clients[0], "/v1/folders")
    mine = sockets[::USERS]
    rounds = [notice_times(clients[0], mine) for _ in range(ROUNDS)]
    return {
        "sockets": count,
        "opened_per_second": round(count / opened),
        "memory_mib": {"before": round(before, 1), "after": round(server.memory(), 1)},
        "threads": server.threads(),
        "idle_cpu_percent": round(cpu * 100, 2),
        "rest_ms": {"without": spread(quiet), "with": spread(held)},
        "notice_ms": {
            "sockets": len(mine),
            "first": spread([each[0] for each in rounds]),
            "last": spread([each[-1] for each in rounds]),
        },
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--settle", type=float, default=5.0, help="seconds before measuring")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = Server(Path(directory) / "data", options.workers)
        try:
            result = measure(server, options.sockets, options.settle)
        finally:
            server.process.terminate()
            server.process.wait(30)
            if server.process.stdout is not None:
                server.process.stdout.close()
    print(json.dumps({"benchmark": "connections", "workers": options.workers, **result}))


if __name__ == "__main__":
    main()
