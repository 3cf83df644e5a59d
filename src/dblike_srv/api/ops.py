"""Operations: time, health, metrics, and the description of the whole interface."""

from __future__ import annotations

import hmac

from flask import Blueprint, Response, current_app, request

from dblike_delta.messages import TimeReply
from dblike_srv.accounts import Forbidden, Unauthorized
from dblike_srv.addresses import parse_address
from dblike_srv.api.inbound import JSON_TYPE, bearer, extra, site
from dblike_srv.api.operation import operation
from dblike_srv.api.outbound import reply
from dblike_srv.errors import Busy
from dblike_srv.openapi import describe
from dblike_srv.readiness import check_ready
from dblike_srv.replication.sites import has_left_others
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
    """Whether the worker reaches its database and its store, and its site is one of its cluster:
    what is saved at one that left comes to no other."""
    broken = check_ready(site())
    if not broken and has_left_others(site()):
        broken = "this site left the cluster"
    if broken:
        raise Busy(broken, retry_after=5)
    return Response(b'{"status":"ready"}', content_type=JSON_TYPE)


@blueprint.get("/metrics")
@operation(gives="text/plain; version=0.0.4; charset=utf-8", public=True)
def metrics() -> Response:
    """Counters in Prometheus' text format.

    The bearer token is the config's `metrics_token`; where there is none, only the machine itself
    is answered: the counters name the other sites, and say how busy this one is.
    """
    _check_reader(site().config.metrics_token)
    counters = extra("metrics")
    counters.save(site().clock.monotonic(), force=True)
    text = counters.render() + "".join(peer_gauges(site()))
    return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")


_PROXIED = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Via")
"""A request with one of these came through a proxy of this machine, from anywhere."""


def _check_reader(token: str) -> None:
    if token:
        if not hmac.compare_digest(bearer().encode(), token.encode()):
            raise Unauthorized("not the config's metrics_token")
    elif not _is_loopback(request.remote_addr) or any(map(request.headers.get, _PROXIED)):
        raise Forbidden("only the server's own machine may read this: set metrics_token for others")


def _is_loopback(address: str | None) -> bool:
    """Whether it is this machine's; a Unix socket has none."""
    parsed = parse_address(address or "")
    return not address or (parsed is not None and parsed.is_loopback)


@blueprint.get("/v1/openapi.json")
@operation(gives=JSON_TYPE, public=True)
def openapi() -> Response:
    """The interface, as OpenAPI 3.1."""
    return Response(describe(current_app), content_type=JSON_TYPE)
