"""What the engine and a site get from outside: time and randomness.

Whoever runs them passes these in, so that a whole system runs in one process, the same from a seed.
"""

from __future__ import annotations

import os
import random
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now_ms(self) -> int:
        """Epoch milliseconds; may jump, in both directions."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""


class Random(Protocol):
    """Ids, keys and jitter."""

    def bytes(self, n: int) -> bytes:
        """`n` bytes that nobody can guess."""

    def uniform(self, a: float, b: float) -> float:
        """A number between `a` and `b`, for jitter only."""


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class SystemRandom:
    """The machine's own randomness."""

    def bytes(self, n: int) -> bytes:
        return os.urandom(n)

    def uniform(self, a: float, b: float) -> float:
        return random.uniform(a, b)
