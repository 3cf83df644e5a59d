"""`dblike log`: the history of the folder or of a path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from dblike_cli.exits import Exit
from dblike_cli.options import PATH, Common, command

if TYPE_CHECKING:
    from dblike_cli.session import Session
    from dblike_delta.messages import VersionView

_PAGE = 1000


@command("log")
@click.argument("path", metavar="[PATH]", default=".", type=PATH)
@click.option(
    "--limit",
    "limit",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="How many; 0 for all.",
)
def log(common: Common, path: str, limit: int) -> Exit:
    r"""Show versions, newest first: version, when, which device, what, size, path.

    \b
    Example:
      dblike log
      dblike log docs/report.txt --json
    """
    from dblike_cli.errors import NotFound
    from dblike_cli.session import open_session
    from dblike_cli.views import view_document, view_line

    with open_session(common) as session:
        where = session.path(path)
        shown = 0
        for view in pages(session, where, limit or None):
            session.output.item(view_document(view), view_line(view))
            shown += 1
        if where and not shown:
            raise NotFound(f"the server knows no {path}")
    return Exit.DONE


def versions(session: Session, path: bytes, limit: int) -> list[VersionView]:
    """The versions of a path, newest first."""
    return list(pages(session, path, limit))


def pages(session: Session, path: bytes, limit: int | None) -> Iterator[VersionView]:
    """Versions of a path (b"": of the folder), newest first, fetched as they are asked for."""
    from dblike_cli.views import url_path
    from dblike_delta.messages import VersionList

    what = f"files/{url_path(path)}/versions" if path else "log"
    before, left = "", limit
    while left is None or left > 0:
        count = _PAGE if left is None else min(left, _PAGE)
        target = session.query(what, limit=count, before=before)
        page = session.exchange.get(target, VersionList)
        yield from page.versions
        if not page.more or not page.versions:
            return
        before = page.versions[-1].version
        left = None if left is None else left - len(page.versions)
