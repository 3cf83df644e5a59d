"""What holds for every request: headers, problems, and what no view has to look after."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import http.client
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from flask import Flask
from flask.testing import FlaskClient
from gunicorn import util
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from dblike_delta.changeset import Body
from dblike_delta.commands import Copy, Literal
from dblike_delta.formats import whole_literal
from dblike_delta.messages import Problem, Want
from dblike_srv import gunicorn_conf  # noqa: F401 - it says how gunicorn sends
from dblike_srv.api import events, inbound
from dblike_srv.api.problems import PROBLEM_TYPE
from dblike_srv.app import create_app
from dblike_srv.hub_client import Session
from dblike_srv.logs import TextFormatter
from dblike_srv.site import Site
from dblike_srv.store.mem import MemoryStore
from rig.core_site import CoreSite
from srv.conftest import Server


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v1/time", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/v1/folders", 401),
        ("POST", "/v1/time", 405),
        ("TRACE", "/v1/time", 405),
        ("BREW", "/v1/time", 405),
        ("POST", "/v1/login", 415),
        ("HEAD", "/v1/time", 200),
        ("OPTIONS", "/v1/time", 200),
        ("GET", "/v1/folders//files//x", 404),
    ],
)
def test_every_reply_carries_the_clock_and_the_protocol(
    client: FlaskClient, method: str, target: str, status: int
) -> None:
    reply = client.open(target, method=method)
    assert reply.status_code == status
    assert int(reply.headers["X-DBLike-Time"]) > 1_700_000_000_000
    assert reply.headers["X-DBLike-Protocol"] == "1"
    assert reply.headers["X-Request-Id"]
    if status >= 400:
        assert reply.content_type == PROBLEM_TYPE
        assert msgspec.json.decode(reply.data, type=Problem).status == status


@pytest.mark.parametrize(
    ("spoken", "status"), [("1", 200), ("0", 426), ("2", 426), ("x", 400), ("-1", 400), ("", 400)]
)
def test_other_protocols_are_refused(client: FlaskClient, spoken: str, status: int) -> None:
    reply = client.get("/v1/time", headers={"X-DBLike-Protocol": spoken})
    assert reply.status_code == status


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, ""),
        (b"{", 400, ""),
        (b"[]", 422, ""),
        (b"null", 422, ""),
        (b"{}", 422, "user"),
        (b'{"user":"a"}', 422, "password"),
        (b'{"user":1,"password":"x"}', 422, "user"),
        (b'{"user":"a","password":"x","more":1}', 422, "more"),
        (b'{"user":"a","password":"x","device_id":"zz"}', 422, "device_id"),
        (b'{"user":"a","password":"x","device_id":"%s\\n"}' % (b"a" * 32), 422, "device_id"),
        (b'\xef\xbb\xbf{"user":"a","password":"x"}', 400, ""),
        (b'{"user":"\xff","password":"x"}', 400, ""),
        (b'{"user":"\\ud800","password":"x"}', 400, ""),
        (b"[" * 100_000, 413, ""),
        (b'{"user":' + b"[" * 10_000, 422, "user"),
        (b"NaN", 400, ""),
        ('{"user":"a"}'.encode("utf-16"), 400, ""),
    ],
)
def test_messages_that_are_none(client: FlaskClient, body: bytes, status: int, field: str) -> None:
    reply = client.post("/v1/login", data=body, headers={"Content-Type": "application/json"})
    problem = msgspec.json.decode(reply.data, type=Problem)
    assert (reply.status_code, problem.field) in ((status, field), (401, ""), (400, ""))
    assert "Traceback" not in reply.text


def test_a_request_id_is_kept_if_it_is_one(client: FlaskClient) -> None:
    kept = client.get("/v1/time", headers={"X-Request-Id": "abc-123"})
    assert kept.headers["X-Request-Id"] == "abc-123"
    other = client.get("/v1/time", headers={"X-Request-Id": "a b"})
    assert other.headers["X-Request-Id"] != "a b"


def test_a_view_that_fails_tells_nothing(app: Flask) -> None:
    @app.get("/fails")
    def fails() -> str:
        raise RuntimeError("secret")

    reply = app.test_client().get("/fails")
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert reply.json["title"] == "internal error"


def test_a_path_writes_no_line_of_the_log(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A line break in it would make one, of which nobody sees who wrote it."""

    @app.get("/fails/<raw:path>")
    def fails(path: str) -> str:
        raise RuntimeError(f"surprised by {len(path)} characters")

    assert app.test_client().get("/fails/x%0A2026-12-01 E fake%1b[2J").status_code == 500
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    lines = TextFormatter().format(record).splitlines()
    assert "/x\\n2026-12-01 E fake\\x1b[2J failed" in lines[0]
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "RuntimeError: surprised by 23 characters"


def test_a_full_disk_is_507(app: Flask) -> None:
    @app.get("/full")
    def full() -> str:
        raise OSError(28, "No space left on device")

    assert app.test_client().get("/full").status_code == 507


def test_metrics_count_requests(client: FlaskClient) -> None:
    client.get("/v1/time")
    text = client.get("/metrics").text
    assert 'dblike_requests_total{endpoint="/v1/time",method="GET",status="200"} 1' in text
    assert 'dblike_request_seconds_bucket{endpoint="/v1/time",method="GET",le="+Inf"} 1' in text
    assert "dblike_sockets 0" in text


def test_metrics_count_what_deltas_save(tmp_path: Path) -> None:
    core, old = CoreSite(tmp_path, MemoryStore()), os.urandom(50_000)
    app = create_app(core.site)
    core.laptop.put(b"a", old)
    core.laptop.edit(b"a", old, [Copy(0, len(old)), Literal(b"x" * 10)])
    text = app.test_client().get("/metrics").text
    assert 'dblike_versions_total{status="accepted"} 2' in text
    assert 'dblike_content_bytes_total{by="device"} 100010' in text
    assert 'dblike_literal_bytes_total{by="device"} 50010' in text
    assert "dblike_peer_ok" not in text


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),  # of one who listens at [::]
        ("::ffff:10.0.0.7", {}, 403),
        ("", {}, 200),  # a Unix socket's
        ("10.0.0.7", {}, 403),
        ("fe80::1%eth0", {}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 403),  # through a proxy: anybody
        ("127.0.0.1", {"Via": "1.1 cache"}, 403),
    ],
)
def test_metrics_are_for_the_machine_alone(
    client: FlaskClient, address: str, headers: dict[str, str], status: int
) -> None:
    reply = client.get("/metrics", headers=headers, environ_overrides={"REMOTE_ADDR": address})
    assert reply.status_code == status
    if status != 200:
        assert "metrics_token" in reply.json["detail"]
        assert "dblike_" not in reply.text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("Bearer a token of Prometheus", 200),
        ("Bearer another", 401),
        ("Bearer \xff", 401),
        ("", 401),
    ],
)
def test_metrics_for_whoever_has_the_token(tmp_path: Path, sent: str, status: int) -> None:
    site = CoreSite(tmp_path, MemoryStore(), metrics_token="a token of Prometheus").site
    client = create_app(site).test_client()
    reply = client.get("/metrics", headers={"Authorization": sent} if sent else {})
    assert reply.status_code == status


def test_not_ready_without_its_database(client: FlaskClient, site: Site) -> None:
    site.database.transact(lambda connection: connection.exec_driver_sql("DROP TABLE meta"))
    reply = client.get("/readyz")
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert client.get("/healthz").status_code == 200


def test_a_socket_that_can_not_be_taken_over_is_closed(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handshake is done: a proxy would take what follows for the socket's, requests too."""

    def fail(_: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(events, "leave", fail)
    ours, theirs = socket.socketpair()
    theirs.settimeout(1)
    with ours, theirs:
        with app.test_request_context("/v1/events"), pytest.raises(OSError, match="open files"):
            events.hand_over(SimpleNamespace(sock=ours), Session(1, b"d", b"t"))
        assert theirs.recv(1) == b""


def test_an_event_socket_is_no_page(client: FlaskClient) -> None:
    assert client.get("/v1/events").status_code == 400


@pytest.mark.parametrize(
    ("proxies", "near", "told", "found"),
    [
        ((), "192.0.2.1", "198.51.100.7", "192.0.2.1"),
        (("192.0.2.1",), "192.0.2.1", "198.51.100.7", "198.51.100.7"),
        (("192.0.2.1",), "192.0.2.1", "10.0.0.1, 198.51.100.7", "198.51.100.7"),
        (("192.0.2.0/24",), "192.0.2.1", "198.51.100.7, 192.0.2.9", "198.51.100.7"),
        (("192.0.2.0/24",), "192.0.2.1", "", "192.0.2.1"),
        (("192.0.2.0/24",), "192.0.2.1", "not an address", "not an address"),
        (("192.0.2.0/24",), "::ffff:192.0.2.1", "198.51.100.7", "198.51.100.7"),
        (("192.0.2.1",), "::ffff:192.0.2.1", "::1, ::ffff:192.0.2.1", "::1"),
        (("::ffff:192.0.2.1",), "::ffff:192.0.2.1", "198.51.100.7", "198.51.100.7"),
        (("::ffff:192.0.2.0/120",), "192.0.2.1", "198.51.100.7", "198.51.100.7"),
        (("2001:db8::/64",), "::ffff:192.0.2.1", "198.51.100.7", "::ffff:192.0.2.1"),
        (("unix", "192.0.2.1"), "192.0.2.1", "198.51.100.7", "198.51.100.7"),
        (("unix",), "", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_only_our_proxies_say_where_a_request_came_from(
    site: Site, proxies: tuple[str, ...], near: str, told: str, found: str
) -> None:
    config = msgspec.structs.replace(site.config, proxies=proxies)
    app = create_app(dataclasses.replace(site, config=config))
    environ = {"REMOTE_ADDR": near}
    with app.test_request_context(environ_base=environ, headers={"X-Forwarded-For": told}):
        assert inbound.address() == found


def test_bodies_are_read_whole_and_no_further(gunicorn_server: Server) -> None:
    """Two requests down one connection: the second begins where the first one's body ends."""
    token = gunicorn_server.exchange().token
    for size in (0, 1, 65_536, 65_537, 1 << 20, 5_000_001):
        body = os.urandom(size)
        head = f"Host: x\r\nAuthorization: Bearer {token}\r\nContent-Length:"
        put = f"PUT /v1/folders/home/files/f HTTP/1.1\r\n{head} {size}\r\n\r\n".encode()
        get = f"GET /v1/folders/home/files/f HTTP/1.1\r\n{head} 0\r\nConnection: close\r\n\r\n"
        received = talk(gunicorn_server, put + body + get.encode())
        assert received.count(b"HTTP/1.1 200 OK") == 2
        assert received.endswith(body)


def talk(server: Server, sent: bytes, *, end: bool = False) -> bytes:
    """All that the server says to these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(sent)
        if end:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                received += piece
    return received


def test_a_chunked_body_is_read_too(gunicorn_server: Server) -> None:
    exchange = gunicorn_server.exchange()
    connection = http.client.HTTPConnection("127.0.0.1", gunicorn_server.port, timeout=30)
    headers = {"Authorization": f"Bearer {exchange.token}"}
    pieces = [os.urandom(300_000) for _ in range(5)]
    with contextlib.closing(connection):
        target = "/v1/folders/home/files/f"
        connection.request("PUT", target, iter(pieces), headers, encode_chunked=True)
        reply = connection.getresponse()
        assert (reply.status, reply.read() != b"") == (200, True)
    assert b"".join(exchange.read(target)) == b"".join(pieces)


@pytest.mark.parametrize("chunked", [False, True])
def test_who_takes_a_reply_slowly_gets_all_of_it(chunked: bool) -> None:
    """The patience is for silence, however large a piece is."""
    ours, theirs = socket.socketpair()
    data, taken = os.urandom(600_000), bytearray()

    def take() -> None:
        while more := theirs.recv(30_000):
            taken.extend(more)
            time.sleep(0.05)

    with ours, theirs:
        reader = threading.Thread(target=take)
        reader.start()
        ours.settimeout(0.4)
        util.write(ours, data, chunked)
        ours.shutdown(socket.SHUT_WR)
        reader.join()
    assert data in taken


def test_who_takes_nothing_of_a_reply_is_let_go() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.1)
        with pytest.raises(TimeoutError):
            util.write(ours, bytes(1 << 20))


@pytest.mark.parametrize("size", [100, 600_000, 3 << 20, 5_000_001])
def test_large_replies_come_whole_in_chunks(gunicorn_server: Server, size: int) -> None:
    exchange = gunicorn_server.exchange()
    content = os.urandom(size)
    token = f"Authorization: Bearer {exchange.token}\r\nContent-Length: {size}\r\n"
    put = f"PUT /v1/folders/home/files/f HTTP/1.1\r\nHost: x\r\n{token}Connection: close\r\n\r\n"
    assert b" 20" in talk(gunicorn_server, put.encode() + content)
    [record] = exchange.changes("home").records
    events = exchange.fetch("home", [Want(record.device, record.counter)])
    body = b"".join(bytes(event.data) for event in events if isinstance(event, Body))
    assert whole_literal(memoryview(body)) == content


@pytest.mark.parametrize(
    "head", [b"Content-Length: 100", b"Transfer-Encoding: chunked"], ids=["length", "chunked"]
)
def test_a_login_that_trickles_is_cut(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    """Whoever does not log in does not keep a thread."""
    monkeypatch.setattr(inbound, "PATIENCE", 0.01)
    monkeypatch.setattr(inbound, "LEAST_RATE", 1 << 30)
    there, here = socket.socketpair()
    with there, here:
        here.settimeout(20)
        there.sendall(b"POST /v1/login HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n1")
        request = next(RequestParser(Config(), here, ("127.0.0.1", 1)))
        environ = {
            "gunicorn.socket": here,
            "wsgi.input": request.body,
            "wsgi.input_terminated": True,
            "CONTENT_LENGTH": "" if b"chunked" in head else "100",
        }
        reply = client.post("/v1/login", content_type="application/json", environ_overrides=environ)
        assert reply.status_code == 408


MALFORMED = (
    b"Content-Length: 100\r\n\r\nshort",
    b"Content-Length: 200000\r\n\r\n" + bytes(100_000),
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",
    b"Transfer-Encoding: xchunked\r\n\r\n5\r\nhello",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"Content-Length: -5\r\n\r\nhello",
)


def test_a_body_that_is_cut_or_malformed_changes_nothing(gunicorn_server: Server) -> None:
    exchange = gunicorn_server.exchange()
    head = b"PUT /v1/folders/home/files/f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
    for sent in MALFORMED:
        request = head + exchange.token.encode() + b"\r\n" + sent
        received = talk(gunicorn_server, request, end=True)
        first = received.split(b"\r\n")[0]
        assert not received or b" 40" in first or b" 501" in first, sent
        assert received.count(b"HTTP/1.1") <= 1, sent
    assert exchange.changes("home").records == ()
