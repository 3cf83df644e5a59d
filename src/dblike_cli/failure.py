"""What went wrong, in one line and one exit code."""

from __future__ import annotations

import sqlite3
from typing import Final

from dblike_cli.errors import ClientError
from dblike_cli.exits import Exit
from dblike_cli.output import escape
from dblike_cli.state import said_plainly
from dblike_delta.errors import DeltaError
from dblike_delta.exchange import Refused, Unreachable

_REFUSED: Final = {
    401: Exit.LOGGED_OUT,
    404: Exit.NOT_FOUND,
    413: Exit.BRAKE,
    426: Exit.PROTOCOL,
    507: Exit.BRAKE,
}


class Terminated(BaseException):
    """SIGTERM: end now.  What is finished stays finished."""


def describe(error: BaseException) -> tuple[str, Exit]:
    """The line to say, and the code to end with."""
    match error:
        case ClientError():
            return escape(str(error)), error.exit_code
        case Refused():
            return _refused(error)
        case Unreachable():
            return f"no server was reached: {_unreached(error)}", Exit.TEMPORARY
        case DeltaError():
            return f"what came is not what was promised: {escape(str(error))}", Exit.INTEGRITY
        case KeyboardInterrupt():
            return "interrupted; everything finished stays finished", Exit.INTERRUPTED
        case Terminated():
            return "ended; everything finished stays finished", Exit.TERMINATED
        case sqlite3.Error():
            return _state(error)
        case OSError():
            return _system(error), Exit.FAILED
        case _:
            said = escape(f"{type(error).__name__}: {error}".replace("\n", " "))
            return f"{said} (a bug; DBLIKE_DEBUG=1 shows where)", Exit.FAILED


def is_temporary(error: BaseException) -> bool:
    """Whether the same may go well later, without anyone doing anything about it here."""
    if isinstance(error, Refused):
        return error.temporary
    if isinstance(error, ClientError):
        return error.exit_code is Exit.TEMPORARY
    return isinstance(error, Unreachable)


def _unreached(error: Unreachable) -> str:
    """What each server said; and once for all of them, how one trusts an authority of one's own."""
    from dblike_cli.connection import UNKNOWN_AUTHORITY

    said = escape(str(error))
    hint = "; --ca FILE of `dblike init`, or tls.ca, names one to trust"
    return said + hint if UNKNOWN_AUTHORITY in said else said


def _refused(error: Refused) -> tuple[str, Exit]:
    said = escape(error.problem.detail or error.problem.title)
    if error.status == 401:
        return f"{said}; `dblike init` with the same arguments logs in again", Exit.LOGGED_OUT
    if error.temporary:
        later = f" in {error.retry_after:.0f} s" if error.retry_after else " later"
        return f"the server can't do it now: {said}; try again{later}", Exit.TEMPORARY
    where = f" ({escape(error.problem.field)})" if error.problem.field else ""
    return f"the server refused: {said}{where}", _REFUSED.get(error.status, Exit.FAILED)


def _state(error: sqlite3.Error) -> tuple[str, Exit]:
    """Of whoever reads the state outside of a cycle."""
    try:
        with said_plainly():
            raise error
    except ClientError as plain:
        return str(plain), plain.exit_code


def _system(error: OSError) -> str:
    name = error.filename
    if isinstance(name, bytes):
        name = name.decode("utf-8", "backslashreplace")
    where = f"{escape(str(name))}: " if name is not None else ""
    return where + (error.strerror or str(error) or type(error).__name__)
