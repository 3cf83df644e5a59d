"""`dblike ignore`: what is not synced."""

from __future__ import annotations

import click

from dblike_cli.exits import Exit
from dblike_cli.options import Common, command


@click.group("ignore", context_settings={"help_option_names": ["-h", "--help"]})
def ignore() -> None:
    """Patterns of what is not synced, in .dblikeignore, which is itself synced."""


@command("add")
@click.argument("patterns", metavar="PATTERN…", nargs=-1, required=True)
def add(common: Common, patterns: tuple[str, ...]) -> Exit:
    r"""Add patterns, in gitignore's syntax.

    \b
    Example:
      dblike ignore add '*.o' node_modules/
    """
    from dblike_cli.errors import Usage
    from dblike_cli.session import find_root

    for pattern in patterns:
        if not pattern.strip() or not pattern.isprintable():
            raise Usage(f"{pattern!r} is not a pattern")
    file = find_root(common.directory) / ".dblikeignore"
    present = file.read_text() if file.is_file() else ""
    new = [pattern for pattern in patterns if pattern not in present.splitlines()]
    if new:
        gap = "" if not present or present.endswith("\n") else "\n"
        file.write_text(present + gap + "".join(f"{pattern}\n" for pattern in new))
    common.output().result({"added": new}, [f"added: {pattern}" for pattern in new])
    return Exit.DONE


@command("list")
def list_(common: Common) -> Exit:
    r"""Show the patterns.

    \b
    Example:
      dblike ignore list
    """
    from dblike_cli.session import find_root

    file = find_root(common.directory) / ".dblikeignore"
    lines = file.read_text().splitlines() if file.is_file() else []
    common.output().result(lines, lines)
    return Exit.DONE


ignore.add_command(add)
ignore.add_command(list_)
