"""Transfers that take as long as a slow line takes, and commits that wait for another site: nobody
else waits for them."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from rig.servers import PASSWORD, Server

PATIENCE = 60
MANY = 40
"""More than `threads` of the config."""
LARGE = os.urandom(8 << 20)
BEGUN = LARGE[: 256 << 10]
"""Of an upload that lacks one byte."""
UPLOAD = "/v1/folders/home/uploads/" + 32 * "0"


class Client:
    """A user of a server, with connections of his own making."""

    def __init__(self, server: Server) -> None:
        self._server = server
        login = {"user": server.add_user(), "password": PASSWORD, "device": "laptop"}
        head = {"Content-Type": "application/json"}
        url = f"{server.url}/v1/login"
        asked = urllib.request.Request(url, json.dumps(login).encode(), head)
        with urllib.request.urlopen(asked, timeout=PATIENCE) as reply:
            self._token = json.loads(reply.read())["token"]

    def say(self, method: str, target: str, *lines: str) -> socket.socket:
        """A connection on which no more than a head was said; little of a reply fits into it."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(PATIENCE)
        place = urlsplit(self._server.url)
        made.connect((place.hostname, place.port))
        head = [f"{method} {target} HTTP/1.1", "Host: x", f"Authorization: Bearer {self._token}"]
        made.sendall("\r\n".join([*head, "Connection: close", *lines, "", ""]).encode())
        return made

    def begin(self, method: str, target: str, *lines: str) -> socket.socket:
        """A connection on which all but the last byte of a body was said."""
        made = self.say(method, target, f"Content-Length: {len(BEGUN) + 1}", *lines)
        made.sendall(BEGUN)
        return made

    def put(self, name: str, data: bytes) -> int:
        """Store a file; the status."""
        with self.say("PUT", path(name), f"Content-Length: {len(data)}") as made:
            made.sendall(data)
            return status(replies(made))


def end(begun: socket.socket) -> int:
    """Say the last byte; the status."""
    with begun:
        begun.sendall(b"x")
        return status(replies(begun))


def path(name: str) -> str:
    return f"/v1/folders/home/files/{name}"


def replies(connection: socket.socket) -> bytes:
    """All that comes until the server is done."""
    found = bytearray()
    while piece := connection.recv(1 << 20):
        found += piece
    return bytes(found)


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"), "--workers", "1")
    yield made
    made.stop()


def test_slow_downloads_keep_nobody_out(server: Server) -> None:
    slow, other = Client(server), Client(server)
    assert slow.put("large", LARGE) == 200
    taken = [slow.say("GET", path("large")) for _ in range(MANY)]
    begun = [each.recv(1) for each in taken]
    assert begun == [b"H"] * MANY, "also each of them, as far as it is taken"
    assert other.put("small", b"x") == 200
    for each in taken[1:]:
        each.close()
    assert replies(taken[0]).endswith(LARGE)
    taken[0].close()


def test_slow_uploads_keep_nobody_out(server: Server) -> None:
    slow, other = Client(server), Client(server)
    given = [slow.begin("PUT", path(f"large{number}")) for number in range(MANY)]
    assert other.put("small", b"x") == 200
    for each in given[1:]:
        each.close()
    assert end(given[0]) == 200


def test_who_waits_for_a_slow_upload_does_not_keep_it_from_its_end(server: Server) -> None:
    """One of them has the upload; it could not go on if all slots were those of the others."""
    slow, other = Client(server), Client(server)
    lines = "Content-Type: application/vnd.dblike.changeset", "Upload-Offset: 0"
    given = [slow.begin("PUT", UPLOAD, *lines, "Upload-Complete: ?0") for _ in range(MANY)]
    assert other.put("small", b"x") == 200
    with ThreadPoolExecutor(MANY) as pool:
        assert {422, 409} == set(pool.map(end, given)), "it is no changeset, and over for all"


def test_commits_that_wait_for_another_site_keep_nobody_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("server")
    wait = {"DBLIKE_REPLICATION_COPIES": "2", "DBLIKE_REPLICATION_WAIT_MS": f"{PATIENCE}000"}
    made = Server(directory, "--workers", "1", **wait)
    slow = Client(made)
    waiting = []
    for number in range(MANY):
        waiting.append(slow.say("PUT", path(f"{number}"), "Content-Length: 1"))
        waiting[-1].sendall(b"x")
    for number in range(MANY):
        with slow.say("GET", path(f"{number}")) as asked:
            assert status(replies(asked)) in (200, 404)
    for each in waiting:
        each.close()
    made.kill()
