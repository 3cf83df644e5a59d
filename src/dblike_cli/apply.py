"""Apply: the site's changes take their places in the folder.

Each step looks again at the last moment, and trouble stops only its own path.  Files share their
barriers: all are written, then made durable, then renamed, then the directories are made durable,
then one transaction remembers the outcomes.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from dblike_cli.adopt import adopt
from dblike_cli.barrier import Barrier
from dblike_cli.closed import Closed
from dblike_cli.context import Context
from dblike_cli.download import download, file_of, rounds
from dblike_cli.entries import UNTRUSTED, trust
from dblike_cli.incoming import Made, part_size
from dblike_cli.outcomes import Applied
from dblike_cli.place import (
    DiskFull,
    Displaced,
    Expected,
    Trouble,
    discard,
    is_closed,
    move_file,
    put_directory,
    put_file,
    take_directory,
    take_file,
    temporary,
    trouble_of,
)
from dblike_cli.placing import Placing
from dblike_cli.report import Code
from dblike_cli.staged import Staged
from dblike_delta.paths import is_below, parent
from dblike_delta.plan import Apply, Plan
from dblike_delta.versions import Kind

_NO_SPACE = "there is no room on this disk"
_RESERVE = 4 << 20
"""Bytes that no content may take: what is remembered needs some, too."""


def apply(context: Context, plan: Plan, stamps: Mapping[bytes, bytes], tick: int) -> Applied:
    """Carry out what a plan says about this side.

    `stamps` has what lstat said of the paths that were looked at, `tick` the disk's time before
    that.  Raises what the exchange raises; what was done until then is remembered.
    """
    result = Applied()
    context.fs.forget()  # what was scanned may have been moved while we sent
    adopt(context, plan, stamps, tick, result)
    applier = _Applier(context, stamps, tick, result)
    removals = [step for step in plan.applies if step.new is None]
    makes = [step for step in plan.applies if step.new is not None]
    room = _making_room(plan.applies)
    try:
        applier.each(removals[:room], applier.remove)
        applier.each((s for s in makes if _kind(s) is Kind.DIRECTORY), applier.make_directory)
        applier.each((s for s in makes if _kind(s) is Kind.SYMLINK), applier.make_symlink)
        files = [s for s in makes if _kind(s) is Kind.FILE]
        files, removals = applier.move_files(files, removals[room:])
        applier.make_files(files)
        applier.each(removals, applier.remove)
    finally:
        applier.finish()
    return result


def _kind(step: Apply) -> Kind:
    assert step.new is not None
    return step.new.kind


def _making_room(steps: Iterable[Apply]) -> int:
    """How many removals come before anything is made."""
    count = 0
    for step in steps:
        if step.new is not None:
            break
        count += 1
    return count


class _Applier:
    def __init__(
        self, context: Context, stamps: Mapping[bytes, bytes], tick: int, result: Applied
    ) -> None:
        self._context = context
        self._stamps = stamps
        self._tick = tick
        self._result = result
        self._barrier = Barrier(context, result)
        self._staged: list[tuple[Apply, Made]] = []
        self._placing: Placing | None = None
        self._since = 0.0
        self._closed = Closed(context)
        self._failed: list[bytes] = []

    def each(self, steps: Iterable[Apply], act: Callable[[Apply], Displaced | None]) -> None:
        """Act on each step by itself."""
        for step in steps:
            self._try(step, act)
            if self._barrier.full:
                self._barrier.pass_()

    def remove(self, step: Apply) -> Displaced | None:
        """What was deleted at the site goes."""
        assert step.expected is not None
        if step.expected.kind is not Kind.DIRECTORY:
            return take_file(self._context, step.path, self._expected(step))
        take_directory(self._context, step.path)
        return None

    def make_directory(self, step: Apply) -> Displaced | None:
        """A directory, which can be written to until all is done."""
        assert step.new is not None
        displaced = put_directory(self._context, step.path, step.new, self._expected(step))
        self._barrier.saw(step.path, self._context.fs.lstat(step.path))
        if is_closed(step.new):
            self._closed.made(step.path, step.new.mode)
        return displaced

    def make_symlink(self, step: Apply) -> Displaced | None:
        """A symlink, made aside and moved to its place."""
        assert step.new is not None
        place = temporary(self._context)
        fs = self._context.fs
        fs.symlink(step.new.target, place)
        try:
            made = fs.lstat(place)
            displaced = put_file(self._context, place, step.path, step.new, self._expected(step))
        except (Trouble, OSError):
            discard(fs, place)
            raise
        self._barrier.saw(step.path, made)
        return displaced

    def move_files(
        self, steps: list[Apply], removals: list[Apply]
    ) -> tuple[list[Apply], list[Apply]]:
        """Move the files whose old paths go in the same plan; what is left to make, and to remove.

        Nothing is read: the bytes were checked when they came, and lstat says that they are those.
        """
        wanted = Counter(file_of(step).hash for step in steps)
        leaving = {step.expected: step for step in removals}
        made: list[Apply] = []
        gone: set[bytes] = set()
        for step in steps:
            source = leaving.get(step.new) if wanted[file_of(step).hash] == 1 else None
            if source is not None and self._is_free(step) and self._moved(source, step):
                gone.add(source.path)
            else:
                made.append(step)
        return made, [step for step in removals if step.path not in gone]

    def _moved(self, source: Apply, step: Apply) -> bool:
        """Whether the file could be moved; one that could not is made like any other."""
        expected = self._expected(source)
        if expected.doubtful:
            return False
        self._closed.open(parent(source.path))
        self._closed.open(parent(step.path))
        try:
            st = move_file(self._context, source.path, step.path, expected)
        except (Trouble, OSError):
            return False
        self._barrier.saw(step.path, st)
        self._barrier.add(step, None)
        self._barrier.add(source, None)  # a disk that folds names may find something there
        if self._barrier.full:
            self._barrier.pass_()
        return True

    def make_files(self, steps: list[Apply]) -> None:
        """Get the contents, and put them in their places some at a time."""
        self._since = self._context.clock.monotonic()
        steps = list(self._that_fit(steps))
        waiting = {step.path: step for step in steps}
        try:
            for some in rounds(steps):
                for staged in download(self._context, some):
                    del waiting[staged.step.path]
                    self._stage(staged)
                self._place_staged()
        except DiskFull:
            self._place_staged()
            for step in waiting.values():
                self._note(step, Trouble(Code.NO_SPACE, _NO_SPACE))

    def _that_fit(self, steps: list[Apply]) -> Iterator[Apply]:
        """Those that there is room for: a file that is larger than the disk must not fill it, and
        keep all others out."""
        if not steps:
            return
        room = self._context.fs.free_space() - _RESERVE
        for step in steps:
            entry = file_of(step)
            needed = entry.size - part_size(self._context, entry)
            if needed <= room or entry.size <= _RESERVE:
                room -= needed
                yield step
            else:
                self._note(step, Trouble(Code.NO_SPACE, _NO_SPACE))

    def _stage(self, staged: Staged) -> None:
        if staged.made is None:
            assert staged.trouble is not None
            self._note(staged.step, staged.trouble)
            return
        self._staged.append((staged.step, staged.made))
        if self._is_time():
            self._land()
            some, self._staged = self._staged, []
            for step, _ in some:
                self._closed.open(parent(step.path))
            self._placing = Placing(self._context, some, self._is_free, self._barrier)

    def _is_time(self) -> bool:
        """Whether the files that are staged are to take their places."""
        config, now = self._context.config, self._context.clock.monotonic()
        if len(self._staged) < config.apply_batch and now - self._since < config.apply_after:
            return False
        self._since = now
        return True

    def finish(self) -> None:
        """Whatever happened: what was done is made durable and remembered."""
        try:
            self._place_staged()
            self._barrier.pass_()
        finally:
            self._closed.close()

    def _place_staged(self) -> None:
        """Every content durable first, then every rename."""
        self._land()
        staged, self._staged = self._staged, []
        self._barrier.settle_files([made.place for _, made in staged])
        self._place(staged)

    def _land(self) -> None:
        """Wait for those that take their places beside us."""
        placing, self._placing = self._placing, None
        if placing is not None:
            self._place(placing.land())

    def _place(self, staged: Sequence[tuple[Apply, Made]]) -> None:
        self._context.fs.forget()  # somebody may have replaced a directory while the files came
        for step, made in staged:
            self._try(step, functools.partial(self._put, made=made))
        self._barrier.pass_()

    def _put(self, step: Apply, made: Made) -> Displaced | None:
        assert step.new is not None
        expected = self._expected(step)
        try:
            displaced = put_file(self._context, made.place, step.path, step.new, expected)
        except (Trouble, OSError):
            discard(self._context.fs, made.place)
            raise
        self._barrier.saw(step.path, made.stat)
        return displaced

    def _try(self, step: Apply, act: Callable[[Apply], Displaced | None]) -> None:
        if self._is_lost(step):
            self._note(step, Trouble(Code.OCCUPIED, "its directory could not be made"))
            return
        self._closed.open(parent(step.path))
        try:
            self._barrier.add(step, act(step))
        except Trouble as trouble:
            self._note(step, trouble)
        except DiskFull:
            self._note(step, Trouble(Code.NO_SPACE, _NO_SPACE))
        except FileNotFoundError:
            self._note(step, Trouble(Code.CHANGED, "it went away meanwhile"))
        except OSError as error:
            try:
                self._note(step, trouble_of(error))
            except DiskFull:
                self._note(step, Trouble(Code.NO_SPACE, _NO_SPACE))

    def _is_lost(self, step: Apply) -> bool:
        """Whether a directory above could not be made."""
        return any(is_below(step.path, path) for path in self._failed)

    def _is_free(self, step: Apply) -> bool:
        return step.expected is None and not self._is_lost(step)

    def _note(self, step: Apply, trouble: Trouble) -> None:
        self._result.trouble(self._context, step.path, trouble.code, trouble.reason)
        if step.new is not None and step.new.kind is Kind.DIRECTORY:
            self._failed.append(step.path)

    def _expected(self, step: Apply) -> Expected:
        known = self._context.state.tree.get(step.path) if step.expected is not None else None
        stamp = self._stamps.get(step.path, known.stamp if known is not None else b"")
        # Whoever writes to what was written in the tick of the look may leave the same stamp.
        doubtful = bool(stamp) and trust(stamp, self._tick) == UNTRUSTED
        if known is not None and known.stamp == UNTRUSTED:
            doubtful = True
        return Expected(step.expected, stamp, doubtful=doubtful)
