/* The rolling window: one byte out, one in, a look into the filter. */
#include "core.h"

#include <string.h>

/* Whether a window and the byte after it are all the same byte. */
static int is_run(const uint8_t *window, int64_t size) {
    return !memcmp(window, window + 1, (size_t)size);
}

static int64_t run_end(const uint8_t *buffer, int64_t at, int64_t end) {
    const uint8_t byte = buffer[at];
    while (at + 32 <= end && !memcmp(buffer + at, buffer + at + 1, 31) && buffer[at + 31] == byte)
        at += 32;
    while (at < end && buffer[at] == byte) at++;
    return at;
}

enum { EXHAUSTED, MAYBE, SAME };

static void open_window(dk_scanner *s, int64_t start) {
    const dk_params *p = &s->p;
    if (!s->roll_power) {
        s->roll_power = dk_power(p, p->block_size);
        for (uint32_t out = 0; out < 256; out++)
            s->roll_out[out] = dk_weak_roll(p, 0, s->roll_power, p->block_size, (uint8_t)out, 0);
    }
    s->roll_sum = dk_weak_add(p, dk_weak_start(p), s->buffer + start, p->block_size);
    s->roll_at = start;
}

/* Each moves the window on from roll_at, which was tested, until the filter says "maybe", or the
 * sum stays the same as in a run of one byte, or the last start before stop was tested. */

#define ROLL_LOOP(NEXT)                                                                            \
    while (at + 1 < stop) {                                                                        \
        const uint8_t gone = s->buffer[at], come = s->buffer[at + size];                           \
        uint32_t now;                                                                              \
        NEXT;                                                                                      \
        at++;                                                                                      \
        if (now == sum && gone == come) {                                                          \
            found = SAME;                                                                          \
            break;                                                                                 \
        }                                                                                          \
        sum = now;                                                                                 \
        if (dk_maybe(&s->index, DK_ROLLED, sum)) {                                                 \
            found = MAYBE;                                                                         \
            break;                                                                                 \
        }                                                                                          \
    }                                                                                              \
    s->roll_at = at;                                                                               \
    s->roll_sum = sum;                                                                             \
    return found

static int roll_polynomial(dk_scanner *s, int64_t stop) {
    const int64_t size = s->p.block_size;
    const uint64_t m = s->p.multiplier;
    int64_t at = s->roll_at;
    uint32_t sum = s->roll_sum;
    uint64_t h = sum; /* below 2^32, and m below 2^30: one reduction a byte keeps it there */
    int found = EXHAUSTED;
    ROLL_LOOP({
        uint64_t x = h * m + (s->roll_out[gone] + (uint64_t)come);
        h = (x & DK_PRIME) + (x >> 31);
        now = (uint32_t)((h & DK_PRIME) + (h >> 31));
        now = now >= DK_PRIME ? now - DK_PRIME : now;
    });
}

static int roll_rabin_karp(dk_scanner *s, int64_t stop) {
    const int64_t size = s->p.block_size;
    const uint32_t m = s->p.multiplier;
    int64_t at = s->roll_at;
    uint32_t sum = s->roll_sum;
    int found = EXHAUSTED;
    ROLL_LOOP(now = sum * m + (s->roll_out[gone] + come));
}

static int roll_rollsum(dk_scanner *s, int64_t stop) {
    const int64_t size = s->p.block_size;
    int64_t at = s->roll_at;
    uint32_t sum = s->roll_sum, low = sum & 0xffff, high = sum >> 16;
    int found = EXHAUSTED;
    ROLL_LOOP({
        low += (uint32_t)come - gone;
        high += low - (uint32_t)size * (gone + 31u);
        now = high << 16 | (low & 0xffff);
    });
}

static int roll_on(dk_scanner *s, int64_t stop) {
    if (s->p.weak == DK_POLYNOMIAL) return roll_polynomial(s, stop);
    if (s->p.weak == DK_RABIN_KARP) return roll_rabin_karp(s, stop);
    return roll_rollsum(s, stop);
}

int64_t dk_roll(dk_scanner *s, int64_t start, int64_t stop) {
    const int64_t size = s->p.block_size;
    if (start >= stop) return DK_NONE;
    if (s->roll_at == DK_NONE || s->roll_at + 1 != start) {
        open_window(s, start);
        if (dk_maybe(&s->index, DK_ROLLED, s->roll_sum)) return start;
    }
    for (;;) {
        int found = roll_on(s, stop);
        if (found == EXHAUSTED) return DK_NONE;
        /* In a run of one byte every window is the one before it: go to where the run ends. */
        if (found == SAME && is_run(s->buffer + s->roll_at - 1, size))
            s->roll_at = run_end(s->buffer, s->roll_at, stop - 1 + size) - size;
        else if (dk_maybe(&s->index, DK_ROLLED, s->roll_sum))
            return s->roll_at;
    }
}
