"""The description says what the server does: checked by a fuzzer that believes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
)

from dblike_delta.exchange import Exchange
from dblike_srv.openapi import describe

RAW = (
    "application/msgpack",
    "application/octet-stream",
    "application/vnd.dblike.changeset",
)


@schemathesis.serializer(*RAW)
def as_it_is(_: Any, value: Any) -> bytes:
    """Bodies that are bytes: whatever was made for them."""
    return value if isinstance(value, bytes) else str(value).encode()


CHECKS = (not_a_server_error, content_type_conformance, response_schema_conformance)


def test_every_route_is_described(app: Flask) -> None:
    described = json.loads(describe(app))["paths"]
    missing = [
        f"{verb} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for verb in (rule.methods or set()) - {"OPTIONS", "HEAD"}
        if not rule.websocket
        and verb.lower()
        not in described.get(
            rule.rule.replace("<raw:", "<").replace("<", "{").replace(">", "}"), {}
        )
    ]
    assert missing == []


def test_it_is_served_to_anyone(client: FlaskClient) -> None:
    served = client.get("/v1/openapi.json")
    document = served.json
    assert document["openapi"] == "3.1.0"
    assert "LoginRequest" in document["components"]["schemas"]
    assert document["paths"]["/v1/login"]["post"]["security"] == []
    assert all(verb["summary"] for path in document["paths"].values() for verb in path.values())


@pytest.mark.parametrize("logged_in", [True, False])
def test_nothing_that_is_described_makes_the_server_fail(
    app: Flask, exchange: Exchange, logged_in: bool
) -> None:
    """0 server errors, 0 breaks of the schema."""
    schema = schemathesis.openapi.from_wsgi("/v1/openapi.json", app)
    headers = {"Authorization": f"Bearer {exchange.token}"} if logged_in else {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path in ("/v1/logout", "/v1/password"):
            continue  # these would end the session that all others need

        @settings(
            max_examples=12 if logged_in else 3,
            deadline=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def run(case: Any) -> None:
            response = case.call(headers=headers)
            case.validate_response(response, checks=CHECKS)

        run()
