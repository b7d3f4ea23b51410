"""Damaged and hostile files: each ends in an edgekit error or loads, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edgekit.frontend import load_model
from tests.campaign import campaign_count
from tests.frontend.hostile import hostile_files, truncated

REPOSITORY = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 6 << 30
"""Of address space; TVM and ONNX Runtime map more than 2 GiB before anything is loaded."""

REFUSALS = {"ModelError", "UnsupportedError", "UsageError"}


def _import_all(paths: Sequence[Path], scratch: Path) -> dict[str, dict[str, object]]:
    """How each file ended, from a process of its own that a crash in C++ may take down."""
    results: dict[str, dict[str, object]] = {}
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests/frontend/hostile_worker.py"), str(MEMORY_BYTES)],
        input="".join(json.dumps(str(path)) + "\n" for path in paths),
        capture_output=True,
        text=True,
        timeout=540,
        env=environment,
        check=False,
    )
    last = ""
    for line in done.stdout.splitlines():
        result = json.loads(line)
        last = result["path"]
        if "outcome" in result:
            results[last] = result
    assert done.returncode == 0, f"the process ended with {done.returncode} on {last}: {done.stderr[-2000:]}"
    return results


def _cut_models(folder: Path, data_dir: Path) -> Iterator[Path]:
    """Real models that end at every 4 KB."""
    models = (data_dir / "kws_ref_model.tflite", REPOSITORY / "examples/fashion_mnist/model.onnx")
    for model in models:
        for number, content in enumerate(truncated(model.read_bytes())):
            path = folder / f"{model.stem}-cut-at-{number + 1}{model.suffix}"
            path.write_bytes(content)
            yield path


def test_hostile_files_are_refused_in_bounds(tmp_path: Path, data_dir: Path) -> None:
    corpus, scratch = tmp_path / "corpus", tmp_path / "scratch"
    corpus.mkdir()
    scratch.mkdir()
    paths = [
        *hostile_files(corpus, flips=campaign_count(2000, 60)),
        *_cut_models(corpus, data_dir),
    ]
    before = sorted(p for p in corpus.rglob("*"))
    results = _import_all(paths, scratch)
    assert len(results) == len(paths) > 250
    for path in paths:
        result = results[str(path)]
        name = str(path.relative_to(corpus))
        outcome = str(result["outcome"])
        harmless = "damaged" in name or name.startswith("good") or name == "zip-bomb.tflite"
        assert outcome in REFUSALS or (outcome == "loaded" and harmless), (name, result)
        assert float(str(result["seconds"])) < 10, (name, result)
        message = str(result["message"])
        assert outcome == "loaded" or len(message) > 15, (name, result)
        assert all(c.isprintable() or c == "\n" for c in message), (name, result)
    for name in ("good.tflite", "good-qdq.onnx", "good-float.onnx", "zip-bomb.tflite"):
        assert results[str(corpus / name)]["outcome"] == "loaded", results[str(corpus / name)]
    assert max(int(str(r["peak_bytes"])) for r in results.values()) < 2 << 30
    assert list(scratch.iterdir()) == []
    assert sorted(p for p in corpus.rglob("*")) == before
    damaged = [str(r["outcome"]) for p, r in results.items() if "damaged" in p]
    # Both happen in a corpus that is worth something: harm found, and harmless changes of weights.
    assert damaged.count("loaded") > 10
    assert damaged.count("ModelError") > 10


def test_unknown_suffixes_name_the_accepted_ones(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK")
    with pytest.raises(Exception, match=r"\.tflite .*\.onnx"):
        load_model(tmp_path / "model.pt")
