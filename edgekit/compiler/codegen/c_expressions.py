"""Expressions of lowered TensorIR as C99.

Every integer of 32 bits and more is computed in its own fixed-width type. What TensorIR lets wrap, C leaves
undefined: a left shift is computed unsigned and converted back. Right shifts of negative numbers are
arithmetic, as in every compiler for the cores that edgekit knows (C99 6.5.7 leaves that to the compiler).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from edgekit.compiler.codegen.driver import C_TYPES
from edgekit.errors import UnsupportedError

__all__ = ["HELPERS", "ExpressionPrinter", "dtype_of", "unprintable"]

Printed = tuple[str, int]
"""C text and its precedence: larger binds tighter."""

_ATOM, _UNARY, _MULTIPLY, _ADD, _SHIFT, _COMPARE, _EQUAL = 15, 14, 13, 12, 11, 10, 9
_AND_BITS, _XOR_BITS, _OR_BITS, _AND, _OR, _TERNARY = 8, 7, 6, 5, 4, 3

_BINARY: Mapping[str, tuple[str, int]] = {
    "Add": ("+", _ADD),
    "Sub": ("-", _ADD),
    "Mul": ("*", _MULTIPLY),
    "Div": ("/", _MULTIPLY),
    "Mod": ("%", _MULTIPLY),
    "BitwiseAnd": ("&", _AND_BITS),
    "BitwiseXor": ("^", _XOR_BITS),
    "BitwiseOr": ("|", _OR_BITS),
    "RShift": (">>", _SHIFT),
}
_UNSIGNED: Mapping[str, str] = {"int32": "uint32_t", "int64": "uint64_t"}
_COMPARISONS: Mapping[str, tuple[str, int]] = {
    "LT": ("<", _COMPARE),
    "LE": ("<=", _COMPARE),
    "GT": (">", _COMPARE),
    "GE": (">=", _COMPARE),
    "EQ": ("==", _EQUAL),
    "NE": ("!=", _EQUAL),
}
_CALLED_BINARY: Mapping[str, str] = {
    "bitwise_and": "BitwiseAnd",
    "bitwise_or": "BitwiseOr",
    "bitwise_xor": "BitwiseXor",
    "shift_right": "RShift",
}
_SHORT: Mapping[str, str] = {
    C_TYPES[name]: name
    for name in ("int8", "int16", "int32", "int64", "float32", "uint8", "uint16", "uint32", "uint64")
}
_LIMITS: Mapping[str, tuple[int, str, str]] = {
    "int32": (-(2**31), "INT32_MIN", ""),
    "int64": (-(2**63), "INT64_MIN", "INT64_C"),
    "uint32": (0, "0", "UINT32_C"),
    "uint64": (0, "0", "UINT64_C"),
}

_LIBM = """
    acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh erf exp exp2 fabs floor fma fmax fmin
    fmod hypot ldexp log log10 log1p log2 nearbyint pow rint round sin sinh sqrt tan tanh trunc
"""
LIBM = frozenset(f"{name}f" for name in _LIBM.split())
"""Functions of <math.h> that an operator may call."""

HELPERS: Mapping[str, str] = {
    **{
        f"{word}_{dtype}": f"static inline {kind} {word}_{dtype}({kind} a, {kind} b)\n"
        f"{{\n    return a {sign} b ? a : b;\n}}\n"
        for kind, dtype in _SHORT.items()
        for word, sign in (("min", "<"), ("max", ">"))
    },
    "abs_int32": "static inline int32_t abs_int32(int32_t a)\n{\n    return a < 0 ? -a : a;\n}\n",
    "clz_int32": """/* The number of zero bits above the highest one; 32 for zero. */
static inline int32_t clz_int32(int32_t a)
{
    uint32_t bits = (uint32_t)a;
    int32_t count = 32;
    while (bits != 0) {
        bits >>= 1;
        --count;
    }
    return count;
}
""",
    "float32_of_bits": """static inline float float32_of_bits(int32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
""",
    "bits_of_float32": """static inline int32_t bits_of_float32(float value)
{
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
""",
}
"""Small functions that expressions call, by name; only those that are used are written."""


def dtype_of(node: Any) -> str:
    return str(node.ty.dtype)


def unprintable(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{what} can't be written as C99", hint="compile without --emit c; the object code has it"
    )


class ExpressionPrinter:
    """Prints expressions; remembers which helpers and headers they need.

    `variable` and `element` print a variable and a buffer's element, whose names only the statements know.
    """

    def __init__(self, variable: Callable[[Any], str], element: Callable[[Any, Any], str]) -> None:
        self._variable = variable
        self._element = element
        self.shifted: set[Any] = set()
        """Variables whose value was shifted left last: it may be the smallest number of its type."""
        self.helpers: set[str] = set()
        self.math = False

    def text(self, node: Any, at_least: int = 0) -> str:
        """C of an expression, in parentheses where it binds less than `at_least`."""
        text, precedence = self._print(node)
        return text if precedence >= at_least else f"({text})"

    def _print(self, node: Any) -> Printed:
        kind = type(node).__name__
        if kind in _BINARY:
            return self._arithmetic(kind, node.a, node.b, dtype_of(node))
        if kind in _COMPARISONS:
            sign, precedence = _COMPARISONS[kind]
            return f"{self.text(node.a, _SHIFT)} {sign} {self.text(node.b, _SHIFT)}", precedence
        method = getattr(self, f"_print_{kind.lower()}", None)
        if method is None:
            raise unprintable(f"an expression of kind {kind}")
        printed: Printed = method(node)
        return printed

    def _arithmetic(self, kind: str, a: Any, b: Any, dtype: str) -> Printed:
        sign, precedence = _BINARY[kind]
        if dtype == "float32" and kind == "Mod":
            self.math = True
            return f"fmodf({self.text(a)}, {self.text(b)})", _ATOM
        if kind in ("Add", "Sub") and dtype in _UNSIGNED and any(self.is_shifted(each) for each in (a, b)):
            unsigned = _UNSIGNED[dtype]
            left, right = (f"({unsigned}){self.text(each, _UNARY)}" for each in (a, b))
            return f"({C_TYPES[dtype]})({left} {sign} {right})", _UNARY
        if kind == "Mul" and type(b).__name__ == "IntImm" and int(b.value) == -1:
            return f"-{self.text(a, _UNARY + 1)}", _UNARY
        if kind in ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "RShift"):
            # compilers warn where the reader has to know that + binds tighter than & or >>
            text = f"{self.text(a, _UNARY)} {sign} {self.text(b, _UNARY)}"
        else:
            text = f"{self.text(a, precedence)} {sign} {self.text(b, precedence + 1)}"
        if dtype in ("int8", "uint8", "int16", "uint16"):
            # C computes in int; the type's own width is what TensorIR means
            return f"({C_TYPES.get(dtype, 'uint16_t')})({text})", _UNARY
        return text, precedence

    def is_shifted(self, node: Any) -> bool:
        """True for what was shifted left: 2^31 − 1 as (1 << 31) − 1 wraps twice, and is right."""
        kind = type(node).__name__
        return kind == "LShift" or (kind == "Var" and node in self.shifted)

    def _print_lshift(self, node: Any) -> Printed:
        return self._shifted_left(node.a, node.b, dtype_of(node))

    def _shifted_left(self, value: Any, distance: Any, dtype: str) -> Printed:
        unsigned = {"uint32": "uint32_t", **_UNSIGNED}.get(dtype)
        if unsigned is None:
            raise unprintable(f"a left shift of {dtype}")
        return (
            f"({C_TYPES[dtype]})(({unsigned}){self.text(value, _UNARY)} << {self.text(distance, _UNARY)})",
            _UNARY,
        )

    def _print_min(self, node: Any) -> Printed:
        return self._helped("min", node)

    def _print_max(self, node: Any) -> Printed:
        return self._helped("max", node)

    def _helped(self, word: str, node: Any) -> Printed:
        name = f"{word}_{dtype_of(node)}"
        if name not in HELPERS:
            raise unprintable(f"{word} of {dtype_of(node)}")
        self.helpers.add(name)
        return f"{name}({self.text(node.a)}, {self.text(node.b)})", _ATOM

    def _print_and(self, node: Any) -> Printed:
        return f"{self.text(node.a, _AND)} && {self.text(node.b, _AND)}", _AND

    def _print_or(self, node: Any) -> Printed:
        # compilers warn about && within || without parentheses
        left, right = (
            self.text(each, _OR if type(each).__name__ == "Or" else _AND + 1) for each in (node.a, node.b)
        )
        return f"{left} || {right}", _OR

    def _print_not(self, node: Any) -> Printed:
        return f"!{self.text(node.a, _UNARY)}", _UNARY

    def _print_select(self, node: Any) -> Printed:
        return self._chosen(node.condition, node.true_value, node.false_value)

    def _chosen(self, condition: Any, true: Any, false: Any) -> Printed:
        choices = f"{self.text(true, _TERNARY + 1)} : {self.text(false, _TERNARY + 1)}"
        return f"{self.text(condition, _TERNARY + 1)} ? {choices}", _TERNARY

    def _print_cast(self, node: Any) -> Printed:
        dtype = dtype_of(node)
        if dtype == "bool":
            return f"{self.text(node.value, _COMPARE)} != 0", _EQUAL
        if dtype not in C_TYPES:
            raise unprintable(f"a conversion to {dtype}")
        return f"({C_TYPES[dtype]}){self.text(node.value, _UNARY)}", _UNARY

    def _print_intimm(self, node: Any) -> Printed:
        value, dtype = int(node.value), dtype_of(node)
        lowest, name, wrapper = _LIMITS.get(dtype, (None, "", ""))
        if value == lowest:
            return name, _ATOM
        if value < 0:
            text = f"{wrapper}({-value})" if wrapper else str(-value)
            return f"-{text}", _UNARY
        return (f"{wrapper}({value})" if wrapper else str(value)), _ATOM

    def _print_floatimm(self, node: Any) -> Printed:
        value = float(node.value)
        if not math.isfinite(value):
            self.math = True
            name = "NAN" if math.isnan(value) else "INFINITY"
            return (f"-{name}", _UNARY) if value < 0 else (name, _ATOM)
        text = f"{value:.9g}"
        text = f"{text if '.' in text or 'e' in text else text + '.0'}f"
        return text, _UNARY if text.startswith("-") else _ATOM

    def _print_var(self, node: Any) -> Printed:
        return self._variable(node), _ATOM

    def _print_bufferload(self, node: Any) -> Printed:
        return self._print_tensorload(node)

    def _print_tensorload(self, node: Any) -> Printed:
        return self._element(node.buffer if hasattr(node, "buffer") else node.source, node.indices), _ATOM

    def _print_call(self, node: Any) -> Printed:
        name = str(getattr(node.op, "name", node.op)).split(".")[-1]
        arguments = list(node.args)
        if name == "if_then_else":
            return self._chosen(*arguments)
        if name == "likely":
            return self._print(arguments[0])
        if name == "shift_left":
            return self._shifted_left(arguments[0], arguments[1], dtype_of(node))
        if name in _CALLED_BINARY:
            return self._arithmetic(_CALLED_BINARY[name], arguments[0], arguments[1], dtype_of(node))
        if name == "bitwise_not":
            return f"~{self.text(arguments[0], _UNARY)}", _UNARY
        if name in ("clz", "abs") and dtype_of(arguments[0]) == "int32":
            return self._call(f"{name}_int32", arguments)
        if name == "reinterpret":
            return self._reinterpreted(arguments[0], dtype_of(node))
        if name in ("isnan", "isinf", "isfinite"):
            self.math = True
            return f"{name}({self.text(arguments[0])})", _ATOM
        if name in ("call_pure_extern", "call_extern"):
            return self._function(str(arguments[0].value), arguments[1:])
        return self._function(f"{name}f" if dtype_of(node) == "float32" else name, arguments)

    def _call(self, helper: str, arguments: list[Any]) -> Printed:
        self.helpers.add(helper)
        return f"{helper}({', '.join(self.text(each) for each in arguments)})", _ATOM

    def _reinterpreted(self, value: Any, dtype: str) -> Printed:
        helper = {
            ("int32", "float32"): "float32_of_bits",
            ("uint32", "float32"): "float32_of_bits",
            ("float32", "int32"): "bits_of_float32",
        }.get((dtype_of(value), dtype))
        if helper is None:
            raise unprintable(f"the bits of {dtype_of(value)} as {dtype}")
        return self._call(helper, [value])

    def _function(self, name: str, arguments: list[Any]) -> Printed:
        name = "fabsf" if name == "absf" else name
        if name not in LIBM:
            raise unprintable(f"a call of {name}")
        self.math = True
        return f"{name}({', '.join(self.text(each) for each in arguments)})", _ATOM
