"""What is equal on both sides becomes agreed; only mode and mtime are taken from the site."""

from __future__ import annotations

from collections.abc import Mapping

from dblike_cli.context import Context
from dblike_cli.durable import sync_found
from dblike_cli.entries import UNTRUSTED, is_racy, stamp_of, synced_of
from dblike_cli.fs import Stat
from dblike_cli.outcomes import Applied
from dblike_cli.report import Code, Outcome
from dblike_cli.state import Known
from dblike_delta.plan import Adopt, Entry, Plan
from dblike_delta.versions import Kind


def adopt(
    context: Context, plan: Plan, stamps: Mapping[bytes, bytes], tick: int, result: Applied
) -> None:
    """Carry out the adopts and forgets of a plan, in one transaction."""
    known = [
        found
        for step in plan.adopts
        if (found := _take(context, step, stamps, tick, result)) is not None
    ]
    gone = [step.path for step in plan.forgets]
    if not known and not gone:
        return
    files = [step.path for step in plan.adopts if step.local.kind is Kind.FILE]
    sync_found(context, files, [*(found.path for found in known), *gone])
    news = {path: context.state.remote.get(path) for path in gone}
    with context.state.transaction():
        context.state.tree.record(known)
        context.state.tombs.bury(
            [(path, record.context if record else b"") for path, record in news.items()],
            context.clock.now_ms(),
        )
        context.state.remote.drop([*(found.path for found in known), *gone])
    for found in known:
        result.adopted.append(found.path)
        context.reporter.progress(Outcome("adopt", found.path))


def _take(
    context: Context, step: Adopt, stamps: Mapping[bytes, bytes], tick: int, result: Applied
) -> Known | None:
    """Give a path the site's mode and mtime, if it still is what was looked at."""
    path, entry = step.path, step.remote.entry
    assert entry is not None
    before = context.state.tree.get(path)
    stamp = stamps.get(path) or (before.stamp if before is not None else UNTRUSTED)
    try:
        st = context.fs.lstat(path)
        if stamp_of(st) != stamp:
            result.trouble(context, path, Code.CHANGED, "it was edited meanwhile")
            return None
        _set(context, path, step.local, entry)
        after = context.fs.lstat(path)
    except FileNotFoundError:
        result.trouble(context, path, Code.CHANGED, "it went away meanwhile")
        return None
    except OSError as error:
        result.trouble(context, path, Code.DISK, f"the disk says: {error.strerror}")
        return None
    doubtful = step.local.kind is not Kind.DIRECTORY and is_racy(st, tick)
    if doubtful or _is_edited(step.local, entry, st, after):
        return Known(path, UNTRUSTED, synced_of(step.remote))
    return Known(path, stamp_of(after), synced_of(step.remote))


def _is_edited(local: Entry, entry: Entry, before: Stat, after: Stat) -> bool:
    """Whether somebody wrote to it, or gave it a mode, while we gave it what the site says."""
    if (before.st_ino, before.st_size) != (after.st_ino, after.st_size):
        return True
    if local.mode == entry.mode and before.st_mode != after.st_mode:
        return True
    timed = local.kind is not Kind.DIRECTORY and local.mtime_ns == entry.mtime_ns
    return timed and before.st_mtime_ns != after.st_mtime_ns


def _set(context: Context, path: bytes, local: Entry, entry: Entry) -> None:
    if entry.kind is Kind.SYMLINK:
        return
    if local.mode != entry.mode:
        context.fs.chmod(path, entry.mode)
    if entry.kind is Kind.FILE and local.mtime_ns != entry.mtime_ns:
        context.fs.utime(path, entry.mtime_ns)
