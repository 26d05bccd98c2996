"""A backend against the dense reference: output, lse and the three gradients, in the units of the error bound.

The bound, for every dtype: at most twice the error of dense attention in the same dtype plus 4 units in the last place of the
largest term, both against float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from ..reference.attention import attention
from ..spec import Spec
from ..time_steps import Steps
from .case import HEAD_DIM, Case

NAMES = ("out", "lse", "dq", "dk", "dv", "dhk", "dhv")


class Strides(Enum):
    """How q, k, v and the gradient of the output lie in memory."""

    PLAIN = 0
    TRANSPOSED = 1  # (batch, tokens, heads, head_dim) in memory, as a projection leaves it
    ONE_VALUE = 2  # v is one row, seen once for every key: stride 0
    ONE_GRADIENT = 3  # that of a sum: one number, seen everywhere


@dataclass(frozen=True, slots=True)
class Comparison:
    """Largest errors against float64: of the backend, of dense attention in the same dtype, and what is allowed."""

    what: str
    error: float
    dense_error: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.error <= self.allowed

    def __str__(self) -> str:
        return f"{self.what:4} error {self.error:.2e}  (dense attention {self.dense_error:.2e}, allowed {self.allowed:.2e})  {'ok' if self.holds else 'WRONG'}"


def compare(
    spec: Spec, *, steps: Steps | None = None, heads: int = 2, key_heads: int | None = None, layers: int | None = None, layer: int = 0, head_dim: int = 16,
    batch: int = 1, dtype: torch.dtype = torch.float32, backend: str = "tiled", tile: int | None = None, seed: int = 0, inputs: Mapping[str, Any] | None = None,
    lengths: tuple[int, ...] | None = None, given: Mapping[str, Any] | None = None, device: torch.device | str = "cpu", size: float = 1.0,
) -> list[Comparison]:  # fmt: skip
    """Compare one call on random q, k, v: one `Comparison` each for out, lse, dq, dk and dv, and for the twins of k and v where the text has
    `stop hidden`.

    The backend runs on `device`, the reference on the CPU. Numbers in q and k are about `size`: logits grow as its square.
    """
    case = Case(spec, steps if spec.checked.repeats else None, heads, key_heads, layers, batch, lengths, inputs or {}, given, tile, seed)
    return compare_case(case, backend=backend, dtype=dtype, layer=layer, head_dim=head_dim, device=device, size=size)


def compare_case(
    case: Case, *, backend: str = "auto", dtype: torch.dtype = torch.float32, layer: int = 0, head_dim: int = HEAD_DIM,
    device: torch.device | str = "cpu", size: float = 1.0, needs: tuple[bool, bool, bool] = (True, True, True), strides: Strides = Strides.PLAIN,
) -> list[Comparison]:  # fmt: skip
    """`compare` on a `Case`; `needs` says which of q, k and v ask for a gradient (the twins as k and v do): the others are not compared."""
    problem = _problem(case, dtype, layer, head_dim, size, strides)
    attend = case.compile(backend)

    def there(*x: Tensor, **hidden: Tensor) -> list[Tensor]:
        here = {n: t.to(device) for n, t in hidden.items()}
        return [t.cpu() for t in case.call(attend, *(t.to(device) for t in x), layer=layer, **here)]  # type: ignore[arg-type]

    mine = _results(there, problem, dtype, needs)
    truth = _results(lambda *x, **hidden: attention(*x, *problem.masks, **hidden), problem, torch.float64, needs)
    # float64 has no better judge than itself: its own error is that of float32, scaled by the two precisions.
    narrow = torch.float32 if dtype is torch.float64 else dtype
    finer = torch.finfo(dtype).eps / torch.finfo(narrow).eps
    plain = _all_dense(problem, narrow, _dense)
    terms = _all_dense(problem, torch.float64, _largest_terms)
    # In float64 the truth has an error of its own: what a second way of computing it, in float64 too, makes of it.
    again = _all_dense(problem, torch.float64, _dense) if dtype is torch.float64 else truth
    found = []
    for what, a, b, t, second, term in zip(NAMES, mine, plain, truth, again, terms, strict=False):
        if a is None or t is None:
            continue
        own = (second - t).abs().max().item() if second is not None and t.numel() else 0.0
        unit = torch.finfo(torch.float32 if what == "lse" and dtype is not torch.float64 else dtype).eps
        dense_error = ((b.double() - t).abs().max().item() if t.numel() else 0.0) * finer
        found.append(_worst(what, a, t, dense_error, 2 * dense_error + 4 * unit * term + own))
    return found


def _worst(what: str, mine: Tensor, truth: Tensor, dense_error: float, allowed: Tensor) -> Comparison:
    """Where the error exceeds what is allowed by most, or comes nearest to it."""
    if not truth.numel():
        return Comparison(what, 0.0, dense_error, 0.0)
    error = (mine.double() - truth).abs()
    error = torch.where(error.isnan(), float("inf"), error)
    worst = int((error - allowed).argmax())
    return Comparison(what, error.flatten()[worst].item(), dense_error, allowed.flatten()[worst].item())


# ------------------------------------------------------------------------------------------------ what is computed


def varied(seed: int) -> dict[str, Any]:
    """dtype, needs and strides as the bits of a seed say; those of 0 are float32, all gradients, plain."""
    unneeded = seed >> 1 & 7
    needs = tuple(unneeded == 7 or not unneeded >> i & 1 for i in range(3))  # somebody asks
    return {"dtype": (torch.float32, torch.float64)[seed & 1], "needs": needs, "strides": Strides(seed >> 4 & 3)}


@dataclass(frozen=True, slots=True)
class _Problem:
    """q, k, v, the gradients of out and lse, in the dtype of the backend, and the masks of one layer: attend and the gates of q, k, v, hidden."""

    q: Tensor
    k: Tensor
    v: Tensor
    dout: Tensor
    dlse: Tensor
    masks: tuple[Tensor, ...]
    twins: bool


def _problem(case: Case, dtype: torch.dtype, layer: int, head_dim: int, size: float, strides: Strides) -> _Problem:
    found = case.masks()
    masks = tuple(m[:, layer] for m in (found.attend, found.gate_q, found.gate_k, found.gate_v, found.gate_hidden))
    q, k, v, dout = case.tensors(dtype, head_dim=head_dim)
    q, k = q * size, k * size
    dlse = torch.randn(q.shape[:3], generator=torch.Generator().manual_seed(case.seed + 1), dtype=torch.float64)
    match strides:
        case Strides.TRANSPOSED:
            q, k, v, dout = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, dout))
        case Strides.ONE_VALUE if v.shape[2]:
            v = v[:, :, :1].expand(v.shape)
        case Strides.ONE_GRADIENT if dout.numel():
            dout = dout.flatten()[0].expand(dout.shape)
        case _:
            pass
    return _Problem(q, k, v, dout, dlse, masks, case.spec.checked.has_hidden_rules)


def _results(run: Callable[..., Iterable[Tensor]], problem: _Problem, dtype: torch.dtype, needs: tuple[bool, bool, bool]) -> list[Tensor | None]:
    """out, lse and the gradient of each leaf; None where none is asked for."""
    tensors = (problem.q, problem.k, problem.v, *((problem.k, problem.v) if problem.twins else ()))
    leaves = [x.detach().to(dtype).requires_grad_(need) for x, need in zip(tensors, (*needs, *needs[1:]), strict=False)]
    out, lse = run(*leaves[:3], **(dict(zip(("hidden_k", "hidden_v"), leaves[3:], strict=True)) if problem.twins else {}))
    asking = [x for x in leaves if x.requires_grad]
    results = [(x, g.to(x.dtype)) for x, g in ((out, problem.dout), (lse, problem.dlse)) if x.requires_grad]
    # A text may mean nothing by its `stop hidden`: then the twins are not looked at.
    grads = iter(
        torch.autograd.grad([x for x, _ in results], asking, [g for _, g in results], allow_unused=True, materialize_grads=True)
        if results and asking
        else [torch.zeros_like(x) for x in asking]
    )
    return [out.detach(), torch.where(lse == float("-inf"), 0, lse).detach(), *(next(grads) if x.requires_grad else None for x in leaves)]


def _all_dense(problem: _Problem, dtype: torch.dtype, how: Callable[..., list[Tensor]]) -> list[Tensor]:
    """Under gates of the hidden state k and v learn through one part of their gates, and their twins through the rest."""
    q, k, v, dout = (x.to(dtype) for x in (problem.q, problem.k, problem.v, problem.dout))
    attend, gate_q, gate_k, gate_v, hidden = problem.masks
    found = how(q, k, v, dout, problem.dlse, attend, gate_q, gate_k * hidden, gate_v * hidden)
    if problem.twins:
        found = found + how(q, k, v, dout, problem.dlse, attend, gate_q, gate_k * (1 - hidden), gate_v * (1 - hidden))[3:]
    return found


def _dense(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, dlse: Tensor, attend: Tensor, *gates: Tensor) -> list[Tensor]:
    """Plain dense attention in the dtype of q, by the formulas of the design: what a backend may be twice as wrong as."""
    scale, group = q.shape[-1] ** -0.5, q.shape[1] // k.shape[1]
    keys, values = (x.repeat_interleave(group, 1) for x in (k, v))
    alive = attend.any(-1, keepdim=True)
    # lse is float32 in every backend, from scores that are.
    wide = torch.float64 if q.dtype is torch.float64 else torch.float32
    exact = torch.where(attend, scale * q.to(wide) @ keys.to(wide).transpose(-1, -2), float("-inf"))
    lse = torch.where(alive[..., 0], exact.logsumexp(-1), 0.0)
    scores = torch.where(attend, scale * q @ keys.transpose(-1, -2), float("-inf"))
    weights = torch.where(attend & alive, scores.softmax(-1), 0.0)
    out = weights @ values
    delta = (dout * out).sum(-1, keepdim=True)
    dscores = weights * (dout @ values.transpose(-1, -2) - delta + dlse[..., None].to(q.dtype))
    gate_q, gate_k, gate_v = (torch.where(attend, g, 0.0).to(q.dtype) for g in gates)
    dq = scale * (gate_q * dscores) @ keys
    dk = scale * (gate_k * dscores).transpose(-1, -2) @ q
    dv = (gate_v * weights).transpose(-1, -2) @ dout
    return [out, lse, dq, *(x.unflatten(1, (-1, group)).sum(2) for x in (dk, dv))]


def _largest_terms(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, dlse: Tensor, attend: Tensor, *gates: Tensor) -> list[Tensor]:
    """For every element of every result, the largest term that is added up on the way to it: sums cancel, their terms do not."""
    scale, group = q.shape[-1] ** -0.5, q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    scores = torch.where(attend, scale * q @ k.transpose(-1, -2), float("-inf"))
    weights = torch.where(attend, scores.softmax(-1), 0.0)
    q, k, v, dout = (x.abs() for x in (q, k, v, dout))
    products = torch.where(attend, scale * _most(q[:, :, :, None] * k[:, :, None]), 0.0)
    upstream = torch.where(attend, _most(dout[:, :, :, None] * v[:, :, None]), 0.0)
    delta = _most((dout * (weights @ v))[:, :, :, None])
    pairs = scale * weights * (upstream + delta + dlse.abs()[..., None])
    gate_q, gate_k, gate_v = (torch.where(attend, g.abs(), 0.0) for g in gates)

    def over_keys(x: Tensor, other: Tensor) -> Tensor:
        return (x[..., None] * other[:, :, None]).amax(3) if x.shape[-1] else other.new_zeros(*x.shape[:3], other.shape[-1])

    def over_queries(x: Tensor, other: Tensor) -> Tensor:
        full = (x[..., None] * other[:, :, :, None]).amax(2) if x.shape[-2] else other.new_zeros(*x.shape[:2], x.shape[-1], other.shape[-1])
        return full.unflatten(1, (-1, group)).amax(2)

    lse = _most(products) if attend.shape[-1] else torch.zeros_like(dlse)
    return [over_keys(weights, v), lse + 1, over_keys(gate_q * pairs, k), over_queries(gate_k * pairs, q), over_queries(gate_v * weights, dout)]


def _most(x: Tensor) -> Tensor:
    return x.amax(-1)
