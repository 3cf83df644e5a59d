"""One cycle for a command: under the lock, with progress, and with a result that is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from dblike_cli import lock
from dblike_cli.context import Context
from dblike_cli.cycle import run_cycle
from dblike_cli.exits import Exit
from dblike_cli.learned import is_stale
from dblike_cli.output import Output, path_fields, plural, size
from dblike_cli.report import (
    Brake,
    Code,
    Direction,
    Outcome,
    Pending,
    Progress,
    Report,
    Reporter,
)
from dblike_cli.session import SITES, Session
from dblike_delta.exchange import Exchange, Unreachable
from dblike_delta.paths import display

_TRIES = 2
_OUTCOMES: Final = {
    "upload": "uploaded",
    "download": "applied",
    "adopt": "adopted",
    "delete-remote": "deleted",
    "delete-local": "deleted",
    "conflict": "conflicts",
}
"""Where a report lists what became of a path."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a command wants of its cycle."""

    paths: tuple[bytes, ...] = ()
    dry_run: bool = False
    max_delete: str | None = None
    checksum: bool = False


def run(session: Session, direction: Direction, wish: Wish) -> Exit:
    """Run a cycle, and say what came of it."""
    with lock.hold(session.own / "lock", direction.value):
        report = cycle(session, direction, wish)
    if not wish.dry_run and is_stale(session.own / SITES):
        session.learn()
    say(session.output, report, dry_run=wish.dry_run)
    code = report.exit_code
    # A dry run that found something to do did what it was asked.
    todo = wish.dry_run and code is Exit.PENDING and not report.hindered
    return Exit.DONE if todo else code


def cycle(
    session: Session, direction: Direction, wish: Wish, exchange: Exchange | None = None
) -> Report:
    """Run a cycle; whoever calls holds the lock.

    What a site left half done when it died goes on at another one.
    """
    with session.reporter() as reporter:
        done = _Done(reporter)
        for _ in range(_TRIES):
            try:
                return done.told(_once(session.context(done, exchange), direction, wish))
            except Unreachable:
                if not session.transport.has_choice:
                    raise
                session.reset()
        return done.told(_once(session.context(done, exchange), direction, wish))


def _once(context: Context, direction: Direction, wish: Wish) -> Report:
    return run_cycle(
        context,
        direction,
        paths=wish.paths,
        dry_run=wish.dry_run,
        max_delete=wish.max_delete,
        checksum=wish.checksum,
    )


class _Done:
    """Hears what came of all tries, for the report of the last one knows no other's."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._paths: dict[str, dict[bytes, None]] = {name: {} for name in _OUTCOMES.values()}

    def progress(self, event: Progress | Outcome | Pending) -> None:
        """Take note of an event, and pass it on."""
        if isinstance(event, Outcome):
            self._paths[_OUTCOMES[event.action]][event.path] = None
        self._reporter.progress(event)

    def told(self, report: Report) -> Report:
        """The report with what all tries did; its bytes are those of the last."""
        return msgspec.structs.replace(
            report, **{name: tuple(paths) for name, paths in self._paths.items()}
        )


def say(output: Output, report: Report, *, dry_run: bool) -> None:
    """The result on stdout; what is not in sync on stderr."""
    lines = list(planned_lines(report)) if dry_run else _summary(output, report)
    output.result(report_document(report), lines)
    for line in (*unsettled(report), *short_lines(report.short)):
        output.note(line)


def unsettled(report: Report) -> Iterator[str]:
    """A line for each path that is not in sync, and for the brake."""
    for path in report.conflicts:
        yield f"conflict: {display(path)}"
    for item in (*report.pending, *report.refused):
        yield unsettled_line(item)
    if report.brake is not None:
        yield f"dblike: {report.brake.message}"


def short_lines(short: int) -> Iterator[str]:
    """A line where fewer sites hold versions than should."""
    if short:
        count = plural(short, "version")
        yield f"fewer sites than wanted hold {count} of yours: offered again until enough do"


def unsettled_line(item: Pending) -> str:
    """A path that is not in sync, and why, for a person."""
    kind = {Code.REFUSED: "refused", Code.SPECIAL: "left out"}.get(item.code, "pending")
    return f"{kind}: {display(item.path)}: {item.reason}"


def report_document(report: Report) -> dict[str, Any]:
    """A report as JSON shows it."""
    document: dict[str, Any] = {"in_sync": report.in_sync, "exit_code": int(report.exit_code)}
    for name in ("uploaded", "applied", "adopted", "deleted", "conflicts"):
        document[name] = [path_fields(path) for path in getattr(report, name)]
    document["pending"] = [pending_document(item) for item in report.pending]
    document["refused"] = [pending_document(item) for item in report.refused]
    document["planned"] = [
        {"action": item.action, **path_fields(item.path), "size": item.size}
        for item in report.planned
    ]
    document["short"] = report.short
    document["bytes"] = {"sent": report.bytes_sent, "received": report.bytes_received}
    document["brake"] = report.brake and _brake_document(report.brake)
    return document


def _brake_document(brake: Brake) -> dict[str, Any]:
    return {
        "side": brake.side,
        "count": brake.count,
        "total": brake.total,
        "message": brake.message,
        "also": brake.also and _brake_document(brake.also),
    }


def pending_document(item: Pending) -> dict[str, str]:
    """A path that is not in sync as JSON shows it."""
    return {**path_fields(item.path), "reason": item.reason, "code": item.code.value}


def summary(report: Report) -> str:
    """What happened, in one line."""
    parts = []
    if report.uploaded:
        parts.append(f"{len(report.uploaded)} up ({size(report.bytes_sent)})")
    if report.applied:
        parts.append(f"{len(report.applied)} down ({size(report.bytes_received)})")
    if report.deleted:
        parts.append(f"{len(report.deleted)} deleted")
    if report.adopted:
        parts.append(f"{len(report.adopted)} the same on both sides")
    if report.conflicts:
        parts.append(plural(len(report.conflicts), "conflict copy", "conflict copies"))
    left = len(report.pending) + len(report.refused)
    if left:
        parts.append(f"{left} not in sync")
    return ", ".join(parts) or "nothing to do"


def _summary(output: Output, report: Report) -> list[str]:
    return [] if output.verbosity < 0 else [summary(report)]


def planned_lines(report: Report) -> Iterator[str]:
    """A line for each step of a dry run."""
    for item in report.planned:
        amount = f"  {size(item.size)}" if item.size else ""
        yield f"{item.action:13} {display(item.path)}{amount}"
