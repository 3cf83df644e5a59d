"""Who is a site of the cluster: both sides prove that they have its key, and neither shows it.

A follower sends a nonce; the site answers with a sum of it that only the key makes, and a nonce of
its own; the follower's sum of that one opens a session.  The site's nonce and the session's token
carry their own end and sum, so nothing is kept about them, and any worker can check them.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from dblike_srv.accounts import Unauthorized
from dblike_srv.replication.sites import has_left
from dblike_srv.seal import from_text, to_text
from dblike_srv.site import Site

MARK: Final = "dbp_"
SESSION_MS: Final = 3600_000
OPENING_MS: Final = 60_000
_UNTIL: Final = struct.Struct(">Q")
_TOKEN: Final = struct.Struct(">16s16sQ")


def site_proof(site: Site, mine: bytes, theirs: bytes, nonce: bytes) -> bytes:
    """What the followed site shows."""
    return site.seal.mac("peer site", mine + theirs + nonce)


def follower_proof(site: Site, mine: bytes, theirs: bytes, nonce: bytes) -> bytes:
    """What the follower shows."""
    return site.seal.mac("peer follower", mine + theirs + nonce)


def same(one: bytes, other: bytes) -> bool:
    """Whether two proofs are equal, told in a time that says nothing else."""
    return hmac.compare_digest(one, other)


def make_nonce(site: Site) -> bytes:
    """A nonce that is good for a minute, at this site."""
    body = site.random.bytes(16) + _UNTIL.pack(site.clock.now_ms() + OPENING_MS)
    return body + site.seal.mac("peer nonce", site.id + body)


def check_nonce(site: Site, nonce: bytes) -> None:
    """Raises Unauthorized for one that is not ours, or too old."""
    body, mac = nonce[:24], nonce[24:]
    good = len(body) == 24 and same(mac, site.seal.mac("peer nonce", site.id + body))
    if not good or _UNTIL.unpack(body[16:])[0] < site.clock.now_ms():
        raise Unauthorized("this opening is not one of ours, or too old")


def make_token(site: Site, follower: bytes) -> str:
    """The token of a session that `follower` opened."""
    body = _TOKEN.pack(follower, site.id, site.clock.now_ms() + SESSION_MS)
    raw = body + site.seal.mac("peer session", body)
    return MARK + to_text(raw)


def follower_of(site: Site, token: str) -> bytes:
    """The site whose session this is; raises Unauthorized."""
    try:
        raw = from_text(token.removeprefix(MARK))
    except ValueError:
        raw = b""
    body, mac = raw[: _TOKEN.size], raw[_TOKEN.size :]
    if token.startswith(MARK) and same(mac, site.seal.mac("peer session", body)):
        follower, to, until = _TOKEN.unpack(body)
        if to == site.id and until >= site.clock.now_ms():
            return bytes(follower)
    raise Unauthorized("only a site of the cluster may ask this")


def present_follower(site: Site, token: str) -> bytes:
    """The same; raises Unauthorized also where one of the two left the cluster since."""
    follower = follower_of(site, token)
    if has_left(site, follower):
        raise Unauthorized("this site left the cluster")
    if has_left(site, site.id):
        raise Unauthorized("the site that was asked left the cluster")
    return follower
