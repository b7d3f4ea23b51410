"""A process that keeps an emulated board: `holder.py TARGET` says its ssh configuration and waits."""

from __future__ import annotations

import sys

from edgekit.device.emulated_ssh import emulated_board, tick_problem
from edgekit.target import load_target


def main() -> int:
    target = load_target(sys.argv[1])
    problem = tick_problem(target)
    with emulated_board(target) as host:
        print(host.config, "counts" if problem is None else problem, flush=True)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
