"""Quantisation-aware training with the quantiser that deployment uses.

    module ──prepare_qat──▶ trainable module ──the user's training──▶ ──convert_qat──▶ load_torch(…)

Convolutions and the batch normalisations behind them are trained folded (Jacob et al., 2018, section 3.2),
weights and activations with the rounding of the deployed program (fake quantisation). Ranges of activations
are moving averages; the scale of a weight is that of the weight as it is, so that conversion changes nothing
that was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import TYPE_CHECKING, Literal

from edgekit.errors import ModelError, UsageError
from edgekit.frontend.torch_quiet import quiet, require_torch

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

__all__ = ["convert_qat", "freeze_qat", "prepare_qat"]

MAX_BATCH = 1 << 16


def prepare_qat(
    module: nn.Module,
    example_inputs: Sequence[torch.Tensor],
    *,
    activations: Literal["int8", "int16"] = "int8",
) -> nn.Module:
    """A copy of a module that trains as it will be deployed.

    It takes batches of any size; `train()` and `eval()` switch its batch normalisations and dropouts.

    Args:
        module: A module that `torch.export` can capture with a dynamic batch.
        example_inputs: One tensor for each argument of forward, batch first.
        activations: The integers of activations.

    Raises:
        ModelError: the module can't be exported or prepared.
        UsageError: no inputs, or inputs without a batch.
    """
    require_torch()
    import torch

    from edgekit.frontend.torch_graph import out_of_place
    from edgekit.frontend.torch_nodes import describe_error

    inputs = tuple(example_inputs)
    if not inputs or any(value.ndim == 0 for value in inputs):
        raise UsageError("example_inputs must be a tuple of tensors, batch first, one for each argument.")
    # Two rows: a batch of one would be taken for a constant by the export.
    rows = tuple(torch.cat([value[:1], value[:1]]).detach() for value in inputs)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with quiet():
        from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

        from edgekit.frontend.torch_quantizer import EdgekitQuantizer

        try:
            exported = torch.export.export(
                out_of_place(module).train(),
                rows,
                dynamic_shapes=tuple({0: batch} for _ in rows),
                strict=False,
            )
            prepared = prepare_qat_pt2e(
                exported.module(check_guards=False), EdgekitQuantizer(activations, training=True)
            )
            prepared.meta[_INPUTS] = rows
        except Exception as error:  # The user's own forward and torchao raise what they come upon.
            raise ModelError(
                f"The torch module cannot be prepared for training: {describe_error(error)}",
                hint="torch.export.export(module.train(), inputs, dynamic_shapes=…) must work with any batch",
            ) from error
    return _trainable(prepared)


def freeze_qat(prepared: nn.Module) -> None:
    """Keep the ranges of activations as they are from here on; for the last steps of a training."""
    setattr(prepared, _FROZEN, True)
    _observe_activations(prepared, enabled=False)


def convert_qat(prepared: nn.Module) -> fx.GraphModule:
    """A trained copy of a prepared module whose weights are integers, for `load_torch` and for evaluation.

    Biases stay float32: the compiler counts them in input scale × weight scale. The prepared module stays as
    it is and can be trained further.

    Raises:
        UsageError: `prepare_qat` did not make the module.
        ModelError: torchao can't convert it.
    """
    require_torch()
    import copy

    import torch
    from torch import fx

    from edgekit.frontend.torch_nodes import describe_error

    with quiet():
        from torchao.quantization.pt2e import move_exported_model_to_eval
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        inputs = getattr(prepared, "meta", {}).get(_INPUTS)
        if not isinstance(prepared, fx.GraphModule) or inputs is None:
            raise UsageError("convert_qat takes what prepare_qat returned.")
        try:
            trained = move_exported_model_to_eval(copy.deepcopy(prepared))
            _observe_activations(trained, enabled=False)
            with torch.no_grad():
                # The last step of a training changes the weights after their scales were taken.
                trained(*inputs)
            converted: fx.GraphModule = convert_pt2e(trained)
        except Exception as error:  # torchao asserts and raises what it comes upon.
            raise ModelError(f"torchao cannot convert the trained model: {describe_error(error)}") from error
    return converted


_INPUTS = "edgekit_example_inputs"
_FROZEN = "edgekit_frozen_ranges"


def _observe_activations(module: nn.Module, *, enabled: bool) -> None:
    from torchao.quantization.pt2e import FakeQuantizeBase

    for part in module.modules():
        if isinstance(part, FakeQuantizeBase) and not part.is_per_channel:
            part.enable_observer(enabled)


def _trainable(prepared: fx.GraphModule) -> fx.GraphModule:
    """Let `train()` and `eval()` switch an exported module, and the ranges of activations with it."""
    from torchao.quantization.pt2e import move_exported_model_to_eval, move_exported_model_to_train

    def train(self: fx.GraphModule, mode: bool = True) -> fx.GraphModule:
        (move_exported_model_to_train if mode else move_exported_model_to_eval)(self)
        _observe_activations(self, enabled=mode and not hasattr(self, _FROZEN))
        return self

    def evaluate(self: fx.GraphModule) -> fx.GraphModule:
        return train(self, False)

    prepared.train = MethodType(train, prepared)  # type: ignore[method-assign]
    prepared.eval = MethodType(evaluate, prepared)  # type: ignore[method-assign]
    return prepared
