/* Prints the SHA-256 of stdin, which it takes in pieces of as many bytes as the argument says. */
#include <stdio.h>
#include <stdlib.h>

#include "sha256.h"

int main(int count, char **arguments) {
    static unsigned char piece[4096];
    size_t size, most = count > 1 ? (size_t)strtoul(arguments[1], NULL, 10) : sizeof piece;
    unsigned char digest[SHA256_BYTES];
    sha256 hash;
    sha256_begin(&hash);
    while ((size = fread(piece, 1, most < sizeof piece ? most : sizeof piece, stdin)) != 0) {
        sha256_add(&hash, piece, size);
    }
    sha256_end(&hash, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        printf("%02x", (unsigned int)digest[i]);
    }
    return 0;
}
