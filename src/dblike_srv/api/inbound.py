"""What a view takes from its request, checked.  Flask's globals go no deeper than this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast
from urllib.parse import unquote_to_bytes

from flask import current_app, g, request

from dblike_delta.decoding import read_json, unpack
from dblike_delta.messages import CHANGESET_TYPE, MSGPACK_TYPE
from dblike_delta.paths import check_path
from dblike_srv import accounts, folders
from dblike_srv.addresses import is_within
from dblike_srv.api.body import WHOLE, body_chunks, hurry
from dblike_srv.api.problems import BadRequest, Unsupported
from dblike_srv.errors import NotFound, TooLarge
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.site import Site

JSON_TYPE = "application/json"
MESSAGE = 256 << 10
"""Bytes of a message where a view says nothing else."""
PATIENCE = 10.0
LEAST_RATE = 4 << 10
"""Seconds in which a message has to come, and bytes in each second beyond them."""

_T = TypeVar("_T")


def site() -> Site:
    """The site that this application serves."""
    return cast("Site", current_app.extensions["dblike"])


def caller() -> accounts.Caller:
    """Who asks; raises Unauthorized.  Only the Authorization header counts, never the URL."""
    if "caller" not in g:
        g.caller = accounts.identify(site(), bearer())
    return cast("accounts.Caller", g.caller)


def bearer() -> str:
    """The token of the request; raises Unauthorized."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise accounts.Unauthorized("log in first: no bearer token was sent")
    return token.strip()


def address() -> str:
    """Where the request came from: through proxies of ours, what the last of them was told."""
    near = request.remote_addr or "unix"
    trusted = site().config.proxies
    for told in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
        if not told.strip() or not _is_one_of(near, trusted):
            break
        near = told.strip()
    return near


def _is_one_of(near: str, networks: tuple[str, ...]) -> bool:
    return any(near == each or (each != "unix" and is_within(near, each)) for each in networks)


def identity() -> Identity:
    """The device that asks."""
    return caller().identity


def folder(name_or_id: str) -> FolderRef:
    """A folder of the caller's; raises NotFound, the same for "not there" and "not yours"."""
    found = folders.find_folder(site(), identity(), name_or_id)
    if found is None:
        raise NotFound("no such folder", field="folder")
    return found


def file_path(suffix: bytes = b"") -> tuple[bytes, bool]:
    """The path in a URL /v1/folders/F/files/PATH, byte for byte, and whether it ended in a slash.

    WSGI hands the percent-decoded bytes over as latin-1; Flask's own text has lost those that are
    not UTF-8.
    """
    raw = request.environ["PATH_INFO"].encode("latin-1").split(b"/", 5)[5]
    raw = raw.removesuffix(suffix)
    return check_path(raw.removesuffix(b"/")), raw.endswith(b"/")


def path_in(name: str) -> bytes:
    """A path of the query, byte for byte; b"" where there is none, or the folder itself."""
    raw = _query_bytes(name).removesuffix(b"/")
    return check_path(raw) if raw else b""


def _query_bytes(name: str) -> bytes:
    """A value of the query as its bytes, which Flask's decoded text has lost."""
    for pair in request.environ.get("QUERY_STRING", "").encode("latin-1").split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == name.encode():
            return unquote_to_bytes(value.replace(b"+", b" "))
    return b""


def media_type() -> str:
    """The body's type without its parameters."""
    return (request.mimetype or "").lower()


def message(kind: type[_T], *, largest: int = MESSAGE) -> _T:
    """The body as a message; raises Unsupported, TooLarge and msgspec's errors."""
    media = media_type()
    if media == MSGPACK_TYPE:
        return unpack(small_body(largest), kind)
    if media == JSON_TYPE:
        return read_json(small_body(largest), kind)
    raise Unsupported(f"send {JSON_TYPE} or {MSGPACK_TYPE}", field="Content-Type")


def early_message(kind: type[_T]) -> _T:
    """The same of whom nobody knows yet who that is: what can't be told to be here, and would be
    waited for by a thread, is refused."""
    for name in ("Transfer-Encoding", "Expect"):
        if name in request.headers:
            raise BadRequest("send the body at once, with a Content-Length", field=name)
    return message(kind, largest=WHOLE)


def small_body(largest: int = MESSAGE) -> bytes:
    """The whole body; raises TooLarge."""
    if (request.content_length or 0) > largest:
        raise TooLarge(f"the body has more than {largest} bytes")
    length = largest if request.content_length is None else request.content_length
    body = bytearray()
    with hurry(request.environ, PATIENCE + length / LEAST_RATE):
        for piece in chunks():
            body += piece
            if len(body) > largest:
                raise TooLarge(f"the body has more than {largest} bytes")
    return bytes(body)


def chunks() -> Iterator[bytes]:
    """The body in pieces."""
    return body_chunks(request.environ)


def changeset_chunks(wanted: Callable[[], int]) -> Iterator[bytes]:
    """The body, which must be a changeset, in pieces of what its decoder wants."""
    if media_type() != CHANGESET_TYPE:
        raise Unsupported(f"send {CHANGESET_TYPE}", field="Content-Type")
    return body_chunks(request.environ, wanted)


def number(name: str, default: int, *, least: int, most: int) -> int:
    """An integer of the query; raises BadRequest outside of its bounds."""
    text = request.args.get(name)
    if text is None:
        return default
    value = _integer(text, name)
    if not least <= value <= most:
        raise BadRequest(f"{name} must be between {least} and {most}", field=name)
    return value


def moment(name: str) -> int | None:
    """Epoch milliseconds of the query."""
    text = request.args.get(name)
    if text is None:
        return None
    value = _integer(text, name)
    if abs(value) > 2**53:
        raise BadRequest(f"{name} is out of range", field=name)
    return value


def _integer(text: str, name: str) -> int:
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 19:
        raise BadRequest(f"{name} must be an integer", field=name)
    return int(text)


def header_integer(name: str, default: int | None = None) -> int:
    """An integer from a request header, not negative."""
    text = request.headers.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise BadRequest(f"{name} must be an integer", field=name)
    value = int(text)
    if value >= 2**63:
        raise BadRequest(f"{name} is out of range", field=name)
    return value


def flag(name: str) -> bool:
    """Whether the query has the flag: `?name` or `?name=1`."""
    return request.args.get(name, "0") not in ("0", "false")


def extra(name: str) -> Any:
    """What `create_app` put beside the site."""
    return current_app.extensions[f"dblike-{name}"]
