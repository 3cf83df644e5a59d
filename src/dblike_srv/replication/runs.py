"""Runs of versions on their way here, each asked for before the one in front of it is written.

So the other site looks up and sends what comes next while this one's database is busy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from dblike_delta.changeset import Body
from dblike_delta.exchange import Refused, Unreachable
from dblike_srv.identity import FolderRef
from dblike_srv.replication.arrival import Arrival, Entry, Fault, Piece
from dblike_srv.replication.link import Link
from dblike_srv.site import Site


class Page:
    """The last run of a page is written: how far that goes, under which id it was asked for."""

    def __init__(self, reached: dict[bytes, int], count: int, trace: str) -> None:
        self.reached, self.count, self.trace = reached, count, trace


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
    ) -> None:
        """Ask for the contents.  `end` is the page that ends here."""
        self.entries, self.end = entries, end
        before = front.arrival if front is not None else None
        self.arrival: Arrival = Arrival(site, folder, entries, before)
        wants = self.arrival.wants()
        with self._kept_in_part():
            self._events: Iterator[Piece] = link.fetch(folder.id, wants) if wants else iter(())
            self._first = next(self._events, None)

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
            event = self._first
            while event is not None:
                if isinstance(event, Body):
                    yield len(event.data)
                self.arrival.take(event)
                event = next(self._events, None)

    def write(self) -> None:
        """Make it durable."""
        self.arrival.finish()

    def drop(self) -> None:
        """It is not wanted any more."""
        close = getattr(self._events, "close", None)
        if close is not None:
            close()
        self.arrival.abort()


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
