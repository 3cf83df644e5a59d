/* The kernel's C part: sums, selection of anchors, rows, and the search.
 *
 * Pointers and lengths in, numbers out: nothing here opens, decides policy or knows Python.
 * _kernel_py.py defines what every function gives, bit for bit.
 */
#ifndef DBLIKE_CORE_H
#define DBLIKE_CORE_H

#include <stddef.h>
#include <stdint.h>

enum { DK_POLYNOMIAL, DK_RABIN_KARP, DK_ROLLSUM };
enum { DK_XXH3, DK_BLAKE2, DK_MD4 };

#define DK_ANCHOR_TRIES 8
#define DK_CHAIN_LIMIT 32
#define DK_VAIN_FACTOR 8
#define DK_VAIN_SLACK (1u << 20)
#define DK_SEEN_LOG 19
#define DK_SEEN_MAX (1u << 17)
#define DK_NONE (-1)
#define DK_STRONG_MAX 32
#define DK_PRIME 0x7fffffffu
#define DK_SECRET 192

typedef struct {
    uint32_t block_size, strong_size, place_size, row_size, anchor_size;
    int weak, strong;
    uint32_t multiplier, threshold, select_low, select_high;
    uint64_t anchor_seed, strong_seed;
    /* made from the seeds once, not once a block */
    uint8_t strong_secret[DK_SECRET], anchor_secret[DK_SECRET];
} dk_params;

void dk_prepare(dk_params *p);

/* sums.c */
uint32_t dk_weak_start(const dk_params *p);
uint32_t dk_weak_add(const dk_params *p, uint32_t sum, const uint8_t *data, size_t size);
uint32_t dk_power(const dk_params *p, uint64_t exponent);
uint32_t dk_weak_roll(const dk_params *p, uint32_t sum, uint32_t power, uint64_t size, uint8_t out,
                      uint8_t in);
void dk_strong(const dk_params *p, const uint8_t *data, size_t size, uint8_t *out);
uint32_t dk_anchor(const dk_params *p, const uint8_t *data);

/* hashes.c: a whole message at once */
void dk_blake2b_256(const uint8_t *data, size_t size, uint8_t out[32]);
void dk_md4(const uint8_t *data, size_t size, uint8_t out[16]);

/* select.c: bit i says that data + i is selected; count <= 64, data[count + 6] is read */
uint64_t dk_select(const dk_params *p, const uint8_t *data, size_t count);
const char *dk_select_name(void);
/* Of 64 positions, with these instructions; 0 where this machine has not got them. */
int dk_select_by(const char *name, const dk_params *p, const uint8_t *data, uint64_t *mask);

/* sign.c */
typedef struct {
    dk_params p;
    uint64_t *seen; /* 1 << DK_SEEN_LOG bits */
    uint32_t noted;
    int has_last;
    uint8_t last[4 + 4 + DK_STRONG_MAX];
} dk_signer;

void dk_rows(dk_signer *s, const uint8_t *data, size_t size, uint8_t *out);

/* index.c: the rows, searchable.  4 bytes for a slot, 2 slots for a row: half of them
 * empty, a row that is not there costs little to look for.  Two bit filters. */
typedef struct {
    const dk_params *p;
    const uint8_t *rows;
    uint64_t count;
    int64_t size;    /* of the base; DK_NONE: not known */
    uint32_t *slots; /* block + 1; 0: empty */
    uint64_t slot_count;
    uint64_t *filters[2]; /* by kind: anchored, rolled */
    int filter_shifts[2];
    uint64_t members[2];
    uint64_t key; /* of this process only: nobody can prepare long probes */
} dk_index;

typedef struct {
    uint64_t slot;
    uint32_t weak;
    int kind;
} dk_probe;

enum { DK_ANCHORED, DK_ROLLED };

int dk_index_open(dk_index *x, uint64_t key);
void dk_index_close(dk_index *x);
uint32_t dk_row_weak(const dk_index *x, uint64_t block);
int64_t dk_row_place(const dk_index *x, uint64_t block);
const uint8_t *dk_row_strong(const dk_index *x, uint64_t block);
uint64_t dk_row_length(const dk_index *x, uint64_t block);
int64_t dk_probe_next(const dk_index *x, dk_probe *probe); /* a block, or DK_NONE */
dk_probe dk_probe_start(const dk_index *x, int kind, uint32_t weak);

static inline uint64_t dk_mix(uint64_t key, int kind, uint32_t weak) {
    uint64_t h = ((uint64_t)weak << 1 | (uint64_t)kind) * key;
    return (h ^ h >> 32) * 0x9E3779B97F4A7C15u;
}

static inline uint32_t dk_filter_bit(const dk_index *x, int kind, uint32_t weak) {
    return weak * 0x9E3779B1u >> x->filter_shifts[kind];
}

/* Whether a row may have this weak sum: one look into a table that fits in L1 or L2. */
static inline int dk_maybe(const dk_index *x, int kind, uint32_t weak) {
    uint32_t at = dk_filter_bit(x, kind, weak);
    return (int)(x->filters[kind][at >> 6] >> (at & 63) & 1);
}

/* Fetches what dk_maybe will look at. */
static inline void dk_maybe_soon(const dk_index *x, int kind, uint32_t weak) {
    __builtin_prefetch(&x->filters[kind][dk_filter_bit(x, kind, weak) >> 6]);
}

/* scan.c */
typedef struct {
    int64_t offset; /* in the base; DK_NONE: a literal */
    uint64_t start, length; /* of the literal in the buffer; of the copy */
} dk_op;

#define DK_OPS 1024
enum { DK_MORE, DK_FULL, DK_VAIN };

typedef struct {
    dk_params p;
    dk_index index;
    uint8_t *buffer;
    int64_t capacity, filled;
    int64_t at, next, gap, expect;
    int64_t dropped; /* bytes of the stream before the buffer */
    int final;
    /* the strong sum computed last */
    int64_t vain_start, vain_length;
    uint8_t vain_strong[DK_STRONG_MAX];
    uint64_t matches, alarms, vain, vain_limit;
    int overworked;
    /* the rolling window computed last */
    int64_t roll_at;
    uint32_t roll_sum, roll_power;
    uint32_t roll_out[256];
    dk_op ops[DK_OPS];
    int op_count;
} dk_scanner;

int dk_scan_open(dk_scanner *s, uint64_t key);
void dk_scan_close(dk_scanner *s);
int dk_run(dk_scanner *s);     /* DK_MORE: all that can be said now was said */
void dk_settle(dk_scanner *s); /* a literal op for what can't be part of a match any more */
void dk_flush(dk_scanner *s);  /* a literal op for all that is left */
void dk_compact(dk_scanner *s);

/* roll.c: the first start in [start, stop) whose window may be a block: DK_NONE where there is none */
int64_t dk_roll(dk_scanner *s, int64_t start, int64_t stop);

#endif
