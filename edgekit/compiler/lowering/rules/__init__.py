"""What each Relax operator becomes in integers: one rule an operator, gathered in `RULES`.

A rule gets the call and the values of its arguments and returns the value of its result. It raises
`NoIntegerForm` with the reason where the operator, used as it is, cannot be computed in integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgekit.compiler.lowering.rules.convolution import convolution, transposed_convolution
from edgekit.compiler.lowering.rules.dense import matmul
from edgekit.compiler.lowering.rules.elementwise import (
    add,
    bounded,
    clip,
    constant_arithmetic,
    multiply,
    one_sided,
)
from edgekit.compiler.lowering.rules.movement import astype, concat, pad, permute_dims, reshape
from edgekit.compiler.lowering.rules.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d, mean
from edgekit.compiler.lowering.rules.quantization import UINT8_OFFSET, dequantize, quantize
from edgekit.compiler.lowering.rules.site import Rule, Site
from edgekit.compiler.lowering.rules.softmax import softmax

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
    "relax.maximum": one_sided(upper=False),
    "relax.minimum": one_sided(upper=True),
    "relax.nn.max_pool2d": max_pool2d,
    "relax.nn.avg_pool2d": avg_pool2d,
    "relax.nn.adaptive_avg_pool2d": adaptive_avg_pool2d,
    "relax.mean": mean,
    "relax.nn.softmax": softmax,
    "relax.reshape": reshape,
    "relax.squeeze": reshape,
    "relax.expand_dims": reshape,
    "relax.flatten": reshape,
    "relax.nn.batch_flatten": reshape,
    "relax.permute_dims": permute_dims,
    "relax.concat": concat,
    "relax.nn.pad": pad,
    "relax.astype": astype,
    "relax.multiply": multiply,
    "relax.subtract": constant_arithmetic(np.subtract),
    "relax.divide": constant_arithmetic(np.divide),
}
