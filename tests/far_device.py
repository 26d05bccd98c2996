"""A device that is not here, played by the CPU: `mps`, which has no float64 and whose tensors meet no CPU's.

    with far_device() as device:
        q = device.put(torch.randn(1, 2, 9, 16))   # q.device is mps
        device.dtypes                              # of every tensor that was made there

A tensor there wraps one on the CPU. What real devices refuse is refused: operands on two devices (single numbers from the CPU excepted), and a
float64 tensor there, even on the way to another dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "far"
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


_setup_privateuseone_for_python_backend(NAME)


class Far(Tensor):
    """A tensor on the device; `here` holds its numbers."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Far:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, device=torch.device(NAME, 0)
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a tensor of the far device outside of far_device()")

    def __getitem__(self, index: Any) -> Any:
        """A list that indexes becomes a tensor on the device, for which torch asks no operator either."""
        whole = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(Far(torch.tensor(i)) if isinstance(i, list) else i for i in whole))

    def tolist(self) -> Any:
        return self.here.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Far({self.here})"


class FarDevice(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()
        self.operators: set[str] = set()

    def put(self, x: Tensor) -> Tensor:
        return self._wrap(x.detach().clone())

    def _wrap(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or isinstance(x, Far):
            return x
        if x.dtype is torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
        self.dtypes.add(x.dtype)
        return Far(x)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.namespace == "srt_masks":  # what it does is looked at, and not that it is called
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **kwargs)
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        leaves = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        far = [x for x in leaves if isinstance(x, Far)]
        asked = kwargs.get("device")
        there = bool(far) if asked is None else torch.device(asked).type == NAME
        if far and func not in COPIES and any(not isinstance(x, Far) and x.ndim for x in leaves):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found {NAME} and cpu")
        if there and func is COPIES[0] and not far and leaves[0].dtype is torch.float64:
            raise TypeError("float64 on its way to MPS")
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        if func is torch.ops.aten._local_scalar_dense.default:
            there = False
        args, kwargs = tree_map(lambda x: x.here if isinstance(x, Far) else x, (args, kwargs))
        if there:
            self.operators.add(str(func))
        found = func(*args, **kwargs)
        if not there:
            return found
        # In place: the tensor that was given is the one that comes back.
        mine = {id(x.here): x for x in far}
        return tree_map(lambda x: mine.get(id(x)) if id(x) in mine else self._wrap(x), found)


@contextmanager
def far_device() -> Iterator[FarDevice]:
    """torch.tensor asks for memory on the device before any operator is called: it is replaced while this lasts."""
    device, honest = FarDevice(), torch.tensor

    def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        made = honest(data, **kwargs)
        return made if device is None else made.to(device)

    torch.tensor = tensor  # type: ignore[assignment]
    try:
        with device:
            yield device
    finally:
        torch.tensor = honest
