""".dblike/log: what happened to which path, one line each, for `dblike why` and for people.

2026-11-23T03:12:07Z<TAB>upload<TAB>docs/report.txt<TAB>detail
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dblike_delta.paths import display
from dblike_delta.seams import Clock

_LARGEST: Final = 4 << 20
"""Bytes of a log before it becomes `log.1`, whose former self is gone then."""
_BUFFERED: Final = 64 << 10


class EventLog:
    """Appends to the log.  A log that can't be written stops nothing: it is there for people."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._lines: list[str] = []
        self._size = 0
        self._second, self._stamp = -1, ""

    def write(self, action: str, path: bytes = b"", detail: str = "") -> None:
        """Note one event; on disk after `flush`, or when many have come together."""
        said = display(detail.encode()) if detail else ""
        line = f"{self._now()}\t{action}\t{display(path)}\t{said}\n"
        self._lines.append(line)
        self._size += len(line)
        if self._size > _BUFFERED:
            self.flush()

    def _now(self) -> str:
        """The present second, as text that is made once: thousands of lines may share it."""
        second = self._clock.now_ms() // 1000
        if second != self._second:
            moment = datetime.fromtimestamp(second, UTC)
            self._second, self._stamp = second, f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        return self._stamp

    def flush(self) -> None:
        """Write what was noted."""
        lines, self._lines, self._size = self._lines, [], 0
        if not lines:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            descriptor = os.open(self._file, flags, 0o600)
            with os.fdopen(descriptor, "ab") as stream:
                stream.write("".join(lines).encode())
                full = stream.tell() > _LARGEST
            if full:
                self._file.replace(self._file.with_suffix(".1"))


def last_events(file: Path, path: bytes, count: int) -> list[dict[str, str]]:
    """The last events of a path, oldest first."""
    found: deque[dict[str, str]] = deque(maxlen=count)
    name = display(path)
    for line in _lines(file):
        fields = line.rstrip("\n").split("\t")
        if len(fields) == 4 and fields[2] == name:
            found.append(dict(zip(("time", "action", "path", "detail"), fields, strict=True)))
    return list(found)


def _lines(file: Path) -> Iterator[str]:
    for part in (file.with_suffix(".1"), file):
        with contextlib.suppress(OSError), part.open(encoding="utf-8", errors="replace") as stream:
            yield from stream
