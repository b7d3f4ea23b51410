"""torch and torchao say much while they are imported and used that is not for edgekit's user."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.errors import MissingToolError

__all__ = ["quiet", "require_torch"]


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, and no log records below an error, in this block."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)


def require_torch() -> None:
    """Say which packages are missing before an import of one of them fails.

    Raises:
        MissingToolError: torch, torchao or safetensors is not installed.
    """
    missing = [name for name in ("torch", "torchao", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingToolError(
            f"A torch model takes packages that are not installed: {', '.join(missing)}.",
            hint="pip install 'edgekit[torch]'",
        )
