"""The stop signs between deciding and acting: a missing root, a mass delete."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

import msgspec

from dblike_cli.context import Context
from dblike_cli.entries import moved_mark
from dblike_cli.errors import Stopped, Usage
from dblike_cli.fs import OWN, FileSystem
from dblike_cli.realfs import RealFS
from dblike_cli.report import Brake
from dblike_cli.scan import Scan
from dblike_delta.plan import Apply, Entry, Plan, Upload
from dblike_delta.versions import Kind

_EXAMPLES = 5
_LATELY = 600.0
"""Seconds for which deletes that were let through count: `watch` sees those of one `rm` in many
cycles, and each of them would be few."""
Side = Literal["local", "remote"]
Step = Upload | Apply


def open_root(root: Path) -> RealFS:
    """The folder at `root` of this machine; raises Stopped as check_root does."""
    try:
        return RealFS(root)
    except OSError as error:
        raise _missing(error) from error


def check_root(fs: FileSystem) -> None:
    """Raise Stopped unless the folder is there: an unmounted disk is not an empty folder."""
    try:
        fs.refresh()
        fs.lstat(OWN)
    except OSError as error:
        raise _missing(error) from error


def _missing(error: OSError) -> Stopped:
    return Stopped(f"the folder or its .dblike is missing ({error.strerror}): is its disk mounted?")


class Limit(msgspec.Struct, frozen=True):
    """How many deletes are let through: at most `share` of all, or `count` where that is more.
    `asked`: somebody answers a brake, and means these deletes."""

    count: int
    share: float
    asked: bool = False

    def allows(self, deletes: int, total: int) -> bool:
        """Whether so many of `total` may go at once."""
        return deletes <= max(self.count, self.share * total)


def limit_of(context: Context, asked: str | None) -> Limit:
    """The brake that holds for a cycle; `asked` is a command's --max-delete.  Raises Usage."""
    config = context.config
    if asked is None:
        share = _parse(config.max_delete)
        return (
            share if not config.max_delete.endswith("%") else Limit(config.brake_from, share.share)
        )
    return msgspec.structs.replace(_parse(asked), asked=True)


def _parse(text: str) -> Limit:
    digits = text.removesuffix("%")
    if not digits.isascii() or not digits.isdecimal():
        raise Usage(f"--max-delete {text}: must be a number or a percentage")
    return Limit(0, int(digits) / 100) if text.endswith("%") else Limit(int(digits), 0.0)


def hold_deletes(
    context: Context, plan: Plan, found: Scan, limit: Limit
) -> tuple[Plan, Brake | None]:
    """The plan without its deletes where they are too many, and what was held."""
    lost, removed = _not_moved(plan.uploads, found), _not_moved_there(plan.applies)
    before = {
        side: _lately(context, side) if paths and not limit.asked else 0
        for side, paths in (("local", lost), ("remote", removed))
    }
    here, there = len(lost) + before["local"], len(removed) + before["remote"]
    if max(here, there) <= limit.count:
        return plan, None  # no share is asked for, so nobody has to count all files
    total = max(context.state.tree.count_files(), 1)
    brake = None
    if removed and not limit.allows(there, total + before["remote"]):
        made = tuple(step for step in plan.applies if step.new is not None)
        plan = _replace(plan, applies=made)
        brake = _brake("remote", removed, total, before["remote"])
    if lost and not limit.allows(here, total + before["local"]):
        kept = tuple(step for step in plan.uploads if step.new is not None)
        plan = _replace(plan, uploads=kept)
        brake = _brake("local", lost, total, before["local"], brake)
    return plan, brake


def note_fewer(
    context: Context, side: Side, limit: Limit, steps: Iterable[Step], done: Collection[bytes]
) -> None:
    """Remember for the next look how many files went and came by the doing of a side: by those of
    the steps whose paths are done."""
    gone = made = 0
    for step in steps:
        if step.path in done:
            gone += step.new is None and _counts(step.old)
            made += step.old is None and _counts(step.new)
    events, now = context.state.fewer[side], context.clock.monotonic()
    if limit.asked and gone:
        events.clear()
    elif gone or made:
        events[:] = [event for event in events if now - event[0] <= _LATELY]
        events.append((now, gone - made))


def _lately(context: Context, side: str) -> int:
    """How many files fewer there are by the doing of a side than there were at some time lately."""
    now = context.clock.monotonic()
    most = fewer = 0
    for when, count in reversed(context.state.fewer[side]):
        if now - when > _LATELY:
            break
        fewer += count
        most = max(most, fewer)
    return most


def _counts(entry: Entry | None) -> bool:
    """Whether it is something to lose.  A directory is what lies in it, which counts by itself."""
    return entry is not None and entry.kind is not Kind.DIRECTORY


def _not_moved(uploads: Iterable[Upload], found: Scan) -> list[bytes]:
    """Files that went and did not turn up at another path."""
    paths = [step.path for step in uploads if step.new is None and _counts(step.old)]
    there = {
        moved_mark(found.stamps[path])
        for path, entry in (found.local.items() if paths else ())
        if isinstance(entry, Entry) and _counts(entry)
    } - {()}
    return [path for path in paths if moved_mark(found.gone.get(path, b"")) not in there]


def _not_moved_there(applies: Collection[Apply]) -> list[bytes]:
    """Files that go, and whose content does not arrive at another path."""
    made = {(step.new.hash, step.new.target) for step in applies if step.new is not None}
    return [
        step.path
        for step in applies
        if step.new is None
        and step.expected is not None
        and _counts(step.expected)
        and (step.expected.hash, step.expected.target) not in made
    ]


def _brake(
    side: Side, paths: list[bytes], total: int, before: int, also: Brake | None = None
) -> Brake:
    return Brake(side, len(paths) + before, total + before, tuple(paths[:_EXAMPLES]), also)


def _replace(plan: Plan, **changes: object) -> Plan:
    return msgspec.structs.replace(plan, **changes)
