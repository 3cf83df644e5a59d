"""`dblike restore`: bring a version, a deleted file or a whole directory back."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import click

from dblike_cli.exits import Exit
from dblike_cli.options import PATH, Common, command

if TYPE_CHECKING:
    from dblike_cli.report import Report
    from dblike_cli.session import Session
    from dblike_delta.messages import RestoreReply, RestoreRequest


@command("restore")
@click.argument("path", type=PATH)
@click.option("--version", "version", metavar="V", help="A version that `dblike log PATH` names.")
@click.option("--at", "at", metavar="TIME", help="As it was at a time: 2h, '2026-11-23 14:00'.")
@click.option("--to", "to", metavar="PATH", type=PATH, help="Bring it back under another name.")
def restore(common: Common, path: str, version: str | None, at: str | None, to: str | None) -> Exit:
    r"""Bring a version, a deleted file or a whole directory back.

    With neither --version nor --at: whatever was deleted at PATH and below.  What is there now
    becomes history, so that a restore can be undone by another one.  What was added since stays.
    The result is pulled, unless a running `watch` does that.

    \b
    Example:
      dblike restore docs/report.txt
      dblike restore docs --at '3d ago' --to docs-of-friday
    """
    from dblike_cli.errors import Usage
    from dblike_cli.output import escape
    from dblike_cli.session import open_session
    from dblike_cli.views import check_version
    from dblike_delta.messages import RestoreReply

    if version is not None and at is not None:
        raise Usage("--version and --at: one of them is enough")
    check_version(version)
    with open_session(common) as session:
        where = session.path(path)
        here = os.path.lexists(os.path.join(os.fsencode(session.root), where))
        reply = _ask(session, where, _request(session, where, version, at, to))
        if reply is not None:
            _say(session, reply)
            return _code(_pull(session, session.path(to or path)))
        # An answer may have been lost: what is there and was not here has just been brought back.
        report = _pull(session, where) if to is None else None
        if to is not None or (here and not (report and report.applied)):
            raise Usage(
                f"{escape(path)} is there, and nothing of it is deleted; "
                "choose a --version (`dblike log PATH`) or --at a time"
            )
        _say(session, RestoreReply(restored=0))
        return _code(report)


def _ask(session: Session, path: bytes, request: RestoreRequest) -> RestoreReply | None:
    """Have the server restore it; None where the path is there, and nothing of it is deleted."""
    from dblike_cli.commands.ls import is_there
    from dblike_delta.exchange import Refused
    from dblike_delta.messages import RestoreReply

    try:
        return session.exchange.post(session.target("restore"), request, RestoreReply)
    except Refused as refused:
        named = request.version or request.at is not None
        if refused.status != 404 or named or not is_there(session, path):
            raise
        return None


def _say(session: Session, reply: RestoreReply) -> None:
    from dblike_cli.output import plural
    from dblike_cli.views import view_document

    count = reply.restored
    session.output.result(
        {"restored": count, "versions": [view_document(view) for view in reply.versions]},
        [f"{plural(count, 'path')} restored" if count else "it is so already"],
    )


def _request(
    session: Session, path: bytes, version: str | None, at: str | None, to: str | None
) -> RestoreRequest:
    from dblike_cli.commands.log import versions
    from dblike_cli.errors import Usage
    from dblike_cli.views import moment, version_of
    from dblike_delta.messages import RestoreRequest

    try:
        target = session.path(to).decode() if to is not None else ""
    except UnicodeDecodeError:
        raise Usage("--to: a new name has to be UTF-8") from None
    if to is not None and not target:
        raise Usage("--to: the folder itself is no new name; name a path in it")
    return RestoreRequest(
        path_b64=base64.b64encode(path).decode(),
        version="" if version is None else version_of(version, versions(session, path, 10_000)),
        at=None if at is None else moment(at, session.clock.now_ms()),
        to=target,
    )


def _pull(session: Session, path: bytes) -> Report | None:
    """Take what was restored, where no watch is there to do it."""
    from dblike_cli import lock
    from dblike_cli.errors import Locked
    from dblike_cli.report import Direction
    from dblike_cli.run import Wish, cycle

    try:
        with lock.hold(session.own / "lock", "restore"):
            return cycle(session, Direction.PULL, Wish(paths=(path,) if path else ()))
    except Locked:
        return None


def _code(report: Report | None) -> Exit:
    return report.exit_code if report is not None else Exit.DONE
