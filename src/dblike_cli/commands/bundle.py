"""`dblike bundle`: contents in a file, carried by hand."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from dblike_cli.exits import Exit
from dblike_cli.options import Common, command

if TYPE_CHECKING:
    from dblike_cli.bundle import Written
    from dblike_cli.session import Session


@click.group("bundle", context_settings={"help_option_names": ["-h", "--help"]})
def bundle() -> None:
    """Carry contents by hand where the line is slow: a changeset in a file."""


@command("create")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--since", metavar="TIME", help="Only what changed since: 2h, '2026-11-23 14:00'.")
def create(common: Common, file: str, since: str | None) -> Exit:
    r"""Write what is synced here into FILE (-: standard output).

    Exit 3 where a file was being changed and is left out.

    \b
    Example:
      dblike bundle create /media/stick/files.bundle
      dblike bundle create today.bundle --since 24h
    """
    from dblike_cli.bundle import write_bundle
    from dblike_cli.session import open_session
    from dblike_delta.paths import display

    with open_session(common) as session:
        paths = _changed_since(session, since) if since is not None else None
        with _writing(common.directory, file) as target:
            done = write_bundle(target, session.root, session.state, paths, session.clock.now_ms())
        _say(session, file, done)
        for path in done.left_out:
            session.output.note(f"left out, it changed: {display(path)}")
    return Exit.PENDING if done.left_out else Exit.DONE


@command("apply")
@click.argument("file", type=click.Path())
def apply(common: Common, file: str) -> Exit:
    r"""Pull, taking contents from FILE where it has them.

    The server still says which versions there are, which costs little; each content is verified, so
    neither an old nor a false bundle can do harm.

    \b
    Example:
      dblike bundle apply /media/stick/files.bundle
    """
    from dblike_cli import lock
    from dblike_cli.bundle import Bundle, BundleExchange
    from dblike_cli.report import Direction
    from dblike_cli.run import Wish, cycle, say
    from dblike_cli.session import open_session

    with open_session(common) as session, _reading(common.directory / file) as source:
        carried = Bundle(source)
        exchange = BundleExchange(
            session.transport, session.credential.token, carried, lambda: session.state
        )
        with lock.hold(session.own / "lock", "bundle apply"):
            report = cycle(session, Direction.PULL, Wish(), exchange)
        say(session.output, report, dry_run=False)
    return report.exit_code


def _reading(file: Path) -> BinaryIO:
    from dblike_cli.errors import Usage

    try:
        return file.open("rb")
    except OSError as error:
        raise Usage(f"{file}: {error.strerror}") from None


@contextlib.contextmanager
def _writing(directory: Path, file: str) -> Iterator[BinaryIO]:
    from dblike_cli.errors import Usage
    from dblike_delta.outputs import whole

    if not file:
        raise Usage("the name of the bundle is empty")
    if file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if (directory / file).is_dir():
        raise Usage(f"{file} is a directory")
    with whole(directory / file, durable=True) as target:  # the stick may be pulled out next
        yield target


def _say(session: Session, file: str, done: Written) -> None:
    from dblike_cli.output import escape, path_fields, plural, size

    line = f"{plural(done.files, 'file')}, {size(done.size)}, in {escape(file)}"
    if file == "-":
        session.output.note(line)
        return
    left_out = [path_fields(path) for path in done.left_out]
    document = {"file": file, "files": done.files, "bytes": done.size, "left_out": left_out}
    session.output.result(document, [line])


def _changed_since(session: Session, since: str) -> frozenset[bytes]:
    """The paths that changed since a time, as the server has it."""
    from dblike_cli.views import moment, path_of
    from dblike_delta.messages import ChangeList

    start = moment(since, session.clock.now_ms())
    found: set[bytes] = set()
    target = session.query("changes", since=start, limit=10_000)
    while True:
        page = session.exchange.get(target, ChangeList)
        found.update(map(path_of, page.changes))
        if not page.more:
            return frozenset(found)
        target = session.query("changes", cursor=page.cursor, limit=10_000)


bundle.add_command(create)
bundle.add_command(apply)
