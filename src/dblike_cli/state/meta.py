"""Single values: who this device is, what it counted, and how far it heard."""

from __future__ import annotations

import sqlite3
from typing import TypeVar

_T = TypeVar("_T")
_FIRST = 1
_UNSEALED = "unsealed"
_UNSEEN = "look everywhere"


class Meta:
    """Single values; see State."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def device(self) -> bytes:
        """The device's id; empty before the first login, and where the state is new."""
        return self._get("device", b"")

    @property
    def marker(self) -> int:
        """The inode of `.dblike` when this state was made; 0 before that.  A copy has another."""
        return self._get("marker", 0)

    @property
    def cursor(self) -> str:
        """How far the site was heard; empty for not at all."""
        return self._get("cursor", "")

    def become(self, device: bytes, marker: int) -> None:
        """Be this device from here on; its counter begins anew.

        What the one before said itself is no word of this one's: it needs seals.
        """
        if self.device not in (b"", device):
            self.note(_UNSEALED, "going on")
        self._set(device=device, marker=marker, counter=_FIRST)
        self._connection.execute("DELETE FROM outbox")
        self._connection.execute("DELETE FROM offers")

    @property
    def unsealed(self) -> bool:
        """Whether contexts here may rest on the word of a device that this one is no more."""
        return bool(self.noted(_UNSEALED))

    def have_sealed(self) -> None:
        """Sites have sealed what they know of that."""
        self.note(_UNSEALED, "")

    @property
    def unseen(self) -> bool:
        """Whether all has to be looked at, whatever is hinted."""
        return bool(self.noted(_UNSEEN))

    def look_everywhere(self) -> None:
        """No hint will say what there is to be sent."""
        self.note(_UNSEEN, "going on")

    def have_looked(self) -> None:
        """All was looked at, and what came of it is remembered."""
        self.note(_UNSEEN, "")

    def step(self, cursor: str) -> None:
        """All that the cursor covers is remembered."""
        self._set(cursor=cursor)

    def take_counters(self, number: int) -> int:
        """The first of `number` counters that are never given out again."""
        first: int = self._get("counter", _FIRST)
        self._set(counter=first + number)
        return first

    def note(self, key: str, value: str) -> None:
        """Remember a text for whoever asks: the site's id, when it was last reached."""
        self._set(**{f"note.{key}": value})

    def noted(self, key: str) -> str:
        """A remembered text, or an empty one."""
        return self._get(f"note.{key}", "")

    def _get(self, key: str, default: _T) -> _T:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else row[0]

    def _set(self, **values: bytes | str | int) -> None:
        self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())
