"""`dblike`: the command line.  Each command lives in `commands/`, and loads when it is called."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
from types import FrameType
from typing import Any, Final, NoReturn

import click

from dblike_cli import __version__
from dblike_cli.exits import Exit
from dblike_cli.options import Common, LazyGroup, SeenEnough, common_options, merge

_COMMANDS: Final = {
    "init": "init:init",
    "clone": "init:clone",
    "push": "sync:push",
    "pull": "sync:pull",
    "sync": "sync:sync",
    "watch": "watch:watch",
    "status": "status:status",
    "ls": "ls:ls",
    "cat": "cat:cat",
    "log": "log:log",
    "restore": "restore:restore",
    "conflicts": "conflicts:conflicts",
    "resolve": "conflicts:resolve",
    "why": "why:why",
    "devices": "account:devices",
    "logout": "account:logout",
    "passwd": "account:passwd",
    "ignore": "ignore:ignore",
    "doctor": "doctor:doctor",
    "config": "config:config",
    "bundle": "bundle:bundle",
    "delta": "delta:delta",
    "service": "service:service",
    "completion": "completion:completion",
}


@click.group(
    cls=LazyGroup,
    lazy={name: f"dblike_cli.commands.{place}" for name, place in _COMMANDS.items()},
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="dblike", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, /, **params: Any) -> None:
    r"""Keep a folder the same here, on your servers and on all your devices.

    \b
    Example:
      dblike clone https://sync.example.org ~/Files --user ann
      dblike -C ~/Files watch
    """
    ctx.obj = merge(Common(), params)


def main(arguments: list[str] | None = None) -> int:
    """Run a command (that of the process without `arguments`); its exit code."""
    # Python looks for cycles each 700 allocations: a tenth of what a sync of 10,000 files cost,
    # which makes many objects and no cycles.
    gc.set_threshold(100_000)
    if arguments is None:
        _open_streams()
    code = _run(arguments)
    if arguments is None:
        _leave(code)
    return code


def _open_streams() -> None:
    """Let there be three standard streams that take all that is said.

    One that is closed would be None here, and its number that of the next file that is opened.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as we are
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(arguments: list[str] | None) -> int:
    """Whatever goes wrong is one line on stderr."""
    former = signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(arguments, prog_name="dblike", standalone_mode=False)
        sys.stdout.flush()
    except (SeenEnough, BrokenPipeError):
        # Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except BaseException as error:  # noqa: BLE001 - the edge: nothing may pass as a traceback
        return _fail(error)
    finally:
        signal.signal(signal.SIGTERM, former)
    return int(code or Exit.DONE)


def _leave(code: int) -> NoReturn:
    """End at once: all is closed.  The interpreter would take every object of a large cycle apart,
    and wait for a request that hangs."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _fail(error: BaseException) -> int:
    if os.environ.get("DBLIKE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, SystemExit):
        return int(error.code or 0) if isinstance(error.code, int | None) else Exit.FAILED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return Exit.USAGE
    text, code = _usage(error) if isinstance(error, click.ClickException) else _describe(error)
    print(f"dblike: {text}", file=sys.stderr)  # noqa: T201 - no Output exists yet
    return code


def _usage(error: click.ClickException) -> tuple[str, Exit]:
    from dblike_cli.output import escape

    text = escape(" ".join(error.format_message().split()))
    if not isinstance(error, click.UsageError):
        return text, Exit.FAILED
    command = error.ctx.command_path if error.ctx is not None else "dblike"
    return f"{text} (see {command} --help)", Exit.USAGE


def _describe(error: BaseException) -> tuple[str, Exit]:
    from dblike_cli.failure import describe

    return describe(KeyboardInterrupt() if isinstance(error, click.Abort) else error)


def _terminate(_signum: int, _frame: FrameType | None) -> NoReturn:
    from dblike_cli.failure import Terminated

    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
