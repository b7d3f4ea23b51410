"""A recipe: the compression methods to apply, in order, with their settings.

    schema = 1

    [training]                 # settings of every training below, unless a step says otherwise
    epochs = 4
    learning_rate = 2e-3

    [[step]]
    kind = "channels"
    keep = 0.5
    importance = "taylor"

    [[step]]
    kind = "fine_tune"
    loss = "both"

    [[step]]
    kind = "quantize"
    method = "qat"
    epochs = 2

Read strictly: an unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from edgekit.compress.channels import ChannelPruning
from edgekit.compress.sparsity import MagnitudePruning
from edgekit.compress.training import DEFAULT_TRAINING, Training
from edgekit.errors import UsageError
from edgekit.fsutil import read_plain_file
from edgekit.text import did_you_mean, printable

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the package of the same interface for Python 3.10
    import tomli as tomllib

__all__ = ["FineTuning", "Method", "Quantization", "Recipe", "load_recipe", "parse_recipe"]

_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """Train what the steps before left; weights that they set to zero stay zero."""

    kind: Literal["fine_tune"] = "fine_tune"
    training: Training = DEFAULT_TRAINING


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """int8 weights and activations: `ptq` chooses the scales on calibration rows, `qat` trains with them."""

    kind: Literal["quantize"] = "quantize"
    method: Literal["ptq", "qat"] = "ptq"
    training: Training = DEFAULT_TRAINING
    """Of `qat`."""


Method = ChannelPruning | MagnitudePruning | FineTuning | Quantization

_KINDS: Mapping[str, type[Any]] = {
    "channels": ChannelPruning,
    "magnitude": MagnitudePruning,
    "fine_tune": FineTuning,
    "quantize": Quantization,
}
_TRAINED = ("fine_tune", "quantize")
_TRAINING_KEYS = tuple(one.name for one in dataclasses.fields(Training))


@dataclass(frozen=True, slots=True)
class Recipe:
    """Methods in the order in which they are applied."""

    steps: tuple[Method, ...]
    text: str = field(default="", repr=False)
    """As it was written; what a compressed model's folder keeps."""

    @property
    def learns(self) -> bool:
        """Whether a step takes gradients: of a training, or to rank channels."""
        return any(
            isinstance(one, FineTuning)
            or (isinstance(one, Quantization) and one.method == "qat")
            or (isinstance(one, ChannelPruning) and one.importance == "taylor")
            for one in self.steps
        )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe's file.

    Raises:
        UsageError: it can't be read, is no TOML, or has unknown or wrong keys.
    """
    shown = printable(str(path))
    try:
        content = read_plain_file(str(path), _MAX_FILE_BYTES, follow=True)
    except OSError as error:
        raise UsageError(f"{shown} can't be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise UsageError(f"{shown} is larger than 1 MiB; a recipe is a page of settings")
    try:
        return parse_recipe(content.decode("utf-8"), shown)
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown} is not text in UTF-8") from error


def parse_recipe(text: str, source: str = "the recipe") -> Recipe:
    """A recipe from its text.

    Raises:
        UsageError: it is no TOML, or has unknown or wrong keys; the message names the step.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{source} is not valid TOML: {printable(str(error))}") from error
    _check_keys(source, "", document, ("schema", "training", "step"))
    if document.get("schema") != 1:
        raise UsageError(f"{source} has no `schema = 1`", hint="put it in its first line")
    defaults = document.get("training", {})
    if not isinstance(defaults, dict):
        raise UsageError(f"{source}: `training` is a table: [training]")
    _check_keys(source, "training", defaults, _TRAINING_KEYS)
    steps = document.get("step")
    if not isinstance(steps, list) or not steps or not all(isinstance(one, dict) for one in steps):
        raise UsageError(f"{source} has no steps", hint='add [[step]] and kind = "channels"')
    methods = tuple(_method(source, number, one, defaults) for number, one in enumerate(steps, start=1))
    _check_order(source, methods)
    return Recipe(methods, text)


def _method(source: str, number: int, table: Mapping[str, Any], defaults: Mapping[str, Any]) -> Method:
    where = f"step {number}"
    kind = str(table.get("kind"))
    if kind not in _KINDS:
        raise UsageError(
            f"{source}, {where}: `kind` is {printable(kind)}.{did_you_mean(kind, _KINDS)}",
            hint=f"one of {', '.join(_KINDS)}",
        )
    own = [one.name for one in dataclasses.fields(_KINDS[kind]) if one.name != "training"]
    trained = kind in _TRAINED
    _check_keys(source, where, table, (*own, *(_TRAINING_KEYS if trained else ())))
    values = {key: value for key, value in table.items() if key in own}
    if trained:
        values["training"] = {**defaults, **{k: v for k, v in table.items() if k in _TRAINING_KEYS}}
    try:
        method: Method = _adapter(_KINDS[kind]).validate_python(values)
    except ValidationError as error:
        complaints = "; ".join(
            f"`{printable('.'.join(map(str, one['loc'])) or kind)}`: {printable(one['msg'])}"
            for one in error.errors()
        )
        raise UsageError(f"{source}, {where}: {complaints}", hint="docs/compress.md has every key") from error
    return method


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _check_keys(source: str, where: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            place = f", {where}" if where else ""
            raise UsageError(f"{source}{place}: unknown key `{printable(key)}`.{did_you_mean(key, known)}")


def _check_order(source: str, methods: Sequence[Method]) -> None:
    """Quantisation is the last thing that happens: nothing later could act on integers."""
    for number, method in enumerate(methods[:-1], start=1):
        if isinstance(method, Quantization):
            raise UsageError(
                f"{source}, step {number + 1}: nothing can follow `quantize`",
                hint="move the quantize step to the end",
            )
    sparse = False
    for number, method in enumerate(methods, start=1):
        if isinstance(method, ChannelPruning) and sparse:
            raise UsageError(
                f"{source}, step {number}: channels can't be removed after a magnitude pruning, whose masks "
                "have the shapes of before",
                hint="remove channels first",
            )
        if isinstance(method, MagnitudePruning):
            sparse = True
            following = methods[number] if number < len(methods) else None
            if method.schedule != "one_shot" and not isinstance(following, FineTuning):
                raise UsageError(
                    f"{source}, step {number}: a schedule that is {method.schedule} acts while the next step "
                    "trains",
                    hint='put a step of kind = "fine_tune" behind it, or set schedule = "one_shot"',
                )
