"""Connections that say half of what they want, or nothing: nobody else waits for them."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from rig.servers import Server

PATIENCE = 60
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
MANY = 20


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


def health(server: Server) -> int:
    with urllib.request.urlopen(f"{server.url}/healthz", timeout=PATIENCE) as reply:
        return int(reply.status)


def test_who_says_half_of_a_head_keeps_nobody_out(server: Server) -> None:
    """Also on a connection that asked for something before; each ends after a while."""
    halves = (b"", REQUEST[:30], REQUEST[:-1], REQUEST + REQUEST[:30])
    slow = [connect(server, said) for said in halves for _ in range(MANY)]
    assert [health(server) for _ in range(3)] == [200] * 3
    for each in slow:
        while each.recv(1 << 16):
            pass
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
