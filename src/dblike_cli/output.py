"""All that a command says: results on stdout, all else on stderr, JSON where it is asked for.

Names come from file systems and servers, so nothing reaches a terminal before its control
characters are escaped.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec

from dblike_cli.report import Outcome, Pending, Progress
from dblike_delta.paths import display

if TYPE_CHECKING:
    from dblike_cli.eventlog import EventLog

_UNITS: Final = ("kB", "MB", "GB", "TB", "PB")


class Output:
    """Where a command writes to.  `verbosity` is 1 for -v, -1 for -q."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        verbosity: int = 0,
        progress: bool = True,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.as_json = as_json
        self.verbosity = verbosity
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self.bars = progress and verbosity >= 0 and not as_json and self._stderr.isatty()

    def result(self, document: Any, lines: Iterable[str] = ()) -> None:
        """What the command was asked for: a JSON document, or lines for a person."""
        if self.as_json:
            print(self._json(document), file=self._stdout)
            return
        for line in lines:
            print(_lines(line), file=self._stdout)

    def item(self, document: Any, line: str | None) -> None:
        """One item of a stream, seen at once: JSON, or a line for a person (None: nothing)."""
        if self.as_json:
            print(self._json(document), file=self._stdout, flush=True)
        elif line is not None:
            print(_lines(line), file=self._stdout, flush=True)

    def _json(self, document: Any) -> str:
        """One line of JSON, in the characters that the stream has."""
        text = render_json(document)
        try:
            text.encode(self._stdout.encoding or "utf-8")
        except UnicodeEncodeError:
            return render_json(document, ensure_ascii=True)
        return text

    def note(self, text: str, *, verbosity: int = 0) -> None:
        """A line on stderr, where the user wants to hear so much."""
        if self.verbosity >= verbosity:
            with taken_or_not():
                print(_lines(text), file=self._stderr, flush=True)

    def warn(self, text: str) -> None:
        """A line on stderr that even -q shows."""
        with taken_or_not():
            print(f"dblike: {_lines(text)}", file=self._stderr, flush=True)


@contextlib.contextmanager
def taken_or_not() -> Iterator[None]:
    """What is only said ends nothing where it can't be written: a full disk, a terminal that was
    closed.  Where a reader has gone there is nobody to go on for."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass


def render_json(document: Any, *, ensure_ascii: bool = False) -> str:
    """One line of JSON."""
    plain = msgspec.to_builtins(document, builtin_types=(bytes,))
    return json.dumps(plain, ensure_ascii=ensure_ascii, default=_text, separators=(",", ":"))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    raise TypeError(f"{type(value).__name__} has no JSON")


def path_fields(path: bytes) -> dict[str, str]:
    """A path in a JSON document: its text, and the exact bytes where the text has them not."""
    try:
        return {"path": path.decode()}
    except UnicodeDecodeError:
        exact = base64.b64encode(path).decode()
        return {"path": path.decode("utf-8", "backslashreplace"), "path_b64": exact}


def escape(text: str) -> str:
    """Text that someone else wrote, with what a terminal would obey or hide made visible."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _lines(text: str) -> str:
    """The same for text that may have several lines."""
    return "\n".join(map(escape, text.split("\n")))


def size(count: int) -> str:
    """A number of bytes, as people say it."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in _UNITS:
        amount /= 1000
        if amount < 999.5 or unit == _UNITS[-1]:
            return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:.0f} {unit}"
    raise AssertionError


def when(epoch_ms: int) -> str:
    """A moment in the user's time zone; `never` for 0."""
    if not epoch_ms:
        return "never"
    try:
        return datetime.fromtimestamp(epoch_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{epoch_ms} ms"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2 files`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


class CycleReporter:
    """Hears a cycle: lines with -v, a bar on a terminal, and every outcome into the log."""

    def __init__(self, output: Output, log: EventLog | None = None) -> None:
        self._output = output
        self._log = log
        self._bar = Bar() if output.bars else None

    def progress(self, event: Progress | Outcome | Pending) -> None:
        """Take note of an event."""
        match event:
            case Progress():
                if self._bar is not None:
                    self._bar.update(event)
            case Outcome():
                if self._log is not None:
                    self._log.write(event.action, event.path)
                if self._output.verbosity >= 1:
                    self._output.note(outcome_line(event))
            case Pending():
                if self._log is not None:
                    self._log.write(event.code, event.path, event.reason)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


class Bar:
    """A progress bar that appears when a phase takes long enough to wonder about."""

    PATIENCE: Final = 0.4

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._shown: Any = None
        self._task: Any = None

    def update(self, event: Progress) -> None:
        """Show how far the phase is."""
        if self._shown is None:
            if time.monotonic() - self._since < self.PATIENCE:
                return
            self._shown = _new_bar()
            self._task = self._shown.add_task(event.phase, count="")
        total = event.bytes_total or event.total or None
        done = event.bytes_done if event.bytes_total else event.done
        count = f"{event.done}/{event.total}" if event.total else str(event.done)
        self._shown.update(
            self._task, description=event.phase, total=total, completed=done, count=count
        )

    def close(self) -> None:
        """Remove it from the terminal."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None


def _new_bar() -> Any:
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[count]}"),
        progress.TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    bar.start()
    return bar


_ARROWS: Final = {
    "upload": "up  ",
    "download": "down",
    "delete-remote": "up   deleted",
    "delete-local": "down deleted",
    "adopt": "same",
    "conflict": "down conflict",
}


def outcome_line(event: Outcome) -> str:
    """One outcome for a person."""
    amount = f"  {size(event.size)}" if event.size else ""
    return f"{_ARROWS[event.action]} {display(event.path)}{amount}"
