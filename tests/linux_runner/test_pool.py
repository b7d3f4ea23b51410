"""The thread pool: every element once, the same parts every time, no thread left."""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.campaign import campaign_count
from tests.linux_runner.build import PLATFORM, STATIC, Machine, build_program

SOURCES = (
    Path(__file__).with_name("pool_check.c"),
    *(PLATFORM / name for name in ("pool.c", "say.c", "sys.c")),
)
LARGEST = 100_000


@dataclass(frozen=True, slots=True)
class Part:
    begin: int
    end: int
    core: int
    caller: bool


@dataclass(frozen=True, slots=True)
class Result:
    jobs: list[tuple[int, list[Part]]]  # sum, parts in order
    threads: int  # with the pool
    threads_after: int


def read_part(text: str) -> Part:
    begin, end, core, caller = map(int, text.split(":"))
    return Part(begin, end, core, caller == 1)


def run(program: list[str], extents: list[int], *arguments: str) -> Result:
    text = "".join(f"{extent}\n" for extent in extents)
    done = subprocess.run(
        [*program, *arguments], input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    *lines, threads, threads_after = done.stdout.splitlines()
    jobs = []
    for line in lines:
        total, *parts = line.split()
        jobs.append((int(total), sorted((read_part(part) for part in parts), key=lambda part: part.begin)))
    return Result(jobs, int(threads), int(threads_after))


def sum_of_squares(extent: int) -> int:
    return (extent - 1) * extent * (2 * extent - 1) // 6


def random_extents(seed: int) -> list[int]:
    draw = random.Random(seed)
    extents = [0, -1, -(2**31), 1, 2, 3, 7, 8, 9, LARGEST]
    extents += [draw.randint(1, 200) for _ in range(campaign_count(300, 10))]
    extents += [draw.randint(1, LARGEST) for _ in range(campaign_count(300, 10))]
    draw.shuffle(extents)
    return extents


def check(program: list[str], threads: int, *arguments: str) -> None:
    extents = random_extents(threads)
    result = run(program, extents, str(threads), "-1", *arguments)
    assert len(result.jobs) == len(extents)
    for extent, (total, parts) in zip(extents, result.jobs, strict=True):
        count = min(max(extent, 0), threads)
        assert total == (sum_of_squares(extent) if extent > 0 else 0)
        assert [(part.begin, part.end) for part in parts] == [
            (extent * i // count, extent * (i + 1) // count) for i in range(count)
        ]
        assert [part.caller for part in parts] == [i == 0 for i in range(count)]
    counted = (0, 0) if "uncounted" in arguments else (threads, 1)
    assert (result.threads, result.threads_after) == counted


@pytest.fixture(scope="module")
def program(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return machine.command(build_program(machine, tmp_path_factory.mktemp("pool"), *SOURCES, link=STATIC))


@pytest.mark.parametrize("threads", range(1, 9))
def test_sums_are_those_of_one_thread(machine: Machine, program: list[str], threads: int) -> None:
    check(program, threads, *(["uncounted"] if machine.emulator else []))


def test_as_many_threads_as_there_may_be(host: Machine, tmp_path: Path) -> None:
    check([str(build_program(host, tmp_path, *SOURCES))], 256)


def test_work_divided_again_stays_where_it_is(machine: Machine, program: list[str]) -> None:
    check(program, 4, "nested", *(["uncounted"] if machine.emulator else []))


def test_threads_keep_to_their_cores(host: Machine, tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    together = next((c for c in cores if c + 1 in cores), None)
    if together is None:
        pytest.skip("no two cores side by side")
    program = [str(build_program(host, tmp_path, *SOURCES))]
    result = run(program, [2, 1000], "2", str(together))
    for _, parts in result.jobs:
        assert [part.core for part in parts] == [together, together + 1]
    result = run(program, [2, 1000], "2", "-1")
    for _, parts in result.jobs:
        assert [part.core for part in parts] == [-1, -1]


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_sanitizers_find_nothing(host: Machine, tmp_path: Path, sanitizer: str) -> None:
    flags = ("-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    trivial = tmp_path / "trivial.c"
    trivial.write_text("int main(void) { return 0; }\n")
    try:
        works = build_program(host, tmp_path, trivial, flags=flags, link=("-pthread",))
        subprocess.run([works], capture_output=True, timeout=60, check=True)
    except (AssertionError, subprocess.CalledProcessError) as error:
        pytest.skip(f"-fsanitize={sanitizer} does not work here: {error}")
    program = [str(build_program(host, tmp_path, *SOURCES, flags=flags, link=("-pthread",)))]
    for threads in (1, 2, 4, 8):
        check(program, threads, "uncounted")  # the sanitizer may have a thread of its own
    check(program, 3, "nested", "uncounted")


def test_the_thread_sanitizer_would_find_something(host: Machine, tmp_path: Path) -> None:
    """The same check on a pool that does not wait for its threads."""
    text = (PLATFORM / "pool.c").read_text()
    waiting = "while (pool.busy != 0) {"
    assert text.count(waiting) == 1
    hasty = tmp_path / "pool.c"
    hasty.write_text(text.replace(waiting, "while (0) {"))
    sources = [SOURCES[0], hasty, *SOURCES[2:]]
    program = build_program(host, tmp_path, *sources, flags=("-fsanitize=thread",), link=("-pthread",))
    done = subprocess.run(
        [program, "4", "-1"], input="50000\n" * 20, capture_output=True, text=True, timeout=120, check=False
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not work here")
    assert done.returncode != 0
