"""What sites ask each other: journals and contents, below /v1/peer.  No device may."""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Response, g, request

from dblike_delta.messages import (
    CHANGESET_TYPE,
    PROTOCOL,
    DamageReply,
    DamageReport,
    FetchRequest,
)
from dblike_srv.accounts import Unauthorized
from dblike_srv.api.events import check_handshake, hand_over, sock
from dblike_srv.api.inbound import bearer, early_message, message, number, site
from dblike_srv.api.operation import INTEGER, TEXT, operation
from dblike_srv.api.outbound import nothing, reply, stream
from dblike_srv.contents import check_contents
from dblike_srv.errors import Invalid, NotFound
from dblike_srv.fetch import fetch as fetch_contents
from dblike_srv.hub_client import Session
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.registers import RETURNS
from dblike_srv.replication import journals, keys, relay, shared, sites
from dblike_srv.replication.messages import (
    Held,
    Hello,
    HelloReply,
    Opening,
    OpeningReply,
    Positions,
    SharedPage,
)
from dblike_srv.site import Ahead, renew

blueprint = Blueprint("peer", __name__, url_prefix="/v1/peer")

_WANTS = 16 << 20
_HELD = 16 << 20


@blueprint.post("/hello")
@operation(Hello, gives=HelloReply, public=True)
def hello() -> Response:
    """A proof that this site is of the cluster, and what the follower is to prove."""
    here, said = site(), early_message(Hello)
    if said.site == here.id:
        raise Invalid("this is the very same site", field="site")
    proof = keys.site_proof(here, here.id, said.site, said.nonce)
    return reply(HelloReply(here.id, keys.make_nonce(here), proof, PROTOCOL))


@blueprint.post("/session")
@operation(Opening, gives=OpeningReply, public=True)
def session() -> Response:
    """A token for a follower that has the cluster's key."""
    here, said = site(), early_message(Opening)
    keys.check_nonce(here, said.nonce)
    proof = keys.follower_proof(here, said.site.id, here.id, said.nonce)
    if not keys.same(proof, said.proof):
        raise Unauthorized("the cluster keys of the two sites differ")
    if sites.has_left(here, here.id):
        raise Unauthorized("the site that was asked left the cluster")
    if sites.has_left(here, said.site.id):
        return reply(OpeningReply("", sites.announce(here), left=True))
    sites.welcome(here, said.site)
    here.notices.publish(RETURNS, "back")
    token = keys.make_token(here, said.site.id)
    prompt = here.config.replication.copies > 1
    return reply(OpeningReply(token, sites.announce(here), prompt))


@blueprint.get("/shared")
@operation(gives=SharedPage, query={"since": INTEGER})
def news() -> Response:
    """What changed of users, devices, folders and sites."""
    _follower()
    return reply(shared.news(site(), number("since", 0, least=0, most=2**63 - 1)))


@blueprint.get("/folders")
@operation(gives=Positions, query={"after": TEXT})
def positions() -> Response:
    """Where all folders stand."""
    _follower()
    return reply(journals.positions(site(), _uid(request.args.get("after", ""))))


@blueprint.get("/folders/<folder_id>/journal")
@operation(gives=CHANGESET_TYPE, query={"cursor": TEXT, "limit": INTEGER})
def journal(folder_id: str) -> Response:
    """Every version beyond a cursor."""
    _follower()
    limit = number("limit", 10_000, least=1, most=journals.LARGEST_PAGE)
    cursor = request.args.get("cursor", "")
    return stream(journals.stream(site(), _folder(folder_id), cursor, limit))


@blueprint.post("/folders/<folder_id>/fetch")
@operation(FetchRequest, gives=CHANGESET_TYPE)
def fetch(folder_id: str) -> Response:
    """The contents of versions, as deltas against what the follower has."""
    follower = _follower()
    folder = _folder(folder_id)
    owner = Identity(user=folder.user, user_name="", device=follower, device_name="")
    return stream(fetch_contents(site(), owner, folder, message(FetchRequest, largest=_WANTS)))


@blueprint.post("/folders/<folder_id>/damage")
@operation(DamageReport, gives=DamageReply)
def damage(folder_id: str) -> Response:
    """Look at contents that came wrong; those that are damaged are not offered any more."""
    _follower()
    folder = _folder(folder_id)
    hashes = message(DamageReport).hashes
    return reply(DamageReply(check_contents(site(), folder.user, hashes)))


@blueprint.post("/held")
@operation(Held, status=204)
def held() -> Response:
    """What the follower holds, and what others hold of whom it heard."""
    here = site()
    try:
        relay.take_in(here, _follower(), message(Held, largest=_HELD))
    except Ahead as ahead:
        renew(here, ahead.site)  # the follower hears of it with its next request
        sites.announce(here)
    return nothing()


@blueprint.before_request
def _check_upgrade() -> None:
    # Not by the path, which may be written in more ways than one.
    if request.endpoint == "peer.events":
        _follower()
        check_handshake()


@sock.route("/events", bp=blueprint)  # type: ignore[untyped-decorator]
def events(ws: object) -> None:
    """Tells where folders stand whenever that changes, and when shared rows change."""
    hand_over(ws, Session(user=0, device=_follower(), token=bearer().encode()))


def _follower() -> bytes:
    """The site that asks; raises Unauthorized."""
    if "follower" not in g:
        g.follower = keys.present_follower(site(), bearer())
    return cast("bytes", g.follower)


def _folder(folder_id: str) -> FolderRef:
    found = journals.folder_by_id(site(), _uid(folder_id))
    if found is None:
        raise NotFound("no such folder", field="folder")
    return found


def _uid(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise NotFound("ids are hex digits", field="folder") from None
