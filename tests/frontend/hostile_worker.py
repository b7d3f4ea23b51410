"""Import model files one after the other under limits, and print how each ended; run as a program.

    python hostile_worker.py MEMORY_BYTES < paths

One JSON line a file: {"path", "outcome", "message", "seconds", "peak_bytes"}. A line `{"path": …}` without an
outcome comes before each, so that the parent knows which file a crash was.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from edgekit.errors import EdgekitError
from edgekit.frontend import load_model

SECONDS = 10


def _calibration(path: Path) -> list[np.ndarray] | None:
    """Rows for the float models of the corpus, which all take (1, 3, 8, 8)."""
    return (
        [np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)]
        if "float" in path.name
        else None
    )


def main() -> None:
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        path = Path(json.loads(line))
        print(json.dumps({"path": str(path)}), flush=True)
        signal.alarm(SECONDS)
        start = time.monotonic()
        try:
            load_model(path, calibration=_calibration(path))
            outcome, message = "loaded", ""
        except EdgekitError as error:
            outcome, message = type(error).__name__, error.message
        except BaseException as error:
            outcome, message = f"escaped: {type(error).__name__}", str(error)
        seconds = time.monotonic() - start
        signal.alarm(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(
            json.dumps({
                "path": str(path), "outcome": outcome, "message": message[:2000],
                "seconds": seconds, "peak_bytes": peak,
            }),
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
