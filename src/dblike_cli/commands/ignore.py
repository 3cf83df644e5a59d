"""`dblike ignore`: what is not synced."""

from __future__ import annotations

import stat
from pathlib import Path

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
    from dblike_cli.session import find_root
    from dblike_delta.outputs import whole

    for pattern in patterns:
        _check(pattern)
    root = find_root(common.directory)
    file = root / ".dblikeignore"
    present = _read(file)
    lines = present.splitlines()
    new = [pattern for pattern in dict.fromkeys(patterns) if pattern.encode() not in lines]
    if new:
        gap = b"" if not present or present.endswith(b"\n") else b"\n"
        # Half of the rules would let up what the others keep here.
        with whole(file, staging=root / ".dblike", durable=True) as target:
            target.write(present + gap + "".join(f"{pattern}\n" for pattern in new).encode())
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
    from dblike_delta.paths import display

    file = find_root(common.directory) / ".dblikeignore"
    lines = _read(file).splitlines()
    common.output().result(lines, map(display, lines))
    return Exit.DONE


def _check(pattern: str) -> None:
    """Raises Usage for what can't be a rule."""
    from dblike_cli.errors import Usage
    from dblike_cli.ignore import Ignore

    if not pattern.strip() or not pattern.isprintable():
        raise Usage(f"{pattern!r} is not a pattern")
    if wrong := Ignore([pattern]).wrong:
        raise Usage(wrong)


def _read(file: Path) -> bytes:
    """The rules as they are; what is no plain file is neither read nor replaced."""
    from dblike_cli.errors import Failed

    try:
        if not stat.S_ISREG(file.lstat().st_mode):
            raise Failed(f"{file} is not a plain file")
    except FileNotFoundError:
        return b""
    return file.read_bytes()


ignore.add_command(add)
ignore.add_command(list_)
