/* BLAKE2b-256 (RFC 7693) and MD4 (RFC 1320): librsync's strong sums. */
#include "core.h"

#include <string.h>

static inline uint64_t load64(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static inline uint32_t load32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static const uint64_t IV[8] = {
    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u,
};

#define ROTATE(x, n) ((x) >> (n) | (x) << (64 - (n)))
#define MIX(a, b, c, d, x, y)                                                                      \
    do {                                                                                           \
        a += b + (x); d = ROTATE(d ^ a, 32); c += d; b = ROTATE(b ^ c, 24);                        \
        a += b + (y); d = ROTATE(d ^ a, 16); c += d; b = ROTATE(b ^ c, 63);                        \
    } while (0)
/* The schedule is written into the code, so that no word is looked up through a table. */
#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf)                      \
    do {                                                                                           \
        MIX(v0, v4, v8, vc, m[s0], m[s1]); MIX(v1, v5, v9, vd, m[s2], m[s3]);                      \
        MIX(v2, v6, va, ve, m[s4], m[s5]); MIX(v3, v7, vb, vf, m[s6], m[s7]);                      \
        MIX(v0, v5, va, vf, m[s8], m[s9]); MIX(v1, v6, vb, vc, m[sa], m[sb]);                      \
        MIX(v2, v7, v8, vd, m[sc], m[sd]); MIX(v3, v4, v9, ve, m[se], m[sf]);                      \
    } while (0)

static void blake2b_compress(uint64_t h[8], const uint8_t *block, uint64_t count, int last) {
    uint64_t m[16];
    for (int i = 0; i < 16; i++) m[i] = load64(block + 8 * i);
    uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    uint64_t v8 = IV[0], v9 = IV[1], va = IV[2], vb = IV[3];
    uint64_t vc = IV[4] ^ count, vd = IV[5], ve = last ? ~IV[6] : IV[6], vf = IV[7];
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    h[0] ^= v0 ^ v8; h[1] ^= v1 ^ v9; h[2] ^= v2 ^ va; h[3] ^= v3 ^ vb;
    h[4] ^= v4 ^ vc; h[5] ^= v5 ^ vd; h[6] ^= v6 ^ ve; h[7] ^= v7 ^ vf;
}

void dk_blake2b_256(const uint8_t *data, size_t size, uint8_t out[32]) {
    uint64_t h[8];
    memcpy(h, IV, sizeof h);
    h[0] ^= 0x01010000u ^ 32; /* digest of 32 bytes, no key, no tree */
    uint64_t count = 0;
    while (size > 128) { /* the last block, even a full one, is marked */
        count += 128;
        blake2b_compress(h, data, count, 0);
        data += 128;
        size -= 128;
    }
    uint8_t rest[128] = {0};
    if (size) memcpy(rest, data, size);
    blake2b_compress(h, rest, count + size, 1);
    for (int i = 0; i < 32; i++) out[i] = (uint8_t)(h[i / 8] >> 8 * (i % 8));
}

#define TURN(x, n) ((x) << (n) | (x) >> (32 - (n)))
#define F(x, y, z) (((x) & (y)) | (~(x) & (z)))
#define G(x, y, z) (((x) & (y)) | ((x) & (z)) | ((y) & (z)))
#define H(x, y, z) ((x) ^ (y) ^ (z))
#define STEP(f, a, b, c, d, word, constant, n) (a = TURN(a + f(b, c, d) + (word) + (constant), n))
#define FOUR(f, k, w0, w1, w2, w3, n0, n1, n2, n3)                                                 \
    do {                                                                                           \
        STEP(f, a, b, c, d, w0, k, n0); STEP(f, d, a, b, c, w1, k, n1);                            \
        STEP(f, c, d, a, b, w2, k, n2); STEP(f, b, c, d, a, w3, k, n3);                            \
    } while (0)

static void md4_compress(uint32_t state[4], const uint8_t *block) {
    uint32_t x[16], a = state[0], b = state[1], c = state[2], d = state[3];
    for (int i = 0; i < 16; i++) x[i] = load32(block + 4 * i);
    for (int i = 0; i < 16; i += 4) FOUR(F, 0, x[i], x[i + 1], x[i + 2], x[i + 3], 3, 7, 11, 19);
    for (int i = 0; i < 4; i++)
        FOUR(G, 0x5a827999u, x[i], x[i + 4], x[i + 8], x[i + 12], 3, 5, 9, 13);
    static const int order[4] = {0, 2, 1, 3};
    for (int j = 0; j < 4; j++) {
        int i = order[j];
        FOUR(H, 0x6ed9eba1u, x[i], x[i + 8], x[i + 4], x[i + 12], 3, 9, 11, 15);
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d;
}

void dk_md4(const uint8_t *data, size_t size, uint8_t out[16]) {
    uint32_t state[4] = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u};
    uint64_t bits = (uint64_t)size * 8;
    for (; size >= 64; data += 64, size -= 64) md4_compress(state, data);
    uint8_t rest[128] = {0};
    if (size) memcpy(rest, data, size);
    rest[size] = 0x80;
    size_t padded = size < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++) rest[padded - 8 + (size_t)i] = (uint8_t)(bits >> 8 * i);
    md4_compress(state, rest);
    if (padded == 128) md4_compress(state, rest + 64);
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)(state[i / 4] >> 8 * (i % 4));
}
