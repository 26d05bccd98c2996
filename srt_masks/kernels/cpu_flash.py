"""ATen's own flash attention for the CPU, where it is there and does what it should.

Given out and lse of whole rows, however they were put together, its backward finds the exact gradients over any subset of the rows' pairs: it reads
nothing else of the pairs it is not shown. The operators are private to torch, so they are tried once on a small case before they are trusted.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

NAME = "_scaled_dot_product_flash_attention_for_cpu"
FORWARD = (
    "(Tensor query, Tensor key, Tensor value, float dropout_p=0., bool is_causal=False, *, Tensor? attn_mask=None, float? scale=None)"
    " -> (Tensor output, Tensor logsumexp)"
)
BACKWARD = (
    "(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor out, Tensor logsumexp, float dropout_p, bool is_causal, *,"
    " Tensor? attn_mask=None, float? scale=None) -> (Tensor grad_query, Tensor grad_key, Tensor grad_value)"
)


def forward(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
    """out and lse over some keys. q (batch, heads, rows, head_dim) scaled, k, v (batch, heads, width, head_dim), none of them empty; `added` (rows, width)
    goes on top of the scores. What is found for a row that `added` masks whole is not said.

    q is scaled beforehand because the operators, asked to scale, do so at different places: the two scores would differ in their last places, and P by
    several times the error of dense attention.
    """
    return getattr(torch.ops.aten, NAME)(_readable(q), _readable(k), _readable(v), 0.0, False, attn_mask=added, scale=1.0)


def backward(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What these keys add to the gradient of the scaled q, and their dk and dv. out and lse are those of the whole rows."""
    operator = getattr(torch.ops.aten, f"{NAME}_backward")
    return operator(_readable(dout), _readable(q), _readable(k), _readable(v), out, lse, 0.0, False, attn_mask=added, scale=1.0)


def _readable(x: Tensor) -> Tensor:
    """It reads numbers of one token as if they lay side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


@cache
def works(dtype: torch.dtype) -> bool:
    """Whether this torch has the operators as they are known, and they are right on a small case."""
    try:
        schemas = [str(getattr(torch.ops.aten, name).default._schema) for name in (NAME, f"{NAME}_backward")]
        return schemas == [f"aten::{NAME}{FORWARD}", f"aten::{NAME}_backward{BACKWARD}"] and _is_right(dtype)
    except (AttributeError, RuntimeError):
        return False


def _is_right(dtype: torch.dtype) -> bool:
    """Two stretches of keys, one of them masked, put together; against the products themselves."""
    cut = 5

    def some(*shape: int) -> Tensor:
        return torch.arange(1, 1 + torch.Size(shape).numel(), dtype=dtype, device="cpu").mul_(0.7).sin_().view(1, *shape)

    q, dout, k, v = some(2, 4, 8), some(2, 4, 8) * 0.5, some(2, 9, 8), some(2, 9, 8) * 1.5
    mask = torch.ones(4, cut, dtype=torch.bool, device="cpu").tril()
    added = torch.zeros(4, cut, dtype=dtype, device="cpu").masked_fill_(~mask, float("-inf"))
    scores = q @ k.transpose(-1, -2)
    scores[..., :cut] += added
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp()
    out = weights @ v
    dscores = weights * (dout @ v.transpose(-1, -2) - (dout * out).sum(-1, keepdim=True))
    wanted = [out, lse, dscores @ k, dscores.transpose(-1, -2) @ q, weights.transpose(-1, -2) @ dout]

    parts = [(slice(0, cut), added), (slice(cut, None), None)]
    outs, lses = zip(*(forward(q, k[:, :, s], v[:, :, s], a) for s, a in parts), strict=True)
    whole = torch.logaddexp(*lses)
    dq, dk, dv = zip(*(backward(dout, q, k[:, :, s], v[:, :, s], out, lse, a) for s, a in parts), strict=True)
    found: list[Any] = [sum(o * (x - whole).exp()[..., None] for o, x in zip(outs, lses, strict=True)), whole, sum(dq), torch.cat(dk, 2), torch.cat(dv, 2)]
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, wanted, strict=True))
