#include "sha256.h"

#include <string.h>

/* Section 4.2.2: the fractions of the cube roots of the first 64 primes. */
static const uint32_t constants[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
    0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
    0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
    0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
    0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
    0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
    0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u,
};

static uint32_t rotate(uint32_t value, unsigned int bits) {
    return (value >> bits) | (value << (32u - bits));
}

static uint32_t load(const uint8_t *bytes) {
    return ((uint32_t)bytes[0] << 24) | ((uint32_t)bytes[1] << 16) | ((uint32_t)bytes[2] << 8) | bytes[3];
}

/* Section 6.2.2; the names are the standard's. */
static void add_block(uint32_t state[8], const uint8_t *block) {
    uint32_t w[64];
    for (uint32_t t = 0; t < 16u; t++) {
        w[t] = load(block + 4u * t);
    }
    for (uint32_t t = 16; t < 64u; t++) {
        uint32_t s0 = rotate(w[t - 15u], 7) ^ rotate(w[t - 15u], 18) ^ (w[t - 15u] >> 3);
        uint32_t s1 = rotate(w[t - 2u], 17) ^ rotate(w[t - 2u], 19) ^ (w[t - 2u] >> 10);
        w[t] = s1 + w[t - 7u] + s0 + w[t - 16u];
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (uint32_t t = 0; t < 64u; t++) {
        uint32_t s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
        uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + constants[t] + w[t];
        uint32_t s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
        uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void sha256_begin(sha256 *hash) {
    /* Section 5.3.3: the fractions of the square roots of the first eight primes. */
    static const uint32_t start[8] = {
        0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
        0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u,
    };
    memcpy(hash->state, start, sizeof start);
    hash->size = 0;
}

void sha256_add(sha256 *hash, const void *data, size_t size) {
    const uint8_t *bytes = data;
    while (size != 0u) {
        size_t used = (size_t)(hash->size % SHA256_BLOCK_BYTES);
        size_t part = SHA256_BLOCK_BYTES - used < size ? SHA256_BLOCK_BYTES - used : size;
        memcpy(hash->block + used, bytes, part);
        hash->size += part;
        bytes += part;
        size -= part;
        if (hash->size % SHA256_BLOCK_BYTES == 0u) {
            add_block(hash->state, hash->block);
        }
    }
}

void sha256_end(sha256 *hash, uint8_t digest[SHA256_BYTES]) {
    /* Section 5.1.1: a one bit, zeros, and the length in bits. */
    static const uint8_t padding[SHA256_BLOCK_BYTES] = {0x80};
    uint64_t bits = hash->size * 8u;
    size_t used = (size_t)(hash->size % SHA256_BLOCK_BYTES);
    uint8_t length[8];
    for (uint32_t i = 0; i < 8u; i++) {
        length[i] = (uint8_t)(bits >> (56u - 8u * i));
    }
    sha256_add(hash, padding, (used < 56u ? 56u : 120u) - used);
    sha256_add(hash, length, sizeof length);
    for (uint32_t i = 0; i < SHA256_BYTES; i++) {
        digest[i] = (uint8_t)(hash->state[i / 4u] >> (24u - 8u * (i % 4u)));
    }
}
