"""Whole files, for people and programs that know HTTP only.

A path is the rest of the URL, byte for byte.  GET of a path that ends in `/signature` or
`/versions` asks for that of the file before it; a file that is really called so is had with `?raw`.
"""

from __future__ import annotations

from flask import Blueprint, Response, request
from werkzeug.datastructures import ETags
from werkzeug.http import http_date
from werkzeug.routing import BaseConverter

from dblike_delta.messages import TreeList, VersionList, VersionView
from dblike_delta.versions import Kind, Version
from dblike_srv import files, history
from dblike_srv.api.folders import LIMIT, PAGE
from dblike_srv.api.inbound import (
    chunks,
    file_path,
    flag,
    folder,
    header_integer,
    identity,
    number,
    site,
)
from dblike_srv.api.operation import BINARY, FLAG, INTEGER, TEXT, operation
from dblike_srv.api.outbound import nothing, reply, stream
from dblike_srv.api.problems import BadRequest, RangeNotSatisfiable
from dblike_srv.errors import TooLarge
from dblike_srv.files import FileWish, Precondition
from dblike_srv.reading import read_content
from dblike_srv.views import version_name, view_version

blueprint = Blueprint("files", __name__, url_prefix="/v1/folders/<folder_name>/files")

MODE_HEADER = "X-DBLike-Mode"
MTIME_HEADER = "X-DBLike-Mtime-Ns"
HASH_HEADER = "X-DBLike-Hash"
MATCH = {"If-Match": TEXT, "If-None-Match": TEXT}


class RawPath(BaseConverter):
    """The rest of the URL, whatever it holds; its bytes are taken from the WSGI environment."""

    regex = "(?s:.+)"
    part_isolating = False


@blueprint.get("/<raw:path>")
@operation(
    gives=(BINARY, TreeList),
    query={"version": TEXT, "raw": FLAG, "limit": PAGE},
    headers={**MATCH, "Range": TEXT, "If-Range": TEXT},
    also=(206, 304),
)
def read(folder_name: str, path: str) -> Response:  # noqa: ARG001 - the bytes are taken instead
    """A file's bytes, or what is in a directory."""
    source, (name, slash) = folder(folder_name), file_path()
    version = files.find_version(site(), source, name, request.args.get("version", ""))
    if version.kind is Kind.DIRECTORY:
        limit = number("limit", 1000, least=1, most=LIMIT)
        return reply(history.tree(site(), source, name, limit=limit))
    if slash:
        raise BadRequest("a file's path does not end in a slash", field="path")
    return send_file(version)


def send_file(version: Version) -> Response:
    """A version's content: all of it, a range, or word that it is what the client has."""
    tag = version_name(version.dot)
    precondition(if_none_match=False).check(version)
    if request.if_none_match.contains_weak(tag):
        return _tagged(nothing(304), version)
    start, end = _range(version.size, tag)
    head = request.method == "HEAD"
    body = () if head else read_content(site(), identity(), version, start, end)
    whole = (start, end) == (0, version.size)
    response = stream(body, media=BINARY, status=200 if whole else 206, length=end - start)
    if not whole:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{version.size}"
    response.headers["Accept-Ranges"] = "bytes"
    response.headers[HASH_HEADER] = version.hash.hex()
    response.headers[MODE_HEADER] = f"{version.mode:o}"
    response.headers[MTIME_HEADER] = str(version.mtime_ns)
    if 0 <= version.mtime_ns < 2**62:
        response.headers["Last-Modified"] = http_date(version.mtime_ns // 10**9)
    return _tagged(response, version)


def _tagged(response: Response, version: Version) -> Response:
    response.set_etag(version_name(version.dot))
    response.headers["Cache-Control"] = "no-cache, private"
    return response


def _range(size: int, tag: str) -> tuple[int, int]:
    """The wanted part; all of it where none is wanted, or several are, or If-Range says so."""
    text = request.headers.get("Range", "")
    unit, _, wanted = text.partition("=")
    condition = request.if_range
    if unit.strip().lower() != "bytes" or "," in wanted:
        return 0, size
    if "If-Range" in request.headers and condition.etag != tag:
        return 0, size
    asked = request.range
    if asked is not None and asked.ranges[0][0] < -size:
        return 0, size  # its last bytes, of which there are fewer
    found = asked.range_for_length(size) if asked is not None else None
    if found is None:
        raise RangeNotSatisfiable(f"the file has {size} bytes", size=size)
    return found


@blueprint.put("/<raw:path>")
@operation(
    BINARY,
    gives=VersionView,
    headers={**MATCH, MODE_HEADER: TEXT, MTIME_HEADER: INTEGER},
    also=(201,),
)
def write(folder_name: str, path: str) -> Response:  # noqa: ARG001 - the bytes are taken instead
    """Make the path a file of these bytes; a path that ends in a slash becomes a directory."""
    me, target, (name, slash) = identity(), folder(folder_name), file_path()
    condition = precondition()
    if slash:
        mode = _mode(files.DIRECTORY_MODE)
        made = files.make_directory(site(), me, target, name, mode=mode, condition=condition)
    else:
        made = files.put_file(site(), me, target, name, chunks(), wish=_wish(), condition=condition)
    return view(made, 201 if condition.if_none_match else 200)


def _wish() -> FileWish:
    """What a PUT says of its file besides the bytes."""
    if "Content-Range" in request.headers:
        raise BadRequest("a part of a file can't be put", field="Content-Range")
    limit, size = site().config.limits.file_size, request.content_length
    if size is not None and size > limit:
        raise TooLarge(f"a file of {size} bytes; the limit is {limit}")
    given = MTIME_HEADER in request.headers
    return FileWish(
        size=size,
        mode=_mode(files.FILE_MODE),
        mtime_ns=header_integer(MTIME_HEADER) if given else None,
    )


def _mode(default: int) -> int:
    text = request.headers.get(MODE_HEADER)
    if text is None:
        return default
    if not 1 <= len(text) <= 4 or set(text) - set("01234567"):
        raise BadRequest("permission bits are an octal number", field=MODE_HEADER)
    return int(text, 8) & 0o777


@blueprint.delete("/<raw:path>")
@operation(status=204, headers=MATCH)
def delete(folder_name: str, path: str) -> Response:  # noqa: ARG001 - the bytes are taken instead
    """Delete a file, a symlink, or a directory with all that is in it; history keeps them."""
    me, target, (name, _) = identity(), folder(folder_name), file_path()
    files.delete_path(site(), me, target, name, condition=precondition())
    return nothing()


@blueprint.get("/<raw:path>/versions")
@operation(gives=VersionList, query={"limit": PAGE, "before": TEXT, "raw": FLAG})
def versions(folder_name: str, path: str) -> Response:
    """A path's versions, newest first."""
    if flag("raw"):
        return read(folder_name, path)
    source, (name, _) = folder(folder_name), file_path(b"/versions")
    limit, before = number("limit", 100, least=1, most=LIMIT), request.args.get("before", "")
    return reply(history.versions_of(site(), source, name, limit=limit, before=before))


def precondition(*, if_none_match: bool = True) -> Precondition:
    """If-Match and If-None-Match as version names."""
    return Precondition(
        if_match=_names(request.if_match, weak=False) if "If-Match" in request.headers else None,
        if_none_match=_names(request.if_none_match, weak=True)
        if if_none_match and "If-None-Match" in request.headers
        else None,
    )


def _names(tags: ETags, *, weak: bool) -> tuple[str, ...]:
    return ("*",) if tags.star_tag else tuple(tags.as_set(include_weak=weak))


def view(version: Version, status: int = 200) -> Response:
    """A new version, with its ETag."""
    response = reply(view_version(version, current=True), status)
    response.set_etag(version_name(version.dot))
    return response
