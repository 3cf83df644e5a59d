"""Write docs/commands.md from what the commands say themselves.

Usage: .venv/bin/python scripts/document_commands.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
PROGRAMS = {"dblike": "dblike_cli.__main__", "dblike-server": "dblike_srv.__main__"}
HEADING = """\
# Commands

What `--help` says, for every command. `scripts/document_commands.py` writes this page.
"""


def main() -> int:
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
    # The width of the page, not of the terminal that this runs in.
    yield from walk(click.Context(group, info_name=program, terminal_width=100))


def walk(context: click.Context) -> Iterator[click.Context]:
    yield context
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                settings = {"terminal_width": 100, **command.context_settings}
                yield from walk(click.Context(command, context, info_name=name, **settings))


if __name__ == "__main__":
    sys.exit(main())
