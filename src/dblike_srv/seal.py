"""Seals: what a site hands out to be brought back, with a keyed sum so that nobody can invent it.

A *context* says which versions of a path a device knows of; one that claimed counters which nobody
has seen would dominate everyone's future edits.  A *cursor* says how much of each journal someone
has; one that is ahead of the journal means that this site's disk went back in time.  Both are
sealed with the cluster's key (BLAKE3, keyed), so that any site of the cluster can open them.
"""

from __future__ import annotations

import base64
import hmac

from blake3 import blake3

from dblike_delta.errors import DeltaError
from dblike_delta.vectors import SEAL_BYTES, VersionVector
from dblike_srv.errors import Gone, Invalid

_EMPTY = VersionVector()


class Seal:
    """Seals and opens with the cluster's key."""

    def __init__(self, cluster_key: bytes) -> None:
        self._key = cluster_key
        self._contexts = _derive("dblike 2026 context", cluster_key)
        self._cursors = _derive("dblike 2026 cursor", cluster_key)

    def mac(self, purpose: str, data: bytes) -> bytes:
        """A sum of `data` that only sites of the cluster can make, and that is good for nothing but
        this purpose."""
        return _mac(_derive(f"dblike 2026 {purpose}", self._key), data)

    def context(self, folder: bytes, path: bytes, packed: bytes) -> bytes:
        """Seal the packed vector of a path's heads."""
        return _mac(self._contexts, folder + path + b"\0" + packed) + packed

    def open_context(self, folder: bytes, path: bytes, sealed: bytes) -> VersionVector:
        """The vector that was sealed for this path; none for an empty seal.  Raises Invalid."""
        if not sealed:
            return _EMPTY
        mac, packed = sealed[:SEAL_BYTES], sealed[SEAL_BYTES:]
        if not hmac.compare_digest(mac, _mac(self._contexts, folder + path + b"\0" + packed)):
            raise Invalid("the context is not one that a site handed out", field="context")
        try:
            return VersionVector.unpack(packed)
        except DeltaError as error:
            raise Invalid(f"the context is malformed: {error}", field="context") from None

    def cursor(
        self, folder: bytes, numbers: dict[bytes, int], seen: dict[bytes, int] | None = None
    ) -> str:
        """Seal journal numbers, site by site; the same numbers always give the same text.

        `seen` are numbers that its owner heard of at other sites: where they are beyond the others
        they are kept, for they tell a site whose disk went back in time.
        """
        packed = VersionVector.of({site: n for site, n in numbers.items() if n}).pack()
        beyond = {site: n for site, n in (seen or {}).items() if n > numbers.get(site, 0)}
        if beyond:
            packed += VersionVector.of(beyond).pack()
        sealed = _mac(self._cursors, folder + packed) + packed
        return to_text(sealed)

    def open_cursor(self, folder: bytes, text: str) -> dict[bytes, int]:
        """Journal numbers, site by site; none for the empty cursor.  Raises Gone."""
        return self._open_cursor(folder, text)[0]

    def open_seen(self, folder: bytes, text: str) -> dict[bytes, int]:
        """The highest number of each journal that the cursor's owner ever heard of; raises Gone."""
        numbers, beyond = self._open_cursor(folder, text)
        return {**numbers, **beyond}

    def _open_cursor(self, folder: bytes, text: str) -> tuple[dict[bytes, int], dict[bytes, int]]:
        if not text:
            return {}, {}
        try:
            raw = from_text(text)
            mac, packed = raw[:SEAL_BYTES], raw[SEAL_BYTES:]
            if hmac.compare_digest(mac, _mac(self._cursors, folder + packed)):
                numbers, at = VersionVector.take(packed, 0)
                beyond = VersionVector.unpack(packed[at:]) if at < len(packed) else _EMPTY
                return dict(numbers.items()), dict(beyond.items())
        except ValueError:
            pass
        raise Gone("the cursor is of no use for this folder: start with none", field="cursor")


def to_text(raw: bytes) -> str:
    """Bytes as they stand in URLs and headers: base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """The bytes again; raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _derive(purpose: str, key: bytes) -> bytes:
    return blake3(key, derive_key_context=purpose).digest()


def _mac(key: bytes, data: bytes) -> bytes:
    return blake3(data, key=key).digest(length=SEAL_BYTES)
