"""Attention with a gate for every pair, the slow and certain way: every pair sees its own copy of q, k and v.

A copy is g * x + (1 - g) * x.detach(), written so that its value is x to the bit: x.detach() + g * (x - x.detach()). There is no hand-written backward here; autograd
differentiates what is written. In float64 this is what every backend is judged by.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# One chunk of heads keeps about six tensors of heads x queries x keys x head_dim numbers while it is differentiated.
CHUNK_NUMBERS = 2**24


def attention(
    q: Tensor, k: Tensor, v: Tensor, attend: Tensor, gate_q: Tensor, gate_k: Tensor, gate_v: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """out (batch, heads, queries, value_dim) and lse (batch, heads, queries), both differentiable.

    q (batch, heads, queries, head_dim); k, v (batch, key_heads, keys, head_dim or value_dim); `attend` bool and the gates real,
    broadcastable to (batch, heads, queries, keys). Queries without a key give 0 and lse -inf.
    """
    batch, heads, nq, dim = q.shape
    nk = k.shape[2]
    scale = dim**-0.5 if scale is None else scale
    if batch * heads == 0:
        return q.new_zeros(batch, heads, nq, v.shape[-1]), q.new_zeros(batch, heads, nq)
    repeats = heads // k.shape[1]
    full = (batch, heads, nq, nk)
    masks = [m.expand(full).flatten(0, 1) for m in (attend, gate_q, gate_k, gate_v)]
    keys, values = (x.repeat_interleave(repeats, 1).flatten(0, 1) for x in (k, v))
    queries = q.flatten(0, 1)
    each = max(1, CHUNK_NUMBERS // max(1, nq * nk * max(dim, v.shape[-1])))
    outs, lses = [], []
    for rows in torch.arange(batch * heads).split(each):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        # Recomputed in the backward, so that only one chunk's pairs are ever held.
        out, lse = checkpoint(_pairwise, queries[part], keys[part], values[part], *(m[part] for m in masks), scale, use_reentrant=False)  # type: ignore[misc]
        outs.append(out)
        lses.append(lse)
    return torch.cat(outs).unflatten(0, (batch, heads)), torch.cat(lses).unflatten(0, (batch, heads))


def _pairwise(q: Tensor, k: Tensor, v: Tensor, attend: Tensor, gate_q: Tensor, gate_k: Tensor, gate_v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    def copies(x: Tensor, gate: Tensor) -> Tensor:
        gate = gate.to(x.dtype)[..., None]
        copy = x.detach() + gate * (x - x.detach())
        # What nobody attends to may be NaN: it is taken out before any arithmetic could spread it.
        return torch.where(attend[..., None], copy, 0.0)

    qs = copies(q[:, :, None, :], gate_q)  # (heads, queries, keys, head_dim)
    ks = copies(k[:, None, :, :], gate_k)
    vs = copies(v[:, None, :, :], gate_v)
    scores = scale * (qs * ks).sum(-1)
    alive = attend.any(-1, keepdim=True)
    scores = torch.where(attend, scores, torch.where(alive, float("-inf"), 0.0))
    lse = torch.logsumexp(scores, -1) if scores.shape[-1] else scores.sum(-1)
    weights = torch.where(attend, (scores - lse[..., None]).exp(), 0.0)
    out = (weights[..., None] * vs).sum(-2)
    return out, torch.where(alive[..., 0], lse, float("-inf"))
