"""An augmentation by its name, as a project's settings have it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import UsageError
from edgekit.text import names_function, printable

if TYPE_CHECKING:
    from edgekit.compress.training import Augment

__all__ = ["load_augment"]


def load_augment(name: str, folder: Path | None) -> Augment:
    """The function `package.module:function`, looked for in `folder` first.

    Raises:
        UsageError: there is no such function.
    """
    shown = printable(name)
    if not names_function(name):
        raise UsageError(f"{shown} is no function's name", hint="give it as package.module:function")
    module_name, _, function_name = name.partition(":")
    extra = str((folder or Path()).resolve())
    sys.path.insert(0, extra)
    try:
        found = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{shown} can't be imported: {printable(str(error))}") from error
    finally:
        sys.path.remove(extra)
    if not callable(found):
        raise UsageError(f"{shown} is no function")
    function: Augment = found
    return function
