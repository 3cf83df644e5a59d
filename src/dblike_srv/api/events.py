"""The WebSocket: a handshake in a request's thread, then the hub has it."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, request
from flask_sock import Sock

from dblike_srv import accounts
from dblike_srv.api.inbound import caller, extra, site
from dblike_srv.api.problems import BadRequest
from dblike_srv.errors import NotFound
from dblike_srv.hub import Hub, leave
from dblike_srv.hub_client import Session

blueprint = Blueprint("events", __name__, url_prefix="/v1")
sock = Sock()

_KEY = re.compile("[A-Za-z0-9+/]{22}==")

OPTIONS: dict[str, Any] = {"max_message_size": 4096}
"""Of the handshake's WebSocket object; all else about a socket is the hub's."""


class _NoThread:
    """What simple_websocket would read the socket with.  The hub reads instead."""

    name = ""

    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        pass


OPTIONS["thread_class"] = _NoThread


@blueprint.before_request
def admit() -> None:
    """Everything that may be refused, before the handshake says yes."""
    who = caller()
    check_handshake()
    _check_origin()
    hub: Hub = extra("hub")
    if not hub.room_for(who.session):
        raise accounts.TooMany("too many sockets of one user", retry_after=30)


def check_handshake() -> None:
    """Whether this is a WebSocket's beginning, and can be one here."""
    for name, wanted in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        if wanted not in request.headers.get(name, "").lower():
            raise BadRequest("this is a WebSocket", field=name)
    if request.headers.get("Sec-WebSocket-Version") != "13":
        raise BadRequest("version 13 is spoken here", field="Sec-WebSocket-Version")
    if not _KEY.fullmatch(request.headers.get("Sec-WebSocket-Key", "")):
        raise BadRequest("a key is 16 bytes in base64", field="Sec-WebSocket-Key")
    if "gunicorn.socket" not in request.environ:
        raise NotFound("this server has no WebSockets")
    # Compression would cost each idle socket a window, and a bomb could be sent through it.
    request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)


def _check_origin() -> None:
    """A page of another site must not use the socket in its visitor's name."""
    origin = request.headers.get("Origin")
    ours = {request.host, urlsplit(site().config.site.url).netloc}
    if origin and _host_of(origin) not in ours - {""}:  # as of a page that hides where it is
        raise accounts.Forbidden("this page may not open sockets here", field="Origin")


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


@sock.route("/events", bp=blueprint)  # type: ignore[untyped-decorator]
def events(ws: Any) -> None:
    """Tells where each folder of the user stands, now and whenever that changes."""
    hand_over(ws, caller().session)


def hand_over(ws: Any, session: Session) -> None:
    """Give a socket whose handshake is done to the hub."""
    # What the client sent behind its handshake is in gunicorn's buffer, and would be lost there.
    received = b""
    with contextlib.suppress(AttributeError):
        received = request.environ["wsgi.input"].reader.unreader.take_buffered()
    try:
        extra("hub").adopt(leave(ws.sock), session, received)
    except BaseException:
        with contextlib.suppress(OSError):  # after the handshake's yes no other answer has a place
            ws.sock.shutdown(socket.SHUT_RDWR)
        raise
    ws.connected = False  # so that nobody says goodbye on it
