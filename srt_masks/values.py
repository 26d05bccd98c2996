"""Numbers as callers hand them in, of Python, NumPy or torch, as Python's numbers and torch's dense tensors.

What cannot be made one of these raises InputError, saying what was wanted and what came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from .diagnostics import InputError
from .grammar.constants import plain_number

WHOLE = frozenset({torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64})


def whole_number(value: Any) -> int | None:
    """A whole number, of whichever library; None for anything else, a truth value too."""
    number = plain_number(value)
    return int(number) if isinstance(number, int) and not isinstance(number, bool) else None


def counted(name: str, value: Any, least: int, what: str = "a whole number") -> int:
    """An argument that counts something. Raises InputError below `least`, and for what is no whole number."""
    number = whole_number(value)
    if number is None or number < least:
        raise InputError(f"{name} is {what}, {least} or more; got {came(value)}")
    return number


def vector(value: Any) -> Sequence[Any] | None:
    """The entries of a tensor or an array of whole numbers with one axis, or of a list or another sequence of anything; None for what is no such thing."""
    value = of_array(value)
    if isinstance(value, Tensor):
        return value.tolist() if not odd(value) and value.ndim == 1 and value.dtype in WHOLE else None
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else None


def asks_for_gradient(value: Any) -> bool:
    """Whether a gradient is asked of a tensor, or of one in nested lists, by forward mode too; and by a transform of torch.func, which vmap hides where it
    lies within."""
    if isinstance(value, list | tuple):
        return any(asks_for_gradient(x) for x in value)
    while isinstance(value, Tensor):
        if value.requires_grad or (forward_ad._current_level >= 0 and forward_ad.unpack_dual(value).tangent is not None):
            return True
        if not torch._C._functorch.is_functorch_wrapped_tensor(value):  # pyright: ignore[reportAttributeAccessIssue]
            return False
        value = torch._C._functorch.get_unwrapped(value)  # pyright: ignore[reportAttributeAccessIssue]
    return False


def check_constant(what: str, value: Any) -> None:
    """Raises InputError for a number, or numbers, of which a gradient is asked."""
    if asks_for_gradient(value):
        raise InputError(f"{what} requires grad, and no gradient flows to it: give its .detach()")


def number_of_scalar(what: str, value: Any) -> Any:
    """A number, given as a tensor without axes too, as Python's. Raises InputError for a tensor with axes, or one that asks for a gradient."""
    if isinstance(value, Tensor) and (odd(value) or value.ndim):
        raise InputError(f"{what} is one number; got {describe(value)}")
    check_constant(what, value)
    return plain_number(value)


def of_array(value: Any) -> Any:
    """A NumPy array of numbers as a tensor, whatever the order of its bytes and of its rows in memory; all else as it came."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iufb" or value.dtype.itemsize > 8:
        return value
    # torch takes neither negative strides nor foreign bytes, and what may not be written only with a warning.
    native = np.asarray(value, value.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(native if native.flags.writeable else native.copy())


def dense_tensor(what: str, wanted: str, value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor, an array or nested lists of numbers as an ordinary tensor; `dtype` is that of Python's numbers. Raises InputError: `what` is `wanted`; and
    for whole numbers of 64 bits without a sign, which torch neither compares nor adds."""
    tensor = value if isinstance(value, Tensor) else of_array(value)
    if not isinstance(tensor, Tensor):
        try:
            tensor = torch.as_tensor(tensor, dtype=dtype)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            why = "rows of different lengths: pad them to one" if _ragged(value) else came(value)
            raise InputError(f"{what} is {wanted}; got {why}") from None
    if why := odd(tensor):
        raise InputError(f"{what} is an ordinary dense tensor; got {why}")
    if tensor.dtype is torch.uint64:
        raise InputError(f"{what}: whole numbers have 64 bits and a sign here; got uint64: give its .long()")
    return tensor


def odd(value: Tensor) -> str:
    """What a tensor is whose numbers do not lie in memory one by one; nothing for all others."""
    if value.is_nested:  # before its layout and its shape, which some have not
        return "a nested one: pad it"
    if value.layout is not torch.strided:
        return f"layout {str(value.layout).removeprefix('torch.')}: give its .to_dense()"
    return "a meta tensor, which holds no numbers" if value.is_meta else ""


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a tensor, an array or nested lists, as far as they have one."""
    if isinstance(value, list | tuple):
        return (len(value), *(shape_of(value[0]) if value else ()))
    if isinstance(value, Tensor) and value.is_nested:
        return ()
    return tuple(value.shape) if hasattr(value, "shape") else ()


def _ragged(value: Any) -> bool:
    return isinstance(value, list | tuple) and (len({shape_of(row) for row in value}) > 1 or any(map(_ragged, value)))


def describe(value: Tensor) -> str:
    return odd(value) or f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def came(value: Any) -> str:
    """What came in place of what was wanted, in a few words."""
    if isinstance(value, Tensor):
        return describe(value)
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    return repr(value)[:60]
