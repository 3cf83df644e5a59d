/* The search: blocks that follow the last match by their strong sums alone; else by anchors and by
 * rolling; the base's tail at the very end. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

int dk_scan_open(dk_scanner *s, uint64_t key) {
    s->index.p = &s->p;
    s->roll_at = DK_NONE;
    s->vain_start = DK_NONE;
    s->expect = s->index.count ? 0 : DK_NONE;
    return dk_index_open(&s->index, key);
}

void dk_scan_close(dk_scanner *s) { dk_index_close(&s->index); }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Whether the strong sums agree.  A chain asks about one start many times. */
static int equal(dk_scanner *s, int64_t start, int64_t length, int64_t block) {
    if (s->vain_start != start || s->vain_length != length) {
        dk_strong(&s->p, s->buffer + start, (size_t)length, s->vain_strong);
        s->vain_start = start;
        s->vain_length = length;
        s->vain += (uint64_t)length;
    }
    if (!memcmp(s->vain_strong, dk_row_strong(&s->index, (uint64_t)block), s->p.strong_size)) {
        s->vain -= (uint64_t)length;
        return 1;
    }
    s->alarms++;
    s->overworked |= s->vain > s->vain_limit;
    return 0;
}

/* Whether so much was hashed in vain that this start is passed over.  Whoever prepared the sums
 * gets a longer delta, and it costs him, not us. */
static int is_tired(const dk_scanner *s, int64_t start) {
    return s->vain > DK_VAIN_FACTOR * (uint64_t)(s->dropped + start) + DK_VAIN_SLACK;
}

static void put_literal(dk_scanner *s, int64_t end) {
    if (end <= s->at) return;
    s->ops[s->op_count++] = (dk_op){DK_NONE, (uint64_t)s->at, (uint64_t)(end - s->at)};
    s->at = end;
}

static void put_copy(dk_scanner *s, int64_t block, int64_t length) {
    const int64_t offset = block * (int64_t)s->p.block_size;
    dk_op *last = s->op_count ? &s->ops[s->op_count - 1] : NULL;
    s->matches++;
    s->at += length;
    if (last && last->offset != DK_NONE && last->offset + (int64_t)last->length == offset)
        last->length += (uint64_t)length;
    else
        s->ops[s->op_count++] = (dk_op){offset, 0, (uint64_t)length};
}

static int64_t block_after(const dk_scanner *s, int64_t block) {
    return block + 1 < (int64_t)s->index.count ? block + 1 : DK_NONE;
}

/* Takes the blocks that follow the last match; 0 where more bytes are needed. */
static int follow(dk_scanner *s) {
    while (s->expect != DK_NONE) {
        const int64_t length = (int64_t)dk_row_length(&s->index, (uint64_t)s->expect);
        if (s->at + length > s->filled) {
            if (!s->final) return 0;
            break;
        }
        if (!equal(s, s->at, length, s->expect)) break;
        put_copy(s, s->expect, length);
        s->expect = block_after(s, s->expect);
    }
    s->expect = DK_NONE;
    s->next = s->gap = s->at;
    return 1;
}

static void accept(dk_scanner *s, int64_t start, int64_t block) {
    const int64_t size = s->p.block_size;
    const int64_t length =
        least((int64_t)dk_row_length(&s->index, (uint64_t)block), s->filled - start);
    int64_t before = block;
    /* A chain that was capped may have hidden the blocks before this one. */
    while (before && start - size >= s->at && equal(s, start - size, size, before - 1)) {
        start -= size;
        before--;
    }
    put_literal(s, start);
    for (; before < block; before++) put_copy(s, before, size);
    put_copy(s, block, length);
    s->expect = block_after(s, block);
    s->next = s->gap = s->at;
    s->roll_at = DK_NONE; /* its window was tested with success: not one to continue from */
}

enum { NOTHING, FOUND, WAIT };

/* A block without an anchor that starts in [gap, stop). */
static int roll(dk_scanner *s, int64_t stop, int64_t *start, int64_t *block) {
    int64_t at = most(s->gap, s->at);
    s->gap = most(s->gap, stop);
    if (!s->index.members[DK_ROLLED]) return NOTHING;
    while ((at = dk_roll(s, at, stop)) != DK_NONE) {
        dk_probe probe = dk_probe_start(&s->index, DK_ROLLED, s->roll_sum);
        while (!is_tired(s, at) && (*block = dk_probe_next(&s->index, &probe)) != DK_NONE)
            if (equal(s, at, s->p.block_size, *block)) {
                *start = at;
                return FOUND;
            }
        if (s->overworked) return NOTHING;
        at++;
    }
    return NOTHING;
}

/* A block whose anchor, of this weak sum, is at `position`. */
static int look(dk_scanner *s, int64_t position, uint32_t weak, int64_t *start, int64_t *block) {
    if (!dk_maybe(&s->index, DK_ANCHORED, weak) || is_tired(s, position)) return NOTHING;
    dk_probe probe = dk_probe_start(&s->index, DK_ANCHORED, weak);
    while ((*block = dk_probe_next(&s->index, &probe)) != DK_NONE) {
        const int64_t length = (int64_t)dk_row_length(&s->index, (uint64_t)*block);
        *start = position - dk_row_place(&s->index, (uint64_t)*block);
        if (*start < s->at) continue;
        if (*start + length > s->filled) {
            if (s->final) continue;
            s->next = position;
            return WAIT;
        }
        if (equal(s, *start, length, *block)) return FOUND;
    }
    return NOTHING;
}

/* The selected positions from s->next on, with their weak sums. */
typedef struct {
    int64_t chunk, position; /* DK_NONE: there are no more */
    uint64_t mask;
    uint32_t weak;
} walk;

/* Goes to the next one.  Its place in the filter is fetched, which takes as long as to hash the one
 * after it: so each is asked for one step before it is looked at. */
static void step(const dk_scanner *s, walk *w, int64_t stop) {
    while (!w->mask) {
        w->chunk += 64;
        w->position = DK_NONE;
        if (w->chunk >= stop) return;
        w->mask = dk_select(&s->p, s->buffer + w->chunk, (size_t)least(stop - w->chunk, 64));
    }
    w->position = w->chunk + __builtin_ctzll(w->mask);
    w->mask &= w->mask - 1;
    if (!s->index.members[DK_ANCHORED]) return;
    w->weak = dk_anchor(&s->p, s->buffer + w->position);
    dk_maybe_soon(&s->index, DK_ANCHORED, w->weak);
}

static int search_anchors(dk_scanner *s, int64_t *start, int64_t *block) {
    const int64_t reach = (int64_t)s->p.block_size - s->p.anchor_size;
    const int64_t stop = s->filled - (int64_t)s->p.anchor_size + 1;
    walk ahead = {s->next - 64, DK_NONE, 0, 0};
    step(s, &ahead, stop);
    while (ahead.position != DK_NONE) {
        const walk now = ahead;
        step(s, &ahead, stop);
        int found = roll(s, now.position - reach, start, block);
        if (found == NOTHING && s->index.members[DK_ANCHORED])
            found = look(s, now.position, now.weak, start, block);
        if (found != NOTHING) return found;
        if (s->overworked) return NOTHING;
        s->gap = most(s->gap, now.position + 1);
    }
    s->next = most(s->next, stop);
    return NOTHING;
}

/* The base's last block, short, at the very end.  librsync does not say how short: then its weak
 * sum is compared with that of every end of the stream, each made from the one before it. */
static int search_tail(dk_scanner *s, int64_t *start, int64_t *block) {
    const dk_params *p = &s->p;
    *block = (int64_t)s->index.count - 1;
    if (*block < 0) return NOTHING;
    if (s->index.size != DK_NONE) {
        const int64_t length = (int64_t)dk_row_length(&s->index, (uint64_t)*block);
        *start = s->filled - length;
        return *start >= s->at && equal(s, *start, length, *block) ? FOUND : NOTHING;
    }
    const uint32_t wanted = dk_row_weak(&s->index, (uint64_t)*block);
    const int64_t first = most(s->at, s->filled - (int64_t)p->block_size + 1);
    uint32_t low = 0, high = 0, power = 1;
    for (*start = s->filled - 1; *start >= first; --*start) {
        const uint32_t length = (uint32_t)(s->filled - *start), byte = s->buffer[*start];
        uint32_t sum;
        if (p->weak == DK_RABIN_KARP) {
            low += byte * power;
            power *= p->multiplier;
            sum = low + power;
        } else {
            low += byte + 31;
            high += length * (byte + 31);
            sum = high << 16 | (low & 0xffff);
        }
        if (sum == wanted && equal(s, *start, length, *block)) return FOUND;
        if (s->overworked) return NOTHING;
    }
    return NOTHING;
}

static int search(dk_scanner *s, int64_t *start, int64_t *block) {
    int found = NOTHING;
    if (s->p.threshold) found = search_anchors(s, start, block);
    if (found == NOTHING && !s->overworked)
        found = roll(s, s->filled - (int64_t)s->p.block_size + 1, start, block);
    if (found == NOTHING && !s->overworked && s->final) found = search_tail(s, start, block);
    return found;
}

int dk_run(dk_scanner *s) {
    for (;;) {
        int64_t start, block;
        if (s->overworked) return DK_VAIN;
        if (s->op_count > DK_OPS - 8) return DK_FULL;
        if (s->expect != DK_NONE && !follow(s)) return DK_MORE;
        if (search(s, &start, &block) != FOUND) return s->overworked ? DK_VAIN : DK_MORE;
        accept(s, start, block);
    }
}

void dk_settle(dk_scanner *s) {
    const int64_t reach = (int64_t)s->p.block_size - s->p.anchor_size;
    if (s->expect == DK_NONE) put_literal(s, s->p.threshold ? s->next - reach : s->gap);
}

void dk_flush(dk_scanner *s) { put_literal(s, s->filled); }

void dk_compact(dk_scanner *s) {
    const int64_t shift = most(0, s->at - 1); /* the rolling window still takes one byte out */
    memmove(s->buffer, s->buffer + shift, (size_t)(s->filled - shift));
    s->dropped += shift;
    s->filled -= shift;
    s->at -= shift;
    s->next -= shift;
    s->gap -= shift;
    s->roll_at = s->roll_at >= shift ? s->roll_at - shift : DK_NONE;
    s->vain_start = DK_NONE;
}
