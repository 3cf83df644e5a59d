"""Every error that ends a command on purpose, each with its exit code.

Exception
└── ClientError             one line meant for a person; `exit_code` is the command's
    ├── Failed         1    it did not work, and nothing more special can be said
    ├── Usage          2    the command or the config can't be right
    │   └── NotLinked  2    no linked folder here or above
    ├── NotFound       4    no such path or version
    ├── Offline        5    no server was reached, or it is busy: try again
    ├── Damaged        6    content that is not what its hash says
    ├── StateDamaged   7    .dblike/state.db can't be used
    ├── Stopped        8    a brake: mass delete, quota, missing link marker
    ├── LoggedOut     10    no credential, or one that was revoked
    ├── Locked        11    another instance holds the folder
    └── TooOld        12    server or client is too old for the other

What the protocol and the library raise (`ExchangeError`, `DeltaError`) is theirs.
"""

from __future__ import annotations

from dblike_cli.exits import Exit


class ClientError(Exception):
    """Root of the client's errors."""

    exit_code: Exit = Exit.FAILED

    def __init__(self, message: str, exit_code: Exit | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class Failed(ClientError):
    """It did not work."""


class Usage(ClientError):
    """The command line or the config can't be right."""

    exit_code = Exit.USAGE


class NotLinked(Usage):
    """No linked folder here or above."""


class NotFound(ClientError):
    """No such path or version."""

    exit_code = Exit.NOT_FOUND


class Offline(ClientError):
    """No server was reached, or it was too busy."""

    exit_code = Exit.TEMPORARY


class Damaged(ClientError):
    """Content that is not what its hash says."""

    exit_code = Exit.INTEGRITY


class StateDamaged(ClientError):
    """The state database can't be used."""

    exit_code = Exit.STATE_DAMAGED


class Stopped(ClientError):
    """A brake stopped it before anything was changed."""

    exit_code = Exit.BRAKE


class LoggedOut(ClientError):
    """No credential, or one that the site does not take any more."""

    exit_code = Exit.LOGGED_OUT


class Locked(ClientError):
    """Another instance holds the folder."""

    exit_code = Exit.LOCKED


class TooOld(ClientError):
    """Server and client do not speak a common protocol."""

    exit_code = Exit.PROTOCOL
