"""Logging in, and linking a directory to a folder of the account."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from pathlib import Path

import click
import msgspec

from dblike_cli import __version__, credentials
from dblike_cli.config import Config, Tls, check_servers, read_config, render_config
from dblike_cli.errors import ClientError, LoggedOut, NotFound, StateDamaged, Usage
from dblike_cli.learned import write_learned
from dblike_cli.options import Common
from dblike_cli.session import SITES, Session, open_transport
from dblike_cli.state import State
from dblike_delta import messages as m
from dblike_delta.exchange import Exchange, Refused


class LinkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `init` and `clone` are asked."""

    urls: str
    place: Path
    user: str
    password_stdin: bool
    folder: str
    device: str | None
    ca: str
    insecure: bool


def link(common: Common, request: LinkRequest) -> Session:
    """Log in and link; nothing is made on the disk before the server said yes.

    In a directory that is linked already the device stays the one that it is.
    """
    root = Path(os.path.normpath((common.directory / request.place).absolute()))
    config = _config(request)
    _check_place(root)
    known = _known_device(root, config)
    password = read_password(f"Password of {request.user}", stdin=request.password_stdin)
    with contextlib.closing(open_transport(config, time.sleep, (0, 0))) as transport:
        exchange = Exchange(transport, agent=f"dblike/{__version__}")
        reply = _login(
            exchange,
            m.LoginRequest(
                user=request.user, password=password, device=config.device, device_id=known
            ),
        )
        issuer = transport.find().url
        folder = _folder(exchange, config.folder)
    _write(root, config, reply, folder, issuer)
    return Session(common, root)


def read_password(prompt: str, *, stdin: bool, confirm: bool = False) -> str:
    """A password: a line of standard input, or typed unseen; raises Usage where it is empty."""
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = click.prompt(prompt, hide_input=True, err=True, confirmation_prompt=confirm)
    else:
        raise Usage("there is no terminal to ask for the password; use --password-stdin")
    if not password:
        raise Usage("the password is empty")
    return password


def _config(request: LinkRequest) -> Config:
    servers = check_servers(request.urls, plain=request.insecure)
    ca = os.path.abspath(request.ca) if request.ca else ""
    device = (request.device or socket.gethostname() or "unnamed").strip()[:64]
    if not request.folder or not device:
        raise Usage("--folder and --device can't be empty")
    tls = Tls(ca=ca, plain=request.insecure)
    return Config(servers=servers, folder=request.folder, device=device, tls=tls)


def _check_place(root: Path) -> None:
    """Refuse directories in which a link would do harm."""
    if root.exists() and not root.is_dir():
        raise Usage(f"{root} is not a directory")
    if ".dblike" in (part.lower() for part in root.parts):
        raise Usage(f"{root} is inside the client's own directory")
    if root == Path.home():
        raise Usage(f"{root} is your home directory; link a directory inside it")
    for above in root.parents:
        if (above / ".dblike" / "config.json").exists():
            raise Usage(f"{root} is inside {above}, which is linked already")
    if below := _linked_below(root):
        raise Usage(f"{below} is inside {root}, and is linked already")


def _linked_below(root: Path) -> Path | None:
    """A linked directory in `root`, not deeper than a look costs: two levels."""
    for pattern in ("*/.dblike/config.json", "*/*/.dblike/config.json"):
        for found in root.glob(pattern):
            if found.parents[1] != root:
                return found.parents[1]
    return None


def _known_device(root: Path, config: Config) -> str | None:
    """The device that this directory was linked as, to log in again as the same one."""
    own = root / ".dblike"
    if not (own / "config.json").exists():
        return None
    linked = read_config(own / "config.json")
    if linked.folder != config.folder:
        raise Usage(f"{root} is linked to the folder {linked.folder!r} already")
    try:
        with contextlib.closing(State(own / "state.db")) as state:
            known = state.meta.device
        device = credentials.read_credential(own / "credential").device_id
    except ClientError:
        return None
    return device if device == known.hex() else None


def _become(own: Path, device: bytes) -> None:
    """Let the state be this device's.  One that is damaged is set aside: it is made anew from both
    sides, and nothing is lost by that."""
    place = own / "state.db"
    try:
        state = State(place)
    except StateDamaged:
        for part in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                (own / f"state.db{part}").rename(own / f"state.db.damaged{part}")
        state = State(place)
    with contextlib.closing(state):
        if state.meta.device != device:
            with state.transaction():
                state.meta.become(device, own.stat().st_ino)


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


def _folder(exchange: Exchange, name: str) -> m.FolderView:
    folders = exchange.folders()
    for folder in folders:
        if name in (folder.name, folder.id):
            return folder
    raise NotFound(
        f"there is no folder {name!r}; there are {', '.join(folder.name for folder in folders)}"
    )


def _write(
    root: Path, config: Config, reply: m.LoginReply, folder: m.FolderView, issuer: str
) -> None:
    """The link on the disk.  The config comes last: without it the directory is not linked."""
    own = root / ".dblike"
    own.mkdir(parents=True, exist_ok=True)
    own.chmod(0o700)
    _become(own, bytes.fromhex(reply.device_id))
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
