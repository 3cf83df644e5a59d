"""Logs on stderr: lines for people, or JSON for machines."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from typing import Any, Final

import msgspec
from gunicorn.glogging import Logger


class TextFormatter(logging.Formatter):
    """One line: when, how bad, who, what."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname).1s %(name)s[%(process)d] %(message)s")
        self.default_msec_format = "%s.%03d"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line itself; a traceback is added to it, which has more of them."""
        return _visible(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """The line; the request's id at its end, and control characters nowhere."""
        line = super().format(record)
        request = getattr(record, "request_id", "")
        line = f"{line} [{request}]" if request else line
        return _visible(line, but="\n\t")


def _visible(text: str, but: str = "") -> str:
    return "".join(c if c.isprintable() or c in but else ascii(c)[1:-1] for c in text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        for name in ("request_id", "status"):
            if hasattr(record, name):
                entry[name] = getattr(record, name)
        if record.exc_info:
            entry["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return msgspec.json.encode(entry).decode()


def configure(*, form: str = "text", level: str = "info") -> None:
    """Send everything to stderr in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # The access log has a line for each request anyway; these two would add noise to it.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.WARNING)


class GunicornLogger(Logger):  # type: ignore[misc]
    """Gunicorn's own messages, in the same form and place as all others."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002 - the signature is theirs
        """Nothing of its own: it passes everything on."""
        self.loglevel = logging.INFO
        for log in (self.error_log, self.access_log):
            log.handlers = []
            log.propagate = True
            log.setLevel(logging.INFO)
        self.error_log.addFilter(_worth_saying)


_QUIET: Final = ("Booting worker", "Using worker", "Listening at", "Starting gunicorn")


def _worth_saying(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_QUIET)
