"""The compiled kernel gives what the plain-Python one defines, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dblike_delta.kernel
from dblike_delta import _kernel, _kernel_py
from dblike_delta.formats import STRONG_SIZES, Magic
from dblike_delta.parameters import Parameters
from edits import BLOCKS, noise, numbers, pairs

MAGICS = st.sampled_from([magic for magic in Magic if magic != Magic.DELTA])
KERNELS = (_kernel, _kernel_py)
Op = tuple[int, int] | bytes


def joined(ops: list[Op]) -> list[Op]:
    """Where pieces were cut is nobody's business."""
    out: list[Op] = []
    for op in ops:
        last = out[-1] if out else None
        if isinstance(op, bytes) and isinstance(last, bytes):
            out[-1] = last + op
        elif isinstance(op, tuple) and isinstance(last, tuple) and sum(last) == op[0]:
            out[-1] = (last[0], last[1] + op[1])
        else:
            out.append(op)
    return out


@settings(max_examples=400)
@given(pairs(), MAGICS, BLOCKS, st.integers(1, 3000), st.integers(64, 900), st.data())
def test_rows_and_ops_are_the_same(
    pair: tuple[bytes, bytes], magic: Magic, block: int, step: int, room: int, draw: st.DataObject
) -> None:
    old, new = pair
    strong = draw.draw(st.sampled_from([8, 16] if magic == Magic.XXH3 else [1, 2, 16]))
    size = len(old) if magic == Magic.XXH3 else None
    vain = draw.draw(st.sampled_from([None, None, 0, 3000]))
    p = numbers(magic, block, strong, size)
    rows = [kernel.Signer(p).rows(old) for kernel in KERNELS]
    assert rows[0] == rows[1]
    results = [
        search(kernel.Scanner(p, rows[0], size, 4 * block + room, vain), new, step)
        for kernel in KERNELS
    ]
    assert results[0] == results[1]


def search(scanner: _kernel.Scanner | _kernel_py.Scanner, new: bytes, step: int) -> object:
    ops: list[Op] = []
    try:
        for at in range(0, len(new), step):
            ops += scanner.feed(new[at : at + step])
        ops += scanner.finish()
    except OverflowError:
        return "too much"
    return joined(ops), scanner.matches, scanner.alarms, scanner.vain


@given(MAGICS, st.binary(max_size=700), st.binary(max_size=700))
def test_sums_are_the_same(magic: Magic, first: bytes, second: bytes) -> None:
    p = numbers(magic, 512, 16)
    sums = [k.weak_sum(p, second, k.weak_sum(p, first)) for k in KERNELS]
    assert sums[0] == sums[1]
    assert _kernel.strong_sum(p, first) == _kernel_py.strong_sum(p, first)


@given(MAGICS, st.binary(min_size=1, max_size=300), st.integers(0, 255))
def test_rolling_is_the_same(magic: Magic, window: bytes, new: int) -> None:
    p = numbers(magic, 512, 16)
    value = _kernel.weak_sum(p, window)
    rolled = [k.weak_roll(p, value, len(window), window[0], new) for k in KERNELS]
    assert rolled[0] == rolled[1]
    assert rolled[0] == _kernel.weak_sum(p, window[1:] + bytes([new]))


@pytest.mark.parametrize("size", [0, 1, 16, 17, 128, 129, 240, 241, 1024, 1025, 70_000])
@pytest.mark.parametrize("magic", [Magic.XXH3, *STRONG_SIZES])
def test_strong_sums_of_every_length_class(magic: Magic, size: int) -> None:
    p = numbers(magic, 512, 16)
    data = noise(size, size)
    assert _kernel.strong_sum(p, data) == _kernel_py.strong_sum(p, data)


def test_rows_of_a_large_file_are_the_same() -> None:
    """Enough blocks for the memory of given anchors to matter."""
    p = numbers(Magic.XXH3, 128, 8)
    data = noise(4, 300_000) + b"the same thing again and again. " * 3000 + bytes(5000)
    assert _kernel.Signer(p).rows(data) == _kernel_py.Signer(p).rows(data)


@given(st.binary(min_size=71, max_size=71), st.sampled_from([128, 512, 4096]))
def test_wider_instructions_select_the_same(data: bytes, block: int) -> None:
    p = numbers(Magic.XXH3, block, 16)._replace(threshold=1 << 31)
    plain = _kernel.selected_by("plain", p, data)
    assert plain is not None
    for wider in ("avx2", "avx512"):
        assert _kernel.selected_by(wider, p, data) in {plain, None}
    assert _kernel.selected_by(_kernel.instructions, p, data) == plain


@given(st.binary(min_size=40, max_size=400), st.integers(100, 5000))
def test_places_beyond_their_blocks_are_found_alike(rows: bytes, size: int) -> None:
    p: Parameters = numbers(Magic.XXH3, 256, 8)
    rows = rows[: min(len(rows) // 14, -(-size // 256)) * 14]
    assert _kernel.bad_place(p, rows, size) == _kernel_py.bad_place(p, rows, size)


@pytest.mark.skipif(os.environ.get("DBLIKE_KERNEL") == "python", reason="asked for the other one")
def test_the_compiled_kernel_is_the_one_in_use() -> None:
    assert dblike_delta.kernel.name == "compiled"


@pytest.mark.parametrize("choice", ["compiled", "python"])
def test_a_named_kernel_is_used(choice: str) -> None:
    done = run("import dblike_delta.kernel as k; print(k.name)", choice)
    assert (done.returncode, done.stdout) == (0, f"{choice}\n")


def test_an_unknown_kernel_is_refused() -> None:
    done = run("import dblike_delta", "gpu")
    assert done.returncode == 1
    assert "DBLIKE_KERNEL=gpu: must be compiled or python" in done.stderr


HIDE = "import sys; sys.modules['dblike_delta._kernel'] = None; "


def test_without_the_compiled_one_the_import_warns_once() -> None:
    code = HIDE + "import dblike_delta, dblike_delta.kernel as k; print(k.name)"
    done = run(code, "")
    assert done.stdout == "python\n"
    assert done.stderr.count("RuntimeWarning") == 1


def test_a_kernel_that_is_not_there_is_refused() -> None:
    done = run(HIDE + "import dblike_delta", "compiled")
    assert done.returncode == 1
    assert "KernelError" in done.stderr


def run(code: str, choice: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DBLIKE_KERNEL": choice}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
