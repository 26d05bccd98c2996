"""A backend against the dense reference: output, lse and the three gradients, in the units of the error bound.

The bound, for every dtype: at most twice the error of dense attention in the same dtype plus 4 units in the last place of the
largest term, both against float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..kernels.attention import compile_spec
from ..reference.attention import attention
from ..spec import Spec
from ..surface import dense
from .case import HEAD_DIM, Case

NAMES = ("out", "lse", "dq", "dk", "dv", "dhk", "dhv")


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
    spec: Spec, *, steps: int | None = None, heads: int = 2, key_heads: int | None = None, layers: int | None = None, layer: int = 0, head_dim: int = 16,
    batch: int = 1, dtype: torch.dtype = torch.float32, backend: str = "tiled", tile: int | None = None, seed: int = 0, inputs: Mapping[str, Any] | None = None,
    lengths: tuple[int, ...] | None = None, given: Mapping[str, Any] | None = None, device: torch.device | str = "cpu", size: float = 1.0,
) -> list[Comparison]:  # fmt: skip
    """Compare one call on random q, k, v: one `Comparison` each for out, lse, dq, dk and dv, and for the twins of k and v where the text has
    `stop hidden`.

    The backend runs on `device`, the reference on the CPU. Numbers in q and k are about `size`: logits grow as its square.
    """
    checked = spec.checked
    masks = dense(spec, steps=steps if checked.repeats else None, heads=heads, layers=layers, lengths=lengths, inputs=inputs, given=given)
    masks = [(m if m.ndim > 4 else m[None])[:, layer] for m in (masks.attend, masks.gate_q, masks.gate_k, masks.gate_v, masks.gate_hidden)]
    queries, keys = masks[0].shape[-2:]
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, heads, queries, head_dim), *[(batch, key_heads or heads, keys, head_dim)] * 2, (batch, heads, queries, head_dim)]
    q, k, v, dout = (torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes)
    q, k = q * size, k * size
    dlse = torch.randn(shapes[0][:3], generator=generator, dtype=torch.float64)
    attend = compile_spec(spec, heads=heads, layers=layers, backend=backend, tile=tile)
    twins = checked.has_hidden_rules

    def results(run, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in ((q, k, v, k, v) if twins else (q, k, v))]
        out, lse = run(*leaves[:3], **(dict(zip(("hidden_k", "hidden_v"), leaves[3:], strict=True)) if twins else {}))
        reached = torch.isfinite(lse)
        objective = (out.double() * dout.double()).sum() + (lse.double()[reached] * dlse[reached]).sum()
        # A text may mean nothing by its `stop hidden`: then the twins are not looked at.
        grads = (
            torch.autograd.grad(objective, leaves, allow_unused=True, materialize_grads=True)
            if objective.requires_grad
            else [torch.zeros_like(x) for x in leaves]
        )
        return [out, torch.where(reached, lse, 0), *grads]

    def there(*x: Tensor, **hidden: Tensor) -> list[Tensor]:
        here = {n: t.to(device) for n, t in hidden.items()}
        found = attend(*(t.to(device) for t in x), layer=layer if layers else None, return_lse=True, lengths=lengths, given=given, inputs=inputs, **here)
        return [t.cpu() for t in found]

    mine = results(there, dtype)
    truth = results(lambda *x, **hidden: attention(*x, *masks, **hidden), torch.float64)
    # float64 has no better judge than itself: its own error is that of float32, scaled by the two precisions.
    narrow = torch.float32 if dtype is torch.float64 else dtype
    finer = torch.finfo(dtype).eps / torch.finfo(narrow).eps
    plain = _all_dense((x.to(narrow) for x in (q, k, v, dout)), dlse, masks, twins, _dense)
    terms = _all_dense((x.double() for x in (q, k, v, dout)), dlse, masks, twins, _largest_terms)
    found = []
    # In float64 the truth has an error of its own: what a second way of computing it, in float64 too, makes of it.
    again = _all_dense((x.double() for x in (q, k, v, dout)), dlse, masks, twins, _dense) if dtype is torch.float64 else truth
    for what, a, b, t, second, term in zip(NAMES, mine, plain, truth, again, terms, strict=False):
        own = (second - t).abs().max().item() if t.numel() else 0.0
        unit = torch.finfo(torch.float32 if what == "lse" and dtype is not torch.float64 else dtype).eps
        error = (a.double() - t).abs()
        error = torch.where(error.isnan(), float("inf"), error)
        dense_error = ((b.double() - t).abs().max().item() if t.numel() else 0.0) * finer
        allowed = 2 * dense_error + 4 * unit * term + own
        worst = int((error - allowed).argmax()) if t.numel() else None
        at = [0.0, 0.0] if worst is None else [x.flatten()[worst].item() for x in (error, allowed)]
        found.append(Comparison(what, at[0], dense_error, at[1]))
    return found


def compare_case(case: Case, *, backend: str = "auto", dtype: torch.dtype = torch.float32, layer: int = 0) -> list[Comparison]:
    """`compare` on a `Case`."""
    return compare(
        case.spec, steps=case.steps, heads=case.heads, key_heads=case.key_heads, layers=case.layers, layer=layer, head_dim=HEAD_DIM, batch=case.batch,
        dtype=dtype, backend=backend, tile=case.tile, seed=case.seed, inputs=case.inputs, lengths=case.lengths, given=case.given,
    )  # fmt: skip


def _all_dense(tensors: Iterable[Tensor], dlse: Tensor, masks: list[Tensor], twins: bool, how: Callable[..., list[Tensor]]) -> list[Tensor]:
    """Under gates of the hidden state k and v learn through one part of their gates, and their twins through the rest."""
    (q, k, v, dout), (attend, gate_q, gate_k, gate_v, hidden) = tensors, masks
    found = how(q, k, v, dout, dlse, attend, gate_q, gate_k * hidden, gate_v * hidden)
    if twins:
        found = found + how(q, k, v, dout, dlse, attend, gate_q, gate_k * (1 - hidden), gate_v * (1 - hidden))[3:]
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
