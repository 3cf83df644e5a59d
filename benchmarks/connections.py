"""Idle devices: what it costs a server to hold their sockets, and whether it still answers.

Starts `dblike-server run` on a fresh directory, opens `--sockets` WebSockets from devices of their
own, and measures: the server's memory (proportional set size of all its processes) before and
after, its threads, REST latency while all sockets are held, and the time from a commit until the
first and the last of its user's sockets have heard of it; then the same
for every socket while `--rate` commits a second go on, each of the next user.

    python -m benchmarks.connections --sockets 2000
    python -m benchmarks.connections --sockets 10000 --users 1000
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import psutil

from dblike_srv import accounts
from dblike_srv.configfile import create_config
from dblike_srv.site import open_site

PASSWORD: Final = "benchmark"
COMMITTERS: Final = 4
SECONDS: Final = 20
REQUESTS: Final = 300
ROUNDS: Final = 20
PING: Final = 9
PONG: Final = b"\x8a\x80\0\0\0\0"


class Server:
    """A fresh server with its users."""

    def __init__(self, directory: Path, workers: int, users: int) -> None:
        site = open_site(create_config(None, directory))
        for number in range(users):
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

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __call__(self, method: str, target: str, token: str = "", body: Any = None) -> Any:
        """A request and its JSON reply."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._connection.request(method, target, data, headers)
        reply = self._connection.getresponse()
        text = reply.read()
        if reply.status >= 300:
            raise SystemExit(f"{method} {target}: {reply.status} {text!r}")
        return json.loads(text) if text else None


def login(client: Client, user: str) -> str:
    """A token."""
    reply = client("POST", "/v1/login", body={"user": user, "password": PASSWORD})
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


def latencies(client: Client, target: str, token: str) -> list[float]:
    """Milliseconds of each of many requests, one after the other."""
    taken = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        client("GET", target, token)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


class Listeners:
    """All sockets, each read as soon as something is there: pings are answered, notices told."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.notices = SimpleQueue[tuple[int, float]]()
        self.lost = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def add(self, opened: socket.socket, number: int) -> None:
        """One more; its notices come under this number."""
        opened.setblocking(False)
        self._selector.register(opened, selectors.EVENT_READ, number)

    def clear(self) -> None:
        """Forget what came so far."""
        while not self.notices.empty():
            self.notices.get()

    def _listen(self) -> None:
        while True:
            for key, _ in self._selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(65536)
                if not data:
                    self.lost += 1
                    self._selector.unregister(key.fileobj)
                elif data[0] & 15 == PING:
                    key.fileobj.send(PONG)
                else:
                    self.notices.put((key.data, time.perf_counter()))


class Commits:
    """Commits, each of the next user, and how long until each socket of that user has heard.

    Socket n is one of user `n % len(tokens)`.
    """

    def __init__(self, port: int, tokens: list[str], listeners: Listeners, sockets: int) -> None:
        self._tokens, self._listeners, self._sockets = tokens, listeners, sockets
        self._began = [math.inf] * len(tokens)
        self._idle = SimpleQueue[Client]()
        for _ in range(COMMITTERS):
            self._idle.put(Client(port))

    def once(self, user: int) -> list[float]:
        """One commit: milliseconds from before it until each socket has heard, in order."""
        self._listeners.clear()
        self._put(user)
        return self._heard(range(user, self._sockets, len(self._tokens)))

    def steadily(self, rate: int, seconds: int) -> list[float]:
        """So many a second for so long: the same of all sockets."""
        self._listeners.clear()
        due = min(rate * seconds, len(self._tokens))
        with ThreadPoolExecutor(COMMITTERS) as pool:
            began = time.perf_counter()
            for user in range(due):
                time.sleep(max(0.0, began + user / rate - time.perf_counter()))
                pool.submit(self._put, user)
        return self._heard(n for n in range(self._sockets) if n % len(self._tokens) < due)

    def _put(self, user: int) -> None:
        client = self._idle.get()
        self._began[user] = time.perf_counter()
        client("PUT", "/v1/folders/home/files/f", self._tokens[user], os.urandom(4096))
        self._idle.put(client)

    def _heard(self, sockets: Iterable[int]) -> list[float]:
        waiting, heard = set(sockets), []
        while waiting:
            number, at = self._listeners.notices.get(timeout=10)
            took = at - self._began[number % len(self._tokens)]
            if took > 0 and number in waiting:
                waiting.remove(number)
                heard.append(took * 1000)
        return heard


def spread(values: list[float]) -> dict[str, float]:
    """Median and tail."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 3),
        "p95": round(ordered[int(len(ordered) * 0.95)], 3),
        "max": round(ordered[-1], 3),
    }


def measure(server: Server, count: int, users: int, settle: float, rate: int) -> dict[str, Any]:
    """All figures."""
    client, listeners = Client(server.port), Listeners()
    owners = [login(client, f"user{number}") for number in range(users)]
    before, quiet = server.memory(), latencies(client, "/v1/folders", owners[0])
    began = time.perf_counter()
    for number in range(count):
        owner = owners[number % users]
        device = client("POST", "/v1/devices", owner, {"device": f"d{number}"})
        listeners.add(connect(server.port, device["token"]), number)
    opened = time.perf_counter() - began
    time.sleep(settle)
    cpu = server.cpu()
    time.sleep(10)
    cpu = (server.cpu() - cpu) / 10
    held = latencies(Client(server.port), "/v1/folders", owners[0])
    commits = Commits(server.port, owners, listeners, count)
    rounds = [commits.once(0) for _ in range(ROUNDS)]
    steady = {"commits_per_second": rate, "notice_ms": spread(commits.steadily(rate, SECONDS))}
    return {
        "sockets": count,
        "users": users,
        "lost": listeners.lost,
        "opened_per_second": round(count / opened),
        "memory_mib": {"before": round(before, 1), "after": round(server.memory(), 1)},
        "threads": server.threads(),
        "idle_cpu_percent": round(cpu * 100, 2),
        "rest_ms": {"without": spread(quiet), "with": spread(held)},
        "notice_ms": {
            "sockets": len(rounds[0]),
            "first": spread([each[0] for each in rounds]),
            "last": spread([each[-1] for each in rounds]),
        },
        "steady": steady,
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=2000)
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--rate", type=int, default=50, help="commits a second, at last")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--settle", type=float, default=5.0, help="seconds before measuring")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = Server(Path(directory) / "data", options.workers, options.users)
        try:
            result = measure(server, options.sockets, options.users, options.settle, options.rate)
        finally:
            server.process.terminate()
            server.process.wait(30)
            if server.process.stdout is not None:
                server.process.stdout.close()
    print(json.dumps({"benchmark": "connections", "workers": options.workers, **result}))


if __name__ == "__main__":
    main()
