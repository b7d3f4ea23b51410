/* Which command it is. Names and numbers in the arguments are checked by the command that uses them. */
#include "sys.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "runner.h"
#include "say.h"
#include "store.h"

typedef struct {
    const char *name;
    int (*run)(int count, char **arguments);
    int fewest;  /* arguments */
    int most;
} command;

static const command commands[] = {
    {"serve", runner_serve, 0, 4},
    {"hold", runner_hold, 1, 1},
    {"install", store_install, 2, 2},
    {"activate", store_activate, 2, 2},
    {"rollback", store_rollback, 1, 1},
    {"status", store_status, 0, 0},
    {"health", runner_health, 0, 0},
};

int main(int count, char **arguments) {
    const char *name = count > 1 ? arguments[1] : "serve";
    int given = count > 1 ? count - 2 : 0;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(S_IRWXG | S_IRWXO);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(name, commands[i].name) == 0 && given >= commands[i].fewest && given <= commands[i].most) {
            return commands[i].run(given, arguments + count - given);
        }
    }
    return complain(RUNNER_USAGE,
                    "usage: runner [serve [--threads N] [--core K]] | hold WHO | install APP SHA256 | "
                    "activate APP HASH | rollback APP | status | health");
}
