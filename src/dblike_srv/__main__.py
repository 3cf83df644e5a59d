"""`dblike-server`: the command line of a site."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from dblike_srv.commands.options import Place, group_options

COMMANDS: Final = {
    "run": "run:run",
    "init": "run:init",
    "user": "accounts:user",
    "device": "accounts:device",
    "folder": "accounts:folder",
    "join": "cluster:join",
    "leave": "cluster:leave",
    "status": "maintenance:status",
    "scrub": "maintenance:scrub",
    "gc": "maintenance:gc",
    "compact": "maintenance:compact",
    "backup": "maintenance:backup",
    "migrate": "maintenance:migrate",
}
"""Where each command is; its module is imported when it is called."""


class Commands(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"dblike_srv.commands.{module}"), name)
        return command


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: dblike-server run --data /srv/dblike",
)
@group_options
@click.version_option(
    package_name="dblike", prog_name="dblike-server", message="%(prog)s %(version)s"
)
@click.pass_context
def main(context: click.Context, config: Path | None, data: Path | None) -> None:
    """Serve folders to DBLike's clients."""
    os.umask(0o077)  # what we make is nobody else's to read
    context.obj = Place(config, data)


if __name__ == "__main__":
    main(prog_name="dblike-server")
