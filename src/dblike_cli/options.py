"""The command line's frame: flags that every command takes, and commands that load when called."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from dblike_cli.output import Output

PATH: Final = click.Path(readable=False)
"""A path of the folder, here or on the server: shells complete names, and nothing is checked."""


class Common(msgspec.Struct, frozen=True):
    """The flags that every command takes."""

    directory: Path = Path()
    verbosity: int = 0
    as_json: bool = False
    progress: bool = True

    def output(self) -> Output:
        """Where the command writes to."""
        return Output(as_json=self.as_json, verbosity=self.verbosity, progress=self.progress)


def common_options() -> list[click.Parameter]:
    """The flags of `Common`; they are understood before and after the command's name."""
    directory = click.Path(path_type=Path, file_okay=False)
    return [
        click.Option(
            ["-C", "directory"], metavar="DIR", type=directory, help="Work as if started in DIR."
        ),
        click.Option(["-v", "--verbose"], count=True, help="Say more."),
        click.Option(["-q", "--quiet"], count=True, help="Say less."),
        click.Option(["--json", "as_json"], is_flag=True, help="JSON on stdout."),
        click.Option(["--no-progress"], is_flag=True, help="No progress bars."),
    ]


def merge(common: Common, params: dict[str, Any]) -> Common:
    """`common` with the flags in `params` added, which are taken out of it."""
    directory = params.pop("directory", None)
    more, less = params.pop("verbose", 0), params.pop("quiet", 0)
    as_json, no_progress = params.pop("as_json", False), params.pop("no_progress", False)
    return Common(
        common.directory / directory if directory is not None else common.directory,
        common.verbosity + more - less,
        common.as_json or as_json,
        common.progress and not no_progress,
    )


def keep_lines(text: str | None) -> str | None:
    r"""Let the paragraphs that begin with `\b` keep their lines.

    click looks for the control character; our docstrings are raw, and have the two letters.
    """
    return text and text.replace("\\b\n", "\b\n")


def is_text(word: str) -> bool:
    """Whether a word is UTF-8: names of files may be other bytes, and nothing else may."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


class Command(click.Command):
    """A command that takes the common flags, and gets them as its first argument."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = keep_lines(self.help)
        self.params += common_options()

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with the flags of both places."""
        for parameter in self.params:
            self._check(ctx, parameter)
        common = merge(ctx.find_object(Common) or Common(), ctx.params)
        assert self.callback is not None
        return ctx.invoke(self.callback, common, **ctx.params)

    def _check(self, ctx: click.Context, parameter: click.Parameter) -> None:
        given = ctx.params.get(parameter.name or "")
        words = given if isinstance(given, tuple) else (given,)
        for word in words if parameter.type is click.STRING else ():
            if word is not None and not is_text(word):
                raise click.BadParameter(f"{word!r} is not UTF-8", ctx, parameter)


class SeenEnough(BaseException):
    """Whoever read our output has gone; click would take a BrokenPipeError for a failure."""


@contextlib.contextmanager
def _readers_may_go() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise SeenEnough from None


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called.

    `lazy` maps a command's name to `module:attribute`.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = keep_lines(self.help)
        self._lazy: Final = lazy

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments, of which some, as --help, are done at once."""
        with _readers_may_go():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _readers_may_go():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names, in the order in which they were given."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, imported now."""
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


def command(name: str) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command: its docstring is its help, its first argument a `Common`."""
    return click.command(name, cls=Command)
