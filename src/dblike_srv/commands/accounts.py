"""user, device, folder: accounts and what they have."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import partial

import click

from dblike_delta.paths import display
from dblike_srv import accounts, devices, folders
from dblike_srv.commands.options import USAGE, Place, emit, fail, placed, read_password
from dblike_srv.site import Site

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
STDIN = click.option("--password-stdin", is_flag=True, help="The password is stdin's first line.")
LARGEST = 2**63 - 1
"""Bytes: what the database can hold."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@click.group()
def user() -> None:
    """Accounts."""


@user.command(epilog="Example: dblike-server user add ada --password-stdin < secret")
@click.argument("name")
@STDIN
@placed
def add(place: Place, name: str, password_stdin: bool) -> None:
    """Make an account with its folder `home`."""
    with place.site() as site:
        accounts.create_user(site, name, read_password(password_stdin))
    click.echo(f"Added {name}.")


@user.command(name="list", epilog="Example: dblike-server user list --json")
@JSON
@placed
def list_users(place: Place, as_json: bool) -> None:
    """All accounts."""
    with place.site() as site:
        found = accounts.list_users(site)
    if as_json:
        emit(found)
        return
    for each in found:
        state = "disabled" if each.disabled else f"{each.devices} devices"
        limit = f" of {each.quota:,}" if each.quota else ""
        click.echo(f"{each.name}\t{state}\t{each.used:,}{limit} bytes")


@user.command(epilog="Example: dblike-server user passwd ada")
@click.argument("name")
@STDIN
@placed
def passwd(place: Place, name: str, password_stdin: bool) -> None:
    """Set a new password; all the user's devices have to log in again."""
    with place.site() as site:
        accounts.find_user(site, name)
        accounts.set_password(site, name, read_password(password_stdin))
    click.echo(f"Changed the password of {name}.")


@user.command(epilog="Example: dblike-server user disable ada --undo")
@click.argument("name")
@click.option("--undo", is_flag=True, help="Let the user in again.")
@placed
def disable(place: Place, name: str, undo: bool) -> None:
    """Refuse the user from now on; the data stay."""
    with place.site() as site:
        accounts.set_disabled(site, name, disabled=not undo)
    if undo:
        click.echo(f"Enabled {name}; all devices have to log in again.")
    else:
        click.echo(f"Disabled {name}.")


@user.command(epilog="Example: dblike-server user quota ada 50G")
@click.argument("name")
@click.argument("size", metavar="SIZE|none")
@placed
def quota(place: Place, name: str, size: str) -> None:
    """Limit what the user's content may take on disk."""
    limit = _size(size)
    with place.site() as site:
        accounts.set_quota(site, name, limit)
    click.echo(f"The quota of {name} is {f'{limit:,} bytes' if limit else 'unlimited'}.")


def _size(text: str) -> int:
    if text.lower() == "none":
        return 0
    found = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)i?B?", text, re.IGNORECASE)
    if found is None:
        fail(f"{text!r} is no size: a number with K, M, G or T, or none", USAGE)
    size = int(found[1]) * _UNITS[found[2].upper()]
    if size > LARGEST:
        fail(f"{text!r} is too large: the most is {LARGEST:,} bytes, or none", USAGE)
    return size


@click.group()
def device() -> None:
    """Devices and their tokens."""


@device.command(name="list", epilog="Example: dblike-server device list --user ada")
@click.option("--user", "name", help="Only this user's.")
@JSON
@placed
def list_devices(place: Place, name: str | None, as_json: bool) -> None:
    """All devices, with when they were last seen."""
    with place.site() as site:
        names = [name] if name else _names(site)
        found = {
            each: devices.list_devices(site, accounts.find_user(site, each).id) for each in names
        }
    if as_json:
        emit(found)
        return
    for owner, theirs in found.items():
        for each in theirs:
            state = "revoked" if each.revoked else _when(each.last_seen)
            shown = display(each.name.encode())  # the user's choice, and no terminal's to obey
            click.echo(f"{each.id}\t{owner}\t{shown}\t{state}")


@device.command(epilog="Example: dblike-server device revoke 3f")
@click.argument("device_id", metavar="ID")
@placed
def revoke(place: Place, device_id: str) -> None:
    """End a device's token for good. Of the ID its beginning is enough."""
    with place.site() as site:
        whole = _whole_id(site, device_id.lower())
        devices.revoke_device(site, devices.owner_of(site, whole), whole)
    click.echo(f"Revoked {whole}.")


def _whole_id(site: Site, beginning: str) -> str:
    users = [each.id for each in map(partial(accounts.find_user, site), _names(site))]
    known = [each.id for user in users for each in devices.list_devices(site, user)]
    found = [each for each in known if each.startswith(beginning)]
    if len(found) > 1:
        fail(f"{len(found)} devices have an id that begins with {beginning!r}", USAGE)
    return found[0] if found else beginning


def _names(site: Site) -> list[str]:
    return [each.name for each in accounts.list_users(site)]


@click.group()
def folder() -> None:
    """Folders."""


@folder.command(name="list", epilog="Example: dblike-server folder list --json")
@click.option("--user", "name", help="Only this user's.")
@JSON
@placed
def list_folders(place: Place, name: str | None, as_json: bool) -> None:
    """All folders, with what they hold."""
    with place.site() as site:
        names = [name] if name else _names(site)
        found = {
            each: folders.list_folders(site, accounts.administrator(site, each)) for each in names
        }
    if as_json:
        emit(found)
        return
    for owner, views in found.items():
        for each in views:
            click.echo(
                f"{each.id}\t{owner}\t{each.name}\t{each.files:,} files\t{each.bytes:,} bytes"
            )


def _when(epoch_ms: int) -> str:
    return (
        datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="seconds")
        if epoch_ms
        else "never"
    )
