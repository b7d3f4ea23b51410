"""The readers of TFLite and ONNX files under atheris, a fuzzer that looks for inputs with new coverage."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign import campaign_count

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = campaign_count(600, 4)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_readers_refuse_whatever_they_are_given(kind: str, tmp_path: Path) -> None:
    """Nothing but edgekit's errors gets out; no crash, no hang, no memory beyond the limit."""
    done = subprocess.run(
        [
            sys.executable,
            str(REPOSITORY / "tests/frontend/fuzz_reader.py"),
            kind,
            str(SECONDS),
            str(campaign_count(0, 1)),  # seed 0: another one each time
            str(tmp_path),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 120,
        check=False,
    )
    findings = [path for path in tmp_path.iterdir() if path.is_file()]
    content = findings[0].read_bytes()[:65536].hex() if findings else ""
    assert done.returncode == 0, f"{done.stderr[-3000:]}\nthe file, in hex: {content}"
    assert not findings
    count = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    assert count is not None, done.stderr[-2000:]
    assert int(count[1]) > 5 * SECONDS
    covered = [int(each) for each in re.findall(r"cov: (\d+)", done.stderr)]
    assert max(covered) > 200, "the readers are not instrumented"
