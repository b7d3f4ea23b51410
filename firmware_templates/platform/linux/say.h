/* What a command tells: its answer on stdout, a sentence about what went wrong on stderr. */
#ifndef EDGEKIT_SAY_H
#define EDGEKIT_SAY_H

#include <stddef.h>

#define SAY_BYTES 512u  /* the longest answer or sentence, with its end */

/* Copies `text` up to its end or to `size` - 1 characters; what is not printable ASCII becomes '?'. */
void printable(char *out, size_t size, const char *text);

/* Writes the answer to stdout. RUNNER_DONE, or RUNNER_IO when nobody takes it. */
int say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Writes a line to stderr and returns `code`, so that a command can end with it. */
int complain(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same about a call that failed: `errno` is named and decides between RUNNER_IO and `code`. */
int complain_errno(int code, const char *what);

#endif
