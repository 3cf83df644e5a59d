"""`dblike conflicts` and `dblike resolve`: conflict copies, each beside its winner."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from dblike_cli.exits import Exit
from dblike_cli.options import PATH, Common, command

if TYPE_CHECKING:
    from dblike_cli.session import Session


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
@click.option("--ours", "choice", flag_value="ours", help="Keep the file, drop the copy.")
@click.option(
    "--theirs", "choice", flag_value="theirs", help="The copy becomes the file, drop the former."
)
@click.option("--both", "choice", flag_value="both", help="Keep both, the copy as a plain file.")
def resolve(common: Common, path: str, choice: str | None) -> Exit:
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

    if choice is None:
        raise Usage("say which: --ours, --theirs or --both")
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
        for pair in pairs:
            _check_known(session, pair)
        for winner, copy in pairs:
            _settle(session, winner, copy, choice)
        done = [{"winner": display(winner), "copy": display(copy)} for winner, copy in pairs]
        session.output.result(
            {"resolved": done, "choice": choice},
            settled,
        )
        return _sync(session)


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


def _full(session: Session, path: bytes) -> bytes:
    return os.path.join(os.fsencode(session.root), path)


def _lstat(session: Session, path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(_full(session, path))
    except OSError:
        return None


def _check_known(session: Session, pair: tuple[bytes, bytes]) -> None:
    """Refuse to touch what the server does not have: a file that is dropped must be in history."""
    from dblike_cli.errors import Failed
    from dblike_delta.paths import display

    for path in pair:
        if _lstat(session, path) is not None and not _is_synced(session, path):
            raise Failed(f"{display(path)} has changes that the server lacks; `dblike sync` first")


def _is_synced(session: Session, path: bytes) -> bool:
    """Whether the content here is the one that both sides agreed on."""
    from blake3 import blake3

    from dblike_delta.versions import Kind

    known = session.state.tree.get(path)
    entry = None if known is None else known.synced.entry
    if entry is None or entry.kind is Kind.DIRECTORY:
        return entry is not None
    if entry.kind is Kind.SYMLINK:
        return os.path.islink(_full(session, path)) and (
            os.readlink(_full(session, path)) == entry.target
        )
    digest = blake3()
    with open(_full(session, path), "rb", opener=_no_link) as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.digest() == entry.hash


def _no_link(path: Any, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _settle(session: Session, winner: bytes, copy: bytes, choice: str) -> None:
    """Ordinary edits of the user's, which sync as such."""
    match choice:
        case "ours":
            os.unlink(_full(session, copy))
        case "theirs":
            os.rename(_full(session, copy), _full(session, winner))
        case _:
            os.rename(_full(session, copy), _full(session, _free_name(session, winner)))


def _free_name(session: Session, winner: bytes) -> bytes:
    """`report (2).txt`, or the first number that is free."""
    stem, dot, extension = winner.rpartition(b".")
    if not dot or b"/" in extension or not stem.rpartition(b"/")[2]:
        stem, extension = winner, b""
    number = 2
    while True:
        name = b"%b (%d)%b" % (stem, number, b"." + extension if extension else b"")
        if _lstat(session, name) is None:
            return name
        number += 1


def _sync(session: Session) -> Exit:
    """Sync what was settled, where no watch is there to do it."""
    from dblike_cli import lock
    from dblike_cli.errors import Locked
    from dblike_cli.report import Direction
    from dblike_cli.run import Wish, cycle

    try:
        with lock.hold(session.own / "lock", "resolve"):
            return cycle(session, Direction.BOTH, Wish()).exit_code
    except Locked:
        return Exit.DONE
