"""What a world gives to those who live in it: time, randomness, and how they die."""

from __future__ import annotations

import random
from typing import Protocol


class Crash(BaseException):
    """A device's process dies here."""


class SiteCrash(BaseException):
    """A site's process dies here."""


class Time(Protocol):
    """Whoever has the time."""

    now_ns: int


class SimClock:
    """The world's time with somebody's error on it."""

    def __init__(self, world: Time, skew_ms: int = 0) -> None:
        self._world = world
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        return self._world.now_ns // 1_000_000 + self.skew_ms

    def monotonic(self) -> float:
        return self._world.now_ns / 1e9


class SimRandom:
    """Randomness from the world's seed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def bytes(self, n: int) -> bytes:
        return self._rng.randbytes(n)

    def uniform(self, a: float, b: float) -> float:
        return self._rng.uniform(a, b)
