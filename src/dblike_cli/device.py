"""What a device puts its name to: dots that are used once, and times in the site's clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dblike_cli.context import Context, Device
from dblike_cli.errors import Failed
from dblike_cli.fs import OWN

_T = TypeVar("_T")


def correction(context: Context, step: Callable[[], _T]) -> tuple[_T, int]:
    """The result of a step of the protocol, and what to add to our clock to get the site's.

    The site's time was taken between the two moments that we know, so only what lies outside of
    them is certainly an error.
    """
    before = context.clock.now_ms()
    result = step()
    after = context.clock.now_ms()
    there = context.exchange.server_time
    if there is None or before <= there <= after:
        return result, 0
    return result, there - before if there < before else there - after


def site_time(context: Context) -> int:
    """The present time in the site's clock, as far as ours is known to differ."""
    return context.clock.now_ms() + (context.state.offset or 0)


def become_new(context: Context) -> Device:
    """Make this installation a new device: another copy of it may have used its dots."""
    if context.renew is None:
        raise Failed("this copy of the folder has to be linked anew: run `dblike init` here")
    device = context.renew()
    with context.state.transaction():
        context.state.meta.become(device.id, marker_of(context))
    return device


def marker_of(context: Context) -> int:
    """What tells this `.dblike` from a copy of it: its inode."""
    return context.fs.lstat(OWN).st_ino
