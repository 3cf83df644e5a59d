"""Passwords in the site's own users table, as argon2id."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, select, update

from dblike_srv.auth.base import Credentials, Principal
from dblike_srv.errors import Busy
from dblike_srv.models import users
from dblike_srv.site import Site

HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1, type=Type.ID)
"""OWASP's second profile: 19 MiB and two passes."""

_AT_ONCE = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))
_PATIENCE = 10.0
_NOBODY: Final = (  # the hash of 32 random bytes that nobody kept
    "$argon2id$v=19$m=19456,t=2,p=1$R4NiFw15w3Vd0X+XBdwlmw"
    "$wKLlOnmlziYgpBRSJqEDHXEpRA2XzqTFV2yeSnYa1Wc"
)
"""Verified for unknown users, so that they take as long; made with the parameters above."""


@contextmanager
def _slot() -> Iterator[None]:
    """Hashing takes 19 MiB and a core: few at once, so that logins can't exhaust the machine."""
    if not _AT_ONCE.acquire(timeout=_PATIENCE):
        raise Busy("too many logins at once", retry_after=2)
    try:
        yield
    finally:
        _AT_ONCE.release()


def hash_password(password: str) -> str:
    """What is stored of a password."""
    with _slot():
        return HASHER.hash(password)


def verify_password(stored: str, password: str) -> bool:
    """Whether it is the password; takes as long where nothing is stored."""
    with _slot():
        try:
            HASHER.verify(stored or _NOBODY, password)
        except (VerificationError, InvalidHashError):
            return False
    return bool(stored)


class SimpleAuth:
    """The users table; what `dblike-server user add` fills."""

    name = "simple"

    def __init__(self, site: Site, settings: Mapping[str, Any]) -> None:
        if settings:
            raise ValueError(f"auth plugin simple has no setting {min(settings)!r}")
        self._site = site

    def authenticate(self, credentials: Credentials) -> Principal | None:
        """Check the password, and store it anew where the parameters were raised since."""
        stored = self._site.database.read(lambda connection: _stored(connection, credentials.user))
        if not verify_password(stored, credentials.password):
            return None
        if HASHER.check_needs_rehash(stored):
            self._rehash(credentials, stored)
        return Principal(credentials.user)

    def _rehash(self, credentials: Credentials, stored: str) -> None:
        renewed = hash_password(credentials.password)
        where = (users.c.name == credentials.user.encode(), users.c.password == stored)
        self._site.database.transact(
            lambda connection: connection.execute(
                update(users).where(*where).values(password=renewed)
            )
        )


def _stored(connection: Connection, user: str) -> str:
    found = connection.scalar(select(users.c.password).where(users.c.name == user.encode()))
    return found or ""
