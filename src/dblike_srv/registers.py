"""Rows that all sites share: users, devices, folders, sites.  Each change gets a number here.

What changed since a number is what another site asks for.  Numbers are allotted under a lock that
is held until the transaction ends, so whoever has read up to one has missed none below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from blake3 import blake3
from sqlalchemy import Column, ColumnElement, Connection, Update, case, func, insert, select, update

from dblike_delta.versions import Dot
from dblike_srv.models import counters, devices, folders, versions
from dblike_srv.site import Site

_T = TypeVar("_T")

STAMPS: Final = "stamps"
ACCOUNTS: Final = bytes(16)
"""In a notice, in place of a folder's id: rows that all sites share have changed."""
RETURNS: Final = b"\xff" * 16
"""Likewise: a site began to follow this one, so it can be reached, too."""
HELD: Final = b"\xfe" * 16
"""Likewise: more is known of what another site holds."""
INTERNAL: Final = frozenset((RETURNS, HELD))
"""What no device and no other site is told."""


_LAST: Final = select(counters.c.value).where(counters.c.name == STAMPS)


def next_stamp(connection: Connection) -> int:
    """The number of a change that is made in this transaction."""
    mine = counters.c.name == STAMPS
    changed = connection.execute(update(counters).where(mine).values(value=counters.c.value + 1))
    if not changed.rowcount:
        connection.execute(insert(counters).values(name=STAMPS, value=1))
        return 1
    return last_stamp(connection)


def pass_over_stamps(connection: Connection, now: int) -> None:
    """Let no change from here on have a number below this moment (epoch ms).  There are fewer
    changes than milliseconds: none that was numbered before it has a greater one."""
    mine = (counters.c.name == STAMPS, counters.c.value < now)
    connection.execute(update(counters).where(*mine).values(value=now))


def last_stamp(connection: Connection) -> int:
    """The number of the last change."""
    return int(connection.scalar(_LAST) or 0)


def later(column: Column[Any], now: int) -> ColumnElement[Any]:
    """Now, and in any case after what the column says: a clock that was set back must not make
    yesterday's value win over today's."""
    return case((column >= now, column + 1), else_=now)


def user_uid(name: str) -> bytes:
    """An account's id.  It follows from the name: made at two sites, it is one account."""
    return blake3(name.encode(), derive_key_context="dblike 2026 user").digest(length=16)


def folder_uid(user: bytes, name: str) -> bytes:
    """A folder's id, which follows from its user's and its name."""
    return blake3(user + name.encode(), derive_key_context="dblike 2026 folder").digest(length=16)


def highest_counter(connection: Connection, user: int, device: bytes) -> int:
    """The highest counter of a device among the versions that came here, be it from sites that
    heard of the device before this one did."""
    mine = select(folders.c.row).where(folders.c.user == user)
    query = select(func.max(versions.c.counter))
    query = query.where(versions.c.folder.in_(mine), versions.c.device == device)
    return int(connection.execute(query).scalar() or 0)


def note_counters(connection: Connection, dots: Iterable[Dot]) -> None:
    """Remember the highest counters that are known of devices."""
    highest: dict[bytes, int] = {}
    for device, counter in dots:
        highest[device] = max(counter, highest.get(device, 0))
    for device, counter in highest.items():
        mine = (devices.c.id == device) & (devices.c.highest < counter)
        connection.execute(update(devices).where(mine).values(highest=counter))


def end_all(connection: Connection, which: ColumnElement[bool], now: int, **values: int) -> None:
    """End the tokens of these devices."""
    ended = update(devices).where(which).values(token=None, **values)
    say(connection, ended.values(token_at=later(devices.c.token_at, now)))


def end_added(connection: Connection, user: int) -> None:
    """Revoke each of the user's devices that was added in the name of a revoked one, or of one that
    was added in such a one's name, and so on.

    It counts on a change having got its number in this transaction: nobody adds a device meanwhile.
    """
    query = select(devices.c.id, devices.c.parent, devices.c.revoked).where(devices.c.user == user)
    rows = connection.execute(query.with_for_update()).all()  # as they are now, not at our start
    revoked = {bytes(row.id): row.revoked for row in rows if row.revoked}
    parents = {bytes(row.id): bytes(row.parent) for row in rows if row.parent and not row.revoked}
    while more := [one for one in parents.keys() - revoked if parents[one] in revoked]:
        for one in more:
            revoked[one] = since = revoked[parents[one]]
            end_all(connection, devices.c.id == one, since, revoked=since)


def say(connection: Connection, statement: Update) -> None:
    """Change rows that all sites share."""
    connection.execute(statement.values(stamp=next_stamp(connection)))


def change(site: Site, work: Callable[[Connection], _T]) -> _T:
    """A transaction of such changes; the other sites hear that there is something new."""
    result = site.database.transact(work)
    site.notices.publish(ACCOUNTS, "changed")
    return result
