"""What the passing of time asks the watching loop to do."""

from __future__ import annotations

from typing import Final

import msgspec

from dblike_delta.seams import Clock

POLL: Final = 60.0
"""Seconds between two questions to the site, whatever its WebSocket says."""
POLL_DEAF: Final = 10.0
"""The same while there is no WebSocket."""
BEAT: Final = 15.0
"""Seconds after which a sleep of the machine is noticed at the latest."""
JUMP: Final = 5.0
"""Seconds between two clocks that mean that the machine slept, or that its clock was set."""
RESCAN_BLIND: Final = 60.0
"""Seconds between two looks at everything where not everything can be watched."""
FIRST_RETRY: Final = 0.25
LONGEST_RETRY: Final = 60.0


def pause_of(tries: int) -> float:
    """Seconds to wait after so many tries that failed."""
    return min(FIRST_RETRY * 2.0 ** min(tries, 10), LONGEST_RETRY)


class Due(msgspec.Struct, frozen=True):
    """What it is time for."""

    rescan: bool = False
    poll: bool = False
    jumped: bool = False
    retry: frozenset[bytes] = frozenset()


class Timers:
    """Tells what is due, and when to ask again."""

    def __init__(self, clock: Clock, rescan: float) -> None:
        self._clock = clock
        self._rescan = rescan
        now = clock.monotonic()
        self._rescan_at = now + rescan
        self._poll_at = now + POLL
        self._retry_at: dict[bytes, float] = {}
        self._tries: dict[bytes, int] = {}
        self._clocks = (now, clock.now_ms() / 1000)

    def seconds(self) -> float:
        """How long nothing is due, as far as can be seen."""
        moment = min((self._rescan_at, self._poll_at, *self._retry_at.values()))
        return max(0.0, min(BEAT, moment - self._clock.monotonic()))

    def due(self, *, blind: bool, deaf: bool) -> Due:
        """What is due now; asking counts as doing it.

        `blind`: not everything is watched; `deaf`: there is no word from the site.
        """
        now = self._clock.monotonic()
        jumped = self._jumped(now)
        if deaf:
            self._poll_at = min(self._poll_at, now + POLL_DEAF)
        rescan = jumped or now >= self._rescan_at
        poll = rescan or now >= self._poll_at
        if rescan:
            self._rescan_at = now + (min(self._rescan, RESCAN_BLIND) if blind else self._rescan)
        if poll:
            self._poll_at = now + (POLL_DEAF if deaf else POLL)
        retry = frozenset(path for path, at in self._retry_at.items() if now >= at)
        for path in retry:
            del self._retry_at[path]
        return Due(rescan, poll, jumped, retry)

    def retry(self, paths: frozenset[bytes]) -> None:
        """Look at these again and at no others, later each time; the time of one that is not due
        yet stands."""
        now = self._clock.monotonic()
        self._tries = {path: self._tries.get(path, 0) for path in paths}
        self._retry_at = {path: at for path, at in self._retry_at.items() if path in paths}
        for path in paths.difference(self._retry_at):
            self._retry_at[path] = now + pause_of(self._tries[path])
            self._tries[path] += 1

    def soon(self) -> None:
        """Not everything is watched from now on: looks at everything are nearer."""
        self._rescan_at = min(self._rescan_at, self._clock.monotonic() + RESCAN_BLIND)

    def _jumped(self, now: float) -> bool:
        """Whether the wall clock moved by something else than the time that passed."""
        wall = self._clock.now_ms() / 1000
        (then, wall_then), self._clocks = self._clocks, (now, wall)
        return abs((wall - wall_then) - (now - then)) > JUMP
