# cython: language_level=3, boundscheck=False
"""Many small files made beside Python, or moved by one call in which its other threads go on."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.errno cimport EINTR, errno
from libc.string cimport memset

import os

cdef extern from "<fcntl.h>" nogil:
    enum: O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW, O_CLOEXEC, F_DUPFD_CLOEXEC
    int fcntl(int fd, int what, ...)
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

cdef extern from "<signal.h>" nogil:
    enum: SIG_SETMASK
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t *signals)
    int pthread_sigmask(int how, const sigset_t *signals, sigset_t *before)

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *thread, const void *how, void *(*run)(void *) noexcept nogil, void *given)
    int pthread_join(pthread_t thread, void **result)

cdef extern from *:
    enum: __ATOMIC_RELEASE, __ATOMIC_ACQUIRE
    void __atomic_store_n(int *where, int value, int order) nogil
    int __atomic_load_n(int *where, int order) nogil

ctypedef struct Wish:
    Py_buffer name
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
    cdef int fd = openat(directory, <const char *>wish.name.buf, flags, wish.mode | 0o200)
    if fd < 0:
        return errno
    failed = _fill(fd, wish)
    if close(fd) and not failed:
        failed = errno
    if failed:
        unlinkat(directory, <const char *>wish.name.buf, 0)
    return failed


cdef struct Batch:
    Wish *wishes
    Py_ssize_t count
    int directory
    int failed
    int ended


cdef void *_make_all(void *given) noexcept nogil:
    """All files of a batch, or none of them; what a thread of the system's runs."""
    cdef Batch *batch = <Batch *>given
    cdef Py_ssize_t made = 0, i
    while made < batch.count and not batch.failed:
        batch.failed = _make(batch.directory, &batch.wishes[made])
        made += not batch.failed
    if batch.failed:
        for i in range(made):
            unlinkat(batch.directory, <const char *>batch.wishes[i].name.buf, 0)
    __atomic_store_n(&batch.ended, 1, __ATOMIC_RELEASE)
    return NULL


cdef class Making:
    # The thread is none of Python's.  One that had to wait for the interpreter's lock at its end
    # would cost the others more than it saves them: they let go of that lock for each hash.
    cdef Batch batch
    cdef pthread_t thread
    cdef bint running
    cdef Py_ssize_t held

    def __cinit__(self, int directory, list files):
        cdef Py_ssize_t i
        self.batch.count = len(files)
        self.batch.directory = fcntl(directory, F_DUPFD_CLOEXEC, 0)
        if self.batch.directory < 0:
            raise OSError(errno, os.strerror(errno))
        self.batch.wishes = <Wish *>PyMem_Calloc(self.batch.count or 1, sizeof(Wish))
        if self.batch.wishes == NULL:
            raise MemoryError
        for i in range(self.batch.count):
            _wish(&self.batch.wishes[i], files[i])
            self.held += 1
        self._start()

    cdef void _start(self) noexcept:
        cdef sigset_t every, before
        sigfillset(&every)  # those are for the threads that Python knows
        pthread_sigmask(SIG_SETMASK, &every, &before)
        self.running = pthread_create(&self.thread, NULL, _make_all, &self.batch) == 0
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if not self.running:
            with nogil:
                _make_all(&self.batch)

    def done(self):
        return __atomic_load_n(&self.batch.ended, __ATOMIC_ACQUIRE) != 0

    def result(self):
        self._join()
        if self.batch.failed:
            raise OSError(self.batch.failed, os.strerror(self.batch.failed))
        return [_seen(&self.batch.wishes[i].found) for i in range(self.batch.count)]

    cdef void _join(self) noexcept:
        if self.running:
            with nogil:
                pthread_join(self.thread, NULL)
            self.running = False

    def __dealloc__(self):
        cdef Py_ssize_t i
        self._join()
        for i in range(self.held):
            PyBuffer_Release(&self.batch.wishes[i].name)
            PyBuffer_Release(&self.batch.wishes[i].data)
        PyMem_Free(self.batch.wishes)
        if self.batch.directory >= 0:
            close(self.batch.directory)


cdef int _wish(Wish *wish, object file) except -1:
    """Hold the memory of a name and a content; nothing, where that fails."""
    name, data, mode, mtime_ns = file
    wish.mode = mode
    wish.times[0].tv_sec = wish.times[1].tv_sec = mtime_ns // 1_000_000_000
    wish.times[0].tv_nsec = wish.times[1].tv_nsec = mtime_ns % 1_000_000_000
    PyObject_GetBuffer(<bytes?>name, &wish.name, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(data, &wish.data, PyBUF_SIMPLE)
    except:
        PyBuffer_Release(&wish.name)
        raise
    return 0


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
