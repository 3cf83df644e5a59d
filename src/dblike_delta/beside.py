"""Work beside the caller: hashing and writing what comes, while the next of it is on its way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

ROOM: Final = 4
"""Calls that may wait: with pieces of 1 MiB, the memory that it takes."""


class Beside:
    """Makes calls one after the other, in a thread of the executor's, while the caller goes on.

    The first error ends it: calls after it are not made, and it is raised by every `do` and
    `settle` from then on.  A call must not wait for another `Beside` of the same executor.
    """

    def __init__(self, executor: Executor, *, room: int = ROOM) -> None:
        self._executor = executor
        self._room = room
        self._changed = threading.Condition()
        self._calls: deque[Callable[[], object]] = deque()
        self._running = False
        self._error: BaseException | None = None

    def do(self, call: Callable[[], object]) -> None:
        """Have the call made after those before it; waits while too many are waiting."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or len(self._calls) < self._room)
            self._raise()
            self._calls.append(call)
            start, self._running = not self._running, True
        if start:
            self._start()
            self._raise()  # an executor that makes its calls at once has made this one

    def settle(self) -> None:
        """Wait until all calls were made."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)
            self._raise()

    def _start(self) -> None:
        try:
            self._executor.submit(self._work)
        except BaseException as error:
            self._end(error)
            self._next()  # nobody else says that nothing runs
            raise

    def _work(self) -> None:
        while (call := self._next()) is not None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
                self._end(error)

    def _end(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._calls.clear()

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            call = self._calls.popleft() if self._calls else None
            self._running = call is not None
            self._changed.notify_all()
            return call

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
