/* The rows, searchable by weak sum. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

#define FILTER_LOG_MIN 9
#define FILTER_LOG_MAX 23 /* 1 MiB: what an L2 cache holds */
#define BITS_FOR_A_ROW 64 /* rolling looks at each byte: one in 64 of them is in vain */

static uint64_t get(const uint8_t *p, unsigned width) {
    uint64_t v = 0;
    for (unsigned i = 0; i < width; i++) v = v << 8 | p[i];
    return v;
}

static const uint8_t *row(const dk_index *x, uint64_t block) {
    return x->rows + block * x->p->row_size;
}

uint32_t dk_row_weak(const dk_index *x, uint64_t block) { return (uint32_t)get(row(x, block), 4); }

int64_t dk_row_place(const dk_index *x, uint64_t block) {
    unsigned width = x->p->place_size;
    if (!width) return DK_NONE;
    uint64_t place = get(row(x, block) + 4, width);
    return place == ((uint64_t)1 << 8 * width) - 1 ? DK_NONE : (int64_t)place;
}

const uint8_t *dk_row_strong(const dk_index *x, uint64_t block) {
    return row(x, block) + 4 + x->p->place_size;
}

uint64_t dk_row_length(const dk_index *x, uint64_t block) {
    if (x->size == DK_NONE || block + 1 < x->count) return x->p->block_size;
    return (uint64_t)x->size - block * x->p->block_size;
}

static int kind_of(const dk_index *x, uint64_t block) {
    return dk_row_place(x, block) == DK_NONE ? DK_ROLLED : DK_ANCHORED;
}

dk_probe dk_probe_start(const dk_index *x, int kind, uint32_t weak) {
    dk_probe probe = {0, weak, kind};
    probe.slot = (dk_mix(x->key, kind, weak) >> 32) * x->slot_count >> 32;
    return probe;
}

static uint64_t following(const dk_index *x, uint64_t slot) {
    return slot + 1 == x->slot_count ? 0 : slot + 1;
}

int64_t dk_probe_next(const dk_index *x, dk_probe *probe) {
    uint32_t entry;
    while ((entry = x->slots[probe->slot])) {
        uint64_t block = entry - 1;
        probe->slot = following(x, probe->slot);
        if (dk_row_weak(x, block) == probe->weak && kind_of(x, block) == probe->kind)
            return (int64_t)block;
    }
    return DK_NONE;
}

/* Enters a block unless an equal one is there, or as many of its weak sum as are looked at. */
static void enter(dk_index *x, uint64_t block) {
    const int kind = kind_of(x, block);
    const uint64_t length = dk_row_length(x, block);
    if (kind == DK_ROLLED && length < x->p->block_size) return;
    const uint32_t weak = dk_row_weak(x, block);
    dk_probe probe = dk_probe_start(x, kind, weak);
    int64_t other;
    int chain = 0;
    while ((other = dk_probe_next(x, &probe)) != DK_NONE) {
        if (++chain == DK_CHAIN_LIMIT) return;
        if (!memcmp(row(x, (uint64_t)other), row(x, block), x->p->row_size) &&
            dk_row_length(x, (uint64_t)other) == length)
            return;
    }
    x->slots[probe.slot] = (uint32_t)block + 1;
    uint32_t at = dk_filter_bit(x, kind, weak);
    x->filters[kind][at >> 6] |= (uint64_t)1 << (at & 63);
    x->members[kind]++;
}

static int filter_log(uint64_t rows) {
    int log = FILTER_LOG_MIN;
    while (log < FILTER_LOG_MAX && (uint64_t)1 << log < rows * BITS_FOR_A_ROW) log++;
    return log;
}

int dk_index_open(dk_index *x, uint64_t key) {
    uint64_t counts[2] = {0, 0};
    for (uint64_t block = 0; block < x->count; block++) counts[kind_of(x, block)]++;
    x->key = key | 1;
    x->slot_count = 2 * x->count + 8;
    x->slots = calloc(x->slot_count, sizeof *x->slots);
    for (int kind = 0; kind < 2; kind++) {
        int log = filter_log(counts[kind]);
        x->filter_shifts[kind] = 32 - log;
        x->filters[kind] = calloc((size_t)1 << (log - 6), 8);
        x->members[kind] = 0;
    }
    if (!x->slots || !x->filters[0] || !x->filters[1]) return -1;
    for (uint64_t block = 0; block < x->count; block++) enter(x, block);
    return 0;
}

void dk_index_close(dk_index *x) {
    free(x->slots);
    free(x->filters[0]);
    free(x->filters[1]);
    x->slots = NULL;
    x->filters[0] = x->filters[1] = NULL;
}
