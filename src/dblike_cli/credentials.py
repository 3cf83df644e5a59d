"""The credential: this device's token for its sites, in a file that only its owner can read."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from dblike_cli.errors import Damaged, Failed, LoggedOut
from dblike_delta.decoding import read_json
from dblike_delta.outputs import in_the_name_of
from dblike_delta.system import sync_path

_LARGEST: Final = 1 << 16


class Credential(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who this device is at its sites.  Neither shown nor logged: `token` is the secret.

    `issuer` is the URL of the site that made the token.
    """

    token: str
    user: str
    device_id: str
    folder: str
    folder_id: str
    issuer: str = ""

    def __repr__(self) -> str:
        return f"Credential(user={self.user!r}, device_id={self.device_id!r})"


def read_credential(file: Path) -> Credential:
    """The credential; raises LoggedOut where there is none, Failed where it is another user's, and
    Damaged where it can't be one."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LoggedOut("not logged in; `dblike init` with the same arguments does it") from None
    except PermissionError:
        raise Failed(
            f"{file}: only its owner can read it; work as the user who linked this directory"
        ) from None
    except OSError as error:
        raise Damaged(f"{file}: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _no_credential(file)
    with os.fdopen(descriptor, "rb") as stream:
        if status.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(status.st_mode) & 0o077:
            raise Damaged(f"{file}: others could read it; log in again, and chmod it to 600")
        raw = stream.read(_LARGEST)
    try:
        return read_json(raw, Credential)
    except msgspec.DecodeError:
        raise _no_credential(file) from None


def _no_credential(file: Path) -> Damaged:
    return Damaged(f"{file}: not a credential; `dblike init` makes a new one")


def write_credential(file: Path, credential: Credential) -> None:
    """Store it, durably and at once, never in a file that someone else prepared."""
    write_private(file, msgspec.json.encode(credential) + b"\n")


def remove_credential(file: Path) -> None:
    """Forget it."""
    with contextlib.suppress(FileNotFoundError):
        file.unlink()


def write_private(file: Path, content: bytes) -> None:
    """Replace a file by one that only its owner can read; it is wholly old or wholly new."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with in_the_name_of(file):
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        with in_the_name_of(file):
            temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_path(file.parent)
