"""The throttle before passwords: counted in the database, so that all workers and hosts share it.

An attempt is counted before the password is looked at and forgiven afterwards, so that a thousand
attempts at once are a thousand and not one.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from blake3 import blake3
from sqlalchemy import Connection, delete, insert, select, update

from dblike_srv.addresses import parse_address
from dblike_srv.models import attempts
from dblike_srv.site import Site

DAY_MS: Final = 86_400_000
LONGEST_MS: Final = 15 * 60_000
"""96 guesses a day at one account, below the 100 in a row that NIST SP 800-63B allows."""
FREE: Final = {b"a": 5, b"h": 50}
"""Failures without a delay: of an account, of an address (behind which many may sit)."""


def keys_of(user: str, address: str) -> tuple[bytes, ...]:
    """What an attempt is counted under: the account and where it came from."""
    account = b"a" + blake3(b"account " + user.encode()).digest()
    return (
        (account, b"h" + blake3(b"address " + _network(address)).digest())
        if address
        else (account,)
    )


def _network(address: str) -> bytes:
    """An IPv6 host owns a /64 at least, so the network is what counts there."""
    parsed = parse_address(address)
    if parsed is None:
        return address.encode()
    if isinstance(parsed, ipaddress.IPv6Address):
        return ipaddress.ip_network((parsed, 64), strict=False).network_address.packed
    return parsed.packed


def delay_ms(key: bytes, failures: int) -> int:
    """How long after its last failure a key has to wait: doubling from a second on."""
    over = failures - FREE[key[:1]]
    return 0 if over < 0 else min(LONGEST_MS, 1000 * 2 ** min(over, 20))


def attempt(site: Site, keys: tuple[bytes, ...]) -> float:
    """Count an attempt: 0 where it may go on, else the seconds to wait, and it is not counted."""
    now = site.clock.now_ms()

    def work(connection: Connection) -> float:
        known = _failures(connection, keys, now)
        wait = max(
            (last + delay_ms(key, failures) - now for key, (failures, last) in known.items()),
            default=0,
        )
        if wait > 0:
            return wait / 1000
        for key in keys:
            _write(connection, key, known.get(key, (0, 0))[0] + 1, now, known=key in known)
        return 0.0

    return site.database.transact(work)


def forgive(site: Site, keys: tuple[bytes, ...], *, succeeded: bool) -> None:
    """Take back the attempt: it succeeded (then its account starts anew), or was never judged."""

    def work(connection: Connection) -> None:
        for key in keys:
            if succeeded and key[:1] == b"a":
                connection.execute(delete(attempts).where(attempts.c.key == key))
            else:
                connection.execute(
                    update(attempts)
                    .where(attempts.c.key == key, attempts.c.failures > 0)
                    .values(failures=attempts.c.failures - 1)
                )

    site.database.transact(work)


def tidy(site: Site) -> int:
    """Forget what is older than a day; the number of keys that went."""
    before = site.clock.now_ms() - DAY_MS
    return site.database.transact(
        lambda connection: (
            connection.execute(delete(attempts).where(attempts.c.last < before)).rowcount
        )
    )


def _failures(
    connection: Connection, keys: tuple[bytes, ...], now: int
) -> dict[bytes, tuple[int, int]]:
    query = select(attempts).where(attempts.c.key.in_(keys)).with_for_update()
    rows = connection.execute(query).all()
    return {
        bytes(row.key): (row.failures if now - row.last < DAY_MS else 0, min(row.last, now))
        for row in rows
    }


def _write(connection: Connection, key: bytes, failures: int, now: int, *, known: bool) -> None:
    values = {"failures": failures, "last": now}
    if known:
        connection.execute(update(attempts).where(attempts.c.key == key).values(values))
    else:
        connection.execute(insert(attempts).values(key=key, **values))
