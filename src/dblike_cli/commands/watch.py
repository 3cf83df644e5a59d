"""`dblike watch`: both ways, at once, until stopped."""

from __future__ import annotations

import click

from dblike_cli.commands.sync import max_delete_of, rates_of
from dblike_cli.exits import Exit
from dblike_cli.options import Common, command


@command("watch")
@click.option("--max-delete", metavar="N|P%", help="For what was deleted before it was started.")
@click.option("--bwlimit", metavar="RATE", help="500k, 1.5M, up:down; KiB/s without a unit.")
def watch(common: Common, max_delete: str | None, bwlimit: str | None) -> Exit:
    r"""Keep the folder in sync until stopped, both ways and at once.

    Lost servers, sleep and full disks only pause it.  SIGTERM ends it cleanly.

    \b
    Example:
      dblike watch
      dblike -C ~/Files watch --json
    """
    from dblike_cli.session import open_session
    from dblike_cli.watch import watch_folder

    with open_session(common, rates=rates_of(bwlimit)) as session:
        return watch_folder(session, max_delete_of(max_delete))
