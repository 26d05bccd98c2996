"""What a call does inside: the tensors it makes, the products it works out, the kernels it launches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from srt_masks.kernels import traced


class Watch(TorchDispatchMode):
    """Every operation of torch meanwhile, those inside the project's own operators too, which torch shows as one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "srt_masks":
            with self:
                return {"srt_masks::attention": traced._forward, "srt_masks::attention_backward": traced._backward}[func._schema.name](*args, **kwargs)
        result = func(*args, **kwargs)
        self.saw(func, args, result)
        return result

    def saw(self, func: Any, args: Any, result: Any) -> None:
        raise NotImplementedError


class Largest(Watch):
    """The most elements of any tensor made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def saw(self, func: Any, args: Any, result: Any) -> None:
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())


PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm")


class Products(Watch):
    """How many products of matrices were worked out meanwhile, and to what precision."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.precisions: set[str] = set()

    def saw(self, func: Any, args: Any, result: Any) -> None:
        name = func._schema.name.split("::")[-1]
        if name in PRODUCTS or "attention" in name:
            self.count += 1
            self.precisions.add(f"{result[0].dtype if isinstance(result, tuple) else result.dtype} {torch.get_float32_matmul_precision()}")


@contextmanager
def launches() -> Iterator[list[str]]:
    """The names of the Triton kernels that are launched meanwhile, in order."""
    from srt_masks.kernels import call

    names: list[str] = []
    run = call.run

    def recorded(kernel: Any, programs: int, *args: Any, **arguments: Any) -> None:
        names.append(kernel.fn.__name__.removesuffix("_kernel"))
        run(kernel, programs, *args, **arguments)

    call.run = recorded
    try:
        yield names
    finally:
        call.run = run
