"""Processes whose parent is somebody else."""

from __future__ import annotations

import contextlib

import psutil


def has_ended(process: psutil.Process) -> bool:
    """Also where nobody took note of it: the first process of a container, whose children orphans
    become, may never do so."""
    with contextlib.suppress(psutil.NoSuchProcess):
        over = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
        return over or not process.is_running()
    return True
