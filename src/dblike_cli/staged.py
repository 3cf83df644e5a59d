"""Small files on their way down: made many at a time, beside the caller.

A batch in which anything goes wrong is made again one by one, and each says what its trouble is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Final

import msgspec

from dblike_cli.context import Context
from dblike_cli.fs import NewFile, Stat
from dblike_cli.hashing import TEMPORARY
from dblike_cli.incoming import Made, check_content, sign_small, write_small
from dblike_cli.place import Trouble, discard, temporary, trouble_of
from dblike_delta.commands import Data
from dblike_delta.paths import name
from dblike_delta.plan import Apply, Entry

_FILES: Final = 100
_BYTES: Final = 1 << 20
"""Either of them makes a batch."""


_FEW: Final = 4


class Staged(msgspec.Struct, frozen=True):
    """A file of the plan: verified and in a temporary place, or there is `trouble`."""

    step: Apply
    made: Made | None = None
    trouble: Trouble | None = None


class _Waiting(msgspec.Struct, frozen=True):
    step: Apply
    entry: Entry
    data: Data
    place: bytes


class SmallFiles:
    """Takes contents, and gives out the files that they became, in the same order."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: list[_Waiting] = []
        self._size = 0
        self._flight: tuple[list[_Waiting], Future[Sequence[Stat] | None]] | None = None
        self._ready: list[Staged] = []

    def add(self, step: Apply, entry: Entry, data: Data) -> None:
        """A content that came; raises IntegrityError, or DiskFull for one before it."""
        check_content(entry, data)
        self._waiting.append(_Waiting(step, entry, data, temporary(self._context)))
        self._size += len(data)
        if self._size >= _BYTES or len(self._waiting) >= _FILES:
            self._launch()

    def take(self) -> list[Staged]:
        """The files that are made by now."""
        ready, self._ready = self._ready, []
        return ready

    def finish(self) -> list[Staged]:
        """All that are left; raises DiskFull."""
        self._launch()
        self._land()
        return self.take()

    def drop(self) -> None:
        """Nobody takes what was not taken yet."""
        self._waiting = []
        if self._flight is not None:
            (batch, flight), self._flight = self._flight, None
            if flight.result() is not None:
                self._discard(waiting.place for waiting in batch)
        self._discard(staged.made.place for staged in self._ready if staged.made is not None)
        self._ready = []

    def _launch(self) -> None:
        batch, self._waiting, self._size = self._waiting, [], 0
        self._land()
        if len(batch) < _FEW:  # not worth a thread
            self._ready.extend(map(self._alone, batch))
        else:
            files = [NewFile(name(w.place), w.data, w.entry.mode, w.entry.mtime_ns) for w in batch]
            make = self._context.fs.maker(TEMPORARY, files)
            self._flight = batch, self._context.executor.submit(make)

    def _land(self) -> None:
        """Wait for the batch that is being made."""
        if self._flight is None:
            return
        (batch, flight), self._flight = self._flight, None
        stats = flight.result()
        if stats is None:
            self._ready.extend(map(self._alone, batch))
            return
        for waiting, st in zip(batch, stats, strict=True):
            sign_small(self._context, waiting.entry, waiting.data)
            self._ready.append(Staged(waiting.step, Made(waiting.place, st)))

    def _alone(self, waiting: _Waiting) -> Staged:
        try:
            return Staged(waiting.step, write_small(self._context, waiting.entry, waiting.data))
        except OSError as error:
            return Staged(waiting.step, trouble=trouble_of(error))

    def _discard(self, places: Iterable[bytes]) -> None:
        for place in places:
            discard(self._context.fs, place)
