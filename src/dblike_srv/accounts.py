"""Accounts: users, their devices, and the tokens by which a device is known.

A token is 256 random bits, shown once and stored as a hash; it belongs to one device.  Logging in
again on a device ends its former token.  Whoever is revoked or disabled is refused from the next
request on.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, and_, bindparam, func, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from dblike_delta.decoding import convert
from dblike_delta.messages import LoginReply, LoginRequest, PasswordChange
from dblike_srv.auth import throttle
from dblike_srv.auth.base import Credentials, Principal
from dblike_srv.auth.plugins import Gate
from dblike_srv.auth.simple import hash_password, verify_password
from dblike_srv.errors import Conflict, Invalid, NotFound, SiteError
from dblike_srv.folders import HOME, insert_folder
from dblike_srv.hub_client import Session
from dblike_srv.identity import Identity
from dblike_srv.models import devices, users
from dblike_srv.registers import change, end_all, folder_uid, later, next_stamp, say, user_uid
from dblike_srv.replication.sites import site_urls
from dblike_srv.site import Site
from dblike_srv.tokens import Claim, adopt, claim_of, hash_token, is_news, make_token

SEEN_EVERY_MS: Final = 300_000
"""How exact "last seen" is: a write for each request would be a write for each request."""
_CHUNK: Final = 400


GOOD: Final = (
    devices.c.revoked == 0,
    users.c.disabled == 0,
    devices.c.token_at >= users.c.password_at,
)
"""Of a device's token and its user: the token has not ended."""

ENDED: Final = "log in first: the token is missing, ended or revoked"

log = logging.getLogger(__name__)


class Unauthorized(SiteError):
    """No token, or none that is good (any more); or credentials that nobody knows."""


class TooMany(SiteError):
    """Too many attempts or sockets; wait for `retry_after` seconds."""

    def __init__(self, detail: str, *, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Forbidden(SiteError):
    """Known, and still not allowed."""


class Caller(msgspec.Struct, frozen=True):
    """An authenticated request: who, and the session that a WebSocket of it would belong to."""

    identity: Identity
    session: Session


class UserView(msgspec.Struct, frozen=True):
    """An account, for its administrator."""

    name: str
    disabled: bool
    quota: int
    used: int
    created: int
    devices: int


# --- sessions


def login(site: Site, gate: Gate, request: LoginRequest, address: str) -> LoginReply:
    """Credentials for a token of this device; raises Unauthorized, TooMany, Conflict, Busy."""
    keys = throttle.keys_of(request.user, address)
    wait = throttle.attempt(site, keys)
    if wait:
        raise TooMany("too many failed logins", retry_after=wait)
    try:
        principal = gate.admit(Credentials(request.user, request.password, address))
    except SiteError:
        throttle.forgive(site, keys, succeeded=False)
        raise
    if principal is None:
        raise Unauthorized("unknown user or wrong password")
    user = _user_of(site, principal)
    throttle.forgive(site, keys, succeeded=True)
    return _open_session(site, user, principal.user, request)


def _user_of(site: Site, principal: Principal) -> int:
    found = site.database.read(lambda connection: _find_user(connection, principal.user))
    if found is None and principal.create:
        with suppress(Conflict):  # another device of theirs came first
            create_user(site, principal.user, None)
        found = site.database.read(lambda connection: _find_user(connection, principal.user))
    if found is None or found.disabled:
        raise Unauthorized("unknown user or wrong password")
    return int(found.id)


def _open_session(
    site: Site, user: int, name: str, request: LoginRequest, *, parent: bytes | None = None
) -> LoginReply:
    chosen = request.device_id or site.random.bytes(16).hex()
    device, now = bytes.fromhex(chosen), site.clock.now_ms()

    def work(connection: Connection) -> str:
        stamp = next_stamp(connection)  # first: what is read after it nobody else changes
        if parent is not None:
            _check_device(connection, parent)
        mine = select(users.c.uid, users.c.password_at).where(users.c.id == user)
        uid, password_at = connection.execute(mine).one()
        known = connection.execute(select(devices).where(devices.c.id == device)).one_or_none()
        if known is None:
            connection.execute(insert(devices).values(id=device, user=user, name="", created=now))
        elif known.user != user or known.revoked:
            raise Conflict("this device id is taken: choose another", field="device_id")
        made = max(now, password_at, known.token_at + 1 if known is not None else 0)
        claim = Claim(bytes(uid), device, parent or bytes(16), made)
        token = make_token(site.seal, site.random, claim)
        values = {
            "name": request.device, "token": hash_token(token), "token_at": made,
            "last_seen": now, "parent": parent, "stamp": stamp,
        }  # fmt: skip
        connection.execute(update(devices).where(devices.c.id == device).values(values))
        return token

    token = change(site, work)
    return LoginReply(
        token=token,
        user=name,
        device_id=chosen,
        site_id=site.id.hex(),
        time=now,
        servers=site_urls(site),
    )


def _check_device(connection: Connection, device: bytes) -> None:
    """Whether a device is still logged in: since its request began it may have been revoked."""
    query = select(devices.c.id).join(users, users.c.id == devices.c.user)
    good = query.where(devices.c.id == device, devices.c.token.is_not(None), *GOOD)
    if connection.scalar(good) is None:
        raise Unauthorized(ENDED)


def add_device(site: Site, identity: Identity, name: str) -> LoginReply:
    """A token for a new device of a user who is known by another one; it ends with that one."""
    request = LoginRequest(user=identity.user_name, password="", device=name)
    return _open_session(site, identity.user, identity.user_name, request, parent=identity.device)


_BY_TOKEN: Final = (  # asked by every request
    select(
        devices.c.id,
        devices.c.user,
        devices.c.name,
        devices.c.token,
        devices.c.last_seen,
        users.c.name.label("user_name"),
    )
    .join(users, users.c.id == devices.c.user)
    .where(devices.c.token == bindparam("digest"), *GOOD)
)


def identify(site: Site, token: str) -> Caller:
    """Whose token this is; raises Unauthorized."""
    digest = hash_token(token)
    found = site.database.read(lambda connection: _by_token(connection, digest))
    if found is None:
        found = _from_elsewhere(site, token, digest)
    if found is None or not hmac.compare_digest(bytes(found.token), digest):
        raise Unauthorized(ENDED)
    now = site.clock.now_ms()
    if abs(now - found.last_seen) > SEEN_EVERY_MS:
        _see(site, bytes(found.id), now)
    device, name = bytes(found.id), bytes(found.user_name).decode()
    return Caller(
        Identity(user=found.user, user_name=name, device=device, device_name=found.name),
        Session(user=found.user, device=device, token=digest),
    )


def _from_elsewhere(site: Site, token: str, digest: bytes) -> Any:
    """The device of a token that another site made, of which nothing was heard here yet."""
    claim = claim_of(site.seal, token)
    if claim is None:
        return None
    if site.database.read(lambda connection: is_news(connection, claim)):
        change(site, lambda connection: adopt(connection, claim, digest))
    return site.database.read(lambda connection: _by_token(connection, digest))


def _by_token(connection: Connection, digest: bytes) -> Any:
    return connection.execute(_BY_TOKEN, {"digest": digest}).one_or_none()


def _see(site: Site, device: bytes, now: int) -> None:
    statement = update(devices).where(devices.c.id == device).values(last_seen=now)
    try:
        site.database.transact(lambda connection: connection.execute(statement))
    except (SiteError, DBAPIError) as error:
        log.warning("a device was seen, which can't be written: %s", error)  # reads go on


def alive(site: Site, sessions: Iterable[Session]) -> set[Session]:
    """Those of the sessions whose token is still good."""
    wanted = {session.token: session for session in sessions}
    tokens = list(wanted)

    def work(connection: Connection) -> set[Session]:
        found: set[Session] = set()
        for at in range(0, len(tokens), _CHUNK):
            query = (
                select(devices.c.token)
                .join(users, users.c.id == devices.c.user)
                .where(devices.c.token.in_(tokens[at : at + _CHUNK]))
                .where(*GOOD)
            )
            found.update(wanted[bytes(token)] for token in connection.scalars(query))
        return found

    return site.database.read(work)


def logout(site: Site, identity: Identity) -> None:
    """End this device's token; the device may log in again."""
    mine, now = devices.c.id == identity.device, site.clock.now_ms()
    change(site, lambda connection: end_all(connection, mine, now))


def change_password(site: Site, identity: Identity, change: PasswordChange) -> None:
    """Set a new password; the other devices' tokens end.  Raises Invalid.

    What this device set last it may set again, for the reply may have been lost: that is another
    guess, and counted as one.
    """
    query = select(users.c.password, users.c.password_at, devices.c.token_at)
    query = query.join(devices, devices.c.user == users.c.id)
    mine = query.where(users.c.id == identity.user, devices.c.id == identity.device)
    stored, at, token_at = site.database.read(lambda connection: connection.execute(mine).one())
    if not stored:
        raise Invalid("this account's password is kept elsewhere", field="old")
    keys = throttle.keys_of(identity.user_name, "")
    wait = throttle.attempt(site, keys)
    if wait:
        raise TooMany("too many wrong passwords", retry_after=wait)
    good = verify_password(stored, change.old)
    again = not good and at == token_at and not throttle.attempt(site, keys)
    if not good and not (again and verify_password(stored, change.new)):
        raise Invalid("this is not the old password", field="old")
    throttle.forgive(site, keys, succeeded=True)
    if good:
        _store_password(site, identity.user, change.new, keep=identity.device)


# --- users


def create_user(site: Site, name: str, password: str | None, *, quota: int = 0) -> None:
    """A new account with its folder; without a password only other plugins let it in."""
    _check_name(name)
    stored = hash_password(password) if password is not None else ""
    now, uid = site.clock.now_ms(), user_uid(name)
    values = {
        "uid": uid,
        "name": name.encode(),
        "password": stored,
        "password_at": now,
        "quota": quota,
        "quota_at": now,
        "created": now,
    }

    def work(connection: Connection) -> None:
        # A COMMIT whose outcome was unknown may have made it already.
        mine = (users.c.uid == uid, users.c.password == stored, users.c.created == now)
        if not connection.scalar(select(users.c.id).where(*mine)):
            connection.execute(insert(users).values(**values, stamp=next_stamp(connection)))
            user = connection.execute(select(users.c.id).where(*mine)).scalar_one()
            insert_folder(connection, user, folder_uid(uid, HOME), HOME, now)

    try:
        change(site, work)
    except IntegrityError:
        raise Conflict(f"there is a user {name} already", field="name") from None


def administrator(site: Site, name: str) -> Identity:
    """The user's identity for the server's own commands: no device of theirs."""
    row = find_user(site, name)
    return Identity(user=row.id, user_name=name, device=bytes(16), device_name="server")


def find_user(site: Site, name: str) -> Any:
    """The user's row; raises NotFound."""
    found = site.database.read(lambda connection: _find_user(connection, name))
    if found is None:
        raise NotFound(f"no user {name}", field="name")
    return found


def _find_user(connection: Connection, name: str) -> Any:
    return connection.execute(select(users).where(users.c.name == name.encode())).one_or_none()


def list_users(site: Site) -> list[UserView]:
    """All accounts, by name."""

    def work(connection: Connection) -> list[UserView]:
        good = connection.scalars(select(devices.c.user).where(devices.c.token.is_not(None)))
        counts: dict[int, int] = {}
        for user in good:
            counts[user] = counts.get(user, 0) + 1
        rows = connection.execute(select(users).order_by(users.c.name)).all()
        return [_user_view(row._mapping, counts.get(row.id, 0)) for row in rows]  # noqa: SLF001

    return site.database.read(work)


def _user_view(row: Mapping[Any, Any], count: int) -> UserView:
    fields = {key: row[key] for key in ("quota", "used", "created")}
    view = {
        **fields,
        "name": bytes(row["name"]).decode(),
        "disabled": bool(row["disabled"]),
        "devices": count,
    }
    return convert(view, UserView)


def set_password(site: Site, name: str, password: str) -> None:
    """A new password; all the user's tokens end."""
    _store_password(site, find_user(site, name).id, password, keep=b"")


def _store_password(site: Site, user: int, password: str, *, keep: bytes) -> None:
    if not password or len(password) > 1024:
        raise Invalid("a password has 1 to 1024 characters", field="new")
    stored, now = hash_password(password), site.clock.now_ms()

    def work(connection: Connection) -> None:
        mine = users.c.id == user
        before = connection.execute(select(users.c.password_at).where(mine)).scalar_one()
        theirs = select(func.max(devices.c.token_at)).where(devices.c.user == user)
        # The time of every token that ends lies before that of the password, also of those that
        # another site gave out for the old one and we did not hear of yet; and no token's is set
        # back, whatever the clock that it is of: that of the one which stays would lose.
        at = max(now, before + 1, (connection.scalar(theirs) or 0) + 1)
        say(connection, update(users).where(mine).values(password=stored, password_at=at))
        end_all(connection, and_(devices.c.user == user, devices.c.id != keep), now)
        say(connection, update(devices).where(devices.c.id == keep).values(token_at=at))

    change(site, work)


def set_disabled(site: Site, name: str, disabled: bool) -> None:
    """Refuse the user from now on, or let them in again; tokens end with it."""
    user, now = find_user(site, name).id, site.clock.now_ms()

    def work(connection: Connection) -> None:
        changed = update(users).where(users.c.id == user).values(disabled=int(disabled))
        say(connection, changed.values(disabled_at=later(users.c.disabled_at, now)))
        if disabled:
            end_all(connection, devices.c.user == user, now)

    change(site, work)


def set_quota(site: Site, name: str, quota: int) -> None:
    """Limit the bytes that the user's packs take; 0 is no limit."""
    user, now = find_user(site, name).id, site.clock.now_ms()
    changed = update(users).where(users.c.id == user).values(quota=quota)
    limited = changed.values(quota_at=later(users.c.quota_at, now))
    change(site, lambda connection: say(connection, limited))


def _check_name(name: str) -> None:
    size = len(name.encode("utf-8", "surrogateescape"))
    if not 1 <= size <= 255 or not name.isprintable() or name != name.strip() or ":" in name:
        raise Invalid("a user's name is 1 to 255 bytes of printable text without ':'", field="name")
