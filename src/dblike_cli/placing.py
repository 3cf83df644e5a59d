"""Files that are new here take their places many at a time, beside the caller."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from dblike_cli.barrier import Barrier
from dblike_cli.context import Context
from dblike_cli.fs import Stat
from dblike_cli.hashing import TEMPORARY
from dblike_cli.incoming import Made
from dblike_delta.paths import name, parent
from dblike_delta.plan import Apply

_Files = Sequence[tuple[Apply, Made]]


class Placing:
    """A batch of files on its way: all are made durable, then each is moved to its path, if
    nothing is there.  Meanwhile the next ones come."""

    def __init__(
        self, context: Context, files: _Files, free: Callable[[Apply], bool], barrier: Barrier
    ) -> None:
        """`free` says of a step whether nothing is to be at its path, and its directory is ours."""
        self._context = context
        self._barrier = barrier
        self._files = [(step, made) for step, made in files if free(step)]
        self._rest = [(step, made) for step, made in files if not free(step)]
        barrier.begin()
        self._flight = context.executor.submit(self._fly)

    def land(self) -> _Files:
        """Wait for it, and tell the barrier; those that are to be placed one by one are returned,
        durable."""
        for one, st in zip(self._files, self._flight.result(), strict=True):
            if st is None:
                self._rest.append(one)
            else:
                step, made = one
                self._barrier.saw(step.path, made.stat, st)
                self._barrier.add(step, None)
        return self._rest

    def _fly(self) -> list[Stat | None]:
        fs, moved = self._context.fs, list[Stat | None]()
        if self._context.config.durable:
            fs.sync_all()
        for above, group in itertools.groupby(self._files, _directory):
            names = [(name(made.place), name(step.path)) for step, made in group]
            moved += fs.move_many(TEMPORARY, above, names)
        return moved


def _directory(one: tuple[Apply, Made]) -> bytes:
    return parent(one[0].path)
