"""Reconcile: what to do about a path, from what it is here, was when last agreed on, and is there.

Three trees come in, a plan goes out.  The plan holds local bytes sacred: what is not at the site is
uploaded, never replaced, and each step says what it expects to find, for whoever carries it out to
look again at the last moment.  Conflicts are not decided here: an edit that did not know of the
other one is uploaded as just that, and the site's merge keeps both.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeGuard, TypeVar, assert_never

import msgspec

from dblike_delta import paths
from dblike_delta.plan import (
    NO_MODE,
    UNKNOWN,
    Adopt,
    Apply,
    Entry,
    Forget,
    Held,
    Local,
    Plan,
    Reason,
    Remote,
    Step,
    Synced,
    Unknown,
    Upload,
)
from dblike_delta.versions import Kind

_Change = TypeVar("_Change", bound=Upload | Apply)


class _Local(enum.Enum):
    """What happened here since the sides agreed."""

    SAME = enum.auto()
    TOUCHED = enum.auto()  # other mode or mtime
    WRITTEN = enum.auto()  # new, other content or another kind
    GONE = enum.auto()


class _Remote(enum.Enum):
    """What happened at the site since."""

    SAME = enum.auto()
    RENEWED = enum.auto()  # another version, or others known beside it, that says the same
    TOUCHED = enum.auto()
    WRITTEN = enum.auto()
    GONE = enum.auto()


def reconcile(
    local: Mapping[bytes, Local],
    synced: Mapping[bytes, Synced],
    remote: Mapping[bytes, Remote],
) -> Plan:
    """The plan for the paths in `local` and `remote`: those that may have changed there.

    A path that only one of the two holds is on the other side as it was when last agreed on.
    """
    unknown = frozenset(path for path, state in local.items() if state is UNKNOWN)
    trees = _Trees(local, synced, remote)
    steps: dict[bytes, Step] = {}
    for path in sorted({*local, *remote}):
        if unknown and not unknown.isdisjoint((b"", *paths.ancestors(path), path)):
            steps[path] = Held(path, Reason.UNREADABLE)
        elif step := _decide(path, trees):
            steps[path] = step
    _keep_parents(steps, trees)
    _hold_removals(steps, trees)
    _hold_orphans(steps, trees)
    return _plan(steps)


def same_entry(a: Entry | None, b: Entry | None) -> bool:
    """Whether both are the same in all that is synced of their kind."""
    if a is None or b is None:
        return a is b
    if not same_content(a, b):
        return False
    match a.kind:
        case Kind.FILE:
            return a.mode == b.mode and a.mtime_ns == b.mtime_ns
        case Kind.DIRECTORY:
            return a.mode == b.mode
        case _:
            return True


def same_content(a: Entry, b: Entry) -> bool:
    """Whether both are the same but for mode and mtime."""
    return (a.kind, a.hash, a.size, a.target) == (b.kind, b.hash, b.size, b.target)


class _Trees(msgspec.Struct, frozen=True):
    local: Mapping[bytes, Local]
    synced: Mapping[bytes, Synced]
    remote: Mapping[bytes, Remote]

    def agreed(self, path: bytes) -> Entry | None:
        """What was agreed on last."""
        synced = self.synced.get(path)
        return synced.entry if synced else None

    def here(self, path: bytes) -> Entry | None:
        """What is here; None also where that is unknown."""
        state = self.local.get(path, self.agreed(path))
        return None if isinstance(state, Unknown) else state

    def there(self, path: bytes) -> Remote | None:
        """What is there; None where nothing was ever heard of it."""
        synced = self.synced.get(path)
        as_agreed = Remote(synced.entry, synced.dot, synced.context) if synced else None
        return self.remote.get(path, as_agreed)

    def mentions(self, path: bytes) -> bool:
        """Whether any of the trees holds the path."""
        return path in self.local or path in self.synced or path in self.remote


def _decide(path: bytes, trees: _Trees) -> Step | None:
    """The one step for a path, were it alone."""
    entry, base, there = trees.here(path), trees.agreed(path), trees.there(path)
    change, news = _local_change(entry, base), _remote_news(trees.synced.get(path), there)
    # From here on: without `there` neither side ever heard of the other's, and news is SAME.
    context = trees.synced[path].context if path in trees.synced else b""
    if there is None:
        return Upload(path, entry, context, base) if change is not _Local.SAME else None
    made_again = path in trees.synced and base is None
    if entry and there.buried and same_content(entry, there.buried) and not made_again:
        # An old copy of what was deleted since: nothing that nobody knew of.
        return Apply(path, there, entry)
    match change:
        case _Local.SAME:
            return _decide_same(path, entry, there, news)
        case _Local.TOUCHED:
            assert entry is not None
            return _decide_touched(Upload(path, entry, context, base), entry, there, news)
        case _Local.WRITTEN:
            assert entry is not None
            return _decide_written(Upload(path, entry, context, base), entry, there, news)
        case _Local.GONE:
            return _decide_gone(Upload(path, None, context, base), there, news)
        case _:
            assert_never(change)


def _local_change(entry: Entry | None, base: Entry | None) -> _Local:
    if same_entry(entry, base):
        return _Local.SAME
    if entry is None:
        return _Local.GONE
    return _Local.TOUCHED if base and same_content(entry, base) else _Local.WRITTEN


def _remote_news(synced: Synced | None, there: Remote | None) -> _Remote:
    if there is None:
        return _Remote.SAME
    base = synced.entry if synced else None
    if synced and there.dot == synced.dot and _says_the_same(there.entry, base):
        # One dot is one version, even where this file system could not hold all that it says; but
        # not where a copy of the device that made it used it for something else.  Where that gave
        # it another mode only, the site's is taken.
        same = there.context == synced.context and same_entry(there.entry, base)
        return _Remote.SAME if same else _Remote.RENEWED
    if same_entry(there.entry, base):
        return _Remote.RENEWED
    if there.entry is None:
        return _Remote.GONE
    return _Remote.TOUCHED if base and same_content(there.entry, base) else _Remote.WRITTEN


def _says_the_same(a: Entry | None, b: Entry | None) -> bool:
    return a is b if a is None or b is None else same_content(a, b)


def _decide_same(path: bytes, entry: Entry | None, there: Remote, news: _Remote) -> Step | None:
    match news:
        case _Remote.SAME:
            return None
        case _Remote.RENEWED | _Remote.TOUCHED:
            return Adopt(path, there, entry) if entry else None
        case _Remote.WRITTEN | _Remote.GONE:
            return Apply(path, there, entry)
        case _:
            assert_never(news)


def _decide_touched(upload: Upload, entry: Entry, there: Remote, news: _Remote) -> Step:
    match news:
        case _Remote.SAME | _Remote.GONE:
            return upload
        case _Remote.RENEWED:
            return msgspec.structs.replace(upload, context=there.context)
        case _Remote.TOUCHED:
            return Adopt(upload.path, there, entry)
        case _Remote.WRITTEN:
            # The bytes here are the agreed ones.  To upload them again for their mode or mtime
            # would make a conflict copy of a content that nobody changed.
            return Apply(upload.path, there, entry)
        case _:
            assert_never(news)


def _decide_written(upload: Upload, entry: Entry, there: Remote, news: _Remote) -> Step:
    match news:
        case _Remote.SAME | _Remote.GONE:
            return upload
        case _Remote.RENEWED | _Remote.TOUCHED:
            # The edit began with the very content that is there now, so it knows it.
            return msgspec.structs.replace(upload, context=there.context)
        case _Remote.WRITTEN:
            if there.entry is not None and same_content(entry, there.entry):
                return Adopt(upload.path, there, entry)
            return upload
        case _:
            assert_never(news)


def _decide_gone(upload: Upload, there: Remote, news: _Remote) -> Step:
    match news:
        case _Remote.SAME:
            return upload
        case _Remote.RENEWED:
            return msgspec.structs.replace(upload, context=there.context)
        case _Remote.TOUCHED | _Remote.WRITTEN:
            return Apply(upload.path, there, None)
        case _Remote.GONE:
            return Forget(upload.path)
        case _:
            assert_never(news)


def _keep_parents(steps: dict[bytes, Step], trees: _Trees) -> None:
    """Forget the delete of a directory in which something is about to be made."""
    made = {
        paths.parent(step.path) for step in steps.values() if isinstance(step, Apply) and step.new
    }
    for path in {above for place in made if place for above in _down_to(place)}:
        step, there = steps.get(path), trees.there(path)
        if not isinstance(step, Upload) or step.new is not None or there is None:
            continue
        # One that nobody knows any more is deleted; the site makes it again for what is in it.
        if _is_directory(there.entry) and there.entry.mode != NO_MODE:
            steps[path] = Apply(path, there, None)


def _hold_removals(steps: dict[bytes, Step], trees: _Trees) -> None:
    """Hold what would take a directory away while something stays in it, or may."""
    if not any(isinstance(s, Upload | Apply) and _takes_directory(s) for s in steps.values()):
        return
    occupied: set[bytes] = set()
    unreadable: set[bytes] = set()
    # What is below a path sorts behind it, so it has been seen before it.
    for path in sorted({*trees.local, *trees.remote}, reverse=True):
        step = steps.get(path)
        if path in occupied and isinstance(step, Apply) and _takes_directory(step):
            steps[path] = step = Held(path, Reason.NOT_EMPTY)
        elif path in unreadable and isinstance(step, Upload) and _takes_directory(step):
            steps[path] = step = Held(path, Reason.UNREADABLE)
        if isinstance(step, Held) or _after(path, step, trees):
            occupied.update(paths.ancestors(path))
        if isinstance(step, Held) and step.reason is Reason.UNREADABLE:
            unreadable.update(paths.ancestors(path))


def _hold_orphans(steps: dict[bytes, Step], trees: _Trees) -> None:
    """Hold what can't be made, because its directory is none here or will be none."""
    sound: dict[bytes, bool] = {}  # of directories, each of which sorts before what is in it
    reached = {b"": True}  # those that are sound with all above them
    for path in sorted(steps):
        step = steps[path]
        if not (isinstance(step, Apply) and step.expected is None and step.new):
            continue
        place = paths.parent(path)
        if place not in reached:
            for above in _down_to(place):
                if above not in sound:
                    after = _after(above, steps.get(above), trees)
                    sound[above] = _is_directory(after) or not trees.mentions(above)
            reached[place] = all(sound[above] for above in _down_to(place))
        if not reached[place]:
            steps[path] = Held(path, Reason.NO_PARENT)


def _down_to(place: bytes) -> tuple[bytes, ...]:
    """A directory and those above it, the topmost first."""
    return (*paths.ancestors(place), place)


def _after(path: bytes, step: Step | None, trees: _Trees) -> Entry | None:
    """What is here once the step is done."""
    if isinstance(step, Upload | Apply):
        return step.new
    return trees.here(path)


def _is_directory(entry: Entry | None) -> TypeGuard[Entry]:
    return entry is not None and entry.kind == Kind.DIRECTORY


def _takes_directory(step: Upload | Apply) -> bool:
    return _is_directory(step.old) and not _is_directory(step.new)


def _plan(steps: Mapping[bytes, Step]) -> Plan:
    ordered = [steps[path] for path in sorted(steps)]
    return Plan(
        uploads=_in_order([step for step in ordered if isinstance(step, Upload)]),
        applies=_in_order([step for step in ordered if isinstance(step, Apply)]),
        adopts=tuple(step for step in ordered if isinstance(step, Adopt)),
        forgets=tuple(step for step in ordered if isinstance(step, Forget)),
        held=tuple(step for step in ordered if isinstance(step, Held)),
    )


def _in_order(changes: list[_Change]) -> tuple[_Change, ...]:
    """In order: what is made, parents first; then what goes, children first.

    So a content that was renamed is found at its old path while the new one is made.  Only
    what has to make room for something that is no directory goes before it.
    """
    making_room = {change.path for change in changes if change.new and _takes_directory(change)}
    made = [change for change in changes if change.new]
    gone = [change for change in reversed(changes) if not change.new]
    if not making_room:
        return (*made, *gone)
    first = [change for change in gone if not making_room.isdisjoint(paths.ancestors(change.path))]
    last = [change for change in gone if making_room.isdisjoint(paths.ancestors(change.path))]
    return (*first, *made, *last)
