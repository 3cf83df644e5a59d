"""`dblike cat`: a file as the server has it."""

from __future__ import annotations

import sys

import click

from dblike_cli.exits import Exit
from dblike_cli.options import PATH, Common, command


@command("cat")
@click.argument("path", type=PATH)
@click.option("--version", "version", metavar="V", help="A version that `dblike log PATH` names.")
def cat(common: Common, path: str, version: str | None) -> Exit:
    r"""Write a file of the server's to standard output.

    \b
    Example:
      dblike cat docs/report.txt
      dblike cat docs/report.txt --version 3f2a9c01.12 > old.txt
    """
    from dblike_cli.commands.log import versions
    from dblike_cli.errors import Failed
    from dblike_cli.session import open_session
    from dblike_cli.views import check_version, url_path, version_of
    from dblike_delta.exchange import Refused
    from dblike_delta.paths import display

    check_version(version)
    with open_session(common) as session:
        where = session.path(path)
        if not where:
            raise Failed("the folder itself has no content; `dblike ls` shows what is in it")
        wanted = None if version is None else version_of(version, versions(session, where, 10_000))
        # raw: also of a file whose name the server would take for a question about another one.
        target = session.query(f"files/{url_path(where)}", version=wanted, raw="1")
        try:
            for chunk in session.exchange.read(target):
                sys.stdout.buffer.write(chunk)
        except Refused as refused:
            if refused.status != 422:
                raise
            raise Failed(
                f"{display(where)} is a directory or a symlink, which `dblike ls` shows; "
                "only files have content"
            ) from None
        sys.stdout.buffer.flush()
    return Exit.DONE
