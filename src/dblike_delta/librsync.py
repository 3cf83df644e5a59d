"""The same three steps through the C library that python-librsync finds.

A second engine, and the judge in differential tests.  The released binding's own `signature` and
`patch` do not work (no magic number is passed; the callback's prototype is wrong), so the library
is opened once more, with prototypes of its own.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, byref, c_char, c_int, c_int64, c_size_t, c_void_p
from typing import Any, Final

from dblike_delta.errors import DeltaError, FormatError
from dblike_delta.formats import Magic
from dblike_delta.streams import Readable, Seekable, Writable, write_all

_DONE, _BLOCKED, _INPUT_ENDED, _IO_ERROR = 0, 1, 103, 100
_BUFFER: Final = 256 << 10
_COPY = CFUNCTYPE(c_int, c_void_p, c_int64, POINTER(c_size_t), POINTER(c_void_p))


class _Buffers(ctypes.Structure):
    _fields_ = (
        ("next_in", c_void_p),
        ("avail_in", c_size_t),
        ("eof_in", c_int),
        ("next_out", c_void_p),
        ("avail_out", c_size_t),
    )


def signature(
    file: Readable,
    out: Writable,
    *,
    block_size: int = 2048,
    strong_size: int = 0,
    magic: Magic = Magic.RK_BLAKE2,
) -> None:
    """Write the file's signature; `strong_size` 0 is the longest."""
    job = _library().rs_sig_begin(block_size, strong_size, int(magic))
    with _freed(job):
        _run(job, file, out)


def delta(signature_file: Readable, file: Readable, out: Writable) -> None:
    """Write the delta that makes `file` out of the signature's base."""
    library = _library()
    sums = c_void_p()
    try:
        with _freed(library.rs_loadsig_begin(byref(sums))) as job:
            _run(job, signature_file, None)
        if not sums.value:
            raise FormatError("not a signature", offset=0)
        _check(library.rs_build_hash_table(sums))
        with _freed(library.rs_delta_begin(sums)) as job:
            _run(job, file, out)
    finally:
        if sums.value:
            library.rs_free_sumset(sums)


def patch(base_file: Seekable, delta_file: Readable, out: Writable) -> None:
    """Write the new file: the delta applied to the base."""
    failures: list[BaseException] = []
    buffer = bytearray(_BUFFER)
    window = memoryview(buffer)
    address = ctypes.addressof((c_char * _BUFFER).from_buffer(buffer))

    def copy(_: Any, offset: int, length: Any, where: Any) -> int:
        try:
            base_file.seek(offset)
            data = base_file.read(min(length[0], _BUFFER)) or b""
        except BaseException as failure:  # noqa: BLE001 - may not cross the C library's frames
            failures.append(failure)
            return _IO_ERROR
        if not data:
            return _INPUT_ENDED  # else librsync asks for ever
        window[: len(data)] = data
        length[0], where[0] = len(data), address
        return _DONE

    callback = _COPY(copy)  # kept referenced until the job is freed
    with _freed(_library().rs_patch_begin(callback, None)) as job:
        _run(job, delta_file, out, failures)


@functools.cache
def _library() -> Any:
    """A handle of our own: prototypes do not clash with the binding's."""
    try:
        import librsync
    except ImportError as error:
        raise DeltaError(f"librsync is not installed: {error}") from None
    library = ctypes.CDLL(librsync._librsync._name)  # noqa: SLF001 - how the binding found it
    prototypes: dict[str, tuple[Any, list[Any]]] = {
        "rs_sig_begin": (c_void_p, [c_size_t, c_size_t, c_int]),
        "rs_loadsig_begin": (c_void_p, [c_void_p]),
        "rs_build_hash_table": (c_int, [c_void_p]),
        "rs_delta_begin": (c_void_p, [c_void_p]),
        "rs_patch_begin": (c_void_p, [_COPY, c_void_p]),
        "rs_job_iter": (c_int, [c_void_p, c_void_p]),
        "rs_job_free": (c_int, [c_void_p]),
        "rs_free_sumset": (None, [c_void_p]),
        "rs_strerror": (ctypes.c_char_p, [c_int]),
        "rs_trace_set_level": (None, [c_int]),
    }
    for name, (result, arguments) in prototypes.items():
        function: Callable[..., Any] = getattr(library, name)
        function.restype, function.argtypes = result, arguments  # type: ignore[attr-defined]
    library.rs_trace_set_level(0)
    return library


@contextmanager
def _freed(job: int | None) -> Iterator[int]:
    if not job:
        raise DeltaError("librsync refused to begin")
    try:
        yield job
    finally:
        _library().rs_job_free(job)


def _check(result: int) -> None:
    if result != _DONE:
        text = _library().rs_strerror(result).decode()
        raise FormatError(f"librsync: {text}", offset=0)


def _run(
    job: int, file: Readable, out: Writable | None, failures: list[BaseException] | None = None
) -> None:
    """Drive a job to its end.  What it did not take of the input is kept for the next round."""
    output = bytearray(_BUFFER)
    to = ctypes.addressof((c_char * _BUFFER).from_buffer(output))
    rest, ended, result = b"", False, _BLOCKED
    while result == _BLOCKED:
        if not ended and len(rest) < _BUFFER:
            more = file.read(_BUFFER) or b""
            rest, ended = rest + more, not more
        source = ctypes.create_string_buffer(rest, max(1, len(rest)))
        buffers = _Buffers(ctypes.addressof(source), len(rest), ended, to, _BUFFER)
        result = _library().rs_job_iter(job, byref(buffers))
        if failures:
            raise failures[0]
        if out is not None and buffers.avail_out < _BUFFER:
            write_all(out, memoryview(output)[: _BUFFER - buffers.avail_out])
        rest = rest[len(rest) - buffers.avail_in :] if buffers.avail_in else b""
    _check(result)
