# cython: language_level=3, boundscheck=False, cdivision=True
"""The compiled kernel: the C part of _core, with the same face as _kernel_py, which defines it."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import os

cdef extern from "_core/core.h" nogil:
    enum: DK_NONE, DK_CHAIN_LIMIT, DK_SEEN_LOG, DK_STRONG_MAX
    enum: DK_RABIN_KARP
    enum: DK_MORE, DK_FULL, DK_VAIN

    ctypedef struct dk_params:
        uint32_t block_size, strong_size, place_size, row_size, anchor_size
        int weak, strong
        uint32_t multiplier, threshold, select_low, select_high
        uint64_t anchor_seed, strong_seed

    ctypedef struct dk_signer:
        dk_params p
        uint64_t *seen

    ctypedef struct dk_index:
        const dk_params *p
        const uint8_t *rows
        uint64_t count
        int64_t size

    ctypedef struct dk_op:
        int64_t offset
        uint64_t start, length

    ctypedef struct dk_scanner:
        dk_params p
        dk_index index
        uint8_t *buffer
        int64_t capacity, filled
        int final
        uint64_t matches, alarms, vain, vain_limit
        dk_op *ops
        int op_count

    void dk_prepare(dk_params *p)
    uint32_t dk_weak_start(const dk_params *p)
    uint32_t dk_weak_add(const dk_params *p, uint32_t value, const uint8_t *data, size_t size)
    uint32_t dk_power(const dk_params *p, uint64_t exponent)
    uint32_t dk_weak_roll(const dk_params *p, uint32_t value, uint32_t power, uint64_t size,
                          uint8_t out, uint8_t new)
    void dk_strong(const dk_params *p, const uint8_t *data, size_t size, uint8_t *out)
    const char *dk_select_name()
    int dk_select_by(const char *name, const dk_params *p, const uint8_t *data, uint64_t *mask)
    void dk_rows(dk_signer *s, const uint8_t *data, size_t size, uint8_t *out)
    int64_t dk_row_place(const dk_index *x, uint64_t block)
    uint64_t dk_row_length(const dk_index *x, uint64_t block)
    int dk_scan_open(dk_scanner *s, uint64_t key)
    void dk_scan_close(dk_scanner *s)
    int dk_run(dk_scanner *s)
    void dk_settle(dk_scanner *s)
    void dk_flush(dk_scanner *s)
    void dk_compact(dk_scanner *s)

name = "compiled"
instructions = (<bytes>dk_select_name()).decode()
CHAIN_LIMIT = DK_CHAIN_LIMIT


cdef int _fill(dk_params *p, parameters) except -1:
    p.block_size = parameters.block_size
    p.strong_size = parameters.strong_size
    p.place_size = parameters.place_size
    p.anchor_size = parameters.anchor_size
    p.weak = parameters.weak
    p.strong = parameters.strong
    p.multiplier = parameters.multiplier
    p.threshold = parameters.threshold
    p.select_low = parameters.select_low
    p.select_high = parameters.select_high
    p.anchor_seed = parameters.anchor_seed
    p.strong_seed = parameters.strong_seed
    if p.block_size == 0 or not 0 < p.strong_size <= DK_STRONG_MAX or p.place_size > 4:
        raise ValueError("impossible parameters")
    if p.threshold and not 8 <= p.anchor_size <= p.block_size:
        raise ValueError("impossible parameters")
    dk_prepare(p)
    return 0


def weak_sum(parameters, const uint8_t[::1] data, value=None):
    cdef dk_params p
    cdef uint32_t total
    cdef size_t size = data.shape[0]
    _fill(&p, parameters)
    total = dk_weak_start(&p) if value is None else value
    if size:
        with nogil:
            total = dk_weak_add(&p, total, &data[0], size)
    return total


def weak_roll(parameters, uint32_t value, uint64_t length, uint8_t out, uint8_t new):
    cdef dk_params p
    _fill(&p, parameters)
    return dk_weak_roll(&p, value, dk_power(&p, length), length, out, new)


def strong_sum(parameters, const uint8_t[::1] data):
    cdef dk_params p
    cdef uint8_t digest[32]
    cdef uint8_t nothing = 0
    _fill(&p, parameters)
    dk_strong(&p, &data[0] if data.shape[0] else &nothing, data.shape[0], digest)
    return digest[:p.strong_size]


def selected_by(str instructions, parameters, const uint8_t[::1] data):
    cdef dk_params p
    cdef uint64_t mask = 0
    cdef bytes name = instructions.encode()
    _fill(&p, parameters)
    if data.shape[0] < 64 + 7:
        raise ValueError("too few bytes")
    return mask if dk_select_by(name, &p, &data[0], &mask) else None


def bad_place(parameters, bytes rows, int64_t size):
    cdef dk_params p
    cdef dk_index x
    cdef uint64_t block
    cdef int64_t place, end, bad = DK_NONE
    _fill(&p, parameters)
    x.p = &p
    x.rows = <const uint8_t *>PyBytes_AS_STRING(rows)
    x.count = len(rows) // p.row_size
    x.size = size
    with nogil:
        for block in range(x.count):
            place = dk_row_place(&x, block)
            end = place + p.anchor_size
            if place != DK_NONE and end > <int64_t>dk_row_length(&x, block):
                bad = block
                break
    return None if bad == DK_NONE else bad


cdef class Signer:
    cdef dk_signer s

    def __cinit__(self, parameters):
        memset(&self.s, 0, sizeof(self.s))
        _fill(&self.s.p, parameters)
        self.s.seen = <uint64_t *>PyMem_Calloc((1 << DK_SEEN_LOG) // 64, 8)
        if self.s.seen == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.s.seen)

    def rows(self, const uint8_t[::1] data):
        cdef size_t size = data.shape[0]
        cdef size_t count = (size + self.s.p.block_size - 1) // self.s.p.block_size
        cdef bytes out = PyBytes_FromStringAndSize(NULL, count * self.s.p.row_size)
        cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(out)
        if size:
            with nogil:
                dk_rows(&self.s, &data[0], size, to)
        return out


cdef class Scanner:
    cdef dk_scanner *s
    cdef bytes rows
    cdef bint busy

    def __cinit__(self, parameters, bytes rows, size, int64_t capacity, vain_limit=None):
        cdef uint64_t key = int.from_bytes(os.urandom(8), "little")
        cdef int failed
        self.s = <dk_scanner *>PyMem_Calloc(1, sizeof(dk_scanner))
        if self.s == NULL:
            raise MemoryError
        _fill(&self.s.p, parameters)
        if len(rows) // self.s.p.row_size >= 1 << 32:
            raise ValueError("too many blocks")
        self.rows = rows
        self.s.index.rows = <const uint8_t *>PyBytes_AS_STRING(rows)
        self.s.index.count = len(rows) // self.s.p.row_size
        self.s.index.size = DK_NONE if size is None else size
        self.s.capacity = capacity
        self.s.vain_limit = <uint64_t>-1 if vain_limit is None else vain_limit
        self.s.buffer = <uint8_t *>PyMem_Malloc(capacity)
        if self.s.buffer == NULL:
            raise MemoryError
        with nogil:
            failed = dk_scan_open(self.s, key)
        if failed:
            raise MemoryError

    def __dealloc__(self):
        if self.s != NULL:
            dk_scan_close(self.s)
            PyMem_Free(self.s.buffer)
            PyMem_Free(self.s)

    @property
    def matches(self):
        return self.s.matches

    @property
    def alarms(self):
        return self.s.alarms

    @property
    def vain(self):
        return self.s.vain

    def feed(self, const uint8_t[::1] data):
        cdef int64_t size = data.shape[0], done = 0, part
        cdef list ops = []
        self._enter()
        try:
            while done < size:
                part = min(size - done, self.s.capacity - self.s.filled)
                with nogil:
                    memcpy(self.s.buffer + self.s.filled, &data[done], part)
                self.s.filled += part
                done += part
                if self.s.filled == self.s.capacity:
                    self._run(ops)
                    dk_settle(self.s)
                    self._collect(ops)
                    with nogil:
                        dk_compact(self.s)
        finally:
            self.busy = False
        return ops

    def finish(self):
        cdef list ops = []
        self._enter()
        try:
            self.s.final = 1
            self._run(ops)
            dk_flush(self.s)
            self._collect(ops)
        finally:
            self.busy = False
        return ops

    cdef int _enter(self) except -1:
        # The GIL is free while the search runs: two threads must not share a scanner.
        if self.busy:
            raise RuntimeError("the scanner is in use by another thread")
        self.busy = True
        return 0

    cdef int _run(self, list ops) except -1:
        cdef int state = DK_FULL
        while state == DK_FULL:
            with nogil:
                state = dk_run(self.s)
            self._collect(ops)
        if state == DK_VAIN:
            raise OverflowError
        return 0

    cdef int _collect(self, list ops) except -1:
        cdef int i
        cdef dk_op op
        for i in range(self.s.op_count):
            op = self.s.ops[i]
            if op.offset == DK_NONE:
                ops.append(PyBytes_FromStringAndSize(<char *>self.s.buffer + op.start, op.length))
            elif i == 0 and ops and type(ops[-1]) is tuple and sum(ops[-1]) == op.offset:
                ops[-1] = (ops[-1][0], ops[-1][1] + op.length)
            else:
                ops.append((op.offset, op.length))
        self.s.op_count = 0
        return 0
