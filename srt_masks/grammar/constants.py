"""Arithmetic on constants, while the text is read: the same 64-bit numbers as at run time, but what would wrap is a mistake."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..diagnostics import InputError
from .checked import Op, Type

INT64 = range(-(2**63), 2**63)


def fold(op: Op, args: list[int]) -> int | str | None:
    """Constant integer arithmetic; a string says what is wrong; None where the operator does not give an integer."""
    match op, args:
        case ((Op.FLOORDIV | Op.MOD), [_, 0]):
            return "this divides by zero"
        case Op.FLOORDIV, [a, b]:
            result = a // b
        case Op.MOD, [a, b]:
            result = a % b
        case Op.POW, [_, b] if b < 0:
            return "a whole number has no negative power"
        case Op.POW, [a, b]:
            if abs(a) > 1 and b > 63:
                return "this constant needs more than 64 bits"
            result = a ** (b if abs(a) > 1 else 1 + (b - 1) % 2 if b else 0)
        case _:
            result = _of_any_number(op, args)
    return result if result is None or result in INT64 else "this constant needs more than 64 bits"


def fold_floats(op: Op, args: list[int | float]) -> float | str | None:
    """Constant arithmetic in floats; a string says what is wrong; None where the operator does not give a float."""
    try:
        match op, args:
            case Op.TRUEDIV, [a, b]:
                result = a / b
            case _:
                result = _of_any_number(op, args)
        if result is None:
            return None
        return float(result) if math.isfinite(result) else "this constant is no finite number"
    except OverflowError:
        return "this constant is no finite number"


def _of_any_number(op: Op, args: Sequence[Any]) -> Any:
    match op, args:
        case Op.NEG, [a]:
            return -a
        case Op.ABS, [a]:
            return abs(a)
        case Op.ADD, [a, b]:
            return a + b
        case Op.SUB, [a, b]:
            return a - b
        case Op.MUL, [a, b]:
            return a * b
        case Op.MIN, [a, b]:
            return min(a, b)
        case Op.MAX, [a, b]:
            return max(a, b)
        case _:
            return None


def number_of(text: str) -> int | float | None:
    """The value of a number as written; None if it does not fit 64 bits."""
    digits = text.replace("_", "")
    if set(digits) <= set("-+0123456789"):
        if len(digits) > 21:
            return None
        return int(digits) if int(digits) in INT64 else None
    value = float(digits)
    return value if abs(value) != float("inf") else None


def plain_number(value: Any) -> Any:
    """A number of NumPy or torch, which is what has a shape without axes, as Python's; all else as it came."""
    return value.item() if getattr(value, "shape", None) == () and not getattr(value, "is_meta", False) else value


def check_no_gradient(what: str, value: object) -> None:
    """Raises InputError for a number that a gradient is asked of."""
    if getattr(value, "requires_grad", False):
        raise InputError(f"{what} requires grad, and no gradient flows to it: give its .detach()")


def param_value(name: str, type: Type, value: object) -> int | float:
    """A value for a param, as its own type. Raises InputError if it is no such number."""
    check_no_gradient(f"param `{name}`", value)
    value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"param `{name}` is a number; got {value!r}")
    if type is Type.FLOAT:
        try:
            if math.isfinite(value):
                return float(value)
        except OverflowError:
            pass
        raise InputError(f"param `{name}` is a finite number; got {_short(value)}")
    if isinstance(value, float) and (not math.isfinite(value) or int(value) != value):
        raise InputError(f"param `{name}` is a whole number of at most 64 bits; got {value!r}")
    if int(value) not in INT64:
        raise InputError(f"param `{name}` is a whole number of at most 64 bits; got {_short(value)}")
    return int(value)


def _short(value: int | float) -> str:
    """Python refuses to print whole numbers of thousands of digits."""
    return repr(value) if isinstance(value, float) or value.bit_length() < 256 else f"one of {value.bit_length():,} bits"
