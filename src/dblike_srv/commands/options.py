"""What all commands share: where the site is, how a failure is said, how JSON is printed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from dblike_srv.config import Config, ConfigError
from dblike_srv.configfile import find_config
from dblike_srv.errors import SiteError
from dblike_srv.site import Site, open_site

FAILED, USAGE, INTERRUPTED = 1, 2, 130

_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), help="Config file (JSON). Also: DBLIKE_CONFIG."
)
_DATA = click.option(
    "--data", type=click.Path(path_type=Path), help="Data directory. [default: dblike-data]"
)


class Place:
    """Where the site is: the options, from before or after the subcommand."""

    def __init__(self, config: Path | None, data: Path | None) -> None:
        self.config, self.data = config, data

    def read(self) -> Config:
        """The config that is there."""
        return find_config(self.config, self.data)

    @contextlib.contextmanager
    def site(self) -> Iterator[Site]:
        """The site, for one command."""
        opened = open_site(self.read(), notices=None)
        try:
            yield opened
        finally:
            opened.close()


def placed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --config and --data, and hand it the `Place` that they name."""

    @wraps(command)
    @click.pass_context
    def with_place(
        context: click.Context, /, config: Path | None, data: Path | None, **rest: Any
    ) -> Any:
        before = context.obj or Place(None, None)
        place = Place(config or before.config, data or before.data)
        with _said():
            return command(place, **rest)

    return _CONFIG(_DATA(with_place))


def group_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same options before the subcommand."""
    return _CONFIG(_DATA(command))


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """A failure is one line on stderr, and an exit code."""
    try:
        yield
    except click.Abort:
        fail("interrupted", INTERRUPTED)
    except ConfigError as error:
        fail(str(error), USAGE)
    except SiteError as error:
        fail(error.detail, FAILED)
    except ValueError as error:
        fail(str(error), USAGE)
    except ArgumentError as error:
        fail(f"database: {error}", USAGE)
    except SQLAlchemyError as error:
        fail(f"database: {getattr(error, 'orig', None) or error}", FAILED)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        fail(f"{named}{error.strerror or error}", FAILED)


def fail(text: str, code: int = FAILED) -> NoReturn:
    """Say why, and end."""
    click.echo(f"dblike-server: {text}", err=True)
    raise SystemExit(code)


def emit(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(msgspec.json.encode(value).decode())


def read_password(from_stdin: bool) -> str:
    """A password from stdin's first line, or asked for twice on a terminal."""
    try:
        password = _given_password(from_stdin)
        password.encode()
    except UnicodeError:
        fail("a password has to be UTF-8", USAGE)
    if not 1 <= len(password) <= 1024:
        fail("a password has 1 to 1024 characters", USAGE)
    return password


def _given_password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if sys.stdin.isatty():
        asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return asked
    fail("no terminal to ask for the password: use --password-stdin", USAGE)
