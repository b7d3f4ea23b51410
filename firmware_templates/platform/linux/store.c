/* A command is a process: what it opens is closed by its end. */
#include "sys.h"

#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runner.h"
#include "say.h"
#include "sha256.h"

#define APP_CHARS 64u
#define HASH_CHARS 16u
#define DIGEST_CHARS (2u * SHA256_BYTES)
#define TOKEN_CHARS 32u
#define NAME_BYTES (APP_CHARS + 1u)  /* of the longest name */
#define PREDECESSORS 2u
#define STALE_SECONDS (24 * 60 * 60)
#define LOCK_TRIES 100
#define LOCK_WAIT_NS 100000000L

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"

typedef bool (*name_check)(const char *name);

typedef struct {
    char hashes[PREDECESSORS][HASH_CHARS + 1u];  /* newest last */
    size_t count;
} history;

/* --- names --- */

static bool consists_of(const char *name, const char *allowed, size_t shortest, size_t longest) {
    size_t size = strnlen(name, longest + 1u);
    return size >= shortest && size <= longest && strspn(name, allowed) == size;
}

static bool is_app(const char *name) {
    return consists_of(name, LOWER DIGITS "_-", 1, APP_CHARS) && name[0] != '_' && name[0] != '-' &&
           strcmp(name, "lock") != 0;  /* that is the board's lock, beside the applications */
}

static bool is_hash(const char *name) {
    return consists_of(name, DIGITS "abcdef", HASH_CHARS, HASH_CHARS);
}

static bool is_digest(const char *name) {
    return consists_of(name, DIGITS "abcdef", DIGEST_CHARS, DIGEST_CHARS);
}

static bool is_token(const char *name) {
    return consists_of(name, LOWER DIGITS, 8, TOKEN_CHARS);
}

static int refuse(const char *kind, const char *name) {
    char shown[NAME_BYTES];
    printable(shown, sizeof shown, name);
    return complain(RUNNER_USAGE, "'%s' is not the name of %s", shown, kind);
}

/* --- folders --- */

static int open_folder(int parent, const char *name) {
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static bool is_missing(void) {
    return errno == ENOENT;
}

int store_open(int *folder, bool create) {
    const char *home = getenv("HOME");
    if (home == NULL || home[0] != '/') {
        /* getpwuid would need the C library's shared plug-ins, and this program is static. */
        return complain(RUNNER_USAGE, "HOME must name the home folder, from the root; the runner cannot look it up");
    }
    int parent = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0) {
        return complain_errno(RUNNER_NOTHING, "the folder that HOME names");
    }
    *folder = open_folder(parent, ".edgekit");
    if (*folder < 0 && is_missing() && create) {
        if (sys_mkdir(parent, ".edgekit") != 0 && errno != EEXIST) {
            return complain_errno(RUNNER_CREATE, "~/.edgekit");
        }
        if (sys_fsync(parent) != 0) {
            return complain_errno(RUNNER_IO, "the folder that HOME names");
        }
        *folder = open_folder(parent, ".edgekit");
    }
    if (*folder < 0) {
        /* ENOTDIR: also a symbolic link, which could lead anywhere. */
        return complain_errno(is_missing() ? RUNNER_NOTHING : RUNNER_CREATE, "~/.edgekit");
    }
    return RUNNER_DONE;
}

/* Opens ~/.edgekit/<app> and waits until no other command works on it. */
static int open_app(const char *app, int *folder) {
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = LOCK_WAIT_NS};
    int home;
    int code = store_open(&home, false);
    if (code != RUNNER_DONE) {
        return code;
    }
    *folder = open_folder(home, app);
    if (*folder < 0) {
        return complain_errno(is_missing() ? RUNNER_NOTHING : RUNNER_CREATE, app);
    }
    for (int i = 0; flock(*folder, LOCK_EX | LOCK_NB) != 0; i++) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            break;  /* a file system without locks; the deployment holds the board's own */
        }
        if (i == LOCK_TRIES) {
            return complain(RUNNER_BUSY, "%s: another command works on it", app);
        }
        (void)nanosleep(&pause, NULL);
    }
    return RUNNER_DONE;
}

/* The alphabetically first name after `name` that passes `check`, into `name` itself. False when there is none.
 * Reading the folder again for each name needs no memory for a list, and lets entries be removed on the way. */
static bool next_name(int folder, name_check check, char name[NAME_BYTES]) {
    bool found = false;
    char best[NAME_BYTES];
    const struct dirent *entry;
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = copy < 0 ? NULL : fdopendir(copy);
    if (listing == NULL) {
        return false;
    }
    while ((entry = readdir(listing)) != NULL) {
        if (check(entry->d_name) && strcmp(entry->d_name, name) > 0 && (!found || strcmp(entry->d_name, best) < 0)) {
            memcpy(best, entry->d_name, strlen(entry->d_name) + 1u);
            found = true;
        }
    }
    (void)closedir(listing);
    if (found) {
        memcpy(name, best, sizeof best);
    }
    return found;
}

/* --- versions --- */

static bool is_file(int folder, const char *name, struct stat *about) {
    return fstatat(folder, name, about, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(about->st_mode);
}

/* Bytes of the version's runner and when it came there; false when it isn't installed whole. */
static bool version_about(int app, const char *hash, uint64_t *size_bytes, int64_t *installed) {
    struct stat runner;
    int version = open_folder(app, hash);
    bool whole = version >= 0 && is_file(version, "runner", &runner);
    if (whole) {
        *size_bytes = (uint64_t)runner.st_size;
        *installed = (int64_t)runner.st_ctime;  /* the rename; the time of the content is that of the upload */
    }
    if (version >= 0) {
        (void)close(version);
    }
    return whole;
}

static bool is_installed(int app, const char *hash) {
    uint64_t size_bytes;
    int64_t installed;
    return version_about(app, hash, &size_bytes, &installed);
}

/* The current version, "" when there is none. */
static int read_current(int app, char hash[HASH_CHARS + 1u]) {
    char target[HASH_CHARS + 2u];
    ssize_t size = readlinkat(app, "current", target, sizeof target - 1u);
    hash[0] = '\0';
    if (size < 0) {
        return is_missing() ? RUNNER_DONE : complain_errno(RUNNER_CREATE, "current");
    }
    target[size] = '\0';
    if (!is_hash(target)) {
        return complain(RUNNER_CREATE, "current: a symbolic link to something else than a version");
    }
    if (is_installed(app, target)) {
        memcpy(hash, target, HASH_CHARS + 1u);
    }
    return RUNNER_DONE;
}

static void append(history *past, const char *hash) {
    if (past->count == PREDECESSORS) {
        memmove(past->hashes[0], past->hashes[1], (PREDECESSORS - 1u) * sizeof past->hashes[0]);
        past->count--;
    }
    memcpy(past->hashes[past->count++], hash, HASH_CHARS + 1u);
}

/* The versions that `hash` can go back to. Lines that name nothing installed are passed over. */
static int read_history(int app, const char *hash, history *past) {
    char text[PREDECESSORS * (HASH_CHARS + 1u)];
    past->count = 0;
    int version = open_folder(app, hash);
    int file = version < 0 ? -1 : openat(version, "history", O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        return is_missing() ? RUNNER_DONE : complain_errno(RUNNER_CREATE, "history");
    }
    ssize_t size = read(file, text, sizeof text);
    if (size < 0) {
        return complain_errno(RUNNER_IO, "history");
    }
    for (size_t at = 0; at + HASH_CHARS < (size_t)size; at += HASH_CHARS + 1u) {
        char name[HASH_CHARS + 1u];
        memcpy(name, text + at, HASH_CHARS);
        name[HASH_CHARS] = '\0';
        if (is_hash(name) && strcmp(name, hash) != 0 && is_installed(app, name)) {
            append(past, name);
        }
    }
    (void)close(file);
    (void)close(version);
    return RUNNER_DONE;
}

/* `hash` must not be current: its history is not yet in force. */
static int write_history(int app, const char *hash, const history *past) {
    char text[PREDECESSORS * (HASH_CHARS + 1u)];
    size_t size = 0;
    int version = open_folder(app, hash);
    if (version < 0) {
        return complain_errno(RUNNER_NOTHING, hash);
    }
    for (size_t i = 0; i < past->count; i++) {
        memcpy(text + size, past->hashes[i], HASH_CHARS);
        text[size + HASH_CHARS] = '\n';
        size += HASH_CHARS + 1u;
    }
    if (sys_unlink(version, ".history") != 0 && !is_missing()) {
        return complain_errno(RUNNER_CREATE, ".history");
    }
    int file = sys_create(version, ".history", true);
    if (file < 0) {
        return complain_errno(RUNNER_CREATE, ".history");
    }
    if (sys_write(file, text, size) != 0 || sys_fsync(file) != 0 ||
        sys_rename(version, ".history", version, "history") != 0 || sys_fsync(version) != 0) {
        int code = complain_errno(RUNNER_IO, "history");
        (void)sys_unlink(version, ".history");
        return code;
    }
    (void)close(file);
    (void)close(version);
    return RUNNER_DONE;
}

static int link_current(int app, const char *hash) {
    if (sys_unlink(app, ".current") != 0 && !is_missing()) {
        return -1;
    }
    if (sys_symlink(hash, app, ".current") != 0 || sys_rename(app, ".current", app, "current") != 0) {
        int error = errno;
        (void)sys_unlink(app, ".current");
        errno = error;
        return -1;
    }
    return 0;
}

/* The commit. `before` is what was current, or "". */
static int switch_current(int app, const char *hash, const char *before) {
    if (link_current(app, hash) != 0) {
        return complain_errno(RUNNER_CREATE, "current");
    }
    if (sys_fsync(app) != 0) {
        int code = complain_errno(RUNNER_IO, "current");
        /* Who is told that it failed must find the version that answered before. */
        (void)(before[0] != '\0' ? link_current(app, before) : sys_unlink(app, "current"));
        return code;
    }
    return RUNNER_DONE;
}

/* --- prune --- */

static int remove_version(int app, const char *hash) {
    static const char *const members[] = {"runner", "history", ".history"};
    int version = open_folder(app, hash);
    if (version < 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        if (sys_unlink(version, members[i]) != 0 && !is_missing()) {
            return -1;
        }
    }
    (void)close(version);
    return sys_rmdir(app, hash);
}

static bool is_kept(const char *hash, const char *current, const history *past) {
    bool kept = strcmp(hash, current) == 0;
    for (size_t i = 0; i < past->count; i++) {
        kept = kept || strcmp(hash, past->hashes[i]) == 0;
    }
    return kept;
}

static void remove_stale_uploads(int app) {
    char name[NAME_BYTES] = "";
    struct stat about;
    time_t now = time(NULL);
    int incoming = open_folder(app, "incoming");
    while (incoming >= 0 && next_name(incoming, is_token, name)) {
        if (is_file(incoming, name, &about) && now - about.st_mtime > STALE_SECONDS &&
            sys_unlink(incoming, name) != 0) {
            (void)complain_errno(RUNNER_IO, "an upload of more than a day ago could not be removed");
        }
    }
    if (incoming >= 0) {
        (void)close(incoming);
    }
}

/* What it cannot remove it leaves for the next time: the switch has been made and must not look as if it had not. */
static void prune(int app, const char *current) {
    char name[NAME_BYTES] = "";
    history past;
    if (read_history(app, current, &past) != RUNNER_DONE) {
        return;
    }
    while (next_name(app, is_hash, name)) {
        if (!is_kept(name, current, &past) && remove_version(app, name) != 0) {
            (void)complain_errno(RUNNER_IO, "an old version could not be removed");
        }
    }
    remove_stale_uploads(app);
}

/* --- commands --- */

static int hash_file(int file, char digest[DIGEST_CHARS + 1u]) {
    static uint8_t block[1u << 16];
    static const char digits[] = DIGITS "abcdef";
    uint8_t bytes[SHA256_BYTES];
    sha256 hash;
    sha256_begin(&hash);
    for (;;) {
        ssize_t size = read(file, block, sizeof block);
        if (size == 0) {
            break;
        }
        if (size > 0) {
            sha256_add(&hash, block, (size_t)size);
        } else if (errno != EINTR) {
            return complain_errno(RUNNER_IO, "/proc/self/exe");
        }
    }
    sha256_end(&hash, bytes);
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        digest[2u * i] = digits[bytes[i] >> 4];
        digest[2u * i + 1u] = digits[bytes[i] & 15u];
    }
    digest[DIGEST_CHARS] = '\0';
    return RUNNER_DONE;
}

/* Under which name of `incoming` the running executable lies; false when it is not there. */
static bool find_upload(int incoming, int executable, char token[TOKEN_CHARS + 1u]) {
    char path[PATH_MAX];
    struct stat running, uploaded;
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1u);
    if (size <= 0) {
        return false;
    }
    path[size] = '\0';
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    if (!is_token(name) || fstat(executable, &running) != 0 || !is_file(incoming, name, &uploaded) ||
        running.st_dev != uploaded.st_dev || running.st_ino != uploaded.st_ino) {
        return false;
    }
    memcpy(token, name, strlen(name) + 1u);
    return true;
}

static int install_upload(int app, int incoming, int executable, const char *token, const char *hash) {
    if (sys_allow_owner(executable) != 0 || sys_fsync(executable) != 0) {
        return complain_errno(RUNNER_IO, "the upload");
    }
    if (sys_mkdir(app, hash) != 0 && errno != EEXIST) {
        return complain_errno(RUNNER_CREATE, hash);
    }
    int version = open_folder(app, hash);
    if (version < 0) {
        return complain_errno(RUNNER_CREATE, hash);
    }
    /* Where the version is there already, the same bytes take the place of those that were there. */
    if (sys_rename(incoming, token, version, "runner") != 0) {
        return complain_errno(RUNNER_CREATE, "runner");
    }
    if (sys_fsync(version) != 0 || sys_fsync(app) != 0 || sys_fsync(incoming) != 0) {
        return complain_errno(RUNNER_IO, hash);
    }
    return say("installed %s\n", hash);
}

int store_install(int count, char **arguments) {
    char digest[DIGEST_CHARS + 1u], hash[HASH_CHARS + 1u], token[TOKEN_CHARS + 1u];
    int app;
    (void)count;
    if (!is_app(arguments[0])) {
        return refuse("an application", arguments[0]);
    }
    if (!is_digest(arguments[1])) {
        return refuse("a SHA-256", arguments[1]);
    }
    int code = open_app(arguments[0], &app);
    if (code != RUNNER_DONE) {
        return code;
    }
    int executable = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (executable < 0) {
        return complain_errno(RUNNER_NOTHING, "/proc/self/exe");
    }
    int incoming = open_folder(app, "incoming");
    if (incoming < 0) {
        return complain_errno(is_missing() ? RUNNER_NOTHING : RUNNER_CREATE, "incoming");
    }
    if (!find_upload(incoming, executable, token)) {
        return complain(RUNNER_NOTHING, "this program is not an upload to %s", arguments[0]);
    }
    code = hash_file(executable, digest);
    if (code != RUNNER_DONE) {
        return code;
    }
    if (strcmp(digest, arguments[1]) != 0) {
        (void)sys_unlink(incoming, token);
        return complain(RUNNER_MISMATCH, "the upload's SHA-256 is %s", digest);
    }
    memcpy(hash, digest, HASH_CHARS);
    hash[HASH_CHARS] = '\0';
    return install_upload(app, incoming, executable, token, hash);
}

int store_activate(int count, char **arguments) {
    char before[HASH_CHARS + 1u];
    const char *hash = arguments[1];
    history past = {.count = 0}, next = {.count = 0};
    int app;
    (void)count;
    if (!is_app(arguments[0])) {
        return refuse("an application", arguments[0]);
    }
    if (!is_hash(hash)) {
        return refuse("a version", hash);
    }
    int code = open_app(arguments[0], &app);
    if (code != RUNNER_DONE) {
        return code;
    }
    if (!is_installed(app, hash)) {
        return complain(RUNNER_NOTHING, "%s is not installed", hash);
    }
    code = read_current(app, before);
    if (code == RUNNER_DONE && before[0] != '\0') {
        code = read_history(app, before, &past);
    }
    if (code == RUNNER_DONE && strcmp(before, hash) != 0) {
        for (size_t i = 0; i < past.count; i++) {
            if (strcmp(past.hashes[i], hash) != 0) {
                append(&next, past.hashes[i]);
            }
        }
        if (before[0] != '\0') {
            append(&next, before);
        }
        code = write_history(app, hash, &next);
        if (code == RUNNER_DONE) {
            code = switch_current(app, hash, before);
        }
    }
    if (code != RUNNER_DONE) {
        return code;
    }
    prune(app, hash);
    return say("current %s\n", hash);
}

int store_rollback(int count, char **arguments) {
    char before[HASH_CHARS + 1u];
    history past = {.count = 0};
    int app;
    (void)count;
    if (!is_app(arguments[0])) {
        return refuse("an application", arguments[0]);
    }
    int code = open_app(arguments[0], &app);
    if (code == RUNNER_DONE) {
        code = read_current(app, before);
    }
    if (code == RUNNER_DONE && before[0] != '\0') {
        code = read_history(app, before, &past);
    }
    if (code != RUNNER_DONE) {
        return code;
    }
    if (past.count == 0u) {
        return complain(RUNNER_NOTHING, "%s: no version was current before", arguments[0]);
    }
    const char *hash = past.hashes[--past.count];
    code = write_history(app, hash, &past);
    if (code == RUNNER_DONE) {
        code = switch_current(app, hash, before);
    }
    return code == RUNNER_DONE ? say("current %s\n", hash) : code;
}

static int app_status(int home, const char *name) {
    char hash[NAME_BYTES] = "", current[HASH_CHARS + 1u];
    int code = RUNNER_DONE;
    int app = open_folder(home, name);
    if (app < 0) {
        return RUNNER_DONE;  /* nothing of edgekit's */
    }
    if (read_current(app, current) != RUNNER_DONE) {
        current[0] = '\0';
    }
    while (code == RUNNER_DONE && next_name(app, is_hash, hash)) {
        uint64_t size_bytes;
        int64_t installed;
        if (version_about(app, hash, &size_bytes, &installed)) {
            code = say("%s %s %s %llu %lld\n", name, hash, strcmp(hash, current) == 0 ? "current" : "kept",
                       (unsigned long long)size_bytes, (long long)installed);
        }
    }
    (void)close(app);
    return code;
}

int store_status(int count, char **arguments) {
    char name[NAME_BYTES] = "";
    int home;
    (void)count;
    (void)arguments;
    int code = store_open(&home, false);
    while (code == RUNNER_DONE && next_name(home, is_app, name)) {
        code = app_status(home, name);
    }
    return code;
}
