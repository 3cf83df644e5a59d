/* Weak and strong sums. */
#include "core.h"

#include <string.h>

#define XXH_INLINE_ALL
#include "../_vendor/xxhash/xxhash.h"

#ifdef DK_XXH_DISPATCH /* x86: the widest instructions that this machine has */
XXH128_hash_t XXH3_128bits_withSecret_dispatch(const void *input, size_t len, const void *secret,
                                               size_t secretLen);
XXH64_hash_t XXH3_64bits_withSecret_dispatch(const void *input, size_t len, const void *secret,
                                             size_t secretLen);
#define STRONG_XXH3 XXH3_128bits_withSecret_dispatch
#define ANCHOR_XXH3 XXH3_64bits_withSecret_dispatch
#else
#define STRONG_XXH3 XXH3_128bits_withSecret
#define ANCHOR_XXH3 XXH3_64bits_withSecret
#endif

#define ROLLSUM_OFFSET 31u

void dk_prepare(dk_params *p) {
    p->row_size = 4 + p->place_size + p->strong_size;
    XXH3_generateSecret_fromSeed(p->strong_secret, p->strong_seed);
    XXH3_generateSecret_fromSeed(p->anchor_secret, p->anchor_seed);
}

uint32_t dk_weak_start(const dk_params *p) { return p->weak == DK_RABIN_KARP ? 1 : 0; }

static uint32_t reduce(uint64_t x) {
    x = (x & DK_PRIME) + (x >> 31);
    x = (x & DK_PRIME) + (x >> 31);
    return (uint32_t)(x >= DK_PRIME ? x - DK_PRIME : x);
}

#define STEP 16

/* Many bytes a step: only one multiplication of a step waits for the step before it. */
static uint32_t polynomial(const dk_params *p, uint32_t sum, const uint8_t *d, size_t size) {
    uint64_t power[STEP + 1] = {1}, h = sum;
    for (int i = 1; i <= STEP; i++) power[i] = reduce(power[i - 1] * p->multiplier);
    for (; size >= STEP; d += STEP, size -= STEP) {
        uint64_t part = 0, x = h * power[STEP];
        for (int i = 0; i < STEP; i++) part += d[i] * power[STEP - 1 - i];
        x = (x & DK_PRIME) + (x >> 31) + part;
        h = (x & DK_PRIME) + (x >> 31);
    }
    for (; size; d++, size--) h = reduce(h * p->multiplier + *d);
    return reduce(h);
}

static uint32_t rabin_karp(const dk_params *p, uint32_t sum, const uint8_t *d, size_t size) {
    const uint32_t m = p->multiplier, m2 = m * m, m3 = m2 * m, m4 = m3 * m;
    const uint32_t m5 = m4 * m, m6 = m5 * m, m7 = m6 * m, m8 = m7 * m;
    for (; size >= 8; d += 8, size -= 8)
        sum = sum * m8 + (d[0] * m7 + d[1] * m6 + d[2] * m5 + d[3] * m4) +
              (d[4] * m3 + d[5] * m2 + d[6] * m + d[7]);
    for (; size; d++, size--) sum = sum * m + *d;
    return sum;
}

static uint32_t rollsum(uint32_t sum, const uint8_t *d, size_t size) {
    uint32_t low = sum & 0xffff, high = sum >> 16;
    for (; size; d++, size--) {
        low += *d + ROLLSUM_OFFSET;
        high += low;
    }
    return high << 16 | (low & 0xffff);
}

uint32_t dk_weak_add(const dk_params *p, uint32_t sum, const uint8_t *data, size_t size) {
    if (p->weak == DK_POLYNOMIAL) return polynomial(p, sum, data, size);
    if (p->weak == DK_RABIN_KARP) return rabin_karp(p, sum, data, size);
    return rollsum(sum, data, size);
}

uint32_t dk_power(const dk_params *p, uint64_t exponent) {
    int prime = p->weak == DK_POLYNOMIAL;
    uint64_t result = 1, base = p->multiplier;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) result = prime ? reduce(result * base) : (uint32_t)(result * base);
        base = prime ? reduce(base * base) : (uint32_t)(base * base);
    }
    return (uint32_t)result;
}

uint32_t dk_weak_roll(const dk_params *p, uint32_t sum, uint32_t power, uint64_t size, uint8_t out,
                      uint8_t in) {
    if (p->weak == DK_POLYNOMIAL)
        return reduce((uint64_t)sum * p->multiplier + in + DK_PRIME -
                      reduce((uint64_t)out * power));
    if (p->weak == DK_RABIN_KARP)
        return sum * p->multiplier + in - (out + p->multiplier - 1) * power;
    uint32_t low = (sum & 0xffff) + in - out;
    uint32_t high = (sum >> 16) + low - (uint32_t)size * (out + ROLLSUM_OFFSET);
    return high << 16 | (low & 0xffff);
}

void dk_strong(const dk_params *p, const uint8_t *data, size_t size, uint8_t *out) {
    uint8_t digest[DK_STRONG_MAX];
    if (p->strong == DK_XXH3) {
        XXH128_hash_t h = size > 240 ? STRONG_XXH3(data, size, p->strong_secret, DK_SECRET)
                                     : XXH3_128bits_withSeed(data, size, p->strong_seed);
        XXH128_canonicalFromHash((XXH128_canonical_t *)digest, h);
    } else if (p->strong == DK_BLAKE2) {
        dk_blake2b_256(data, size, digest);
    } else {
        dk_md4(data, size, digest);
    }
    memcpy(out, digest, p->strong_size);
}

uint32_t dk_anchor(const dk_params *p, const uint8_t *data) {
    const size_t size = p->anchor_size;
    return (uint32_t)(size > 240 ? ANCHOR_XXH3(data, size, p->anchor_secret, DK_SECRET)
                                 : XXH3_64bits_withSeed(data, size, p->anchor_seed));
}
