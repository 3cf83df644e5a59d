"""Logging in, and linking a directory to a folder of the account."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click
import msgspec

from dblike_cli import __version__, credentials, lock
from dblike_cli.config import (
    Config,
    Tls,
    check_servers,
    read_config,
    read_environment,
    render_config,
)
from dblike_cli.errors import ClientError, LoggedOut, NotFound, StateDamaged, Usage
from dblike_cli.learned import write_learned
from dblike_cli.options import Common, is_text
from dblike_cli.session import SITES, Session, open_transport, working_directory
from dblike_cli.state import State
from dblike_delta import messages as m
from dblike_delta.exchange import Exchange, ExchangeError, Refused
from dblike_delta.paths import FOLDER_NAME

_FOLDER = "folder"
"""Under which the state has its folder's id: at another one, what it remembers means nothing."""


class LinkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `init` and `clone` are asked; with `make`, a folder that there is none of is made.

    What is None or empty is as the environment has it, or else the default.
    """

    urls: str
    place: Path
    user: str
    password_stdin: bool
    folder: str | None
    device: str | None
    ca: str
    insecure: bool
    make: bool


def link(common: Common, request: LinkRequest) -> Session:
    """Log in and link; nothing is made on the disk before the server said yes.

    In a directory that is linked already the device stays the one that it is, and so does what its
    config says of other things than the link.
    """
    root = working_directory(common.directory / request.place)
    _check_place(root)
    config = _config(common, request, root)
    known = _known_device(root)
    password = read_password(f"Password of {request.user}", stdin=request.password_stdin)
    with contextlib.closing(open_transport(config, time.sleep, (0, 0))) as transport:
        exchange = Exchange(transport, agent=f"dblike/{__version__}")
        reply = _login(
            exchange,
            m.LoginRequest(
                user=request.user, password=password, device=config.device, device_id=known
            ),
        )
        with _taken_back(exchange, reply, known):
            issuer = transport.find().url
            folder = _folder(exchange, config.folder)
            if folder is None and request.make:
                folder = exchange.create_folder(config.folder)
                common.output().note(f"made the folder {config.folder!r}, which there was none of")
            if folder is None:
                raise _no_folder(exchange, config.folder)
            _write(root, config, reply, folder, issuer)
    return Session(common, root)


@contextlib.contextmanager
def _taken_back(exchange: Exchange, reply: m.LoginReply, known: str | None) -> Iterator[None]:
    """Leave no token that is good, and that nobody has, where the rest of it fails."""
    try:
        yield
    except BaseException:
        if reply.device_id != known:
            with contextlib.suppress(ExchangeError):
                exchange.revoke(reply.device_id)
        raise


def read_password(prompt: str, *, stdin: bool, confirm: bool = False) -> str:
    """A password: a line of standard input, or typed unseen; raises Usage where it can't be one."""
    if stdin:
        password = _line(sys.stdin)
    elif sys.stdin.isatty():
        password = click.prompt(prompt, hide_input=True, err=True, confirmation_prompt=confirm)
    else:
        raise Usage("there is no terminal to ask for the password; use --password-stdin")
    if not password:
        raise Usage("the password is empty")
    if not is_text(password):
        raise Usage("a password has to be UTF-8")
    return password


def _line(stream: TextIO) -> str:
    try:
        return stream.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise Usage("a password has to be UTF-8") from None


def _config(common: Common, request: LinkRequest, root: Path) -> Config:
    """The directory's config: what it is already, with the link that is asked for."""
    variables = read_environment()
    plain = request.insecure or variables.get("tls.plain", False)
    servers = check_servers(request.urls, plain=plain)
    ca = common.directory / request.ca if request.ca else variables.get("tls.ca", "")
    tls = Tls(ca=os.path.abspath(ca) if ca else "", plain=plain)
    folder = _folder_name(request.folder, variables.get("folder"))
    device = request.device or variables.get("device") or socket.gethostname() or "unnamed"
    if not device.strip():
        raise Usage("--device can't be empty")
    device = device.strip()[:64]
    place = root / ".dblike" / "config.json"
    if not place.exists():
        return Config(servers=servers, folder=folder or "home", device=device, tls=tls)
    linked = read_config(place, {})  # or what the environment says today would stay for good
    if folder not in (None, linked.folder):
        raise Usage(f"{root} is linked to the folder {linked.folder!r} already")
    device = device if request.device else linked.device
    return msgspec.structs.replace(linked, servers=servers, device=device, tls=tls)


def _folder_name(asked: str | None, variable: str | None) -> str | None:
    """The folder of --folder or of the environment; all later commands would refuse another one
    than the latter."""
    if asked is not None and variable not in (None, asked):
        raise Usage(f"--folder is {asked!r}, and DBLIKE_FOLDER is {variable!r}")
    name = variable if asked is None else asked
    if name is not None and not re.match(FOLDER_NAME, name):
        raise Usage("--folder: up to 64 letters, digits, spaces, dots, hyphens and underscores")
    return name


def _check_place(root: Path) -> None:
    """Refuse directories in which a link would do harm."""
    if root.exists() and not root.is_dir():
        raise Usage(f"{root} is not a directory")
    if ".dblike" in (part.lower() for part in root.parts):
        raise Usage(f"{root} is inside the client's own directory")
    if root == Path.home():
        raise Usage(f"{root} is your home directory; link a directory inside it")
    for above in (*root.parents, *root.resolve().parents):
        if (above / ".dblike" / "config.json").exists():
            raise Usage(f"{root} is inside {above}, which is linked already")
    if below := _linked_below(root):
        raise Usage(f"{below} is inside {root}, and is linked already")


def _linked_below(root: Path) -> Path | None:
    """A linked directory in `root`, not deeper than a look costs: two levels."""
    for pattern in ("*/.dblike/config.json", "*/*/.dblike/config.json"):
        for found in root.glob(pattern):
            place = found.parents[1]
            if place != root and place.resolve() == root.resolve() / place.relative_to(root):
                return place  # and not where a symlink leads
    return None


def _known_device(root: Path) -> str | None:
    """The device that this directory was linked as, to log in again as the same one."""
    own = root / ".dblike"
    if not (own / "config.json").exists():
        return None
    try:
        with contextlib.closing(State(own / "state.db")) as state:
            known = state.meta.device
        device = credentials.read_credential(own / "credential").device_id
    except ClientError:
        return None
    return device if device == known.hex() else None


def _become(own: Path, device: bytes, folder: str) -> None:
    """Let the state be this device's, of this folder.  One that is damaged, or speaks of another
    folder, is set aside: it is made anew from both sides, and nothing is lost by that."""
    try:
        state = State(own / "state.db")
        former = state.meta.noted(_FOLDER) or _folder_of(own)
    except StateDamaged:
        state = _new_state(own, "damaged")
    else:
        if former not in ("", folder):
            state.close()
            state = _new_state(own, "former")
    with contextlib.closing(state), state.transaction():
        state.meta.note(_FOLDER, folder)
        if state.meta.device != device:
            state.meta.become(device, own.stat().st_ino)


def _new_state(own: Path, aside: str) -> State:
    with lock.hold(own / "lock", "init"):
        for part in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                (own / f"state.db{part}").rename(own / f"state.db.{aside}{part}")
        return State(own / "state.db")


def _folder_of(own: Path) -> str:
    """The id of the folder that the directory was linked to, where it still is logged in."""
    try:
        return credentials.read_credential(own / "credential").folder_id
    except ClientError:
        return ""


def _login(exchange: Exchange, request: m.LoginRequest) -> m.LoginReply:
    try:
        return exchange.login(request)
    except Refused as refused:
        if refused.status == 409 and request.device_id:
            # Another user's, or one that was revoked: be a new device.
            return exchange.login(msgspec.structs.replace(request, device_id=None))
        if refused.status == 401:
            raise LoggedOut(f"the server says no to this user and password: {refused}") from None
        raise


def _folder(exchange: Exchange, name: str) -> m.FolderView | None:
    return next((each for each in exchange.folders() if name in (each.name, each.id)), None)


def _no_folder(exchange: Exchange, name: str) -> NotFound:
    names = ", ".join(each.name for each in exchange.folders())
    return NotFound(f"there is no folder {name!r}, only {names}; `dblike init` makes one")


def _write(
    root: Path, config: Config, reply: m.LoginReply, folder: m.FolderView, issuer: str
) -> None:
    """The link on the disk.  The config comes last: without it the directory is not linked."""
    own = root / ".dblike"
    own.mkdir(parents=True, exist_ok=True)
    own.chmod(0o700)
    _become(own, bytes.fromhex(reply.device_id), folder.id)
    credential = credentials.Credential(
        token=reply.token,
        user=reply.user,
        device_id=reply.device_id,
        folder=config.folder,
        folder_id=folder.id,
        issuer=issuer,
    )
    write_learned(own / SITES, reply.servers, config)
    credentials.write_credential(own / "credential", credential)
    credentials.write_private(own / "config.json", render_config(config))
