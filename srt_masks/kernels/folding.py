"""vmap: a mapped axis becomes rows of the batch, which are independent of each other, and what a row of the batch is given goes with it.

The rows of the batch are those of the first element of the mapped axis, then those of the second, and so on. Anything that may differ from row to
row may be mapped over, run-time inputs and params too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..diagnostics import BackendError
from ..grammar.checked import Checked
from .flat import flatten, unflatten_beside, unflatten_unread


def fold(x: Tensor, dim: int | None, count: int) -> Tensor:
    """(count x batch, ...), of a tensor (batch, ...) that is mapped along `dim`, or (None) the same for all."""
    x = x.expand(count, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def unfold(x: Tensor, count: int, batch: int) -> Tensor:
    """(count, batch, ...) again; of a count of 0 only the caller knows the batch."""
    return x.unflatten(0, (count, batch))


def fold_arguments(
    checked: Checked, form: str, tensors: Sequence[Tensor], dims: Sequence[int | None], whole: Sequence[int], batch: int, count: int
) -> tuple[list[Tensor], list[int], str]:
    """Tensors, numbers and form of the arguments, for `count` times as many rows of the batch. Raises BackendError for a mapped argument of which a
    call has one alone."""
    arguments, mapped = unflatten_unread(form, tensors, whole), unflatten_beside(form, dims, whole)
    axes = {"lengths": 0, "queries": 0} | {p.name: 0 for p in checked.params}
    inputs = {i.name: len(i.axes) + len(i.sizes) for i in checked.inputs}
    folded: dict[str, Any] = {}
    for name, value in arguments.items():
        if name == "given" and isinstance(value, Mapping):
            folded[name] = {n: _rows(x, mapped[name][n], 1, batch, count) for n, x in value.items()}
        elif name == "inputs" and isinstance(value, Mapping):
            folded[name] = {n: _rows(x, mapped[name][n], {**axes, **inputs}.get(n, 0), batch, count) for n, x in value.items()}
        elif name in ("layer", "scale", "visited"):
            if isinstance(value, Tensor) and mapped[name] is not None:
                what = "order" if name == "visited" else "number"
                raise BackendError(f"{name}= is mapped over by vmap, and is one {what} for all of a call: call once for each")
            folded[name] = value
        else:
            folded[name] = _rows(value, mapped[name], {**axes, **inputs}.get(name, 0), batch, count)
    form, tensors, whole = flatten(folded)
    return tensors, whole, form


def _depth(value: Any) -> int:
    """How many axes nested lists have, as far as their first items tell."""
    return 1 + (_depth(value[0]) if value else 0) if isinstance(value, list | tuple) else 0


def _rows(value: Any, dim: int | None, axes: int, batch: int, count: int) -> Any:
    """What the rows of the batch are given, `count` times; `axes` are those that one row has."""
    if isinstance(value, list | tuple):
        own = _depth(value) == axes + 1 and (axes == 0 or len(value) > 1)
        return value * count if own else value
    if not isinstance(value, Tensor):
        return value
    if dim is None:
        own = value.ndim == axes + 1 and (axes == 0 or value.shape[0] > 1)
        return value.expand(count, *value.shape).flatten(0, 1) if own else value
    value = value.movedim(dim, 0)
    if value.ndim == axes + 1:
        value = value.unsqueeze(1)
    if value.ndim == axes + 2 and value.shape[1] == 1:
        value = value.expand(count, batch, *value.shape[2:])
    return value.flatten(0, 1)
