"""The C library's calls do no harm, wherever they are made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dblike_delta.system import STRIDE, Strides, begin_sync, keep_memory, syncfs


def test_a_sync_that_was_begun_changes_nothing(tmp_path: Path) -> None:
    place = tmp_path / "file"
    with place.open("wb", buffering=0) as file:
        strides = Strides()
        for _ in range(3):
            strides.wrote(file.fileno(), file.write(b"x" * (STRIDE // 2)))
    assert place.stat().st_size == 3 * (STRIDE // 2)


def test_what_can_not_be_synced_is_no_error() -> None:
    reading, writing = os.pipe()
    begin_sync(writing)
    os.close(reading)
    os.close(writing)
    begin_sync(writing)


def test_a_disk_is_synced_or_said_to_be_none(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    syncfs(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError, match="descriptor"):
        syncfs(descriptor)


def test_memory_may_be_kept_twice() -> None:
    keep_memory(64 << 20)
    keep_memory(16 << 20)
