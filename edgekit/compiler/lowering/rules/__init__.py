"""What each Relax operator becomes in integers: one rule an operator, gathered in `RULES`.

A rule gets the call and the values of its arguments and returns the value of its result. It raises
`NoIntegerForm` with the reason where the operator, used as it is, cannot be computed in integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgekit.compiler.lowering.rules.binary import divide, extremum, multiply, power, prelu
from edgekit.compiler.lowering.rules.convolution import convolution, transposed_convolution
from edgekit.compiler.lowering.rules.dense import matmul
from edgekit.compiler.lowering.rules.elementwise import bounded, clip
from edgekit.compiler.lowering.rules.functions import COMPARISONS, UNARY
from edgekit.compiler.lowering.rules.movement import astype, concat, permute_dims, reshape
from edgekit.compiler.lowering.rules.normalization import layer_norm
from edgekit.compiler.lowering.rules.operands import elementwise
from edgekit.compiler.lowering.rules.pooling import (
    adaptive_avg_pool,
    arg_extreme,
    averaging,
    avg_pool,
    extreme,
    max_pool,
)
from edgekit.compiler.lowering.rules.quantization import UINT8_OFFSET, dequantize, quantize
from edgekit.compiler.lowering.rules.resize import resize2d
from edgekit.compiler.lowering.rules.selection import (
    broadcast_to,
    flip,
    pad,
    repeat,
    split,
    stack,
    strided_slice,
    take,
    tile,
)
from edgekit.compiler.lowering.rules.site import Rule, Site
from edgekit.compiler.lowering.rules.softmax import softmax
from edgekit.compiler.lowering.rules.sums import add, square, subtract
from edgekit.compiler.lowering.rules.tables import leaky_relu, softplus, unary, where

__all__ = ["RULES", "UINT8_OFFSET", "Site"]

RULES: Mapping[str, Rule] = {
    "relax.quantize": quantize,
    "relax.dequantize": dequantize,
    "relax.nn.conv1d": convolution,
    "relax.nn.conv2d": convolution,
    "relax.nn.conv1d_transpose": transposed_convolution,
    "relax.nn.conv2d_transpose": transposed_convolution,
    "relax.matmul": matmul,
    "relax.add": add,
    "relax.nn.relu": bounded(0.0, math.inf),
    "relax.nn.relu6": bounded(0.0, 6.0),
    "relax.clip": clip,
    "relax.maximum": extremum(upper=False),
    "relax.minimum": extremum(upper=True),
    "relax.nn.max_pool1d": max_pool,
    "relax.nn.max_pool2d": max_pool,
    "relax.nn.avg_pool1d": avg_pool,
    "relax.nn.avg_pool2d": avg_pool,
    "relax.nn.adaptive_avg_pool1d": adaptive_avg_pool,
    "relax.nn.adaptive_avg_pool2d": adaptive_avg_pool,
    "relax.mean": averaging(total=False),
    "relax.sum": averaging(total=True),
    "relax.max": extreme(largest=True),
    "relax.min": extreme(largest=False),
    "relax.argmax": arg_extreme(largest=True),
    "relax.argmin": arg_extreme(largest=False),
    "relax.image.resize2d": resize2d,
    "relax.nn.softmax": softmax,
    "relax.nn.layer_norm": layer_norm,
    "relax.reshape": reshape,
    "relax.squeeze": reshape,
    "relax.expand_dims": reshape,
    "relax.flatten": reshape,
    "relax.nn.batch_flatten": reshape,
    "relax.permute_dims": permute_dims,
    "relax.concat": concat,
    "relax.nn.pad": pad,
    "relax.strided_slice": strided_slice,
    "relax.split": split,
    "relax.flip": flip,
    "relax.take": take,
    "relax.repeat": repeat,
    "relax.tile": tile,
    "relax.broadcast_to": broadcast_to,
    "relax.stack": stack,
    "relax.astype": astype,
    "relax.multiply": multiply,
    "relax.subtract": subtract,
    "relax.divide": divide,
    "relax.power": power,
    "relax.where": where,
    "relax.nn.leakyrelu": leaky_relu,
    "relax.nn.prelu": prelu,
    "relax.nn.softplus": softplus,
    "relax.zeros_like": unary(np.zeros_like),
    "relax.ones_like": unary(np.ones_like),
    "relax.square": square,
    **{name: unary(function) for name, function in UNARY.items()},
    **{name: elementwise(function) for name, function in COMPARISONS.items()},
}
