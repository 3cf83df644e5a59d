"""Rows that all sites share: what is new of them here, and taking in what is new elsewhere.

Every value that may change travels with the time of its change, and the later one wins, a greater
one at the same time; a device that was revoked stays so.  So it does not matter in which order, how
often and through which site changes come.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from dblike_srv.contents import batches
from dblike_srv.db import Database
from dblike_srv.models import devices, folders, metadata, sites, users
from dblike_srv.registers import (
    ACCOUNTS,
    end_added,
    end_all,
    highest_counter,
    last_stamp,
    next_stamp,
    user_uid,
)
from dblike_srv.replication.messages import (
    DeviceState,
    FolderState,
    SharedPage,
    SiteState,
    UserState,
)
from dblike_srv.site import Site

PAGE: Final = 2000
_TABLES: Final = (users, devices, folders, sites)
# Every site asks for these every other second: to build them takes longer than to run them.
_CHANGED: Final = {
    table: select(table)
    .where(table.c.stamp > bindparam("since"))
    .order_by(table.c.stamp)
    .limit(bindparam("most"))
    for table in _TABLES
}
_OF_STAMP: Final = {
    table: select(table).where(table.c.stamp == bindparam("wanted")) for table in _TABLES
}
_CENTURY_MS: Final = 100 * 365 * 86_400_000
_FOREVER: Final = 2**63


class Clash(Exception):
    """What another site says can't be true together with what is here."""


# --- what is new here


def news(site: Site, since: int, limit: int = PAGE) -> SharedPage:
    """What changed after the change of number `since`."""
    return site.database.read(lambda connection: _news(connection, since, limit))


def _news(connection: Connection, since: int, limit: int) -> SharedPage:
    upto, rows = last_stamp(connection), dict[Table, list[Any]]()
    for table in _TABLES:
        values = {"since": since, "most": limit}
        rows[table] = list(connection.execute(_CHANGED[table], values).mappings())
        if len(rows[table]) == limit:
            upto = min(upto, rows[table][-1]["stamp"])
    for table, found in rows.items():
        # Rows that one transaction changed share a stamp, and must not be torn apart.
        mine = [row for row in found if row["stamp"] < upto]
        rows[table] = [*mine, *_of_stamp(connection, table, upto)] if upto > since else []
    return SharedPage(
        upto=upto,
        more=upto < last_stamp(connection),
        users=_user_states(connection, rows),
        devices=_device_states(connection, rows[devices]),
        folders=_folder_states(connection, rows[folders]),
        sites=[site_state(row) for row in rows[sites]],
    )


def _of_stamp(connection: Connection, table: Table, stamp: int) -> list[Any]:
    return list(connection.execute(_OF_STAMP[table], {"wanted": stamp}).mappings())


def _user_states(connection: Connection, rows: dict[Table, list[Any]]) -> list[UserState]:
    """The users that changed, and those whose devices or folders did: they must be there first."""
    known = {row["id"] for row in rows[users]}
    owners = {row["user"] for row in (*rows[devices], *rows[folders])} - known
    found = list(rows[users])
    for batch in batches(sorted(owners)):
        found += connection.execute(select(users).where(users.c.id.in_(batch))).mappings()
    return [_user_state(row) for row in found]


def _user_state(row: Any) -> UserState:
    return UserState(
        uid=bytes(row["uid"]),
        name=bytes(row["name"]),
        created=row["created"],
        password=row["password"],
        password_at=row["password_at"],
        disabled=bool(row["disabled"]),
        disabled_at=row["disabled_at"],
        quota=row["quota"],
        quota_at=row["quota_at"],
    )


def _device_states(connection: Connection, rows: list[Any]) -> list[DeviceState]:
    uids = _uids(connection, rows)
    return [
        DeviceState(
            id=bytes(row["id"]),
            user=uids[row["user"]],
            name=row["name"],
            created=row["created"],
            token=bytes(row["token"] or b""),
            token_at=row["token_at"],
            revoked=row["revoked"],
            parent=bytes(row["parent"] or b""),
        )
        for row in rows
    ]


def _folder_states(connection: Connection, rows: list[Any]) -> list[FolderState]:
    uids = _uids(connection, rows)
    return [
        FolderState(bytes(row["id"]), uids[row["user"]], bytes(row["name"]), row["created"])
        for row in rows
    ]


def site_state(row: Any) -> SiteState:
    """A row of the table of sites, as it travels."""
    return SiteState(bytes(row["id"]), row["name"], row["url"], row["changed"], bool(row["gone"]))


def _uids(connection: Connection, rows: Iterable[Any]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for batch in batches(sorted({row["user"] for row in rows})):
        query = select(users.c.id, users.c.uid).where(users.c.id.in_(batch))
        found.update((row, bytes(uid)) for row, uid in connection.execute(query))
    return found


# --- taking in what is new elsewhere


def take_in(site: Site, page: SharedPage) -> bool:
    """Bring our rows to what the page says; whether that changed anything.  Raises Clash."""

    def work(connection: Connection) -> bool:
        return _Taker(connection, site.clock.now_ms() + _CENTURY_MS).page(page) > 0

    if not (page.users or page.devices or page.folders or page.sites):
        return False
    try:
        changed = site.database.transact(work)
    except IntegrityError:
        raise Clash("rows that can't be here together with ours") from None
    if changed:
        site.notices.publish(ACCOUNTS, "changed")
    return changed


def count_unheard(site: Site, theirs: Iterable[SharedPage]) -> int:
    """How many rows here would change something at a site that says all of these.  Raises Clash."""

    def work(connection: Connection) -> int:
        taker, unheard, since, more = _Taker(connection, _FOREVER), 0, 0, True
        for page in theirs:
            taker.page(page)
        while more:
            ours = news(site, since)
            unheard += taker.page(msgspec.structs.replace(ours, sites=[]))
            since, more = ours.upto, ours.more
        return unheard

    copy = Database("sqlite://", site.random)  # of what is there: the rules are those of taking in
    try:
        copy.transact(metadata.create_all)
        return copy.transact(work)
    except IntegrityError:
        raise Clash("rows that can't be there together with ours") from None
    finally:
        copy.close()


class _Taker:
    """One transaction's work; each method says whether it changed anything.

    No time may be after `last`: what wins by its time must leave room for a later one.
    """

    def __init__(self, connection: Connection, last: int) -> None:
        self._connection = connection
        self._last = last
        self._stamp = 0
        self._rows: dict[bytes, int] = {}
        self._owners: set[int] = set()  # of devices that changed

    def page(self, page: SharedPage) -> int:
        """All of it; how many rows that changed."""
        changed = [self.user(state) for state in page.users]
        changed += [self.device(state) for state in page.devices]
        self.end_added()
        changed += [self.folder(state) for state in page.folders]
        changed += [self.site(state) for state in page.sites]
        return sum(changed)

    def _put(self, table: Table, key: Any, values: dict[str, Any], *, fresh: bool) -> bool:
        if not values and not fresh:
            return False
        self._stamp = self._stamp or next_stamp(self._connection)
        values["stamp"] = self._stamp
        if fresh:
            self._connection.execute(insert(table).values(values))
        else:
            self._connection.execute(update(table).where(key).values(values))
        return True

    def _check_times(self, *times: int) -> None:
        if max(times) > self._last:
            raise Clash("a time in another century")

    def user(self, state: UserState) -> bool:
        self._check_times(state.password_at, state.disabled_at, state.quota_at)
        if state.uid != _uid_of(state.name):
            raise Clash("an account whose id is not that of its name")
        row = self._one(users, users.c.uid == state.uid)
        if row is None:
            values = msgspec.structs.asdict(state) | {"disabled": int(state.disabled)}
            return self._put(users, None, values, fresh=True)
        values = {}
        for name, at in (("password", "password_at"), ("disabled", "disabled_at"),
                         ("quota", "quota_at")):  # fmt: skip
            theirs = (getattr(state, at), getattr(state, name))
            if theirs > (row[at], type(theirs[1])(row[name])):
                values |= {name: int(theirs[1]) if name != "password" else theirs[1], at: theirs[0]}
        self._end_tokens(row["id"], values)
        return self._put(users, users.c.uid == state.uid, values, fresh=False)

    def _end_tokens(self, user: int, values: dict[str, Any]) -> None:
        """With a new password also those end that were given out here for the old one since it was
        changed: by its time alone each of them would be good.  What the change itself left good,
        and what was given out for the new one, comes with a later time."""
        mine = (devices.c.user == user) & devices.c.token.is_not(None)
        if values.get("disabled"):
            end_all(self._connection, mine, 0)
        elif "password_at" in values:
            end_all(self._connection, mine & (devices.c.token_at >= values["password_at"]), 0)

    def device(self, state: DeviceState) -> bool:
        self._check_times(state.token_at, state.revoked)
        user = self._user_row(state.user)
        row = self._one(devices, devices.c.id == state.id)
        fresh = row is None
        if row is not None and row["user"] != user:
            # A client chooses its id: two users took it, at sites that had not heard of each other.
            # All sites leave it to the same one; the other one's device has to log in as a new one.
            if self._uid(row["user"]) < state.user:
                return False
            row = None
        held = row or {"revoked": 0, "token_at": -1, "token": None, "name": "", "parent": None}
        values: dict[str, Any] = {}
        if row is None:
            highest = highest_counter(self._connection, user, state.id)
            values = {
                "id": state.id, "user": user, "created": state.created, "highest": highest,
                "revoked": 0,
            }  # fmt: skip
        theirs = (state.token_at, state.token, state.name, state.parent)
        token, parent = bytes(held["token"] or b""), bytes(held["parent"] or b"")
        if theirs > (held["token_at"], token, held["name"], parent):
            values |= {"name": state.name, "token": state.token or None,
                       "token_at": state.token_at, "parent": state.parent or None}  # fmt: skip
        if state.revoked and (not held["revoked"] or state.revoked < held["revoked"]):
            values["revoked"] = state.revoked
        if state.revoked or held["revoked"]:
            values |= {"token": None} if values else {}
        changed = self._put(devices, devices.c.id == state.id, values, fresh=fresh)
        if changed:
            self._owners.add(user)
        return changed

    def end_added(self) -> None:
        """A device that came may have a revoked one above it, or be a revoked one above others."""
        for user in sorted(self._owners):
            end_added(self._connection, user)

    def folder(self, state: FolderState) -> bool:
        if self._one(folders, folders.c.id == state.id) is not None:
            return False
        user = self._user_row(state.user)
        mine = (folders.c.user == user) & (folders.c.name == state.name)
        if self._one(folders, mine) is not None:
            raise Clash(f"the folder {state.name.decode()} has another id there")
        values = {"id": state.id, "user": user, "name": state.name, "created": state.created}
        return self._put(folders, None, values, fresh=True)

    def site(self, state: SiteState) -> bool:
        self._check_times(state.changed)
        row = self._one(sites, sites.c.id == state.id)
        values = msgspec.structs.asdict(state) | {"gone": int(state.gone)}
        theirs = (state.gone, state.changed, state.url)
        if row is not None and theirs <= (bool(row["gone"]), row["changed"], row["url"]):
            return False
        return self._put(sites, sites.c.id == state.id, values, fresh=row is None)

    def _one(self, table: Table, where: Any) -> Any:
        return self._connection.execute(select(table).where(where)).mappings().one_or_none()

    def _uid(self, row: int) -> bytes:
        query = select(users.c.uid).where(users.c.id == row)
        return bytes(self._connection.execute(query).scalar_one())

    def _user_row(self, uid: bytes) -> int:
        if uid not in self._rows:
            query = select(users.c.id).where(users.c.uid == uid)
            row = self._connection.execute(query).scalar()
            if row is None:
                raise Clash("a device or folder of a user who is not there")
            self._rows[uid] = int(row)
        return self._rows[uid]


def _uid_of(name: bytes) -> bytes:
    try:
        return user_uid(name.decode())
    except UnicodeDecodeError:
        raise Clash("an account with an impossible name") from None
