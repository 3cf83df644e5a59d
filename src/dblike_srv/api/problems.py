"""What a request is refused with: RFC 9457 problems, from one table."""

from __future__ import annotations

import errno
import logging
import math
import re

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from dblike_delta.errors import DeltaError, LimitError, PathError
from dblike_delta.messages import Problem
from dblike_srv import errors
from dblike_srv.accounts import Forbidden, TooMany, Unauthorized
from dblike_srv.api.body import BodyCut, BodySlow
from dblike_srv.store.base import Away

PROBLEM_TYPE = "application/problem+json"

log = logging.getLogger(__name__)


class BadRequest(errors.SiteError):
    """The request can't be read: not JSON, not a number, not what its type says."""


class Unsupported(errors.SiteError):
    """The body is of a type that is not taken here."""


class TooOld(errors.SiteError):
    """The client speaks a protocol that this server does not."""


class RangeNotSatisfiable(errors.SiteError):
    """The range lies beyond the end; `size` is where that is."""

    def __init__(self, detail: str, *, size: int) -> None:
        super().__init__(detail, field="Range")
        self.size = size


# The first row whose class fits decides; so subclasses stand above their bases.
STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (Unauthorized, 401, "not logged in"),
    (Forbidden, 403, "forbidden"),
    (TooMany, 429, "too many requests"),
    (BadRequest, 400, "bad request"),
    (BodyCut, 400, "incomplete request"),
    (BodySlow, 408, "request timeout"),
    (Unsupported, 415, "unsupported type"),
    (TooOld, 426, "protocol not spoken here"),
    (RangeNotSatisfiable, 416, "range not satisfiable"),
    (errors.NotFound, 404, "not found"),
    (errors.Conflict, 409, "conflict"),
    (errors.Gone, 410, "gone"),
    (errors.PreconditionFailed, 412, "precondition failed"),
    (errors.PreconditionRequired, 428, "precondition required"),
    (errors.TooLarge, 413, "too large"),
    (errors.QuotaExceeded, 507, "quota exceeded"),
    (errors.NoSpace, 507, "no space"),
    (errors.Busy, 503, "busy"),
    (Away, 503, "busy"),
    (errors.SiteError, 422, "invalid"),
    (LimitError, 413, "too large"),
    (PathError, 422, "invalid path"),
    (DeltaError, 422, "invalid"),
    (msgspec.ValidationError, 422, "invalid"),
    (msgspec.DecodeError, 400, "malformed"),
    (UnicodeDecodeError, 400, "malformed"),
    (RecursionError, 400, "malformed"),
)


def register(app: Flask) -> None:
    """Answer every exception of a view with a problem."""
    app.register_error_handler(Exception, answer)


def answer(error: Exception) -> Response:
    """The problem that stands for an exception."""
    if isinstance(error, HTTPException):
        return _of_http(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = errors.NoSpace("the site's disk is full")
    for kind, status, title in STATUS:
        if isinstance(error, kind):
            return _render(status, title, _detail(error), _field(error), _headers(error))
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return _render(500, "internal error", "the server failed; its log has the request id")


def _of_http(error: HTTPException) -> Response:
    """Flask's and werkzeug's own: unknown routes, wrong methods, redirects."""
    status = error.code or 500
    headers = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return _render(status, error.name.lower(), "", headers=headers)


def _detail(error: Exception) -> str:
    if isinstance(error, Away):
        return "the site's store is away"  # and where that is, is the log's to say
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)


_AT = re.compile(r"`\$\.?([^`]*)`")


def _field(error: Exception) -> str:
    """The field that was wrong; msgspec says it as the path in its text."""
    if isinstance(error, msgspec.ValidationError):
        found = _AT.search(str(error)) or re.search(r"field `([^`]+)`", str(error))
        return found[1] if found else ""
    if isinstance(error, PathError):
        return "path"
    return str(getattr(error, "field", ""))


def _headers(error: Exception) -> dict[str, str]:
    headers = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="dblike"'
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if getattr(error, "offset", None) is not None and isinstance(error, errors.Conflict):
        headers["Upload-Offset"] = str(error.offset)
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    return headers


def _render(
    status: int, title: str, detail: str, field: str = "", headers: dict[str, str] | None = None
) -> Response:
    problem = Problem(title=title, status=status, detail=detail, field=field)
    body = msgspec.json.encode(problem)
    return Response(body, status, headers, content_type=PROBLEM_TYPE)
