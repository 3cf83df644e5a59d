"""Write docs/commands.md from what the commands say themselves.

Usage: .venv/bin/python scripts/document_commands.py [--print]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import click

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
PROGRAMS = {"dblike": "dblike_cli.__main__", "dblike-server": "dblike_srv.__main__"}
HEADING = """\
# Commands

What `--help` says, for every command. `scripts/document_commands.py` writes this page.
"""


def main(arguments: Sequence[str]) -> int:
    if arguments == ["--print"]:
        print(page(), end="")
    else:
        PAGE.write_text(page())
    return 0


def page() -> str:
    parts = [HEADING]
    for program in PROGRAMS:
        parts.append(f"## {program}\n")
        for context in contexts(program):
            if context.parent:
                parts.append(f"### {context.command_path}\n")
            parts.append(f"```text\n{context.get_help().rstrip()}\n```\n")
    return "\n".join(parts)


def contexts(program: str) -> Iterator[click.Context]:
    """The program and all its commands that are not hidden, depth first."""
    members = vars(import_module(PROGRAMS[program])).values()
    group = next(member for member in members if isinstance(member, click.Group))
    yield from walk(new_context(group, program))


def walk(context: click.Context) -> Iterator[click.Context]:
    yield context
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                yield from walk(new_context(command, name, context))


def new_context(
    command: click.Command, name: str, parent: click.Context | None = None
) -> click.Context:
    """As click would make it, but for the width of the page instead of the terminal's."""
    settings = {**command.context_settings, "terminal_width": 100}
    return click.Context(command, parent, info_name=name, **settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
