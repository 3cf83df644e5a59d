"""What is and was in a folder, and bringing it back."""

from __future__ import annotations

from flask import Blueprint, Response, request

from dblike_delta.messages import RestoreReply, RestoreRequest, TreeList, VersionList
from dblike_srv import history
from dblike_srv.api.folders import LIMIT, PAGE
from dblike_srv.api.inbound import flag, folder, identity, message, moment, number, path_in, site
from dblike_srv.api.operation import FLAG, INTEGER, TEXT, operation
from dblike_srv.api.outbound import reply

blueprint = Blueprint("history", __name__, url_prefix="/v1/folders/<folder_name>")


@blueprint.get("/tree")
@operation(
    gives=TreeList,
    query={"path": TEXT, "at": INTEGER, "limit": PAGE, "after": TEXT, "flat": FLAG},
)
def tree(folder_name: str) -> Response:
    """What is live at and below a path, now or at a moment, sorted by path; `flat`: but not what is
    below the directories in it."""
    source, below, deep = folder(folder_name), path_in("path"), not flag("flat")
    limit, after = number("limit", 1000, least=1, most=LIMIT), path_in("after")
    found = history.tree(
        site(), source, below, at=moment("at"), limit=limit, after=after, deep=deep
    )
    return reply(found)


@blueprint.get("/log")
@operation(gives=VersionList, query={"limit": PAGE, "before": TEXT})
def log(folder_name: str) -> Response:
    """The folder's history, newest first."""
    source = folder(folder_name)
    limit, before = number("limit", 100, least=1, most=LIMIT), request.args.get("before", "")
    return reply(history.log(site(), source, limit=limit, before=before))


@blueprint.post("/restore")
@operation(RestoreRequest, gives=RestoreReply)
def restore(folder_name: str) -> Response:
    """Bring a version, a deleted file or a whole directory back, as new versions."""
    me, source = identity(), folder(folder_name)
    return reply(history.restore(site(), me, source, message(RestoreRequest)))
