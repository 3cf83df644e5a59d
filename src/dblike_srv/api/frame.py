"""What every request and every reply has: the protocol, the clock, an id, and a line in the log."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from typing import Final

from flask import Flask, Response, g, request

from dblike_delta.messages import (
    PROTOCOL,
    PROTOCOL_HEADER,
    TAKES_HEADER,
    TAKES_SOURCES,
    TIME_HEADER,
)
from dblike_srv.api.inbound import extra, site
from dblike_srv.api.problems import BadRequest, TooOld

ID_HEADER: Final = "X-Request-Id"
STALL: Final = 60.0
"""Seconds that a request's next bytes may take to come, or a reply's to be taken."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS: Final = {"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"}

log = logging.getLogger("dblike_srv.access")


def register(app: Flask) -> None:
    """Put the frame around every view."""
    app.before_request(begin)
    app.after_request(finish)


def begin() -> None:
    """Before a view: give the request an id, bound its silence, check its protocol."""
    g.started = time.perf_counter()
    given = request.headers.get(ID_HEADER, "")
    g.request_id = given if _ID.fullmatch(given) else os.urandom(8).hex()
    connection = request.environ.get("gunicorn.socket")
    if isinstance(connection, socket.socket):
        connection.settimeout(STALL)
    _check_protocol(request.headers.get(PROTOCOL_HEADER))


def _check_protocol(spoken: str | None) -> None:
    if spoken is None or spoken == str(PROTOCOL):
        return
    if not spoken.isascii() or not spoken.isdecimal():
        raise BadRequest("the protocol is a number", field=PROTOCOL_HEADER)
    raise TooOld(f"this server speaks protocol {PROTOCOL}", field=PROTOCOL_HEADER)


def finish(response: Response) -> Response:
    """After a view: the clock and the protocol go with every reply, errors included."""
    response.headers[TIME_HEADER] = str(site().clock.now_ms())
    response.headers[PROTOCOL_HEADER] = str(PROTOCOL)
    response.headers[TAKES_HEADER] = TAKES_SOURCES
    response.headers[ID_HEADER] = g.get("request_id", "-")
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    seconds = time.perf_counter() - g.get("started", time.perf_counter())
    _count(response, seconds)
    return response


def _count(response: Response, seconds: float) -> None:
    rule = request.url_rule.rule if request.url_rule else "none"
    method = request.method if request.method in _METHODS else "other"
    metrics = extra("metrics")
    metrics.request(rule, method, response.status_code, seconds)
    metrics.save(site().clock.monotonic())
    # What sites ask each other every other second is for whoever looks for it.
    level = (
        logging.DEBUG
        if rule.startswith("/v1/peer/") and response.status_code < 400
        else logging.INFO
    )
    log.log(
        level,
        "%s %s %d %.1f ms",
        method,
        rule,
        response.status_code,
        seconds * 1000,
        extra={"request_id": g.get("request_id", "-"), "status": response.status_code},
    )
