"""Rate limits: a token bucket for each direction."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Final

from dblike_delta.seams import Clock

_UNITS: Final = {"b": 1, "": 1 << 10, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_RATE = re.compile(r"(\d+(?:\.\d+)?)([bkmg]?)", re.IGNORECASE)
_BURST = 0.25
"""Seconds' worth of bytes that may go at once: short enough to be even, long enough to be cheap."""


class TokenBucket:
    """Lets `rate` bytes a second pass (0: any number).  Threads share it.

    What was asked for passes first and is paid for by the next call, so a piece larger than the
    bucket needs no splitting to be counted right.
    """

    def __init__(self, rate: int, clock: Clock, pause: Callable[[float], object]) -> None:
        self.rate = rate
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._free_at = clock.monotonic()

    def piece(self, largest: int) -> int:
        """How many bytes to move between two calls of `take`, so that the rate is even."""
        return min(largest, max(4096, int(self.rate * _BURST))) if self.rate else largest

    def take(self, size: int) -> None:
        """Count `size` bytes, and wait until they are due."""
        if not self.rate:
            return
        with self._lock:
            now = self._clock.monotonic()
            self._free_at = max(self._free_at, now - _BURST) + size / self.rate
            wait = self._free_at - now
        if wait > 0:
            self._pause(wait)


def parse_rate(text: str) -> int:
    """Bytes a second from `500`, `1.5M`, `80b`: KiB without a unit, as rsync and rclone have it.

    `0` and `off` mean no limit.  Raises ValueError.
    """
    if text.strip().lower() == "off":
        return 0
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a rate such as 500k, 1.5M or off")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def parse_rates(text: str) -> tuple[int, int]:
    """(up, down) from one rate for both directions or `UP:DOWN`."""
    up, _, down = text.partition(":")
    return parse_rate(up), parse_rate(down or up)
