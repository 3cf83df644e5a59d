"""What became of the site's changes here."""

from __future__ import annotations

import msgspec

from dblike_cli.context import Context
from dblike_cli.report import Code, Pending


class Applied(msgspec.Struct):
    """Filled in while it happens; a path is in one of the first four, or pending.

    `again` are paths that were edited under our hands: it is worth looking at them at once.
    """

    applied: list[bytes] = []
    deleted: list[bytes] = []
    adopted: list[bytes] = []
    conflicts: list[bytes] = []
    pending: dict[bytes, Pending] = {}
    again: set[bytes] = set()

    def trouble(self, context: Context, path: bytes, code: Code, reason: str) -> None:
        """The path stays as it is, and why."""
        self.pending[path] = Pending(path, reason, code)
        context.reporter.progress(self.pending[path])
        if code is Code.CHANGED:
            self.again.add(path)
