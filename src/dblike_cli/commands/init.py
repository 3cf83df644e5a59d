"""`dblike init` and `dblike clone`: log in, and link a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dblike_cli.exits import Exit
from dblike_cli.options import Common, command

if TYPE_CHECKING:
    from collections.abc import Callable

    from dblike_cli.session import Session

_OPTIONS = [
    click.argument("urls", metavar="URL[,URL…]"),
    click.argument("place", metavar="[DIR]", default=".", type=click.Path()),
    click.option("--user", required=True, metavar="NAME", help="The account on the server."),
    click.option("--password-stdin", is_flag=True, help="Read the password from standard input."),
    click.option("--folder", help="The folder to link.  [default: home]"),
    click.option("--device", metavar="NAME", help="This device's name.  [default: the host's]"),
    click.option("--ca", default="", metavar="FILE", help="Trust FILE's authorities alone."),
    click.option("--insecure", is_flag=True, help="Allow http:// to other machines."),
]


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@command("init")
@_with_options
def init(common: Common, **given: Any) -> Exit:
    r"""Log in and link a directory, for `push`, `pull`, `sync` and `watch` to work in.

    DIR is made if it is absent, and may be full: nothing in it is changed.  A --folder that the
    account does not have is made, too.  Where DIR is linked already this logs in again.  Several
    URLs are sites to fail over between.

    \b
    Example:
      dblike init https://sync.example.org ~/Files --user ann
    """
    with _link(common, given, make=True) as session:
        line = f"{session.root} is linked to {session.config.folder!r}; `dblike sync` syncs it"
        session.output.result(_document(session), [line])
    return Exit.DONE


@command("clone")
@_with_options
def clone(common: Common, **given: Any) -> Exit:
    r"""Log in, link a directory and pull: `init` and `pull` in one.

    \b
    Example:
      dblike clone https://sync.example.org ~/Files --user ann
      dblike clone http://127.0.0.1:8080 Files --user ann --password-stdin < password
    """
    from dblike_cli.report import Direction
    from dblike_cli.run import Wish, run

    with _link(common, given, make=False) as session:
        return run(session, Direction.PULL, Wish())


def _link(common: Common, given: dict[str, Any], *, make: bool) -> Session:
    from dblike_cli.errors import Usage
    from dblike_cli.login import LinkRequest, link

    place = given.pop("place")
    if not place:
        raise Usage("DIR is empty; the current directory is .")
    return link(common, LinkRequest(**given, place=Path(place), make=make))


def _document(session: Session) -> dict[str, Any]:
    return {
        "directory": str(session.root),
        "folder": session.config.folder,
        "servers": session.config.servers,
        "user": session.credential.user,
        "device": {"id": session.credential.device_id, "name": session.config.device},
    }
