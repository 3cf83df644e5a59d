"""Operations: time, health, metrics, and the description of the whole interface."""

from __future__ import annotations

from flask import Blueprint, Response, current_app

from dblike_delta.messages import TimeReply
from dblike_srv.api.inbound import JSON_TYPE, extra, site
from dblike_srv.api.operation import operation
from dblike_srv.api.outbound import reply
from dblike_srv.errors import Busy
from dblike_srv.openapi import describe
from dblike_srv.readiness import check_ready
from dblike_srv.status import peer_gauges

blueprint = Blueprint("ops", __name__)


@blueprint.get("/v1/time")
@operation(gives=TimeReply, public=True)
def time() -> Response:
    """The site's clock in epoch milliseconds."""
    return reply(TimeReply(site().clock.now_ms()))


@blueprint.get("/healthz")
@operation(gives=JSON_TYPE, public=True)
def healthz() -> Response:
    """Whether the worker answers."""
    return Response(b'{"status":"ok"}', content_type=JSON_TYPE)


@blueprint.get("/readyz")
@operation(gives=JSON_TYPE, public=True)
def readyz() -> Response:
    """Whether the worker reaches its database and its store."""
    broken = check_ready(site())
    if broken:
        raise Busy(broken, retry_after=5)
    return Response(b'{"status":"ready"}', content_type=JSON_TYPE)


@blueprint.get("/metrics")
@operation(gives="text/plain; version=0.0.4; charset=utf-8", public=True)
def metrics() -> Response:
    """Counters in Prometheus' text format."""
    counters = extra("metrics")
    counters.save(site().clock.monotonic(), force=True)
    text = counters.render() + "".join(peer_gauges(site()))
    return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")


@blueprint.get("/v1/openapi.json")
@operation(gives=JSON_TYPE, public=True)
def openapi() -> Response:
    """The interface, as OpenAPI 3.1."""
    return Response(describe(current_app), content_type=JSON_TYPE)
