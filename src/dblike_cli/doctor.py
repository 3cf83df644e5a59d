"""What may be wrong with a linked folder, its machine and its servers; and what to do about it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec

from dblike_cli.errors import ClientError, StateDamaged
from dblike_cli.exits import Exit
from dblike_cli.failure import describe
from dblike_cli.output import escape, plural, size
from dblike_cli.report import Code
from dblike_cli.session import Session, open_transport
from dblike_cli.treewatch import watch_limit
from dblike_delta.exchange import Exchange, ExchangeError, Refused
from dblike_delta.paths import display, is_reserved, join

_SKEW: Final = 60_000
"""Milliseconds between our clock and the site's that are worth a word."""
_LEAST_FREE: Final = 1 << 30
_EXAMPLES: Final = 5
_FOREIGN: Final = frozenset('<>:"\\|?*')

Level = Literal["good", "note", "bad"]


class Finding(msgspec.Struct, frozen=True):
    """What one look found; `remedy` says what to do, and `code` how bad it is."""

    check: str
    level: Level
    message: str
    remedy: str = ""
    code: int = Exit.DONE


def examine(session: Session, *, full: bool) -> Iterator[Finding]:
    """Every check, one after the other; a check that breaks is a finding too."""
    checks: list[tuple[str, Callable[[Session], Iterator[Finding]]]] = [
        ("link", _link),
        ("state", _state),
        ("servers", _servers),
        ("login", _login),
        ("watches", _watches),
        ("space", _space),
        ("names", _names),
    ]
    if full:
        checks.append(("content", _content))
    for name, check in checks:
        try:
            yield from check(session)
        except (ClientError, ExchangeError, OSError) as error:
            text, code = describe(error)
            yield Finding(name, "bad", text, code=code)


def _link(session: Session) -> Iterator[Finding]:
    own = session.own
    mode = stat.S_IMODE(own.stat().st_mode)
    if mode & 0o077:
        yield Finding(
            "link", "bad", f"{own} can be entered by others", f"chmod 700 {own}", Exit.FAILED
        )
    elif session.config.tls.plain:
        yield Finding(
            "link", "note", "http:// to other machines is allowed", "use https:// servers"
        )
    else:
        yield Finding("link", "good", f"linked to the folder {session.config.folder!r}")


def _state(session: Session) -> Iterator[Finding]:
    remedy = (
        "run `dblike init` with the former arguments: it sets the damaged state aside and makes a "
        "new one from both sides; nothing is lost by that"
    )
    try:
        found = session.state.check()
    except (StateDamaged, sqlite3.Error) as error:
        found = [str(error)]
    if found:
        yield Finding("state", "bad", found[0], remedy, Exit.STATE_DAMAGED)
        return
    state = session.state
    yield Finding("state", "good", f"whole; {plural(state.tree.count(), 'path')} synced")
    for item in (*state.notes.refused(), *state.notes.pending()):
        code = Exit.DONE if item.code is Code.SPECIAL else Exit.PENDING
        yield Finding("state", "note", f"{display(item.path)}: {item.reason}", code=code)


def _servers(session: Session) -> Iterator[Finding]:
    """Each server by itself: failing over would hide the one that is down."""
    for url in session.config.servers:
        config = msgspec.structs.replace(session.config, servers=[url])
        transport = open_transport(config, session.pause, (0, 0))
        try:
            yield from _server(session, url, Exchange(transport))
        except ExchangeError as error:
            text, code = describe(error)
            yield Finding("servers", "bad", f"{url}: {text}", "is the address right?", code)
        finally:
            transport.close()


def _server(session: Session, url: str, exchange: Exchange) -> Iterator[Finding]:
    before = session.clock.now_ms()
    try:
        there = exchange.time()
    except Refused as refused:
        there = exchange.server_time or 0
        if not there:
            raise refused from None
    after = session.clock.now_ms()
    offset = there - (before + after) // 2
    text = f"{url} answers in {after - before} ms; its clock is {offset / 1000:+.1f} s from ours"
    if abs(offset) > _SKEW:
        yield Finding("servers", "note", text, "set the clock: `timedatectl set-ntp true`")
    else:
        yield Finding("servers", "good", text)


def _login(session: Session) -> Iterator[Finding]:
    folders = session.exchange.folders()
    mine = [folder for folder in folders if folder.id == session.credential.folder_id]
    if not mine:
        yield Finding("login", "bad", "the linked folder is not there any more", "", Exit.NOT_FOUND)
    else:
        user = escape(session.credential.user)
        amount = f"{plural(mine[0].files, 'file')}, {size(mine[0].bytes)}"
        yield Finding("login", "good", f"logged in as {user}; the server has {amount}")


def _watches(session: Session) -> Iterator[Finding]:
    limit = watch_limit()
    if limit is None:
        return
    count = sum(1 for _ in _directories(session))
    if count > limit * 0.9:
        more = max(524_288, count * 2)
        yield Finding(
            "watches",
            "bad" if count > limit else "note",
            f"{count} directories, and {limit} may be watched",
            f"sudo sysctl fs.inotify.max_user_watches={more}, and the same in /etc/sysctl.d",
            Exit.PENDING if count > limit else Exit.DONE,
        )
    else:
        yield Finding("watches", "good", f"{count} directories, {limit} may be watched")


def _space(session: Session) -> Iterator[Finding]:
    free = shutil.disk_usage(session.root).free
    inodes = os.statvfs(session.root)
    if free < _LEAST_FREE:
        yield Finding("space", "note", f"only {size(free)} are free", "make room")
    elif inodes.f_files and inodes.f_favail < 1000:
        yield Finding("space", "note", f"only {inodes.f_favail} more files fit", "remove some")
    else:
        yield Finding("space", "good", f"{size(free)} are free")


def _names(session: Session) -> Iterator[Finding]:
    """Names that another system can't hold, or takes for one another."""
    twins: list[bytes] = []
    strange: list[bytes] = []
    for directory, names in _listings(session):
        seen: set[str] = set()
        for name in names:
            text = name.decode("utf-8", "surrogateescape")
            folded = unicodedata.normalize("NFC", text).casefold()
            if folded in seen:
                twins.append(join(directory, name))
            seen.add(folded)
            if not text.isprintable() or _FOREIGN & set(text) or text.endswith((" ", ".")):
                strange.append(join(directory, name))
    if twins:
        yield _name_finding(twins, "differ from another name in case or accents' form only")
    if strange:
        yield _name_finding(strange, "can't be called so on some other systems")
    if not twins and not strange:
        yield Finding("names", "good", "every name works on every system")


def _name_finding(paths: list[bytes], what: str) -> Finding:
    examples = ", ".join(map(display, paths[:_EXAMPLES]))
    more = "…" if len(paths) > _EXAMPLES else ""
    return Finding("names", "note", f"{plural(len(paths), 'name')} {what}: {examples}{more}")


def _content(session: Session) -> Iterator[Finding]:
    """Read every file that claims to be unchanged: bytes that differ were damaged by the disk."""
    from dblike_cli.damage import damaged_files

    found, read = damaged_files(session)
    for path in found:
        yield Finding(
            "content",
            "bad",
            f"{display(path)} was not changed, and is not what was synced: the disk damaged it",
            f"dblike restore {display(path)} --version … brings it back; see `dblike log`",
            Exit.INTEGRITY,
        )
    if not found:
        yield Finding("content", "good", f"{plural(read, 'file')} read, all as they were synced")


def _listings(session: Session) -> Iterator[tuple[bytes, list[bytes]]]:
    """Every directory of the folder with the names in it."""
    root = os.fsencode(session.root)
    for place, directories, names in os.walk(root):
        directory = place[len(root) + 1 :]
        directories[:] = [name for name in directories if not is_reserved(join(directory, name))]
        yield directory, [*directories, *names]


def _directories(session: Session) -> Iterator[bytes]:
    return (directory for directory, _ in _listings(session))
