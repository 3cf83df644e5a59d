"""What devices do: commit changesets, whole or in resumable uploads, and fetch contents."""

from __future__ import annotations

import re

from flask import Blueprint, Response, request

from dblike_delta.messages import (
    CHANGESET_TYPE,
    CommitReply,
    DamageReply,
    DamageReport,
    FetchRequest,
    UploadStatus,
)
from dblike_srv import contents, uploads
from dblike_srv.api.inbound import (
    changeset_chunks,
    flag,
    folder,
    header_integer,
    identity,
    message,
    site,
)
from dblike_srv.api.operation import INTEGER, operation
from dblike_srv.api.outbound import nothing, reply, stream
from dblike_srv.api.problems import BadRequest
from dblike_srv.commit import Commit
from dblike_srv.errors import NotFound
from dblike_srv.fetch import fetch as fetch_contents

blueprint = Blueprint("sync", __name__, url_prefix="/v1/folders/<folder_name>")

FETCH = 16 << 20
"""Bytes of a fetch's list of wants."""
_UPLOAD = re.compile("[0-9a-f]{32}")


@blueprint.post("/commit")
@operation(CHANGESET_TYPE, gives=CommitReply, query={"brief": INTEGER})
def commit(folder_name: str) -> Response:
    """A changeset, whole: one result a version.

    With `brief=1` results of which there is nothing to say are only counted.
    """
    running = Commit(site(), identity(), folder(folder_name))
    try:
        for piece in changeset_chunks(running.wanted):
            running.receive(piece)
        return reply(running.finish(brief=flag("brief")))
    except BaseException:
        running.abort()
        raise


@blueprint.get("/uploads/<upload>")
@operation(status=204)
def upload_status(folder_name: str, upload: str) -> Response:
    """How much of an upload is here."""
    offset = uploads.upload_status(site(), identity(), folder(folder_name), _checked(upload))
    if offset is None:
        raise NotFound("no such upload", field="upload")
    response = nothing()
    response.headers["Upload-Offset"] = str(offset)
    return response


@blueprint.put("/uploads/<upload>")
@operation(
    CHANGESET_TYPE,
    gives=(CommitReply, UploadStatus),
    headers={"Upload-Offset": INTEGER, "Upload-Complete": {"enum": ["?0", "?1"]}},
)
def append(folder_name: str, upload: str) -> Response:
    """The next bytes of an upload; the last ones commit it."""
    outcome = uploads.append_upload(
        site(),
        identity(),
        folder(folder_name),
        _checked(upload),
        header_integer("Upload-Offset"),
        changeset_chunks,
        _is_complete(),
    )
    response = reply(outcome)
    if not isinstance(outcome, CommitReply):
        response.headers["Upload-Offset"] = str(outcome.offset)
    return response


@blueprint.delete("/uploads/<upload>")
@operation(status=204)
def abandon(folder_name: str, upload: str) -> Response:
    """Give up an upload."""
    uploads.abandon_upload(site(), identity(), folder(folder_name), _checked(upload))
    return nothing()


@blueprint.post("/fetch")
@operation(FetchRequest, gives=CHANGESET_TYPE)
def fetch(folder_name: str) -> Response:
    """The contents of versions, as a changeset of deltas against what is at hand."""
    source = folder(folder_name)
    wanted = message(FetchRequest, largest=FETCH)
    return stream(fetch_contents(site(), identity(), source, wanted))


@blueprint.post("/damage")
@operation(DamageReport, gives=DamageReply)
def damage(folder_name: str) -> Response:
    """Have contents checked that came wrong."""
    source = folder(folder_name)
    report = message(DamageReport)
    return reply(DamageReply(contents.check_contents(site(), source.user, report.hashes)))


def _checked(upload: str) -> str:
    if not _UPLOAD.fullmatch(upload):
        raise NotFound("an upload's name is 32 hex digits", field="upload")
    return upload


def _is_complete() -> bool:
    """The structured boolean of the resumable-upload draft."""
    value = request.headers.get("Upload-Complete", "?1")
    if value not in ("?0", "?1"):
        raise BadRequest("Upload-Complete is ?0 or ?1", field="Upload-Complete")
    return value == "?1"
