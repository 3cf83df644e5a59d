"""What the watching loop waits for: hints that come in while a cycle runs are there for the next.

A hint says where it is worth looking, and is never wrong, only late or needless: so hints are
merged freely, and when there are too many of them the answer is "look everywhere".
"""

from __future__ import annotations

import threading
from typing import Final

from dblike_cli.report import Hints
from dblike_delta.seams import Clock

SETTLE: Final = 0.03
"""Seconds for a file that was changed and not closed: most are closed by then."""
LONGEST_SETTLE: Final = 2.0
"""For a file that goes on changing, such as a log: it is looked at less and less often."""
_MOST: Final = 50_000


class Wakeups:
    """Collects hints from any thread; one thread waits for them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._ready: set[bytes] = set()
        self._settling: dict[bytes, float] = {}
        self._habits: dict[bytes, tuple[float, float]] = {}
        self._everywhere = False
        self._remote = False
        self._back = False
        self._stopping = False

    # --- for whoever knows something

    def touch(self, *paths: bytes, settled: bool) -> None:
        """Something happened at these paths, which are looked at together; not `settled` where more
        is likely to follow at once."""
        with self._changed:
            for path in paths:
                if settled:
                    self._settling.pop(path, None)
                    self._add(path)
                    self._changed.notify()
                elif path not in self._settling and path not in self._ready:
                    self._settling[path] = self._clock.monotonic() + self._habit(path)
                    self._changed.notify()

    def everywhere(self) -> None:
        """Anything may have happened here."""
        with self._changed:
            self._everywhere = True
            self._changed.notify()

    def remote(self, *, back: bool = False) -> None:
        """The site may have something new; `back` when it can be reached again."""
        with self._changed:
            self._remote = True
            self._back = self._back or back
            self._changed.notify()

    def again(self, hints: Hints | None) -> None:
        """Hints that a cycle could not use up."""
        with self._changed:
            if hints is None or hints.everywhere:
                self._everywhere = True
            else:
                self._ready |= hints.paths
            self._remote = self._remote or hints is None or hints.remote

    def stop(self) -> None:
        """End all waits, now and later.  Safe in a signal handler: the lock is re-entrant."""
        self._stopping = True
        with self._changed:
            self._changed.notify_all()

    # --- for the loop

    @property
    def stopping(self) -> bool:
        """Whether the end was asked for."""
        return self._stopping

    def wait(self, seconds: float) -> Hints | None:
        """Wait for hints and take them; None when the time is over or the end was asked for."""
        until = self._clock.monotonic() + seconds
        with self._changed:
            while not self._stopping:
                now = self._clock.monotonic()
                self._settle(now)
                if self._ready or self._everywhere or self._remote:
                    return self._take()
                if now >= until:
                    break
                self._changed.wait(min([until, *self._settling.values()]) - now)
        return None

    def wait_until_back(self, seconds: float) -> None:
        """Wait for the time to pass, or for word that the site is there again, also of just now:
        since hints were taken last."""
        until = self._clock.monotonic() + seconds
        with self._changed:
            while not self._stopping and not self._back:
                left = until - self._clock.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)

    def pause(self, seconds: float) -> None:
        """Wait out a time, unless the end is asked for."""
        until = self._clock.monotonic() + seconds
        with self._changed:
            while not self._stopping and (left := until - self._clock.monotonic()) > 0:
                self._changed.wait(left)

    # --- inside

    def _add(self, path: bytes) -> None:
        if len(self._ready) >= _MOST:
            self._everywhere = True
            self._ready.clear()
        if not self._everywhere:
            self._ready.add(path)

    def _habit(self, path: bytes) -> float:
        """How long to let a path settle: longer each time that it is changed again soon after."""
        now = self._clock.monotonic()
        if len(self._habits) > 1000:
            self._habits.clear()
        last, delay = self._habits.get(path, (0.0, SETTLE))
        delay = min(delay * 2, LONGEST_SETTLE) if now - last < 3 * delay else SETTLE
        self._habits[path] = (now + delay, delay)
        return delay

    def _settle(self, now: float) -> None:
        due = [path for path, at in self._settling.items() if at <= now]
        for path in due:
            del self._settling[path]
            self._add(path)

    def _take(self) -> Hints:
        hints = Hints(frozenset(self._ready), self._everywhere, self._remote)
        self._ready.clear()
        self._everywhere = self._remote = self._back = False
        return hints
