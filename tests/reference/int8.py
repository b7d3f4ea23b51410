"""The arithmetic of LiteRT's int8 reference kernels as numpy functions: what edgekit's operators must equal.

Each function states its formula and the TFLite source it follows (paths under `tflite/kernels/` of LiteRT;
`reference/` is short for `internal/reference/`). `test_int8_reference.py` checks them against LiteRT, and
`docs/arithmetic.md` explains them. They are written to be read; nothing in edgekit imports them.

Stored values are int8 arrays, activations (N, H, W, C); scales are float32 values held in Python floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Quantized",
    "activation_range",
    "add",
    "average_pool",
    "concatenation",
    "conv2d",
    "depthwise_conv2d",
    "dequantize",
    "double_rounding",
    "exp_on_negative_values",
    "fully_connected",
    "fully_connected_scale",
    "high_mul",
    "max_pool",
    "mean",
    "pad",
    "quantize",
    "quantize_multiplier",
    "relu",
    "requantize",
    "round_half_away",
    "round_shift",
    "same_padding",
    "single_rounding",
    "softmax",
    "softmax_table",
]

Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]
Scaled = Callable[[Any, Any, Any], Int64]
"""double_rounding or single_rounding."""
Activation = Literal["NONE", "RELU", "RELU_N1_TO_1", "RELU6"]
Padding = Literal["SAME", "VALID"]

INT32_MAX = 2**31 - 1
INT32_MIN = -(2**31)


@dataclass(frozen=True, slots=True)
class Quantized:
    """Per-tensor quantisation: real = scale · (stored − zero_point). `scale` is a float32 value."""

    scale: float
    zero_point: int


# --- fixed point -----------------------------------------------------------------------------------


def quantize_multiplier(real: float) -> tuple[int, int]:
    """(q, e) with real ≈ q · 2^(e − 31) and q in [2^30, 2^31).

    `internal/quantization_util.cc: QuantizeMultiplier`
    """
    mantissa, exponent = math.frexp(real)
    q = math.floor(mantissa * 2**31 + 0.5)
    if q == 2**31:
        q, exponent = 2**30, exponent + 1
    return (0, 0) if exponent < -31 else (q, exponent)


def high_mul(a: Any, b: Any) -> Int64:
    """round(a · b / 2^31), halves upwards. gemmlowp `SaturatingRoundingDoublingHighMul`

    gemmlowp adds 2^30, or 1 − 2^30 to a negative product, and divides towards zero; that is this floor. Its
    saturation of INT32_MIN · INT32_MIN cannot happen: a multiplier is never negative in that way.
    """
    return np.asarray((np.asarray(a, np.int64) * np.asarray(b, np.int64) + 2**30) >> 31)


def round_shift(x: Any, n: Any) -> Int64:
    """round(x / 2^n), halves away from zero. gemmlowp `RoundingDivideByPOT`"""
    x, n = np.asarray(x, np.int64), np.asarray(n, np.int64)
    mask = (np.int64(1) << n) - 1
    return np.asarray((x >> n) + ((x & mask) > (mask >> 1) + (x < 0)))


def double_rounding(x: Any, q: Any, e: Any) -> Int64:
    """x · q · 2^(e − 31) with two roundings. `internal/common.h: MultiplyByQuantizedMultiplier`

    `x << e` wraps as int32: undefined behaviour in TFLite's C++, and what LiteRT does on x86.
    """
    left, right = np.maximum(e, 0), np.maximum(np.negative(e), 0)
    shifted = (np.asarray(x, np.int64) << left).astype(np.int32)
    return round_shift(high_mul(shifted, q), right)


def single_rounding(x: Any, q: Any, e: Any) -> Int64:
    """x · q · 2^(e − 31) with one rounding, halves upwards: what a quantised model in reals computes."""
    total = np.int64(31) - np.asarray(e, np.int64)
    product = np.asarray(x, np.int64) * np.asarray(q, np.int64)
    return np.asarray((product + (np.int64(1) << (total - 1))) >> total)


def round_half_away(v: Any) -> NDArray[np.float64]:
    """C's `round`. (floor(|v| + 0.5) would be wrong just below 0.5.)"""
    v = np.asarray(v, np.float64)
    whole = np.trunc(v)
    return np.asarray(whole + np.copysign(np.abs(v - whole) >= 0.5, v))


def activation_range(activation: Activation, out: Quantized) -> tuple[int, int]:
    """Ends of the clamp. `kernel_util.cc: CalculateActivationRangeQuantized`; the quotient is float32."""

    def stored(real: float) -> int:
        return out.zero_point + int(round_half_away(np.float32(real) / np.float32(out.scale)))

    low, high = -128, 127
    if activation in ("RELU", "RELU6"):
        low = max(low, stored(0.0))
    if activation == "RELU6":
        high = min(high, stored(6.0))
    if activation == "RELU_N1_TO_1":
        low, high = max(low, stored(-1.0)), min(high, stored(1.0))
    return low, high


def _clamp(values: Any, low: int = -128, high: int = 127) -> Int8:
    """min(max(v, low), high) in TFLite's order: `high` wins where the ends cross."""
    return np.asarray(np.minimum(np.maximum(values, low), high)).astype(np.int8)


# --- convolutions and fully connected --------------------------------------------------------------


def same_padding(extent: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    """(elements before the first, output length) along one axis. `padding.h: ComputePaddingHeightWidth`"""
    reach = (kernel - 1) * dilation + 1
    if padding == "VALID":
        return 0, (extent - reach) // stride + 1
    length = -(-extent // stride)
    return max((length - 1) * stride + reach - extent, 0) // 2, length


def _patches(
    x: Int64,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: Padding,
    fill: int,
) -> Int64:
    """Windows of x (N, H, W, C) as (KH, KW, N, OH, OW, C); `fill` outside the input."""
    (top, rows), (left, columns) = (
        same_padding(x.shape[1 + i], kernel[i], stride[i], dilation[i], padding) for i in range(2)
    )
    need = [(n - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 for i, n in enumerate((rows, columns))]
    canvas = np.full(
        (x.shape[0], max(need[0], top + x.shape[1]), max(need[1], left + x.shape[2]), x.shape[3]), fill
    )
    canvas[:, top : top + x.shape[1], left : left + x.shape[2]] = x
    return np.stack(
        [
            np.stack(
                [
                    canvas[
                        :,
                        i * dilation[0] : i * dilation[0] + (rows - 1) * stride[0] + 1 : stride[0],
                        j * dilation[1] : j * dilation[1] + (columns - 1) * stride[1] + 1 : stride[1],
                    ]
                    for j in range(kernel[1])
                ]
            )
            for i in range(kernel[0])
        ]
    )


def _requantize_channels(
    accumulators: Int64,
    x: Quantized,
    weight_scales: Sequence[float],
    out: Quantized,
    activation: Activation,
    scaled: Scaled,
) -> Int8:
    scales = np.broadcast_to(np.asarray(weight_scales, np.float64), (accumulators.shape[-1],))
    pairs = [quantize_multiplier(float(x.scale * scale / out.scale)) for scale in scales]
    q, e = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    return _clamp(scaled(accumulators, q, e) + out.zero_point, *activation_range(activation, out))


def conv2d(
    x: Int8,
    weights: Int8,
    bias: NDArray[np.int32],
    q_x: Quantized,
    weight_scales: Sequence[float],
    q_y: Quantized,
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: Padding = "SAME",
    activation: Activation = "NONE",
    scaled: Scaled = double_rounding,
) -> Int8:
    """y = clamp(double(Σ (x − z_x) · w + b, s_x · s_w[c] / s_y) + z_y); weights (C_out, KH, KW, C_in).

    `reference/integer_ops/conv.h: ConvPerChannel`, `kernel_util.cc: PopulateConvolutionQuantizationParams`
    """
    kernel = (weights.shape[1], weights.shape[2])
    patches = _patches(x.astype(np.int64) - q_x.zero_point, kernel, stride, dilation, padding, 0)
    accumulators = np.einsum("ijnhwc,oijc->nhwo", patches, weights.astype(np.int64)) + bias
    return _requantize_channels(accumulators, q_x, weight_scales, q_y, activation, scaled)


def depthwise_conv2d(
    x: Int8,
    weights: Int8,
    bias: NDArray[np.int32],
    q_x: Quantized,
    weight_scales: Sequence[float],
    q_y: Quantized,
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: Padding = "SAME",
    activation: Activation = "NONE",
    scaled: Scaled = double_rounding,
) -> Int8:
    """conv2d with one input channel an output channel, c_in = c_out // multiplier.

    Weights (1, KH, KW, C_out).

    `reference/integer_ops/depthwise_conv.h: DepthwiseConvPerChannel`
    """
    multiplier = weights.shape[3] // x.shape[3]
    wide = np.repeat(x.astype(np.int64) - q_x.zero_point, multiplier, axis=3)
    patches = _patches(wide, (weights.shape[1], weights.shape[2]), stride, dilation, padding, 0)
    accumulators = np.einsum("ijnhwc,ijc->nhwc", patches, weights[0].astype(np.int64)) + bias
    return _requantize_channels(accumulators, q_x, weight_scales, q_y, activation, scaled)


def fully_connected(
    x: Int8,
    weights: Int8,
    bias: NDArray[np.int32] | None,
    q_x: Quantized,
    weight_scales: Sequence[float],
    q_y: Quantized,
    *,
    activation: Activation = "NONE",
) -> Int8:
    """y = clamp(round(float64(acc) · (s_x · s_w[c] / s_y)) + z_y), all in float64; weights (C_out, C_in).

    `reference/integer_ops/fully_connected.h: FullyConnected, FullyConnectedPerChannel`: the overloads that
    take the scales; LiteRT's reference resolver calls those, not the fixed-point ones.
    """
    rows = x.reshape(-1, weights.shape[1]).astype(np.int64) - q_x.zero_point
    accumulators = rows @ weights.astype(np.int64).T + (0 if bias is None else bias)
    scales = np.broadcast_to(np.asarray(weight_scales, np.float64), (weights.shape[0],))
    reals = np.float64(q_x.scale) * scales / np.float64(q_y.scale)
    scaled = np.clip(round_half_away(accumulators * reals), -(2.0**31), 2.0**31 - 1)
    return _clamp(scaled.astype(np.int64) + q_y.zero_point, *activation_range(activation, q_y))


def fully_connected_scale(accumulator: int, real: float) -> int:
    """round(float64(accumulator) · real), halves away from zero, in integers; limited to ±256.

    Products of 64 bits suffice: `real` = M / 2^n with a 53-bit M, split into 21 high and 32 low bits. Float64
    rounds the product before it is rounded to an integer: what lies within half an ulp under a half becomes
    the half, hence the second term added to the low part.
    """
    mantissa, exponent = math.frexp(real)
    m, n = int(mantissa * 2.0**53), 53 - exponent
    if n < 33:
        raise ValueError(f"the multiplier {real} is 2^20 or more")
    a = abs(accumulator)
    h, low = a * (m >> 32), a * (m & (2**32 - 1))
    t = min((h + (low >> 32) + (1 << (n - 33))) >> (n - 32), 255)
    u = n - 53 + (t.bit_length() - 1 if t else -2)
    if u >= 0:
        low += 1 << u
    t = min((h + (low >> 32) + (1 << (n - 33))) >> (n - 32), 256)
    return -t if accumulator < 0 else t


# --- elementwise -----------------------------------------------------------------------------------


def add(
    a: Int8, b: Int8, q_a: Quantized, q_b: Quantized, q_y: Quantized, *, activation: Activation = "NONE"
) -> Int8:
    """Both inputs, shifted left by 20, to the scale 2 · max(s_a, s_b); their sum to s_y. Broadcasts as numpy.

    `add.cc: Prepare`, `reference/integer_ops/add.h: AddFunc`
    """
    twice = 2.0 * max(q_a.scale, q_b.scale)

    def scaled(x: Int8, quantized: Quantized) -> Int64:
        shifted = (x.astype(np.int64) - quantized.zero_point) << 20
        return double_rounding(shifted, *quantize_multiplier(quantized.scale / twice))

    total = scaled(a, q_a) + scaled(b, q_b)
    y = double_rounding(total, *quantize_multiplier(twice / (2.0**20 * q_y.scale)))
    return _clamp(y + q_y.zero_point, *activation_range(activation, q_y))


def relu(x: Int8, q_x: Quantized, q_y: Quantized, activation: Activation) -> Int8:
    """RELU, RELU6 and RELU_N1_TO_1 as operators of their own: rescale, then clamp.

    The quotient of the scales is float32 here. `activations.cc: ReluPrepare, QuantizedReluX`,
    `reference/reference_ops.h: ReluX`
    """
    real = float(np.float32(q_x.scale) / np.float32(q_y.scale))
    y = double_rounding(x.astype(np.int64) - q_x.zero_point, *quantize_multiplier(real)) + q_y.zero_point
    return _clamp(y, *activation_range(activation, q_y))


def requantize(x: Int8, q_x: Quantized, q_y: Quantized) -> Int8:
    """QUANTIZE int8 → int8. The quotient of the scales is float64. `reference/requantize.h: Requantize`"""
    real = np.float64(q_x.scale) / np.float64(q_y.scale)
    y = double_rounding(x.astype(np.int64) - q_x.zero_point, *quantize_multiplier(float(real)))
    return _clamp(y + q_y.zero_point)


def quantize(x: NDArray[np.float32], q_y: Quantized) -> Int8:
    """QUANTIZE float32 → int8: clamp(round(x / s_y) + z_y), the quotient in float32.

    `reference/quantize.h: AffineQuantize`. NaN and quotients of 2^31 and more are undefined in LiteRT;
    edgekit saturates them by sign, and NaN becomes −128.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        quotient = x.astype(np.float32) / np.float32(q_y.scale)
    bounded = np.where(np.isnan(quotient), np.float32(-512), np.clip(quotient, -512, 512))
    return _clamp(round_half_away(bounded) + q_y.zero_point)


def dequantize(x: Int8, q_x: Quantized) -> NDArray[np.float32]:
    """s_x · (x − z_x), one float32 product. `reference/dequantize.h: Dequantize`"""
    return np.asarray(np.float32(q_x.scale) * (x.astype(np.int32) - q_x.zero_point).astype(np.float32))


# --- pooling and reduction -------------------------------------------------------------------------


def average_pool(
    x: Int8,
    q: Quantized,
    kernel: tuple[int, int],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: Padding = "VALID",
    activation: Activation = "NONE",
) -> Int8:
    """Sum over the part of the window inside the input ÷ its number of elements, halves away from zero.

    `reference/integer_ops/pooling.h: AveragePool`
    """
    total = _patches(x.astype(np.int64), kernel, stride, (1, 1), padding, 0).sum((0, 1))
    inside = np.ones((1, *x.shape[1:3], 1), np.int64)
    count = _patches(inside, kernel, stride, (1, 1), padding, 0).sum((0, 1))
    y = np.where(total > 0, (total + count // 2) // count, -((-total + count // 2) // count))
    return _clamp(y, *activation_range(activation, q))


def max_pool(
    x: Int8,
    q: Quantized,
    kernel: tuple[int, int],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: Padding = "VALID",
    activation: Activation = "NONE",
) -> Int8:
    """Maximum over the part of the window inside the input. `reference/integer_ops/pooling.h: MaxPool`"""
    y = _patches(x.astype(np.int64), kernel, stride, (1, 1), padding, -128).max((0, 1))
    return _clamp(y, *activation_range(activation, q))


def mean(x: Int8, axes: Sequence[int], q_x: Quantized, q_y: Quantized, *, keep_dims: bool = True) -> Int8:
    """Sum minus n · z_x, times s_x / s_y / n in one multiplier of 31 bits.

    The 1/n is folded into the multiplier, truncating: q' = (q << k) // n, e' = e − k with
    k = min(floor(log2 n), 32, 31 + e).

    `reduce.cc: PrepareMeanOrSum`, `reference/reduce.h: QuantizedMeanOrSum`
    """
    reduced = tuple({axis % x.ndim for axis in axes})
    n = math.prod(x.shape[axis] for axis in reduced)
    total = x.astype(np.int64).sum(reduced, keepdims=keep_dims) - n * q_x.zero_point
    q, e = quantize_multiplier(float(np.float64(q_x.scale) / np.float64(q_y.scale)))
    k = min(n.bit_length() - 1, 32, 31 + e)
    return _clamp(double_rounding(total, (q << k) // n, e - k) + q_y.zero_point)


# --- data movement ---------------------------------------------------------------------------------


def pad(x: Int8, paddings: Sequence[tuple[int, int]], value: int) -> Int8:
    """PAD fills with the zero point, PADV2 with the stored value it is given. `reference/pad.h: PadImpl`"""
    return np.asarray(np.pad(x, paddings, constant_values=value))


def concatenation(xs: Sequence[Int8], axis: int) -> Int8:
    """A copy; `concatenation.cc: Prepare` refuses int8 inputs whose quantisation is not the output's."""
    return np.concatenate(list(xs), axis)


# --- softmax ---------------------------------------------------------------------------------------

# exp(−2^k) in Q0.31 for k = −2 … 4. gemmlowp `fixedpoint.h: exp_on_negative_values`
_EXP_OF_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def exp_on_negative_values(a: int) -> int:
    """exp(a) of a ≤ 0 in Q5.26, as Q0.31. gemmlowp `fixedpoint.h`

    a = part − (a multiple of 1/4), part in [−1/4, 0): a polynomial for the part, then one factor for each bit
    of the rest.
    """
    if a == 0:
        return INT32_MAX
    quarter = 2**24
    part = (a & (quarter - 1)) - quarter
    x = (part << 5) + 2**28
    x2 = int(high_mul(x, x))
    x3, x4 = int(high_mul(x2, x)), int(high_mul(x2, x2))
    third = int(high_mul(int(round_shift(x4, 2)) + x3, 715827883))
    exp_minus_eighth = 1895147668
    result = exp_minus_eighth + int(high_mul(exp_minus_eighth, x + int(round_shift(third + x2, 1))))
    for position, factor in enumerate(_EXP_OF_POWERS):
        if (part - a) >> (24 + position) & 1:
            result = int(high_mul(result, factor))
    return result


def softmax_table(scale: float, beta: float = 1.0) -> Int64:
    """exp(−d · beta · scale) in Q0.31 for d = 0 … 255; 0 beyond the radius, where outputs are −128.

    `internal/quantization_util.cc: PreprocessSoftmaxScaling, CalculateInputRadius`
    """
    real = min(float(np.float32(beta)) * float(np.float32(scale)) * 2.0**26, 2.0**31 - 1)
    q, e = quantize_multiplier(real)
    if e < 0:
        raise ValueError(f"the softmax input scale {scale} is too small for LiteRT")
    radius = (31 * 2**26) >> e
    return np.array(
        [exp_on_negative_values(int(high_mul(-d << e, q))) if d <= radius else 0 for d in range(256)],
        np.int64,
    )


def _reciprocal(a: int) -> int:
    """1 / (1 + a) of a in [0, 1), Q0.31: three Newton steps. gemmlowp `one_over_one_plus_x_for_x_in_0_1`"""
    half = (a + INT32_MAX + 1) // 2
    x = 1515870810 + int(high_mul(half, -1010580540))  # 48/17 − 32/17 · half, Q2.29
    for _ in range(3):
        x += _saturate32(int(high_mul(x, 2**29 - int(high_mul(half, x)))) << 2)
    return _saturate32(x << 1)


def _saturate32(value: int) -> int:
    return min(max(value, INT32_MIN), INT32_MAX)


def softmax(x: Int8, scale: float, beta: float = 1.0) -> Int8:
    """Softmax over the last axis in gemmlowp's fixed point; the output's scale is 1/256, its zero point −128.

    sum = Σ table[max − x] in Q12.19, r = 1 / sum normalised to [1, 2), y = round(r · table[max − x]) − 128.
    `reference/softmax.h: Softmax<int8, int8>`. A sum of 512 and more aborts LiteRT; edgekit's row is then
    all −128.
    """
    table = softmax_table(scale, beta)
    rows = x.reshape(-1, x.shape[-1]).astype(np.int64)
    y = np.full(rows.shape, -128, np.int64)
    for row, out in zip(rows, y, strict=True):
        exps = table[row.max() - row]
        total = int(round_shift(exps, 12).sum())
        k = total.bit_length() - 20
        if k + 23 > 31:
            continue
        r = _reciprocal((total << (12 - k)) - 2**31)
        out[:] = round_shift(high_mul(r, exps), k + 23) - 128
    return _clamp(y).reshape(x.shape)
