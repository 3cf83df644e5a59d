"""rsync's three steps over HTTP: signatures and deltas as `rdiff` writes and reads them."""

from __future__ import annotations

import base64

import msgspec
from flask import Blueprint, Response, request

from dblike_delta.limits import DEFAULT_LIMITS
from dblike_delta.messages import RestoreReply, RestoreRequest, VersionView
from dblike_srv import files, history, reading
from dblike_srv.api.files import MATCH, precondition, read, view
from dblike_srv.api.inbound import (
    chunks,
    file_path,
    flag,
    folder,
    identity,
    message,
    number,
    site,
    small_body,
)
from dblike_srv.api.operation import BINARY, FLAG, TEXT, operation
from dblike_srv.api.outbound import reply, stream
from dblike_srv.errors import Invalid, PreconditionRequired
from dblike_srv.views import version_name

blueprint = Blueprint("rsync", __name__, url_prefix="/v1/folders/<folder_name>/files")

SIGNATURE_TYPE = "application/vnd.librsync.signature"
DELTA_TYPE = "application/vnd.librsync.delta"
SIGNATURE = 256 << 20
"""Bytes of a signature that is sent here: that of some 20 GB in blocks of 2 KiB."""
BLOCK = {"type": "integer", "minimum": 16, "maximum": DEFAULT_LIMITS.max_block_size}
STRONG = {"type": "integer", "minimum": 8, "maximum": 32}


@blueprint.get("/<raw:path>/signature")
@operation(
    gives=SIGNATURE_TYPE,
    query={"block": BLOCK, "strong": STRONG, "version": TEXT, "raw": FLAG},
)
def signature(folder_name: str, path: str) -> Response:
    """The librsync signature (RK_BLAKE2) of a file."""
    if flag("raw"):
        return read(folder_name, path)
    source, (name, _) = folder(folder_name), file_path(b"/signature")
    block = number("block", 0, least=16, most=DEFAULT_LIMITS.max_block_size) or None
    strong = number("strong", 0, least=8, most=32) or None
    version = files.find_version(site(), source, name, request.args.get("version", ""))
    made = reading.signature_of(site(), identity(), version, block_size=block, strong=strong)
    response = stream([made], media=SIGNATURE_TYPE)
    response.set_etag(version_name(version.dot))
    return response


@blueprint.post("/<raw:path>/delta")
@operation(BINARY, gives=DELTA_TYPE, query={"version": TEXT})
def delta(folder_name: str, path: str) -> Response:  # noqa: ARG001 - the bytes are taken instead
    """The librsync delta that makes this file of the one whose signature is sent."""
    source, (name, _) = folder(folder_name), file_path(b"/delta")
    version = files.find_version(site(), source, name, request.args.get("version", ""))
    return stream(
        reading.delta_for(site(), identity(), version, small_body(SIGNATURE)), media=DELTA_TYPE
    )


@blueprint.patch("/<raw:path>")
@operation(BINARY, gives=VersionView, headers=MATCH, also=(428,))
def patch(folder_name: str, path: str) -> Response:  # noqa: ARG001 - the bytes are taken instead
    """Apply a librsync delta to the version of the file that If-Match names."""
    me, target, (name, _) = identity(), folder(folder_name), file_path()
    condition = precondition()
    if condition.if_match in (None, ("*",)):
        # Nobody could tell that the delta fits another content, nor that it was applied already.
        raise PreconditionRequired(
            "a delta is against one version: send the ETag that came with its signature",
            field="If-Match",
        )
    return view(files.patch_file(site(), me, target, name, chunks(), condition=condition))


@blueprint.post("/<raw:path>/restore")
@operation(RestoreRequest, gives=RestoreReply)
def restore(folder_name: str, path: str) -> Response:  # noqa: ARG001 - the bytes are taken instead
    """Bring this path back, as a version or as it was at a moment."""
    me, target, (name, _) = identity(), folder(folder_name), file_path(b"/restore")
    wanted = message(RestoreRequest)
    if wanted.path or wanted.path_b64:
        raise Invalid("the URL says the path", field="path")
    exact = base64.b64encode(name).decode()
    wanted = msgspec.structs.replace(wanted, path_b64=exact)
    return reply(history.restore(site(), me, target, wanted))
