# cython: language_level=3, boundscheck=False
"""Many small files made, or moved, by one call, in which other threads of Python go on."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.errno cimport EINTR, errno
from libc.string cimport memset

import os

cdef extern from "<fcntl.h>" nogil:
    enum: O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW, O_CLOEXEC
    enum: AT_SYMLINK_NOFOLLOW
    int openat(int directory, const char *name, int flags, unsigned int mode)

cdef extern from "<sys/stat.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    cdef struct stat_t "stat":
        unsigned int st_mode
        long st_size
        timespec st_mtim
        timespec st_ctim
        unsigned long st_ino
        unsigned long st_dev
    int fstat(int fd, stat_t *found)
    int fstatat(int directory, const char *name, stat_t *found, int flags)
    int fchmod(int fd, unsigned int mode)
    int futimens(int fd, const timespec *times)

cdef extern from "<stdio.h>" nogil:
    enum: RENAME_NOREPLACE
    int renameat2(int old, const char *a, int new, const char *b, unsigned int flags)

cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *data, size_t size)
    int close(int fd)
    int unlinkat(int directory, const char *name, int flags)

ctypedef struct Wish:
    const char *name
    Py_buffer data
    unsigned int mode
    timespec times[2]
    stat_t found


cdef int _fill(int fd, Wish *wish) noexcept nogil:
    """The bytes, time and mode of a file; an errno."""
    cdef const char *at = <const char *>wish.data.buf
    cdef ssize_t left = wish.data.len, done
    while left:
        done = write(fd, at, left)
        if done < 0:
            if errno == EINTR:
                continue
            return errno
        at += done
        left -= done
    if futimens(fd, wish.times) or fstat(fd, &wish.found):
        return errno
    if wish.found.st_mode & 0o777 != wish.mode:
        if fchmod(fd, wish.mode) or fstat(fd, &wish.found):
            return errno
    return 0


cdef int _make(int directory, Wish *wish) noexcept nogil:
    """One file, or none of it; an errno."""
    cdef int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, failed
    cdef int fd = openat(directory, wish.name, flags, wish.mode | 0o200)
    if fd < 0:
        return errno
    failed = _fill(fd, wish)
    if close(fd) and not failed:
        failed = errno
    if failed:
        unlinkat(directory, wish.name, 0)
    return failed


def create_files(int directory, list files):
    cdef Py_ssize_t count = len(files), held = 0, made = 0, i
    cdef int failed = 0
    cdef Wish *wishes = <Wish *>PyMem_Calloc(count or 1, sizeof(Wish))
    if wishes == NULL:
        raise MemoryError
    try:
        for i in range(count):
            name, data, mode, mtime_ns = files[i]
            wishes[i].name = name
            wishes[i].mode = mode
            wishes[i].times[0].tv_sec = wishes[i].times[1].tv_sec = mtime_ns // 1_000_000_000
            wishes[i].times[0].tv_nsec = wishes[i].times[1].tv_nsec = mtime_ns % 1_000_000_000
            PyObject_GetBuffer(data, &wishes[i].data, PyBUF_SIMPLE)
            held += 1
        with nogil:
            while made < count and not failed:
                failed = _make(directory, &wishes[made])
                made += not failed
            if failed:
                for i in range(made):
                    unlinkat(directory, wishes[i].name, 0)
        if failed:
            raise OSError(failed, os.strerror(failed))
        return [_seen(&wishes[i].found) for i in range(count)]
    finally:
        for i in range(held):
            PyBuffer_Release(&wishes[i].data)
        PyMem_Free(wishes)


ctypedef struct Move:
    const char *source
    const char *target
    bint failed
    stat_t found


cdef void _move(int old, int new, Move *move) noexcept nogil:
    move.failed = renameat2(old, move.source, new, move.target, RENAME_NOREPLACE) != 0
    if not move.failed and fstatat(new, move.target, &move.found, AT_SYMLINK_NOFOLLOW):
        memset(&move.found, 0, sizeof(stat_t))


def move_files(int old, int new, list names):
    cdef Py_ssize_t count = len(names), i
    cdef Move *moves = <Move *>PyMem_Calloc(count or 1, sizeof(Move))
    if moves == NULL:
        raise MemoryError
    try:
        for i in range(count):
            source, target = names[i]
            moves[i].source = source
            moves[i].target = target
        with nogil:
            for i in range(count):
                _move(old, new, &moves[i])
        return [None if moves[i].failed else _seen(&moves[i].found) for i in range(count)]
    finally:
        PyMem_Free(moves)


cdef tuple _seen(stat_t *found):
    return (
        found.st_mode, found.st_size, _ns(found.st_mtim), _ns(found.st_ctim),
        found.st_ino, found.st_dev,
    )


cdef object _ns(timespec time):
    return <object>time.tv_sec * 1_000_000_000 + time.tv_nsec
