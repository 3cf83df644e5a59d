"""`dblike push`, `pull` and `sync`: once, up, down or both."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from dblike_cli.errors import NotFound, Usage
from dblike_cli.exits import Exit
from dblike_cli.options import PATH, Common, command
from dblike_delta.paths import display

if TYPE_CHECKING:
    from collections.abc import Callable

    from dblike_cli.session import Session

_OPTIONS = [
    click.argument("paths", metavar="[PATH…]", nargs=-1, type=PATH),
    click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    click.option(
        "--max-delete",
        metavar="N|P%",
        help="Go on with up to so many deletes.  [default: 50%, and any number up to 50]",
    ),
    click.option("--bwlimit", metavar="RATE", help="500k, 1.5M, up:down; KiB/s without a unit."),
    click.option("-c", "--checksum", is_flag=True, help="Read every file; trust no times."),
]


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@command("push")
@_with_options
def push(common: Common, **given: Any) -> Exit:
    r"""Send local changes to the server, once.

    \b
    Example:
      dblike push
      dblike push docs --dry-run
    """
    return _run("push", common, given)


@command("pull")
@_with_options
def pull(common: Common, **given: Any) -> Exit:
    r"""Take the server's changes, once.

    \b
    Example:
      dblike pull
      dblike pull --bwlimit 500k
    """
    return _run("pull", common, given)


@command("sync")
@_with_options
def sync(common: Common, **given: Any) -> Exit:
    r"""Send and take changes, once.

    \b
    Example:
      dblike sync
      dblike sync -c --json
    """
    return _run("both", common, given)


def _run(direction: str, common: Common, given: dict[str, Any]) -> Exit:
    from dblike_cli.report import Direction
    from dblike_cli.run import Wish, run
    from dblike_cli.session import open_session

    with open_session(common, rates=rates_of(given["bwlimit"])) as session:
        wish = Wish(
            tuple(_existing(session, path) for path in given["paths"]),
            given["dry_run"],
            max_delete_of(given["max_delete"]),
            given["checksum"],
        )
        return run(session, Direction(direction), wish)


def _existing(session: Session, given: str) -> bytes:
    """A path as the user typed it; raises NotFound where neither side has it, nor had it here."""
    from dblike_cli.commands.ls import is_there

    path = session.path(given)
    here = os.path.lexists(os.path.join(os.fsencode(session.root), path))
    if not (here or session.state.tree.stamps(path) or is_there(session, path)):
        raise NotFound(f"{display(path)} is neither here nor on the server")
    return path


def rates_of(text: str | None) -> tuple[int, int] | None:
    """(up, down) of --bwlimit; raises Usage."""
    from dblike_cli.netlimit import parse_rates

    try:
        return None if text is None else parse_rates(text)
    except ValueError as error:
        raise Usage(f"--bwlimit: {error}") from None


def max_delete_of(text: str | None) -> str | None:
    """--max-delete as it was given, where it is a number or a share; raises Usage."""
    number = text.removesuffix("%") if text is not None else "0"
    if not (number.isascii() and number.isdecimal()) or len(number) > 15:
        raise Usage(f"--max-delete: {text!r} is neither a number nor a share such as 50%")
    return text
