"""Folders of one site of which it says what can't be, or nothing: they wait, its others go on."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final, NamedTuple

from dblike_delta.errors import DeltaError
from dblike_delta.exchange import Refused
from dblike_srv.replication.arrival import Fault, Unfinished
from dblike_srv.replication.followed import NOT_BELIEVED

QUARANTINE: Final = 60.0
"""Seconds until one is asked again that said what can't be, or whose news find no room here, at
most."""
_FIRST: Final = 0.4
"""Seconds for the first time, since some of it passes by itself."""

_OF_THE_SITE: Final = (401, 403, 408, 425, 429, 502, 503, 504)


def is_of_a_folder(error: Exception) -> bool:
    """Whether it says that something is wrong with what was asked for, and nothing of the site's
    other folders."""
    if isinstance(error, Refused):
        return error.status not in _OF_THE_SITE
    return isinstance(error, Fault | Unfinished | DeltaError)


class _Waiting(NamedTuple):
    until: float
    failures: int
    why: str


class Aside:
    """Which they are; kept as long as the site is followed, through all its sessions."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, _Waiting] = {}

    def put(self, folder: bytes, now: float, why: Exception) -> None:
        """Leave this one alone from `now` (seconds of a monotonic clock) on."""
        failures = self._waiting[folder].failures if folder in self._waiting else 0
        until = now + min(_FIRST * 3.0 ** min(failures, 10), QUARANTINE)
        self._waiting[folder] = _Waiting(until, failures + 1, str(why))

    def forgive(self, folder: bytes) -> None:
        """It is all here."""
        self._waiting.pop(folder, None)

    def keep(self, folders: Collection[bytes]) -> None:
        """Forgive all but these: what they have is here by another site, or they are no more."""
        for folder in self._waiting.keys() - folders:
            self.forgive(folder)

    def first(self) -> float:
        """When one of them is to be asked again."""
        return min((waiting.until for waiting in self._waiting.values()), default=math.inf)

    def holds(self, folder: bytes, now: float) -> bool:
        """Whether it is left alone still."""
        return folder in self._waiting and now < self._waiting[folder].until

    def words(self) -> str:
        """For `status`; empty where there are none."""
        if not self._waiting:
            return ""
        *_, last = self._waiting.values()
        count = len(self._waiting)
        return f"{NOT_BELIEVED}: {last.why} ({count} folder{'s' * (count > 1)}; the others go on)"
