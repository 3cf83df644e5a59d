"""Download: the contents that a plan needs, as verified temporary files on the folder's disk.

What is here already is copied here; the rest is fetched, as deltas against what the paths hold.  A
content that arrives wrong is asked for once more, in full.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from dblike_cli.context import Context
from dblike_cli.hashing import StillWriting
from dblike_cli.incoming import (
    LargeFile,
    Made,
    SmallFile,
    check_content,
    part_size,
    write_small,
)
from dblike_cli.place import DiskFull, Trouble, trouble_of
from dblike_cli.report import Code, Progress
from dblike_cli.staged import SmallFiles, Staged
from dblike_delta.changeset import Body
from dblike_delta.errors import DeltaError
from dblike_delta.exchange import Refused, Unreachable
from dblike_delta.messages import Record, Refusal, Trailer, Want
from dblike_delta.plan import Apply, Entry
from dblike_delta.versions import Kind

_DELTA_FROM = 4 << 10
"""Smaller files come whole: a delta would save nothing."""
_DAMAGED = "the content that came is not what its hash says; what was here is kept"


def download(context: Context, steps: Sequence[Apply]) -> Iterator[Staged]:
    """The contents for steps that make files, one after the other, in any order.

    Raises what the exchange raises, and DiskFull; what was given out until then is good.
    """
    fetched: list[Apply] = []
    here = context.state.tree.contents_among(file_of(step).hash for step in steps)
    for step in steps:
        entry = file_of(step)
        made = _from_here(context, entry) if entry.hash in here or not entry.size else None
        if made is not None:
            yield Staged(step, made)
        else:
            fetched.append(step)
    yield from _fetch_all(context, fetched)


def rounds(steps: Sequence[Apply]) -> tuple[list[Apply], list[Apply]]:
    """Those that bring a content for the first time, and those that can copy it then."""
    first: list[Apply] = []
    again: list[Apply] = []
    coming: set[bytes] = set()
    for step in steps:
        digest = file_of(step).hash
        (again if digest in coming else first).append(step)
        coming.add(digest)
    return first, again


def file_of(step: Apply) -> Entry:
    """The file that a step makes."""
    entry = step.remote.entry
    assert entry is not None
    return entry


# --- from here ------------------------------------------------------------------------------------


def _from_here(context: Context, entry: Entry) -> Made | None:
    """A copy of a file of the folder that has this content; None where there is none."""
    if not entry.size:
        with _no_matter():
            check_content(entry, b"")
            return write_small(context, entry, b"")
    for path, _ in context.state.tree.find_content(entry.hash):
        with _no_matter():
            return _copy(context, path, entry)
    return None


@contextlib.contextmanager
def _no_matter() -> Iterator[None]:
    """What goes wrong with a copy costs a transfer, no more; but a full disk is full."""
    try:
        yield
    except OSError as error:
        trouble_of(error)
    except (DeltaError, StillWriting):
        return


def _copy(context: Context, path: bytes, entry: Entry) -> Made:
    if entry.size < context.config.whole_below:
        small = SmallFile(context, entry, path)
        small.copy_base()
        data = small.content()
        check_content(entry, data)
        return write_small(context, entry, data)
    large = LargeFile(context, entry, path, 0, entry.hash)
    try:
        large.copy_base()
        return large.finish()
    except BaseException:
        large.spoil()
        raise


# --- from the site --------------------------------------------------------------------------------


def _fetch_all(context: Context, steps: Sequence[Apply]) -> Iterator[Staged]:
    """Fetch, and what arrives wrong once more in full."""
    size = context.config.fetch_wants
    for at in range(0, len(steps), size):
        first = _Fetch(context, steps[at : at + size], whole=False)
        yield from first.run()
        if first.failed:
            second = _Fetch(context, first.failed, whole=True)
            yield from second.run()
            yield from _report(context, second.failed)


def _report(context: Context, steps: Sequence[Apply]) -> Iterator[Staged]:
    """Tell the site what can't be right there: it looks, and another device may send it again."""
    if not steps:
        return
    with contextlib.suppress(Unreachable, Refused):
        context.exchange.report_damage(context.folder, [file_of(step).hash for step in steps])
    for step in steps:
        yield Staged(step, trouble=Trouble(Code.DAMAGED, _DAMAGED))


class _Fetch:
    """One request, and the files that its answer makes."""

    def __init__(self, context: Context, steps: Sequence[Apply], *, whole: bool) -> None:
        self._context = context
        self._whole = whole
        self._waiting: dict[tuple[bytes, int], Apply] = {step.remote.dot: step for step in steps}
        self._open: tuple[Apply, SmallFile | LargeFile] | None = None
        self._small = SmallFiles(context)
        self._done = 0
        self.failed: list[Apply] = []
        """What came wrong."""

    def run(self) -> Iterator[Staged]:
        """The files as they are finished."""
        total = len(self._waiting)
        try:
            for some in self._staged():
                yield from some
                self._done += len(some)
                size = sum(file_of(staged.step).size for staged in some)
                self._context.reporter.progress(
                    Progress("download", self._done, total, bytes_done=size)
                )
        except DiskFull:
            self._spoil()  # what is there of it would keep out all else, and be of no use
            raise
        finally:
            self._drop()
            self._small.drop()
        for step in self._waiting.values():
            yield Staged(step, trouble=Trouble(Code.UNAVAILABLE, "the site did not send it"))

    def _staged(self) -> Iterator[list[Staged]]:
        wants = [self._want(step) for step in self._waiting.values()]
        try:
            for event in self._events(wants):
                staged = self._take(event)
                if self._small.ready:
                    yield self._small.take()
                if staged is not None:
                    yield [staged]
        except Unreachable:
            yield self._small.finish()  # what came whole is good
            raise
        yield self._small.finish()

    def _want(self, step: Apply) -> Want:
        entry, old = file_of(step), step.expected
        dot = step.remote.dot
        if self._whole:
            return Want(dot.device, dot.counter)
        have = []
        if old is not None and old.kind is Kind.FILE and entry.size >= _DELTA_FROM:
            have = [old.hash]
        return Want(dot.device, dot.counter, have, part_size(self._context, entry))

    def _events(self, wants: list[Want]) -> Iterator[Record | Body | Trailer | Refusal]:
        try:
            yield from self._context.exchange.fetch(self._context.folder, wants)
        except DeltaError as error:
            raise Unreachable(f"the reply was damaged on its way: {error}") from error

    def _take(self, event: Record | Body | Trailer | Refusal) -> Staged | None:
        """What an event finishes."""
        try:
            match event:
                case Record():
                    self._drop()
                    return self._begin(event)
                case Body() if self._open is not None:
                    self._open[1].take(event.data)
                case Trailer() if self._open is not None:
                    return self._finish()
                case Refusal():
                    self._drop()
                    return self._refused(event)
                case _:
                    pass
        except (DeltaError, StillWriting):
            self._fail()
        except OSError as error:
            return self._stop(trouble_of(error))
        return None

    def _begin(self, record: Record) -> Staged | None:
        step = self._waiting.get((record.device, record.counter))
        if step is None:
            return None
        try:
            self._open_for(step, record)
        except (FileNotFoundError, DeltaError, StillWriting):  # base or part went away: all, then
            del self._waiting[step.remote.dot]
            self.failed.append(step)
        except OSError as error:
            trouble = trouble_of(error)
            del self._waiting[step.remote.dot]
            return Staged(step, trouble=trouble)
        return None

    def _open_for(self, step: Apply, record: Record) -> None:
        entry = file_of(step)
        base = step.path if record.base else b""
        if entry.size < self._context.config.whole_below:
            self._open = step, SmallFile(self._context, entry, base)
        else:
            # What copies are taken from is what is here, whatever the site calls it.
            here = step.expected.hash if base and step.expected is not None else b""
            self._open = step, LargeFile(self._context, entry, base, record.start, here)

    def _finish(self) -> Staged | None:
        assert self._open is not None
        step, file = self._open
        made = None
        if isinstance(file, SmallFile):
            self._small.add(step, file_of(step), file.content())
        else:
            made = file.finish()
        self._open = None
        del self._waiting[step.remote.dot]
        return None if made is None else Staged(step, made)

    def _fail(self) -> None:
        """What came for the open file is no good."""
        step = self._spoil()
        if step is not None:
            del self._waiting[step.remote.dot]
            self.failed.append(step)

    def _spoil(self) -> Apply | None:
        """Nothing stays of the open file; which step it was for."""
        if self._open is None:
            return None
        (step, file), self._open = self._open, None
        file.spoil()
        return step

    def _stop(self, trouble: Trouble) -> Staged | None:
        if self._open is None:
            return None
        step = self._open[0]
        self._drop()
        del self._waiting[step.remote.dot]
        return Staged(step, trouble=trouble)

    def _refused(self, refusal: Refusal) -> Staged | None:
        step = self._waiting.pop((refusal.device, refusal.counter), None)
        if step is None:
            return None
        code = Code.DAMAGED if refusal.status == "damaged" else Code.UNAVAILABLE
        return Staged(step, trouble=Trouble(code, refusal.detail or "the site can't serve it"))

    def _drop(self) -> None:
        if self._open is not None:
            (_, file), self._open = self._open, None
            file.drop()
