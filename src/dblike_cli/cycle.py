"""The cycle: look at both sides, decide, act, remember."""

from __future__ import annotations

from dblike_cli.context import Context, Device, Inline, Settings
from dblike_cli.report import Direction, Hints, Report

__all__ = ["Context", "Device", "Direction", "Hints", "Inline", "Report", "Settings", "run_cycle"]


def run_cycle(
    context: Context,
    direction: Direction,
    *,
    hints: Hints | None = None,
    paths: tuple[bytes, ...] = (),
    dry_run: bool = False,
    max_delete: str | None = None,
    checksum: bool = False,
) -> Report:
    """Bring this folder and the site's together, as far as `direction` goes.

    `hints` says where it is worth looking (None: everywhere); `paths` restricts the cycle to these
    and what lies below them; `max_delete` is a number or a percentage ("500", "80%").
    """
    raise NotImplementedError(context, direction, hints, paths, dry_run, max_delete, checksum)
