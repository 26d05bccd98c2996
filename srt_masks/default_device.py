"""Torch's default device, and what it must not decide.

Plans, layouts and proofs are made on the CPU, of tensors that no caller sees. `torch.set_default_device("cuda")` and `with torch.device(...)` speak of the
caller's own tensors, and would make half of these elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def on_the_cpu(function: Callable[P, T]) -> Callable[P, T]:
    """The function, in which a tensor whose device is not said is one on the CPU. Functions of the caller's that it calls see that, too."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        # A default device is one of torch's function modes. Where there is none, as nearly always, nothing is entered: a mode sees every call of torch.
        if not torch._C._len_torch_function_stack() or torch.compiler.is_compiling():
            return function(*args, **kwargs)
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return wrapped
