"""Connections that say half of what they want, or nothing: nobody else waits for them."""

from __future__ import annotations

import select
import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from rig.servers import Server

PATIENCE = 60
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LOGIN = b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"user": "nobody", "password": "x", "device": "laptop"}'
HALF = b"Content-Length: 99\r\n\r\n{"
MANY = 20
CROWD = 200
"""So many that each of them takes a part of a second of PATIENCE at most."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"), "--workers", "1")
    yield made
    made.stop()


def connect(server: Server, said: bytes) -> socket.socket:
    made = socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port))
    made.settimeout(PATIENCE)
    made.sendall(said)
    return made


def replies(connection: socket.socket) -> bytes:
    """All that comes until the server is done."""
    found = b""
    while piece := connection.recv(1 << 16):
        found += piece
    return found


def health(server: Server) -> int:
    with urllib.request.urlopen(f"{server.url}/healthz", timeout=PATIENCE) as reply:
        return int(reply.status)


def test_who_says_half_of_a_head_keeps_nobody_out(server: Server) -> None:
    """Also on a connection that asked for something before; each ends after a while, and so does
    one with half of a small body."""
    halves = (b"", REQUEST[:30], REQUEST[:-1], REQUEST + REQUEST[:30], LOGIN + HALF)
    slow = [connect(server, said) for said in halves for _ in range(MANY)]
    assert [health(server) for _ in range(3)] == [200] * 3
    said = [replies(each) for each in slow]
    assert [reply[:12] for reply in said[-MANY:]] == [b"HTTP/1.1 408"] * MANY
    for each in slow:
        each.close()


def test_a_head_may_come_in_pieces(server: Server) -> None:
    slow = connect(server, REQUEST[:10])
    assert health(server) == 200
    slow.sendall(REQUEST[10:-2])
    assert health(server) == 200
    slow.sendall(REQUEST[-2:] + REQUEST)
    replies = b""
    while replies.count(b'{"status":"ok"}') < 2:
        replies += slow.recv(1 << 16)
    slow.close()


def test_a_head_without_an_end_is_refused(server: Server) -> None:
    endless = connect(server, REQUEST[:-2])
    endless.sendall(b"X: " + b"x" * (70 << 10))
    assert endless.recv(1 << 16).startswith(b"HTTP/1.1 431")
    endless.close()


@pytest.mark.parametrize("length", [b"Content-Length: 16384", b"content-length:\t000099 "])
def test_who_says_half_of_a_small_body_keeps_nobody_out(server: Server, length: bytes) -> None:
    slow = [connect(server, LOGIN + length + b"\r\n\r\n{") for _ in range(MANY)]
    assert [health(server) for _ in range(3)] == [200] * 3
    assert not select.select(slow, [], [], 0)[0]  # none of them was cut to make room
    for each in slow:
        each.shutdown(socket.SHUT_WR)
        assert replies(each).startswith(b"HTTP/1.1 400")
        each.close()


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked", b"Expect: 100-continue"])
def test_a_login_comes_whole(server: Server, head: bytes) -> None:
    """What can't be told to be whole would be waited for by a thread."""
    length = b"" if head.startswith(b"T") else b"Content-Length: %d\r\n" % len(BODY)
    slow = [connect(server, LOGIN + length + head + b"\r\n\r\n") for _ in range(MANY)]
    assert [health(server) for _ in range(3)] == [200] * 3
    for each in slow:
        assert b"HTTP/1.1 400" in replies(each)
        each.close()


def test_a_small_body_may_come_in_pieces(server: Server) -> None:
    slow = connect(server, LOGIN + b"Connection: close\r\nContent-Length: %d\r\n" % len(BODY))
    assert health(server) == 200
    for piece in (b"\r", b"\n", BODY[:1], BODY[1:-1]):
        slow.sendall(piece)
        assert health(server) == 200
    slow.sendall(BODY[-1:])
    assert replies(slow).startswith(b"HTTP/1.1 401")
    slow.close()


@pytest.mark.parametrize("size", [0, 1, 16 << 10, (16 << 10) + 1, 100_000])
def test_a_body_that_nobody_wants_keeps_no_thread(server: Server, size: int) -> None:
    """Also where it is as small as those that are waited for, and comes with the next request."""
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    slow = [connect(server, head + b"x" * (size // 2)) for _ in range(CROWD)]
    assert [health(server) for _ in range(3)] == [200] * 3
    for each in slow:
        each.close()
    whole = connect(server, head + b"x" * size)
    if size <= 16 << 10:
        whole.sendall(REQUEST)
        found = b""
        while found.count(b'{"status":"ok"}') < 2:
            found += whole.recv(1 << 16)
    whole.close()


def test_who_does_not_hang_up_keeps_nobody_waiting(server: Server) -> None:
    slow = [connect(server, REQUEST[:-2] + b"Connection: close\r\n\r\n") for _ in range(CROWD)]
    for each in slow:
        assert replies(each).endswith(b'{"status":"ok"}')
    assert [health(server) for _ in range(3)] == [200] * 3
    for each in slow:
        each.close()
