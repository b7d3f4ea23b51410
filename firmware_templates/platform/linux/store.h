/* Installed versions of applications below ~/.edgekit, and which of them is current.
 *
 *     <app>/incoming/<token>   an upload
 *     <app>/<hash>/runner      a version; <hash> is the first 16 digits of the file's SHA-256
 *     <app>/<hash>/history     what to go back to from it: one hash a line, newest last
 *     <app>/current            symbolic link to the current version's folder
 *
 * The history lies with the version and not beside `current`, so that one rename, that of `current`, commits both: a
 * version's history is written while that version is not yet current. Whatever happens before that rename leaves the
 * current version and its history as they were; a call that fails after it is undone.
 *
 * activate X   the history of X becomes that of the current version and then the current version itself, without X;
 *              the last two are kept. So a version stands in the line once, at the place where it was last current.
 * rollback     goes to the last of the history and takes it away there: twice in a row goes two back, and never
 *              returns to what was left. What was left stays installed until the next activation, and can be activated.
 * prune        after an activation: every version but the current one and its history is removed, and uploads that
 *              have not been written to for a day.
 *
 * Commands on one application wait for each other at a lock of its folder. All of them return an exit code. */
#ifndef EDGEKIT_STORE_H
#define EDGEKIT_STORE_H

#include <stdbool.h>

/* Opens ~/.edgekit, or says why not. `create` makes it where it is missing. */
int store_open(int *folder, bool create);

int store_install(int count, char **arguments);   /* <app> <sha256>: of the running executable, an upload to <app> */
int store_activate(int count, char **arguments);  /* <app> <hash> */
int store_rollback(int count, char **arguments);  /* <app> */
int store_status(int count, char **arguments);

#endif
