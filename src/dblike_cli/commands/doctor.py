"""`dblike doctor`: what may be wrong, and what to do about it."""

from __future__ import annotations

from typing import Final

import click

from dblike_cli.exits import Exit
from dblike_cli.options import Common, command

_WORST_FIRST: Final = (
    Exit.STATE_DAMAGED,
    Exit.INTEGRITY,
    Exit.LOGGED_OUT,
    Exit.PROTOCOL,
    Exit.NOT_FOUND,
    Exit.BRAKE,
    Exit.FAILED,
    Exit.USAGE,
    Exit.TEMPORARY,
    Exit.PENDING,
)


@command("doctor")
@click.option("--full", is_flag=True, help="Also read every file and compare it with its hash.")
def doctor(common: Common, *, full: bool) -> Exit:
    r"""Check link, state, servers, clock, login, watches, space and names; say what to do.

    \b
    Example:
      dblike doctor
      dblike doctor --full --json
    """
    from dblike_cli.doctor import examine
    from dblike_cli.session import open_session

    marks = {"good": "ok  ", "note": "note", "bad": "BAD "}
    with open_session(common) as session:
        findings = []
        for finding in examine(session, full=full):
            findings.append(finding)
            if not common.as_json and (finding.level != "good" or common.verbosity >= 0):
                line = f"{marks[finding.level]}  {finding.check:8} {finding.message}"
                session.output.item(finding, line)
                if finding.remedy:
                    session.output.item(finding, f"{'':14} → {finding.remedy}")
        if common.as_json:
            session.output.result(findings)
    codes = {finding.code for finding in findings}
    return next((code for code in _WORST_FIRST if code in codes), Exit.DONE)
