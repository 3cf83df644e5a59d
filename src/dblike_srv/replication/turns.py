"""Whose turn it is to take in a folder's versions."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

PATIENCE: Final = 3.0
ENOUGH: Final = 32 << 10
"""Bytes that have to come in so many seconds from the one whose turn it is."""


class Turn:
    """Who takes in a folder's versions now.  `moved` is how many bytes of them came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.moved = 0

    def take(self) -> bool:
        """Wait for the turn.  False where the one who has it gets nowhere: a site that stalls must
        not keep others from being heard, and two at once cost time and nothing else."""
        while not self._lock.acquire(timeout=PATIENCE):
            before = self.moved
            if self._lock.acquire(timeout=PATIENCE):
                break
            if self.moved - before < ENOUGH:
                return False
        return True

    def give(self) -> None:
        """Let the next one."""
        self._lock.release()


class Locks:
    """A turn for each folder."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: defaultdict[bytes, Turn] = defaultdict(Turn)

    @contextlib.contextmanager
    def of(self, folder: bytes) -> Iterator[Turn]:
        """The folder's turn, taken where that is possible."""
        with self._guard:
            turn = self._turns[folder]
        mine = turn.take()
        try:
            yield turn
        finally:
            if mine:
                turn.give()
