"""`dblike cat`: a file as the server has it."""

from __future__ import annotations

import sys

import click

from dblike_cli.exits import Exit
from dblike_cli.options import Common, command


@command("cat")
@click.argument("path")
@click.option("--version", "version", metavar="V", help="A version that `dblike log PATH` names.")
def cat(common: Common, path: str, version: str | None) -> Exit:
    r"""Write a file of the server's to standard output.

    \b
    Example:
      dblike cat docs/report.txt
      dblike cat docs/report.txt --version 3f2a9c01.12 > old.txt
    """
    from dblike_cli.commands.log import versions
    from dblike_cli.session import open_session
    from dblike_cli.views import url_path, version_of

    with open_session(common) as session:
        where = session.path(path)
        target = session.target(f"files/{url_path(where)}")
        if version is not None:
            target += f"?version={version_of(version, versions(session, where, 10_000))}"
        for chunk in session.exchange.read(target):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return Exit.DONE
