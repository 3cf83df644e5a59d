"""`dblike conflicts` and `dblike resolve`: conflict copies, each beside its winner."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from dblike_cli.exits import Exit
from dblike_cli.options import PATH, Common, command

if TYPE_CHECKING:
    from dblike_cli.session import Session
    from dblike_cli.settle import Choice


@command("conflicts")
def conflicts(common: Common) -> Exit:
    r"""List conflict copies, each beside the file that won.  Exit 3 where there are any.

    \b
    Example:
      dblike conflicts
    """
    from dblike_cli.output import path_fields, size, when
    from dblike_cli.session import open_session
    from dblike_delta.paths import display

    with open_session(common) as session:
        pairs = list(_pairs(session))
        shown = []
        lines = []
        for winner, copy in pairs:
            sides: dict[str, Any] = {}
            lines.append("")
            for name, path in (("ours", winner), ("theirs", copy)):
                found = _lstat(session, path)
                sides[name] = path_fields(path) | (
                    {} if found is None else {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
                )
                about = (
                    "gone"
                    if found is None
                    else f"{size(found.st_size)}, {when(found.st_mtime_ns // 1_000_000)}"
                )
                lines.append(f"{name:6}  {display(path)}  ({about})")
            shown.append(sides)
        if pairs:
            lines.append("\nSettle one with `dblike resolve PATH --ours|--theirs|--both`:")
            lines.append(
                "ours is the file that won, whichever device wrote it; theirs is the copy."
            )
        session.output.result(shown, lines[1:])
    return Exit.PENDING if pairs else Exit.DONE


@command("resolve")
@click.argument("path", type=PATH)
@click.option("--ours", is_flag=True, help="Keep the file, drop the copy.")
@click.option("--theirs", is_flag=True, help="The copy becomes the file, drop the former.")
@click.option("--both", is_flag=True, help="Keep both, the copy as a plain file.")
def resolve(common: Common, path: str, *, ours: bool, theirs: bool, both: bool) -> Exit:
    r"""Settle a conflict.  PATH is the file or one of its copies.

    The file is what won, on every device the same: "ours" is not what this device wrote, and may
    well be another one's.  Whose goes away is said.  What is dropped stays in the history.  The
    result is synced, unless a running `watch` does that.

    \b
    Example:
      dblike resolve report.txt --theirs
    """
    from dblike_cli.errors import NotFound, Usage
    from dblike_cli.session import open_session
    from dblike_delta.paths import display

    choice = _choice(ours, theirs, both)
    with open_session(common) as session:
        where = session.path(path)
        pairs = [pair for pair in _pairs(session) if where in pair]
        if not pairs:
            raise NotFound(f"{path} has no conflict copy")
        if choice == "theirs":
            _check_replaceable(session, pairs[0][0])
        settled = [_said(session, *pair, choice) for pair in pairs]
        if choice == "theirs" and len(pairs) > 1:
            raise Usage(f"{path} has {len(pairs)} copies; name the one to take")
        with contextlib.ExitStack() as held:
            alone = _is_alone(session, held)
            _settle(session, pairs, choice)
            done = [{"winner": display(winner), "copy": display(copy)} for winner, copy in pairs]
            session.output.result({"resolved": done, "choice": choice}, settled)
            return _sync(session) if alone else Exit.DONE


def _choice(ours: bool, theirs: bool, both: bool) -> Choice:
    from dblike_cli.errors import Usage

    given: list[tuple[bool, Choice]] = [(ours, "ours"), (theirs, "theirs"), (both, "both")]
    chosen = [choice for is_given, choice in given if is_given]
    if len(chosen) > 1:
        raise Usage("say one of --ours, --theirs and --both")
    if not chosen:
        raise Usage("say which: --ours, --theirs or --both")
    return chosen[0]


def _check_replaceable(session: Session, winner: bytes) -> None:
    from dblike_cli.errors import Failed
    from dblike_delta.paths import display

    found = _lstat(session, winner)
    if found is not None and stat.S_ISDIR(found.st_mode):
        name = display(winner)
        raise Failed(
            f"{name} is a directory, which a copy does not replace: rename or remove it, "
            "or keep the copy under another name with --both"
        )


def _said(session: Session, winner: bytes, copy: bytes, choice: str) -> str:
    """Whose version is kept, and whose goes away."""
    from dblike_delta.paths import display

    name, first, second = display(winner), _maker(session, winner), _maker(session, copy)
    if choice == "both":
        return f"{name}: kept both, {first} and {second}"
    kept, dropped = (first, second) if choice == "ours" else (second, first)
    return f"{name}: kept {kept}; dropped {dropped}, which stays in the history"


def _maker(session: Session, path: bytes) -> str:
    """`that of laptop, 2026-11-23 14:00:00`, as far as a server says so now."""
    from dblike_cli.failure import is_temporary
    from dblike_cli.output import when
    from dblike_delta.messages import TreeList

    try:
        page = session.exchange.get(session.query("tree", path=path, limit=1), TreeList)
    except Exception as error:
        if not is_temporary(error):
            raise
        return "that of an unknown device"
    if not page.entries:
        return "nothing"
    return f"that of {page.entries[0].device}, {when(page.entries[0].time)}"


def _pairs(session: Session) -> Iterator[tuple[bytes, bytes]]:
    """(winner, copy) of every conflict copy that is here."""
    from dblike_delta.conflict_names import original_path

    for copy in sorted(session.state.tree.stamps()):
        winner = original_path(copy)
        if winner is not None and _lstat(session, copy) is not None:
            yield winner, copy


def _lstat(session: Session, path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(os.path.join(os.fsencode(session.root), path))
    except OSError:
        return None


def _settle(session: Session, pairs: list[tuple[bytes, bytes]], choice: Choice) -> None:
    from dblike_cli.recover import prepare
    from dblike_cli.settle import look_at, settle

    with session.reporter() as reporter:
        context = session.context(reporter)
        prepare(context)
        agreed = look_at(context, {path for pair in pairs for path in pair})
        for winner, copy in pairs:
            settle(context, agreed, winner, copy, choice)


def _is_alone(session: Session, held: contextlib.ExitStack) -> bool:
    """Whether the folder could be locked; else a watch is there to sync what is settled."""
    from dblike_cli import lock
    from dblike_cli.errors import Locked

    try:
        held.enter_context(lock.hold(session.own / "lock", "resolve"))
    except Locked:
        return False
    return True


def _sync(session: Session) -> Exit:
    from dblike_cli.report import Direction
    from dblike_cli.run import Wish, cycle

    return cycle(session, Direction.BOTH, Wish()).exit_code
