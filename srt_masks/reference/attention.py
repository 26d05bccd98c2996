"""Attention with a gate for every pair, the slow and certain way: every pair sees its own copy of q, k and v.

A copy is g * x + (1 - g) * x.detach(), written so that its value is x to the bit: x.detach() + g * (x - x.detach()). Where the hidden state has a
gate h of its own, k and v come twice, the second time from the detached state, and a copy is x.detach() + g * (h * (x - x.detach()) + (1 - h) *
(y - y.detach())). There is no hand-written backward here; autograd differentiates what is written. In float64 this is what every backend is
judged by.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# One chunk of heads keeps about six tensors of heads x queries x keys x head_dim numbers while it is differentiated.
CHUNK_NUMBERS = 2**24


def attention(
    q: Tensor, k: Tensor, v: Tensor, attend: Tensor, gate_q: Tensor, gate_k: Tensor, gate_v: Tensor, gate_hidden: Tensor | None = None, *,
    hidden_k: Tensor | None = None, hidden_v: Tensor | None = None, scale: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """out (batch, heads, queries, value_dim) and lse (batch, heads, queries), both differentiable.

    q (batch, heads, queries, head_dim); k, v (batch, key_heads, keys, head_dim or value_dim); `attend` bool and the gates real,
    broadcastable to (batch, heads, queries, keys). Queries without a key give 0 and lse -inf. `hidden_k` and `hidden_v` are k and v once more,
    made from the detached state; without them the hidden gate has nothing to act on, and all ones is meant.
    """
    if hidden_k is None or hidden_v is None or gate_hidden is None:
        hidden_k, hidden_v, gate_hidden = k.detach(), v.detach(), torch.ones_like(gate_k)
    batch, heads, nq, dim = q.shape
    nk = k.shape[2]
    scale = dim**-0.5 if scale is None else scale
    if batch * heads == 0:
        reached = 0 * (q.sum() + k.sum() + hidden_k.sum())  # a gradient of zeros, and not none
        return q.new_zeros(batch, heads, nq, v.shape[-1]) + reached + 0 * (v.sum() + hidden_v.sum()), q.new_zeros(batch, heads, nq) + reached
    repeats = heads // k.shape[1]
    full = (batch, heads, nq, nk)
    masks = [m.expand(full).flatten(0, 1) for m in (attend, gate_q, gate_k, gate_v, gate_hidden)]
    keys, values, *twins = (x.repeat_interleave(repeats, 1).flatten(0, 1) for x in (k, v, hidden_k, hidden_v))
    queries = q.flatten(0, 1)
    each = max(1, CHUNK_NUMBERS // max(1, nq * nk * max(dim, v.shape[-1])))
    if each >= batch * heads:  # one chunk: nothing is to be recomputed, and torch.func, whose transforms a checkpoint stops, goes through
        out, lse = _pairwise(queries, keys, values, *twins, *masks, scale)  # type: ignore[call-arg]
        return out.unflatten(0, (batch, heads)), lse.unflatten(0, (batch, heads))
    outs, lses = [], []
    for rows in torch.arange(batch * heads).split(each):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        # Recomputed in the backward, so that only one chunk's pairs are ever held.
        args = (x[part] for x in (queries, keys, values, *twins, *masks))
        out, lse = checkpoint(_pairwise, *args, scale, use_reentrant=False)  # type: ignore[misc]
        outs.append(out)
        lses.append(lse)
    return torch.cat(outs).unflatten(0, (batch, heads)), torch.cat(lses).unflatten(0, (batch, heads))


def _pairwise(
    q: Tensor, k: Tensor, v: Tensor, hidden_k: Tensor, hidden_v: Tensor,
    attend: Tensor, gate_q: Tensor, gate_k: Tensor, gate_v: Tensor, gate_hidden: Tensor, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    # A gate may be anything, infinite too, where nothing is attended.
    gate_q, gate_k, gate_v, gate_hidden = (torch.where(attend, g, 0.0)[..., None].to(q.dtype) for g in (gate_q, gate_k, gate_v, gate_hidden))

    def copies(x: Tensor, gate: Tensor, twin: Tensor | None = None) -> Tensor:
        moves = x - x.detach() if twin is None else gate_hidden * (x - x.detach()) + (1 - gate_hidden) * (twin - twin.detach())
        copy = x.detach() + gate * moves
        # What nobody attends to may be NaN: it is taken out before any arithmetic could spread it.
        return torch.where(attend[..., None], copy, 0.0)

    qs = copies(q[:, :, None, :], gate_q)  # (heads, queries, keys, head_dim)
    ks = copies(k[:, None, :, :], gate_k, hidden_k[:, None, :, :])
    vs = copies(v[:, None, :, :], gate_v, hidden_v[:, None, :, :])
    scores = scale * (qs * ks).sum(-1)
    alive = attend.any(-1, keepdim=True)
    scores = torch.where(attend, scores, torch.where(alive, float("-inf"), 0.0))
    # Not exp(S - lse): where scores are large, lse rounds away the sum that it holds.
    top = scores.detach().amax(-1, keepdim=True) if scores.shape[-1] else scores.new_zeros(*scores.shape[:-1], 1)
    powers = (scores - top).exp()
    total = powers.sum(-1, keepdim=True)
    weights = torch.where(attend, powers / total, 0.0)
    out = (weights[..., None] * vs).sum(-2)
    return out, torch.where(alive, top + total.log(), float("-inf"))[..., 0]
