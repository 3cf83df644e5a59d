"""Turns among processes, by a lock on a file: the system ends a turn when its process does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from pathlib import Path

from dblike_delta.system import give_to_owner


class Turns:
    """One process at a time.  Its threads come here one by one, for the caller has them queue."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._coming: Future[int] | None = None
        self._wanted = False

    @contextlib.contextmanager
    def take(self, until: float) -> Iterator[None]:
        """The turn of this process; raises TimeoutError where it has not come by then."""
        descriptor = self._take(until)
        try:
            yield
        finally:
            os.close(descriptor)

    def _take(self, until: float) -> int:
        with self._lock:
            coming = self._coming
            if coming is None:
                descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                give_to_owner(descriptor, Path(self._file).parent)
                if _is_free(descriptor):
                    return descriptor
                self._coming = coming = Future()
                wait = threading.Thread(target=self._wait, args=(descriptor, coming), daemon=True)
                wait.start()
            self._wanted = True
        try:
            return coming.result(max(until - time.monotonic(), 0.0))
        except Late:
            with self._lock:
                if not coming.done():
                    self._wanted = False
                    raise TimeoutError from None
            return coming.result()

    def _wait(self, descriptor: int, coming: Future[int]) -> None:
        """Wait in line, where the system hands turns on, fairly and at once.  It lets nobody wait
        for a limited time; so a thread does, which may wait on after its caller gave up, and then
        for whoever comes next."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            with self._lock:
                self._coming = None
            os.close(descriptor)
            coming.set_exception(error)
            return
        with self._lock:
            self._coming = None
            if self._wanted:
                coming.set_result(descriptor)
            else:
                os.close(descriptor)


def _is_free(descriptor: int) -> bool:
    """Whether the turn could be taken at once."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        os.close(descriptor)
        raise
    return True
