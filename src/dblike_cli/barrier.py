"""The barriers between a change on the disk and its being remembered."""

from __future__ import annotations

import stat
from collections.abc import Sequence

from dblike_cli.context import Context
from dblike_cli.durable import sync_contents, sync_names
from dblike_cli.entries import UNTRUSTED, stamp_of, synced_of
from dblike_cli.fs import Stat
from dblike_cli.hashing import disk_time
from dblike_cli.outcomes import Applied
from dblike_cli.place import Displaced, drop_displaced, is_closed
from dblike_cli.report import Outcome
from dblike_cli.signatures import drop_signatures
from dblike_cli.state import Known
from dblike_delta.plan import Apply
from dblike_delta.versions import Kind, is_conflict_copy


class Barrier:
    """Collects steps that were taken, and makes them durable and remembered together."""

    def __init__(self, context: Context, result: Applied) -> None:
        self._context = context
        self._result = result
        self._steps: list[Apply] = []
        self._displaced: list[Displaced] = []
        self._seen: dict[bytes, Stat] = {}
        self._there: dict[bytes, Stat] = {}
        self._tick = disk_time(context)

    @property
    def full(self) -> bool:
        """Whether it is time to pass."""
        return len(self._steps) >= self._context.config.apply_batch

    def begin(self) -> None:
        """Contents are about to be made durable: whoever writes to them from here on shows it."""
        self._tick = disk_time(self._context)

    def settle_files(self, places: Sequence[bytes]) -> None:
        """Make contents durable, before they take their places."""
        self.begin()
        sync_contents(self._context, places)

    def saw(self, path: bytes, st: Stat, there: Stat | None = None) -> None:
        """What lstat said of what we made before it took this place, or of a directory when it was
        new; and after that if it was asked.  What is there when all is done may be somebody's."""
        self._seen[path] = st
        if there is not None:
            self._there[path] = there

    def add(self, step: Apply, displaced: Displaced | None) -> None:
        """A step was taken, and this had to make way."""
        self._steps.append(step)
        if displaced is not None:
            self._displaced.append(displaced)

    def pass_(self) -> None:
        """Make the steps durable, remember them, and only then delete what made way."""
        steps, self._steps = self._steps, []
        displaced, self._displaced = self._displaced, []
        if steps:
            sync_names(self._context, [step.path for step in steps])
            self._remember(steps)
            self._tell(steps)
        for one in displaced:
            kept = drop_displaced(self._context, one)
            if kept is not None:
                self._result.again.add(kept)
        self._seen, self._there = {}, {}
        self._context.fs.forget()

    def stamp(self, path: bytes) -> bytes:
        """The stamp to remember for a path that was just made."""
        st = self._there.get(path) or self._context.fs.lstat(path)
        before = self._seen.get(path)
        if before is None:
            return stamp_of(st)
        if stat.S_ISDIR(before.st_mode):
            return stamp_of(st) if stamp_of(st) == stamp_of(before) else UNTRUSTED
        same = (before.st_ino, before.st_size, before.st_mtime_ns, before.st_mode) == (
            st.st_ino,
            st.st_size,
            st.st_mtime_ns,
            st.st_mode,
        )
        # Whoever writes to it from here on sets another mtime, unless its own is of this tick.
        if not same or 0 <= st.st_mtime_ns - self._tick <= 2_000_000_000:
            return UNTRUSTED
        return stamp_of(st)

    def _remember(self, steps: Sequence[Apply]) -> None:
        state = self._context.state
        known = [self._known(step) for step in steps if step.new is not None]
        gone = [(step.path, step.remote.context) for step in steps if step.new is None]
        with state.transaction():
            state.tree.record(known)
            state.tombs.bury(gone, self._context.clock.now_ms())
            state.remote.drop(step.path for step in steps)
        old = [s.expected for s in steps if s.expected and s.expected.kind is Kind.FILE]
        least = self._context.config.signature_from
        drop_signatures(self._context, [entry.hash for entry in old if entry.size >= least])

    def _known(self, step: Apply) -> Known:
        try:
            stamp = self.stamp(step.path)
        except OSError:
            stamp = UNTRUSTED  # it is gone again: the next look finds that out
        if step.new is not None and is_closed(step.new):
            stamp = UNTRUSTED  # it gets its mode last, and a crash may come before that
        return Known(step.path, stamp, synced_of(step.remote))

    def _tell(self, steps: Sequence[Apply]) -> None:
        progress, result = self._context.reporter.progress, self._result
        for step in steps:
            if step.new is None:
                result.deleted.append(step.path)
                progress(Outcome("delete-local", step.path))
            elif step.expected is None and is_conflict_copy(step.path):
                result.conflicts.append(step.path)
                progress(Outcome("conflict", step.path, step.new.size))
            else:
                result.applied.append(step.path)
                progress(Outcome("download", step.path, step.new.size))
