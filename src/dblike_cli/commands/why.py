"""`dblike why`: why a path is in, out of, or not yet in sync."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Any, Final

import click

from dblike_cli.exits import Exit
from dblike_cli.options import PATH, Common, command

if TYPE_CHECKING:
    from dblike_cli.session import Session
    from dblike_cli.state import Known

_EVENTS = 10


@command("why")
@click.argument("path", type=PATH)
def why(common: Common, path: str) -> Exit:
    r"""Say why a path is in, out of, or not yet in sync: rule, state, last events.

    \b
    Example:
      dblike why docs/report.txt
    """
    from dblike_cli.eventlog import last_events
    from dblike_cli.session import open_session
    from dblike_delta.paths import display

    with open_session(common) as session:
        where = session.path(path)
        found = _find(session, where)
        found["events"] = last_events(session.own / "log", where, _EVENTS)
        lines = [f"{display(where) or path}: {found['verdict']}"]
        lines += [f"  {name}: {found[name]}" for name in ("local", "synced", "news") if found[name]]
        lines += [
            f"  {event['time']}  {event['action']}  {event['detail']}".rstrip()
            for event in found["events"]
        ]
        session.output.result(found, lines)
        return Exit.DONE if found["in_sync"] else Exit.PENDING


def _find(session: Session, path: bytes) -> dict[str, Any]:
    """What each place knows of the path, and the verdict that follows from it."""
    from dblike_cli.errors import NotFound
    from dblike_cli.output import path_fields
    from dblike_delta.paths import display

    local = _local(session, path)
    known = session.state.tree.get(path)
    verdict, in_sync = _by_rule(session, path, local) or _by_cycle(session, path)
    if not verdict:
        verdict, in_sync = "in sync", True
        if local is None and known is None:
            verdict = _behind_symlink(session, path)
        if not verdict:
            raise NotFound(f"{display(path)} is neither here nor on the server")
    news = session.state.remote.get(path) is not None
    return {
        **path_fields(path),
        "in_sync": in_sync,
        "verdict": verdict,
        "local": _said(local),
        "synced": _kind(known),
        "news": "the server has something newer, which is not here yet" if news else "",
    }


def _local(session: Session, path: bytes) -> os.stat_result | None:
    """What is here of the path; what a symlink on its way points to is another path's."""
    if _symlink_above(session, path):
        return None
    try:
        return os.lstat(os.path.join(os.fsencode(session.root), path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _symlink_above(session: Session, path: bytes) -> bytes:
    from dblike_delta.paths import ancestors

    root = os.fsencode(session.root)
    links = (place for place in ancestors(path) if os.path.islink(os.path.join(root, place)))
    return next(links, b"")


def _behind_symlink(session: Session, path: bytes) -> str:
    """Why what can be seen here under that name is no path of the folder; else an empty text."""
    from dblike_delta.paths import display

    link = _symlink_above(session, path)
    if not link or not os.path.lexists(os.path.join(os.fsencode(session.root), path)):
        return ""
    return f"left out: {display(link)} is a symlink, and what it points to is not synced"


def _said(local: os.stat_result | None) -> str:
    from dblike_cli.output import size, when

    if local is None:
        return ""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
    kind = kinds.get(stat.S_IFMT(local.st_mode), "special file")
    return f"{kind}, {size(local.st_size)}, modified {when(local.st_mtime_ns // 1_000_000)}"


def _kind(known: Known | None) -> str:
    entry = None if known is None else known.synced.entry
    return "" if entry is None else entry.kind.name.lower()


def _by_rule(
    session: Session, path: bytes, local: os.stat_result | None
) -> tuple[str, bool] | None:
    """What keeps the path out by itself, or by a directory above it."""
    from dblike_cli.ignore import load_ignore
    from dblike_cli.realfs import RealFS
    from dblike_delta.paths import ancestors, display

    with contextlib.closing(RealFS(session.root)) as filesystem:
        rules = load_ignore(filesystem, session.config.ignore)
    if session.state.tree.get(path) is not None:
        return None  # a rule keeps new paths out; what was synced before stays so
    for place in (*ancestors(path), path):
        above = place != path or (local is not None and stat.S_ISDIR(local.st_mode))
        rule = rules.rule(place, directory=above)
        if rule:
            return f"left out: the rule {display(rule.encode())!r} ignores it", True
    if local is not None and stat.S_IFMT(local.st_mode) not in _SYNCED:
        return "left out: neither file, directory nor symlink", True
    return None


_SYNCED: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
_PLANS: Final = {
    "upload": "new or changed here; the next sync sends it",
    "delete-remote": "deleted here; the next sync deletes it on the server",
    "download": "new or changed on the server; the next sync brings it",
    "delete-local": "deleted on the server; the next sync deletes it here",
    "adopt": "the same on both sides; the next sync takes note of that",
}


def _by_cycle(session: Session, path: bytes) -> tuple[str, bool]:
    """What a cycle says of the path; an empty text where there is nothing to do."""
    from dblike_cli.failure import describe, is_temporary
    from dblike_cli.report import Direction
    from dblike_cli.run import Wish, cycle

    try:
        report = cycle(session, Direction.BOTH, Wish(paths=(path,), dry_run=True))
    except Exception as error:
        if not is_temporary(error):
            raise
        return f"unknown: {describe(error)[0]}", False
    for item in (*report.refused, *report.pending):
        if item.path == path:
            return item.reason, False
    for step in report.planned:
        if step.path == path:
            return _PLANS[step.action], False
    return "", True
