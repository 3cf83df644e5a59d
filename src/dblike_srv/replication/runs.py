"""Runs of versions on their way here, each asked for before the one in front of it is written.

So the other site looks up and sends what comes next while this one's database is busy.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from dblike_delta.changeset import Body
from dblike_delta.exchange import Refused, Unreachable
from dblike_delta.messages import CursorMark
from dblike_srv.identity import FolderRef
from dblike_srv.replication.arrival import Arrival, Entry, Fault, Piece
from dblike_srv.replication.link import Link
from dblike_srv.site import Site

_T = TypeVar("_T")


class Question(Generic[_T]):
    """Asked before the answer is needed, or else when it is."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self._coming: Future[_T] | None = None

    def ask(self, *, beside: bool) -> None:
        """Now.  In a thread, `beside` what the caller goes on with, its errors are the answer's,
        and where that is never looked at nobody waits for it."""
        self._coming = coming = Future[_T]()
        if beside:
            threading.Thread(target=self._take, args=(coming,), daemon=True).start()
        else:
            coming.set_result(self._work())

    def answer(self) -> _T:
        """What the other site said; raises what asking raised."""
        return self._work() if self._coming is None else self._coming.result()

    @property
    def is_open(self) -> bool:
        """Whether it was asked, and nobody knows what is said to it."""
        return self._coming is not None and not self._coming.done()

    def _take(self, coming: Future[_T]) -> None:
        try:
            coming.set_result(self._work())
        except BaseException as error:  # noqa: BLE001 - for whoever looks at the answer
            coming.set_exception(error)


Answer = tuple[list[Entry], CursorMark]
"""A page of a journal, and where it ends."""


class Page:
    """The last run of a page is written: how far that goes, under which id it was asked for, and
    what asks for the next one."""

    def __init__(
        self,
        reached: dict[bytes, int],
        count: int,
        trace: str,
        following: Question[Answer] | None,
    ) -> None:
        self.reached, self.count, self.trace = reached, count, trace
        self.following = following


class Run:
    """Some versions; those that are to be written before them are in `front`."""

    def __init__(
        self,
        site: Site,
        link: Link,
        folder: FolderRef,
        entries: Sequence[Entry],
        front: Run | None = None,
        end: Page | None = None,
        *,
        early: bool = False,
    ) -> None:
        """Ask for the contents.  `end` is the page that ends here.  With `early` the answer begins
        while others do their work."""
        self.entries, self.end = entries, end
        before = front.arrival if front is not None else None
        self.arrival: Arrival = Arrival(site, folder, entries, before)
        wants = self.arrival.wants()
        with self._kept_in_part():
            self._events: Iterator[Piece] = link.fetch(folder.id, wants) if wants else iter(())
            self._first = Question(lambda: next(self._events, None))
            self._first.ask(beside=early)

    @contextlib.contextmanager
    def _kept_in_part(self) -> Iterator[None]:
        """Where the answer is cut, what came of it is for the next try; else it is forgotten."""
        try:
            yield
        except (Unreachable, Refused):
            self.arrival.leave()
            raise
        except BaseException:
            self.arrival.abort()
            raise

    def take(self) -> Iterator[int]:
        """Take in what comes; how many bytes, piece by piece."""
        with self._kept_in_part():
            event = self._first.answer()
            while event is not None:
                if isinstance(event, Body):
                    yield len(event.data)
                self.arrival.take(event)
                event = next(self._events, None)

    def write(self) -> None:
        """Make it durable."""
        self.arrival.finish()

    def drop(self) -> None:
        """It is not wanted any more; what came before a cut is for the next one, still."""
        close = getattr(self._events, "close", None)
        if close is not None and not self._first.is_open:
            close()
        self.arrival.leave()


def in_runs(entries: Sequence[Entry], largest: int) -> list[Sequence[Entry]]:
    """Entries in runs whose files have at most `largest` bytes together, or one file; one run where
    there are none."""
    runs, start, size = [], 0, 0
    for at, (_, _, record) in enumerate(entries):
        if at > start and size + record.size > largest:
            runs.append(entries[start:at])
            start, size = at, 0
        size += record.size
    return [*runs, entries[start:]]


def check_order(entries: Sequence[Entry], reached: dict[bytes, int]) -> None:
    """Numbers must rise from where we are.  Raises Fault."""
    last = dict(reached)
    for origin, number, _ in entries:
        if number <= last.get(origin, 0):
            raise Fault("a journal that goes back")
        last[origin] = number
