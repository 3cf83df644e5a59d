/* Rows: weak sum, place of the anchor, strong sum. */
#include "core.h"

#include <string.h>

static int note(dk_signer *s, uint32_t cell) {
    uint64_t bit = (uint64_t)1 << (cell & 63), *word = &s->seen[cell >> 6];
    if (*word & bit) return 0;
    if (s->noted == DK_SEEN_MAX) {
        memset(s->seen, 0, ((size_t)1 << DK_SEEN_LOG) / 8);
        s->noted = 0;
    }
    *word |= bit;
    s->noted++;
    return 1;
}

/* The first selected place whose sum was not given before; else the first one; else DK_NONE. */
static int64_t find_anchor(dk_signer *s, const uint8_t *block, int64_t size, uint32_t *weak) {
    const int64_t places = size - (int64_t)s->p.anchor_size + 1;
    int64_t first = DK_NONE;
    int tries = 0;
    for (int64_t at = 0; at < places; at += 64) {
        uint64_t mask = dk_select(&s->p, block + at, (size_t)(places - at < 64 ? places - at : 64));
        for (; mask; mask &= mask - 1) {
            int64_t place = at + __builtin_ctzll(mask);
            uint32_t sum = dk_anchor(&s->p, block + place);
            int fresh = note(s, sum >> (32 - DK_SEEN_LOG));
            if (fresh || first == DK_NONE) *weak = sum;
            if (fresh) return place;
            if (first == DK_NONE) first = place;
            if (++tries == DK_ANCHOR_TRIES) return first;
        }
    }
    return first;
}

static void put(uint8_t *out, uint64_t value, unsigned width) {
    for (unsigned i = 0; i < width; i++) out[i] = (uint8_t)(value >> 8 * (width - 1 - i));
}

static void sign_block(dk_signer *s, const uint8_t *block, size_t size, uint8_t *row) {
    const dk_params *p = &s->p;
    const int whole = size == p->block_size;
    uint8_t *strong = row + 4 + p->place_size;
    dk_strong(p, block, size, strong);
    if (whole && s->has_last && p->strong == DK_XXH3 &&
        !memcmp(s->last + 4 + p->place_size, strong, p->strong_size)) {
        memcpy(row, s->last, p->row_size); /* a run of equal blocks costs its strong sums only */
        return;
    }
    uint32_t weak = 0;
    int64_t place = p->threshold ? find_anchor(s, block, (int64_t)size, &weak) : DK_NONE;
    if (place == DK_NONE) weak = dk_weak_add(p, dk_weak_start(p), block, size);
    put(row, weak, 4);
    put(row + 4, (uint64_t)place, p->place_size);
    s->has_last = whole;
    if (whole) memcpy(s->last, row, p->row_size);
}

void dk_rows(dk_signer *s, const uint8_t *data, size_t size, uint8_t *out) {
    const size_t block = s->p.block_size;
    while (size) {
        size_t part = size < block ? size : block;
        sign_block(s, data, part, out);
        data += part;
        size -= part;
        out += s->p.row_size;
    }
}
