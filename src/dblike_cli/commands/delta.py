"""`dblike delta`: the library's own tool."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from dblike_cli.options import Common, keep_lines


@click.command(
    "delta",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def delta(context: click.Context, /, arguments: tuple[str, ...]) -> int:
    r"""Signatures, deltas and patches of files, as `rdiff`; the same as `python -m dblike_delta`.

    \b
    Example:
      dblike delta signature old.iso old.sig
    """
    from dblike_cli.errors import Usage
    from dblike_delta.__main__ import main

    directory = (context.find_object(Common) or Common()).directory
    if directory == Path():
        return main(list(arguments))
    if not directory.is_dir():
        raise Usage(f"there is no directory {directory}")
    with contextlib.chdir(directory):
        return main(list(arguments))


delta.help = keep_lines(delta.help)
