"""Passwords in an htpasswd file: who is in it may log in, and gets an account on the first time.

Only bcrypt is read (`htpasswd -B`).  Apache's older forms are a fast hash away from plain text; a
line that has one lets nobody in, and says so in the log.
"""

from __future__ import annotations

import hmac
import logging
import os
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import bcrypt

from dblike_srv.auth.base import Credentials, Principal
from dblike_srv.site import Site

_BCRYPT: Final = (b"$2y$", b"$2b$", b"$2a$")
_LONGEST: Final = 72  # bytes that bcrypt looks at; a longer password is refused, not cut
_NOBODY: Final = bcrypt.hashpw(b"", bcrypt.gensalt(10))

log = logging.getLogger(__name__)


class HtpasswdAuth:
    """`{"plugin": "htpasswd", "file": "/etc/htpasswd"}`; the file is read again when it changes."""

    name = "htpasswd"

    def __init__(self, site: Site, settings: Mapping[str, Any]) -> None:  # noqa: ARG002 - the seam
        unknown = settings.keys() - {"file"}
        if unknown or not isinstance(settings.get("file"), str):
            raise ValueError("auth plugin htpasswd needs exactly one setting: file")
        self._file = Path(settings["file"])
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] = ()
        self._entries: dict[bytes, bytes] = {}
        try:
            self._read()
        except OSError as error:
            raise ValueError(f"auth plugin htpasswd: {self._file}: {error.strerror}") from None

    def authenticate(self, credentials: Credentials) -> Principal | None:
        """Compare with the file; raises OSError where it can't be read."""
        password = credentials.password.encode()
        user, entries = credentials.user.encode(), self._read()
        stored = entries.get(user, b"")
        checked = stored or _instead(user, entries)
        usable = len(password) <= _LONGEST and b"\0" not in password
        made = bcrypt.hashpw(password if usable else b"", checked)
        if hmac.compare_digest(made, checked) and stored and usable:
            return Principal(credentials.user, create=True)
        return None

    def _read(self) -> dict[bytes, bytes]:
        with self._lock:
            found = os.stat(self._file)
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                self._entries = _parse(self._file.read_bytes())
                self._stamp = stamp
            return self._entries


def _instead(user: bytes, entries: dict[bytes, bytes]) -> bytes:
    """A hash for an unknown user that takes as long as one of the file, the same at each try."""
    hashes = list(entries.values()) or [_NOBODY]
    return hashes[zlib.crc32(user) % len(hashes)]


def _parse(text: bytes) -> dict[bytes, bytes]:
    entries = {}
    for number, line in enumerate(text.splitlines(), start=1):
        user, colon, stored = line.strip().partition(b":")
        if not user or user.startswith(b"#"):
            continue
        if colon and stored.startswith(_BCRYPT) and len(stored) == 60:
            entries[user] = stored.replace(b"$2y$", b"$2b$", 1)
        else:
            log.warning("htpasswd line %d is not bcrypt (htpasswd -B): it lets nobody in", number)
    return entries
