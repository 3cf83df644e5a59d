"""Bearer tokens: random, known by their hash, and good at every site of the cluster.

A token says whose it is and since when, under a sum that is keyed with the cluster's key.  So a
site that has not yet heard of a login, because the site that it was made at is away, can still
tell a token that was given out from one that was made up.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

import msgspec
from blake3 import blake3
from sqlalchemy import Connection, insert, select, update

from dblike_delta.seams import Random
from dblike_srv.models import devices, users
from dblike_srv.registers import highest_counter, next_stamp
from dblike_srv.seal import Seal, from_text, to_text

MARK: Final = "dbl_"
_RANDOM: Final = 32
_CLAIM: Final = struct.Struct(">16s16s16sQ")
_PURPOSE: Final = "token"


class Claim(msgspec.Struct, frozen=True):
    """What a token says: the user's uid, the device, the device in whose name it was added (zeros:
    none), and when it was made."""

    user: bytes
    device: bytes
    parent: bytes
    made: int


def make_token(seal: Seal, random: Random, claim: Claim) -> str:
    """A new token."""
    body = random.bytes(_RANDOM) + _CLAIM.pack(*msgspec.structs.astuple(claim))
    sealed = body + seal.mac(_PURPOSE, body)
    return MARK + to_text(sealed)


def claim_of(seal: Seal, token: str) -> Claim | None:
    """What the token says; None where no site of the cluster gave it out."""
    try:
        raw = from_text(token.removeprefix(MARK))
    except ValueError:
        return None
    end = _RANDOM + _CLAIM.size
    if not hmac.compare_digest(raw[end:], seal.mac(_PURPOSE, raw[:end])):
        return None
    return Claim(*_CLAIM.unpack(raw[_RANDOM:end]))


def hash_token(token: str) -> bytes:
    """What is stored of a token."""
    return blake3(token.encode("utf-8", "replace"), derive_key_context="dblike 2026 token").digest()


def is_news(connection: Connection, claim: Claim) -> bool:
    """Whether this is a login at another site that was not heard of here.  Not where it ended: the
    device or its parent was revoked, has a later token, or the user may not log in."""
    user = connection.execute(select(users).where(users.c.uid == claim.user)).one_or_none()
    if user is None or user.disabled or max(user.password_at, user.disabled_at) > claim.made:
        return False
    family = (claim.device, claim.parent)
    rows = connection.execute(select(devices).where(devices.c.id.in_(family))).all()
    if any(row.revoked or row.user != user.id for row in rows):
        return False
    return all(row.token_at < claim.made for row in rows if bytes(row.id) == claim.device)


def adopt(connection: Connection, claim: Claim, digest: bytes) -> None:
    """Take in the device of such a login, if it still is news."""
    stamp = next_stamp(connection)  # first: what is read after it nobody else changes
    if not is_news(connection, claim):
        return
    parent = claim.parent if any(claim.parent) else None
    values = {"token": digest, "token_at": claim.made, "parent": parent, "stamp": stamp}
    known = update(devices).where(devices.c.id == claim.device).values(values)
    if connection.execute(known).rowcount:
        return
    user = connection.execute(select(users.c.id).where(users.c.uid == claim.user)).scalar_one()
    fresh = {"id": claim.device, "user": user, "name": "", "created": claim.made}
    fresh["highest"] = highest_counter(connection, user, claim.device)
    connection.execute(insert(devices).values(**fresh, **values))
