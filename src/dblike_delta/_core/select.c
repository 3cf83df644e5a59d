/* Which positions are selected: 64 at a time with the widest instructions that this machine has.
 *
 * A position's value takes its 8 bytes as two little-endian words.  Loading 16 words at data + r
 * gives the low words of positions r, r + 4, r + 8...: four loads cover 64 positions.
 */
#include "core.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define DK_X86 1
#include <immintrin.h>
#endif

static inline uint32_t word(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    return v;
}

static uint64_t select_plain(const dk_params *p, const uint8_t *data, size_t count) {
    uint64_t mask = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t value = word(data + i) * p->select_low + word(data + i + 4) * p->select_high;
        mask |= (uint64_t)(value >= p->threshold) << i;
    }
    return mask;
}

#ifdef DK_X86
__attribute__((target("avx2,bmi2"))) static uint64_t select_avx2(const dk_params *p,
                                                                 const uint8_t *data) {
    const __m256i low = _mm256_set1_epi32((int)p->select_low);
    const __m256i high = _mm256_set1_epi32((int)p->select_high);
    const __m256i threshold = _mm256_set1_epi32((int)p->threshold);
    uint64_t mask = 0;
    for (int half = 0; half < 64; half += 32)
        for (int r = 0; r < 4; r++) {
            const uint8_t *at = data + half + r;
            __m256i a = _mm256_loadu_si256((const __m256i *)at);
            __m256i b = _mm256_loadu_si256((const __m256i *)(at + 4));
            __m256i v = _mm256_add_epi32(_mm256_mullo_epi32(a, low), _mm256_mullo_epi32(b, high));
            v = _mm256_cmpeq_epi32(_mm256_max_epu32(v, threshold), v);
            unsigned hits = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(v));
            if (hits) mask |= _pdep_u64(hits, 0x11111111u) << (half + r);
        }
    return mask;
}

__attribute__((target("avx512f,bmi2"))) static uint64_t select_avx512(const dk_params *p,
                                                                      const uint8_t *data) {
    const __m512i low = _mm512_set1_epi32((int)p->select_low);
    const __m512i high = _mm512_set1_epi32((int)p->select_high);
    const __m512i threshold = _mm512_set1_epi32((int)p->threshold);
    __mmask16 hits[4];
    for (int r = 0; r < 4; r++) {
        __m512i a = _mm512_loadu_si512(data + r), b = _mm512_loadu_si512(data + r + 4);
        __m512i v = _mm512_add_epi32(_mm512_mullo_epi32(a, low), _mm512_mullo_epi32(b, high));
        hits[r] = _mm512_cmpge_epu32_mask(v, threshold);
    }
    if (!(hits[0] | hits[1] | hits[2] | hits[3])) return 0;
    uint64_t mask = 0;
    for (int r = 0; r < 4; r++) mask |= _pdep_u64(hits[r], 0x1111111111111111u) << r;
    return mask;
}

typedef uint64_t (*selector)(const dk_params *, const uint8_t *);

static uint64_t select_64(const dk_params *p, const uint8_t *data) {
    return select_plain(p, data, 64);
}

static selector chosen = select_64;

/* NULL where this machine has not these instructions. */
static selector named(const char *name) {
    __builtin_cpu_init();
    if (!strcmp(name, "plain")) return select_64;
    if (!__builtin_cpu_supports("bmi2")) return NULL;
    if (!strcmp(name, "avx512") && __builtin_cpu_supports("avx512f")) return select_avx512;
    if (!strcmp(name, "avx2") && __builtin_cpu_supports("avx2")) return select_avx2;
    return NULL;
}

__attribute__((constructor)) static void choose(void) {
    chosen = named("avx512");
    if (!chosen) chosen = named("avx2");
    if (!chosen) chosen = select_64;
}

int dk_select_by(const char *name, const dk_params *p, const uint8_t *data, uint64_t *mask) {
    selector select = named(name);
    if (select) *mask = select(p, data);
    return select != NULL;
}

uint64_t dk_select(const dk_params *p, const uint8_t *data, size_t count) {
    return count == 64 ? chosen(p, data) : select_plain(p, data, count);
}

const char *dk_select_name(void) {
    return chosen == select_avx512 ? "avx512" : chosen == select_avx2 ? "avx2" : "plain";
}
#else
uint64_t dk_select(const dk_params *p, const uint8_t *data, size_t count) {
    return select_plain(p, data, count);
}

int dk_select_by(const char *name, const dk_params *p, const uint8_t *data, uint64_t *mask) {
    if (strcmp(name, "plain")) return 0;
    *mask = select_plain(p, data, 64);
    return 1;
}

const char *dk_select_name(void) { return "plain"; }
#endif
