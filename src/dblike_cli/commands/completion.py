"""`dblike completion`: what a shell needs to complete commands and flags."""

from __future__ import annotations

import click

from dblike_cli.exits import Exit
from dblike_cli.options import Common, command


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(common: Common, shell: str) -> Exit:
    r"""Print the completion script for a shell.

    \b
    Example:
      dblike completion bash > ~/.local/share/bash-completion/completions/dblike
      dblike completion zsh > ~/.zfunc/_dblike
      dblike completion fish > ~/.config/fish/completions/dblike.fish
    """
    from click.shell_completion import get_completion_class

    from dblike_cli.__main__ import cli

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, "dblike", "_DBLIKE_COMPLETE").source()
    common.output().result({"shell": shell, "script": script}, [script])
    return Exit.DONE
