"""Permissions that count for whoever runs the tests, also for root."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Final

_VERSION: Final = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3, of the kernel's linux/capability.h."""
_OVERRIDES: Final = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
_libc: Final = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def permissions() -> Iterator[None]:
    """For this thread, and those that it starts meanwhile, the modes of files say what it may do,
    as they do for everyone but root."""
    head = (ctypes.c_uint32 * 2)(_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice 32 bits of each
    _check(_libc.capget(head, sets))
    before = sets[0]
    sets[0] = before & ~_OVERRIDES
    _check(_libc.capset(head, sets))
    try:
        yield
    finally:
        sets[0] = before
        _check(_libc.capset(head, sets))


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
