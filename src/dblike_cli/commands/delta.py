"""`dblike delta`: the library's own tool."""

from __future__ import annotations

import click

from dblike_cli.options import keep_lines


@click.command(
    "delta",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def delta(arguments: tuple[str, ...]) -> int:
    r"""Signatures, deltas and patches of files, as `rdiff`; the same as `python -m dblike_delta`.

    \b
    Example:
      dblike delta signature old.iso old.sig
    """
    from dblike_delta.__main__ import main

    return main(list(arguments))


delta.help = keep_lines(delta.help)
