"""Small files on their way down: made many at a time, beside the caller.

A batch in which anything goes wrong is made again one by one, and each says what its trouble is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from dblike_cli.context import Context
from dblike_cli.fs import Making, NewFile
from dblike_cli.hashing import TEMPORARY
from dblike_cli.incoming import Made, check_content, sign_small, write_small
from dblike_cli.place import Trouble, discard, temporary_names, trouble_of
from dblike_delta.commands import Data
from dblike_delta.paths import join
from dblike_delta.plan import Apply, Entry

_FILES: Final = 100
_BYTES: Final = 1 << 20
"""Either of them makes a batch."""
_FLIGHTS: Final = 4
"""Batches that are made at once, or wait for it; each holds its bytes in memory."""


class Staged(msgspec.Struct, frozen=True):
    """A file of the plan: verified and in a temporary place, or there is `trouble`."""

    step: Apply
    made: Made | None = None
    trouble: Trouble | None = None


class _Waiting(msgspec.Struct, frozen=True):
    step: Apply
    entry: Entry
    data: Data


class _Flight(msgspec.Struct, frozen=True):
    """A batch that is being made, and where."""

    batch: list[_Waiting]
    places: list[bytes]
    stats: Making


class SmallFiles:
    """Takes contents, and gives out the files that they became, in the same order."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: list[_Waiting] = []
        self._size = 0
        self._flights: deque[_Flight] = deque()
        self.ready: list[Staged] = []
        """The files that are made by now, until somebody takes them."""

    def add(self, step: Apply, entry: Entry, data: Data) -> None:
        """A content that came; raises IntegrityError, or DiskFull for one before it."""
        check_content(entry, data)
        self._waiting.append(_Waiting(step, entry, data))
        self._size += len(data)
        if self._size >= _BYTES or len(self._waiting) >= _FILES:
            self._launch()

    def take(self) -> list[Staged]:
        """The files that are made by now."""
        ready, self.ready = self.ready, []
        return ready

    def finish(self) -> list[Staged]:
        """All that are left; raises DiskFull."""
        self._launch()
        self._land(0)
        return self.take()

    def drop(self) -> None:
        """Nobody takes what was not taken yet."""
        self._waiting = []
        while self._flights:
            flight = self._flights.popleft()
            if flight.stats.result() is not None:
                self._discard(flight.places)
        self._discard(staged.made.place for staged in self.ready if staged.made is not None)
        self.ready = []

    def _launch(self) -> None:
        batch, self._waiting, self._size = self._waiting, [], 0
        self._land(_FLIGHTS - 1)
        if batch:
            names = temporary_names(self._context, len(batch))
            files = [
                NewFile(name, one.data, one.entry.mode, one.entry.mtime_ns)
                for name, one in zip(names, batch, strict=True)
            ]
            places = [join(TEMPORARY, name) for name in names]
            stats = self._context.fs.make_many(TEMPORARY, files)
            self._flights.append(_Flight(batch, places, stats))

    def _land(self, most: int) -> None:
        """Take in the batches that are made; wait until at most so many are not."""
        while self._flights and (len(self._flights) > most or self._flights[0].stats.done()):
            self._take_in(self._flights.popleft())

    def _take_in(self, flight: _Flight) -> None:
        stats, least = flight.stats.result(), self._context.config.signature_from
        if stats is None:
            self.ready.extend(map(self._alone, flight.batch))
            return
        for one, place, st in zip(flight.batch, flight.places, stats, strict=True):
            if st.st_size >= least:
                sign_small(self._context, one.entry, one.data)
            self.ready.append(Staged(one.step, Made(place, st)))

    def _alone(self, waiting: _Waiting) -> Staged:
        try:
            return Staged(waiting.step, write_small(self._context, waiting.entry, waiting.data))
        except OSError as error:
            return Staged(waiting.step, trouble=trouble_of(error))

    def _discard(self, places: Iterable[bytes]) -> None:
        for place in places:
            discard(self._context.fs, place)
