/* The runner's commands and how they end. One static executable is the upload, its own installer and the agent; the
 * SDK starts nothing else on a board. main.c dispatches, each command has a file. */
#ifndef EDGEKIT_RUNNER_H
#define EDGEKIT_RUNNER_H

/* Exit codes, as sysexits.h numbers them. */
enum {
    RUNNER_DONE = 0,
    RUNNER_USAGE = 64,
    RUNNER_MISMATCH = 65,  /* the file is not the one whose hash was told */
    RUNNER_NOTHING = 66,   /* nothing to do it with: no such version, no such core */
    RUNNER_CREATE = 73,    /* something else stands where a file or folder must go, or permission is missing */
    RUNNER_IO = 74,        /* disk full, I/O error */
    RUNNER_BUSY = 75
};

/* The agent on stdin and stdout. `--threads N` and `--core K`: the first thread on core K, the others on the cores
 * after it. */
int runner_serve(int count, char **arguments);

/* Takes the board's lock without waiting and keeps it until stdin is closed. */
int runner_hold(int count, char **arguments);

/* What can spoil a measurement, as `key value` lines. */
int runner_health(int count, char **arguments);

/* ticks.c: chooses the source of the agent's ticks. Fails when EDGEKIT_TICK_FILE names nothing that can be mapped. */
int runner_open_ticks(void);

/* "clock_monotonic_raw" or "plugin". */
const char *runner_tick_source(void);

#endif
