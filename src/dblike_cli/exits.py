"""The exit codes, as promised to scripts."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PENDING = 3
    """Done, but something is pending, refused or in conflict; it was listed."""
    NOT_FOUND = 4
    TEMPORARY = 5
    """No server was reached: try again."""
    INTEGRITY = 6
    STATE_DAMAGED = 7
    BRAKE = 8
    """Mass delete, quota, or the link marker is missing."""
    LOGGED_OUT = 10
    LOCKED = 11
    PROTOCOL = 12
    INTERRUPTED = 130
    TERMINATED = 143
