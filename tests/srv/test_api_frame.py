"""What holds for every request: headers, problems, and what no view has to look after."""

from __future__ import annotations

import msgspec
import pytest
from flask import Flask
from flask.testing import FlaskClient

from dblike_delta.messages import Problem
from dblike_srv.api.problems import PROBLEM_TYPE
from dblike_srv.site import Site


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


def test_not_ready_without_its_database(client: FlaskClient, site: Site) -> None:
    site.database.transact(lambda connection: connection.exec_driver_sql("DROP TABLE meta"))
    reply = client.get("/readyz")
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert client.get("/healthz").status_code == 200


def test_an_event_socket_is_no_page(client: FlaskClient) -> None:
    assert client.get("/v1/events").status_code == 400
