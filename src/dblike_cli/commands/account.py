"""`dblike devices`, `logout` and `passwd`: own devices and credentials."""

from __future__ import annotations

import click

from dblike_cli.exits import Exit
from dblike_cli.options import Common, command


@command("devices")
@click.option("--revoke", metavar="ID", help="End a device's access, for good.")
def devices(common: Common, revoke: str | None) -> Exit:
    r"""List the account's devices, or end one's access.

    \b
    Example:
      dblike devices
      dblike devices --revoke 3f2a9c01
    """
    from dblike_cli.errors import NotFound, Usage
    from dblike_cli.output import escape, when
    from dblike_cli.session import open_session

    if revoke == "":
        raise Usage("--revoke: the id is empty; `dblike devices` lists them")
    with open_session(common) as session:
        known = session.exchange.devices()
        if revoke is not None:
            meant = [device for device in known if device.id.startswith(revoke.lower())]
            if len(meant) != 1:
                raise NotFound(f"{len(meant)} devices have an id that begins with {revoke!r}")
            session.exchange.revoke(meant[0].id)
            known = session.exchange.devices() if not meant[0].current else []
        lines = (
            f"{device.id[:8]}  {escape(device.name):24}  last seen {when(device.last_seen)}"
            + ("  (this one)" if device.current else "")
            + ("  revoked" if device.revoked else "")
            for device in known
        )
        session.output.result(known, lines)
    return Exit.DONE


@command("logout")
def logout(common: Common) -> Exit:
    r"""End this device's access.  Files and link stay; `init` logs in again.

    \b
    Example:
      dblike logout
    """
    from dblike_cli.credentials import remove_credential
    from dblike_cli.session import open_session
    from dblike_delta.exchange import Refused

    with open_session(common) as session:
        try:
            session.exchange.logout()
        except Refused as refused:
            if refused.status != 401:  # which would say that it has ended already
                raise
        remove_credential(session.own / "credential")
        session.output.result({"logged_out": True}, ["logged out"])
    return Exit.DONE


@command("passwd")
@click.option("--password-stdin", is_flag=True, help="Read old and new, a line each, from stdin.")
def passwd(common: Common, *, password_stdin: bool) -> Exit:
    r"""Change the password.  All other devices have to log in again.

    \b
    Example:
      dblike passwd
    """
    from dblike_cli.login import read_password
    from dblike_cli.session import open_session
    from dblike_delta.messages import PasswordChange

    with open_session(common) as session:
        old = read_password("Old password", stdin=password_stdin)
        new = read_password("New password", stdin=password_stdin, confirm=True)
        session.exchange.change_password(PasswordChange(old, new))
        session.output.result({"changed": True}, ["changed; other devices have to log in again"])
    return Exit.DONE
