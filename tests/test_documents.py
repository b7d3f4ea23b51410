"""What the documents say is so: links lead somewhere, the README's programs run and their model deploys."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def _anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        page = (path.parent / file).resolve() if file else path
        assert page.exists(), link
        if anchor:
            assert anchor in _anchors(page.read_text(encoding="utf-8")), link


def test_documents_named_in_messages_exist() -> None:
    named = {
        name
        for path in (ROOT / "edgekit").rglob("*.py")
        for name in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert named
    assert not [name for name in sorted(named) if not (ROOT / name).is_file()]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_the_readme_takes_a_reader_to_a_model_of_their_own(tmp_path: Path) -> None:
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert len(programs) == 2
    (tmp_path / "mynet.py").write_text(programs[0], encoding="utf-8")
    for program in programs:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
    # What the second one deployed, by `edgekit.deploy`.
    (written,) = tmp_path.glob("build/*/deploy.json")
    document = json.loads(written.read_text())
    assert document["verify"]["bit_exact"] is True
    assert document["verify"]["samples"] == 100
    flash_bytes, _ = done.stdout.split()
    assert int(flash_bytes) == document["memory"]["flash_bytes"]
