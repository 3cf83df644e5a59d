"""`dblike status`: in sync or not, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dblike_cli.exits import Exit
from dblike_cli.options import Common, command

if TYPE_CHECKING:
    from dblike_cli.report import Report
    from dblike_cli.session import Session
    from dblike_delta.messages import DeviceView


@command("status")
def status(common: Common) -> Exit:
    r"""Say whether this folder is in sync with the server, and what is not and why.

    It looks at both sides and changes nothing.  Exit 0: in sync, 3: not yet, 5: no server reached.

    \b
    Example:
      dblike status
      dblike status --json
    """
    from dblike_cli.session import open_session

    with open_session(common) as session:
        report, failure = _look(session)
        devices = session.exchange.devices() if report is not None else []
        if report is not None:
            session.learn()
        document = _document(session, report, failure, devices)
        session.output.result(document, _lines(document, report))
        if report is None:
            return Exit.TEMPORARY
        code = report.exit_code
        return Exit.PENDING if code is Exit.DONE and not document["in_sync"] else code


def _look(session: Session) -> tuple[Report | None, str]:
    """What a cycle would do now; None where no server can be asked."""
    from dblike_cli.failure import describe, is_temporary
    from dblike_cli.report import Direction
    from dblike_cli.run import Wish, cycle

    try:
        return cycle(session, Direction.BOTH, Wish(dry_run=True)), ""
    except Exception as error:
        if not is_temporary(error):
            raise
        return None, describe(error)[0]


def _document(
    session: Session, report: Report | None, failure: str, devices: list[DeviceView]
) -> dict[str, Any]:
    from dblike_cli import lock
    from dblike_cli.output import path_fields
    from dblike_cli.report import Report
    from dblike_cli.run import report_document
    from dblike_delta.conflict_names import is_conflict_copy

    state, site = session.state, session.transport.site
    copies = [path for path in state.tree.stamps() if is_conflict_copy(path)]
    document: dict[str, Any] = {
        "in_sync": report is not None and report.in_sync and not report.planned,
        "directory": str(session.root),
        "folder": session.config.folder,
        "servers": session.config.servers,
        "server": site.name if report is not None and site is not None else None,
        "others": [address.url for address in session.transport.others()],
        "short": session.state.offers.short(),
        "reason": failure,
        "user": session.credential.user,
        "device": {"id": session.credential.device_id, "name": session.config.device},
        "busy": lock.holder(session.own / "lock"),
        "paths": state.tree.count(),
        "copies": [path_fields(path) for path in sorted(copies)],
        "devices": devices,
        "waiting": len(state.outbox.all()) + len(state.remote.all()),
    }
    if report is None:  # what the last sync knew
        notes = state.notes
        report = Report(pending=tuple(notes.pending()), refused=tuple(notes.refused()))
    known = report_document(report)
    return document | {name: known[name] for name in ("planned", "pending", "refused", "brake")}


def _lines(document: dict[str, Any], report: Report | None) -> Iterator[str]:
    from dblike_cli.output import escape, plural, when
    from dblike_cli.run import planned_lines, short_lines, unsettled

    yield f"{document['directory']} ⇄ {document['folder']!r} of {escape(document['user'])}"
    if report is None:
        yield f"unknown: {document['reason']}"
        return
    held = document["busy"]
    yield f"server {document['server']}; " + (f"{held} is at work" if held else "no watch runs")
    if document["others"]:
        yield f"also at {', '.join(map(escape, document['others']))}"
    yield from short_lines(document["short"])
    yield from unsettled(report)
    yield from planned_lines(report)
    if document["copies"]:
        count = plural(len(document["copies"]), "conflict copy", "conflict copies")
        yield f"{count} to settle; see `dblike conflicts`"
    for device in document["devices"]:
        mark = " (this one)" if device.current else ""
        yield f"device {escape(device.name)}{mark}, last seen {when(device.last_seen)}"
    left = len(report.planned) + len(report.pending) + len(report.refused)
    yield "in sync" if document["in_sync"] else f"not in sync: {plural(left, 'path')}"
