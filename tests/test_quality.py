"""The rules of CONTRIBUTING.md that a program can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgekit"
MODULES = sorted(PACKAGE.rglob("*.py"))

FOLDERS = (
    "edgekit",
    "targets",
    "firmware_templates",
    "tests",
    "examples",
    "benchmarks",
    "docs",
    "scripts",
    ".ci",
)
TEXTS = {".py", ".toml", ".md", ".c", ".h", ".S", ".j2", ".ld", ".sh", ".json", ".txt", ".yml", ".cfg", ""}

STAGES = ("frontend", "compress", "compiler", "firmware", "device", "profile", "search", "report")
# The only rooms that may see more than one stage.
COMPOSERS = ("pipeline", "stages", "cli")
HEAVY = ("torch", "torchao", "tvm", "onnx", "onnxruntime", "tflite")


def _tool(*arguments: str, timeout_s: float = 300.0) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout[-8000:]}"


def test_ruff_check() -> None:
    _tool("ruff", "check", ".")


def test_ruff_format() -> None:
    _tool("ruff", "format", "--check", ".")


def test_mypy_strict() -> None:
    _tool("mypy")


def _room(path: Path) -> str:
    """The first name below edgekit: the package or the module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node


def _names(node: ast.Import | ast.ImportFrom, path: Path) -> list[str]:
    """Absolute names of the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level == 0:
        base = node.module or ""
    else:
        parts = ("edgekit", *path.relative_to(PACKAGE).parent.parts)
        base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def _runtime_imports(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Statements that run when the module is imported: not in functions, not under TYPE_CHECKING."""
    for statement in body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield statement
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" not in ast.unparse(statement.test):
            yield from _runtime_imports([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handlers = [line for handler in statement.handlers for line in handler.body]
            yield from _runtime_imports([*statement.body, *handlers, *statement.orelse, *statement.finalbody])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_are_listed_and_exist(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lists = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    if not tree.body or all(isinstance(node, ast.Expr) for node in tree.body):
        return
    if path.name == "__main__.py":
        return
    assert len(lists) == 1, "one __all__ is needed"
    listed = ast.literal_eval(lists[0])
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {ast.unparse(target) for target in node.targets}
        elif isinstance(node, ast.AnnAssign):
            defined.add(ast.unparse(node.target))
    imported = {alias.asname or alias.name for node in _imports(tree) for alias in node.names}
    lazy = {"__getattr__"} & defined
    unknown = set(listed) - defined - imported
    assert not unknown or lazy, f"listed and not defined: {sorted(unknown)}"
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_another(stage: str) -> None:
    others = tuple(f"edgekit.{other}" for other in (*STAGES, *COMPOSERS) if other != stage)
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path in MODULES
        if _room(path) == stage
        for node in _imports(ast.parse(path.read_text(encoding="utf-8")))
        for name in _names(node, path)
        if name in others or name.startswith(tuple(f"{other}." for other in others))
    ]
    assert not wrong


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path in MODULES
        if _room(path) not in ("frontend", "compress", "compiler", "optimization")
        for node in _runtime_imports(ast.parse(path.read_text(encoding="utf-8")).body)
        for name in _names(node, path)
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong


def _texts() -> list[Path]:
    files = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    skipped = {"build", "data", "__pycache__"}
    return sorted(
        path
        for path in files
        if path.suffix in TEXTS and not skipped & set(path.relative_to(ROOT).parts) and path.name != "LICENSE"
    )


# Written so that this file does not contain them.
FORBIDDEN = {
    "a path of somebody's machine": r"(?<![\w.])/(work|home|root)/|/[.]library",
    "a package registry's host": r"pypi[.]org|pythonhosted|registry[.]npmjs|deb[.]debian",
    "an unfinished place": r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "an issue's number": r"\bissues? #?\d",
    "unpickling": r"allow_pickle\s*=\s*Tr" + r"ue|pic" + r"kle[.](loads?|Unpickler)\b",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_forbidden_is_written(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    texts = _texts()
    assert len(texts) > 20
    found = []
    for path in texts:
        if path == Path(__file__).resolve():
            continue
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        ):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found
