"""How many requests a process works on at once.

One that waits for a slow line, or for another site, takes a thread for minutes and nothing else:
who waits lends its slot to others, or a few devices on bad lines would keep everybody else out.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

_here = threading.local()


class Slots:
    """Slots for the threads of a process, each of which holds one while it works."""

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a slot, and hold it in here."""
        with self._free:
            _here.free = self._free
            try:
                yield
            finally:
                _here.free = None


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Lend this thread's slot, where it has one, for as long as it waits in here.

    Also for a lock that somebody holds who lends his: he could not go on without one.
    """
    free: threading.Semaphore | None = getattr(_here, "free", None)
    if free is None:
        yield
        return
    _here.free = None
    free.release()
    try:
        yield
    finally:
        free.acquire()
        _here.free = free
