"""Small files on their way up: read some at a time, while those before them are dealt with."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Final

from dblike_cli.context import Context
from dblike_cli.fs import Stat
from dblike_cli.hashing import disk_time
from dblike_delta.paths import name, parent
from dblike_delta.plan import Upload
from dblike_delta.versions import Kind

_FEW: Final = 8
"""Fewer in a directory are not worth a thread."""
_FILES: Final = 100
_BYTES: Final = 1 << 20

_Read = Sequence[tuple[bytes, Stat] | None]


class ReadAhead:
    """Reads the small files of a list of changes in its order, and is asked for them in it."""

    def __init__(self, context: Context, changes: Iterable[Upload]) -> None:
        self._context = context
        self._groups = _groups(changes, context.config.whole_below)
        self._flight: tuple[list[bytes], int, Future[_Read]] | None = None
        self._here: dict[bytes, tuple[bytes, Stat, int]] = {}
        self._launch()

    def take(self, path: bytes) -> tuple[bytes, Stat, int] | None:
        """A content, its lstat, and the disk's time before that; None: read it now."""
        if path not in self._here and self._flight is not None and path in self._flight[0]:
            self._land()
        return self._here.pop(path, None)

    def _launch(self) -> None:
        group = next(self._groups, None)
        if group is None:
            return
        fs, tick = self._context.fs, disk_time(self._context)
        paths = [path for path, _ in group]
        read = fs.reader(parent(paths[0]), [(name(path), size) for path, size in group])
        self._flight = paths, tick, self._context.executor.submit(read)

    def _land(self) -> None:
        """Take what was read, and have the next files read."""
        assert self._flight is not None
        (paths, tick, flight), self._flight = self._flight, None
        found = flight.result()
        self._launch()
        self._here = {
            path: (*one, tick) for path, one in zip(paths, found, strict=True) if one is not None
        }


def _groups(changes: Iterable[Upload], limit: int) -> Iterator[list[tuple[bytes, int]]]:
    """Path and size of small files, as many of a directory together as are worth it."""
    small = (
        (change.path, change.entry.size)
        for change in changes
        if change.entry is not None and change.entry.kind is Kind.FILE and change.entry.size < limit
    )
    for _, files in itertools.groupby(small, lambda file: parent(file[0])):
        for group in _cut(files):
            if len(group) >= _FEW:
                yield group


def _cut(files: Iterable[tuple[bytes, int]]) -> Iterator[list[tuple[bytes, int]]]:
    group: list[tuple[bytes, int]] = []
    size = 0
    for file in files:
        group.append(file)
        size += file[1]
        if size >= _BYTES or len(group) == _FILES:
            yield group
            group, size = [], 0
    if group:
        yield group
