/* Every call with which the runner changes what is on the disk. A build with -DEDGEKIT_FAULT_INJECTION can die or fail
 * at any one of them; see sys.c. Include this first: it says which interfaces the system's headers show. */
#ifndef EDGEKIT_SYS_H
#define EDGEKIT_SYS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/* On 32-bit boards too: files beyond 2 GiB, dates beyond 2038. */
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif
#ifndef _TIME_BITS
#define _TIME_BITS 64
#endif

#include <stdbool.h>
#include <stddef.h>

/* All return 0 (sys_create: a descriptor), or -1 with errno. Names are relative to the folder's descriptor. */
int sys_write(int file, const void *data, size_t size);  /* all of it */
int sys_fsync(int file);
int sys_truncate(int file, size_t size);
int sys_allow_owner(int file);                           /* mode 0700 */
int sys_create(int folder, const char *name, bool new_file);
int sys_mkdir(int folder, const char *name);             /* mode 0700 */
int sys_rename(int from_folder, const char *from, int to_folder, const char *to);
int sys_symlink(const char *target, int folder, const char *name);
int sys_unlink(int folder, const char *name);
int sys_rmdir(int folder, const char *name);

/* Where /proc and /sys are: "/", or EDGEKIT_HEALTH_ROOT in a build for tests. */
const char *sys_root(void);

#endif
