/* Prints the agent's ticks for each line of stdin. */
#include <inttypes.h>
#include <stdio.h>

#include "port.h"
#include "runner.h"

int main(void) {
    int code = runner_open_ticks();
    if (code != RUNNER_DONE) {
        return code;
    }
    for (int character; (character = getchar()) != EOF;) {
        if (character == '\n') {
            printf("%" PRIu64 " %u\n", edgekit_port_ticks(), (unsigned int)edgekit_port_tick_bits());
            (void)fflush(stdout);
        }
    }
    return 0;
}
