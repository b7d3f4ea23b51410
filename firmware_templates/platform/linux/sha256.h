/* SHA-256, FIPS 180-4 section 6.2. */
#ifndef EDGEKIT_SHA256_H
#define EDGEKIT_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32u
#define SHA256_BLOCK_BYTES 64u

typedef struct {
    uint32_t state[8];
    uint64_t size;  /* bytes so far */
    uint8_t block[SHA256_BLOCK_BYTES];
} sha256;

void sha256_begin(sha256 *hash);
void sha256_add(sha256 *hash, const void *data, size_t size);
void sha256_end(sha256 *hash, uint8_t digest[SHA256_BYTES]);

#endif
