"""Times the three steps on two files, ours beside librsync's."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from blake3 import blake3

from dblike_delta import librsync
from dblike_delta.delta import Delta, delta
from dblike_delta.errors import DeltaError, IntegrityError
from dblike_delta.patch import patch
from dblike_delta.signature import Signature, signature


class Row(NamedTuple):
    """One step of one engine."""

    engine: str
    step: str
    seconds: float
    mib_per_second: float
    bytes: int


def bench(old: Path, new: Path) -> list[Row]:
    """Run and check both engines; librsync's rows are absent where it is."""
    rows = _ours(old, new, "xxh3") + _ours(old, new, "librsync")
    try:
        rows += _theirs(old, new)
    except DeltaError as error:
        if "not installed" not in str(error):
            raise
    return rows


class _Clock:
    def __init__(self, engine: str) -> None:
        self.engine, self.rows = engine, list[Row]()

    def time(
        self, step: str, size: int, work: Callable[[], Any], count: Callable[[Any], int]
    ) -> Any:
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
        speed = size / max(seconds, 1e-9) / (1 << 20)
        self.rows.append(Row(self.engine, step, seconds, speed, count(result)))
        return result


def _ours(old: Path, new: Path, kind: str) -> list[Row]:
    clock = _Clock(f"dblike {kind}")
    with old.open("rb") as base, new.open("rb") as file, _Checked(new) as out:
        made: Signature = clock.time(
            "signature",
            old.stat().st_size,
            lambda: signature(base, format=kind),
            lambda made: len(made.pack()),
        )
        found: Delta = clock.time(
            "delta", new.stat().st_size, lambda: delta(made, file), lambda found: found.encoded
        )
        with found:
            clock.time(
                "patch",
                new.stat().st_size,
                lambda: patch(base, found, out),
                lambda result: result.size,
            )
    return clock.rows


def _theirs(old: Path, new: Path) -> list[Row]:
    clock, signed, found = _Clock("librsync"), io.BytesIO(), io.BytesIO()
    with old.open("rb") as base, new.open("rb") as file, _Checked(new) as out:
        clock.time(
            "signature",
            old.stat().st_size,
            lambda: librsync.signature(base, signed),
            lambda _: signed.tell(),
        )
        signed.seek(0)
        clock.time(
            "delta",
            new.stat().st_size,
            lambda: librsync.delta(signed, file, found),
            lambda _: found.tell(),
        )
        found.seek(0)
        clock.time(
            "patch",
            new.stat().st_size,
            lambda: librsync.patch(base, found, out),
            lambda _: out.size,
        )
    return clock.rows


class _Checked:
    """An output that keeps nothing but a hash, and compares it in the end."""

    def __init__(self, wanted: Path) -> None:
        self._wanted, self._hash, self.size = wanted, blake3(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        wanted = blake3()
        wanted.update_mmap(self._wanted)
        if kind is None and wanted.digest() != self._hash.digest():
            raise IntegrityError("the patched file is not the new file")

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        self._hash.update(data)
        self.size += len(data)
        return len(data)
