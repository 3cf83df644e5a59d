"""`dblike ls`: what the server has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from dblike_cli.exits import Exit
from dblike_cli.options import PATH, Common, command

if TYPE_CHECKING:
    from dblike_cli.session import Session
    from dblike_delta.messages import VersionView

_PAGE = 10_000


@command("ls")
@click.argument("path", metavar="[PATH]", default=".", type=PATH)
@click.option("--at", "at", metavar="TIME", help="As it was at a time: 2h, '2026-11-23 14:00'.")
@click.option("-R", "--recursive", is_flag=True, help="With everything below.")
def ls(common: Common, path: str, at: str | None, *, recursive: bool) -> Exit:
    r"""List what the server has.

    \b
    Example:
      dblike ls docs
      dblike ls -R --at '3d ago' --json
    """
    from dblike_cli.errors import NotFound
    from dblike_cli.output import escape, size
    from dblike_cli.session import open_session
    from dblike_cli.views import moment, moment_of, path_of, view_document
    from dblike_delta.paths import parent

    with open_session(common) as session:
        below = session.path(path)
        moment_ms = moment(at, session.clock.now_ms()) if at is not None else None
        found = [
            view
            for view in _tree(session, below, moment_ms, deep=recursive)
            if recursive or path_of(view) == below or parent(path_of(view)) == below
        ]
        if below and not found:
            raise NotFound(f"the server has no {path}")
        if len(found) > 1 or (found and found[0].kind == "directory"):
            found = [view for view in found if path_of(view) != below]
        lines = (
            f"{view.kind[0]} {size(view.size):>9}  {moment_of(view)}  {escape(view.path)}"
            + (f" -> {escape(view.target)}" if view.kind == "symlink" else "")
            for view in found
        )
        session.output.result([view_document(view) for view in found], lines)
    return Exit.DONE


def is_there(session: Session, path: bytes) -> bool:
    """Whether the server has the path now; the folder itself is always there."""
    from dblike_delta.messages import TreeList

    target = session.query("tree", path=path, limit=1)
    return not path or bool(session.exchange.get(target, TreeList).entries)


def _tree(session: Session, below: bytes, at: int | None, *, deep: bool) -> Iterator[VersionView]:
    """All of it; an older server sends what is deeper whether or not it is wanted."""
    from dblike_cli.views import path_of
    from dblike_delta.messages import TreeList

    after = b""
    while True:
        flat = None if deep else 1
        target = session.query("tree", path=below, at=at, limit=_PAGE, after=after, flat=flat)
        page = session.exchange.get(target, TreeList)
        yield from page.entries
        if not page.more or not page.entries:
            return
        after = path_of(page.entries[-1])
