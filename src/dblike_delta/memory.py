"""How the C library of a program that moves large files keeps its memory."""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
"""glibc's names for mallopt."""


def keep_memory() -> None:
    """Let glibc keep the memory of large buffers for the next ones, and share it among threads.

    It gives them back by default, and a page fault for each 4 KiB of each buffer was most of what a
    transfer of 1 GiB cost.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 64 << 20)
        mallopt(_ARENA_MAX, 2)
