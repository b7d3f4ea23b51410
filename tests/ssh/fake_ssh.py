"""A program in the place of ssh. It writes down its arguments and plays what a test asked for; what the test
did not ask for it runs in a local shell, in a home folder of its own: a board on this machine.

`FAKE_SSH` is a folder: `argv.jsonl` (written), `plays.json` (a list of {match, stdout, stderr, code, sleep_s,
cut_after_bytes, before}), `config.txt` (what -G prints, %h being the host), `home/`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["FAKE_SSH"])


def main() -> int:
    arguments = sys.argv[1:]
    with (FOLDER / "argv.jsonl").open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    destination = arguments[arguments.index("--") + 1]
    if "-G" in arguments:
        config = FOLDER / "config.txt"
        sys.stdout.write(
            (config.read_text() if config.exists() else "hostname %h\n").replace("%h", destination)
        )
        return 0
    if "-O" in arguments:
        return 0
    command = arguments[-1]
    plays = FOLDER / "plays.json"
    for play in json.loads(plays.read_text()) if plays.exists() else []:
        if re.search(play["match"], command):
            return perform(play, command)
    return run(command)


def perform(play: dict[str, object], command: str) -> int:
    sys.stderr.write(str(play.get("stderr", "")))
    sys.stderr.flush()
    sys.stdout.write(str(play.get("stdout", "")))
    sys.stdout.flush()
    time.sleep(float(str(play.get("sleep_s", 0))))
    if "cut_after_bytes" in play:
        left = int(str(play["cut_after_bytes"]))
        child = subprocess.Popen(["sh", "-c", command], env=environment(), stdin=subprocess.PIPE)
        assert child.stdin is not None
        while left > 0 and (data := os.read(0, min(left, 65536))):
            child.stdin.write(data)
            left -= len(data)
        child.stdin.close()
        child.wait(10)
    elif play.get("then_run"):
        return run(command)
    return int(str(play.get("code", 0)))


def run(command: str) -> int:
    child = subprocess.Popen(["sh", "-c", command], env=environment())
    signal.signal(signal.SIGTERM, lambda *_: child.kill())
    return child.wait()


def environment() -> dict[str, str]:
    home = FOLDER / "home"
    home.mkdir(exist_ok=True)
    return {**os.environ, "HOME": str(home)}


if __name__ == "__main__":
    sys.exit(main())
