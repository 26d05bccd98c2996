"""One call with its gradients, and what it is compared with."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

import srt_masks as srt
from srt_masks.kernels.attention import Attention

BACKENDS = ("tiled", "reference", "triton")
BLOCK_SPARSE = ("tiled", "triton")
# For laws: a backend an example. The interpreter takes 5 to 20 ms a tile, so its turn comes more rarely.
ANY_BACKEND = st.sampled_from(["tiled", "tiled", "tiled", "reference", "triton"])
FEW = settings(max_examples=max(1, settings.default.max_examples // 4))  # where each example makes many calls
ANY_BLOCK_SPARSE = st.sampled_from(["tiled", "tiled", "tiled", "triton"])


@dataclass(frozen=True, slots=True)
class Results:
    out: Tensor
    lse: Tensor
    dq: Tensor
    dk: Tensor
    dv: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return (getattr(self, f.name) for f in fields(self))

    def members(self, row: int) -> Results:
        """One row of the batch, with its axis."""
        return Results(*(x[row : row + 1] for x in self))

    def rows(self, index: Any) -> Results:
        """Some tokens of a call whose queries and keys are the same tokens."""
        return Results(*(x[:, :, index] for x in self))


def qkv(
    tokens: int, *, keys: int | None = None, batch: int = 1, heads: int = 2, key_heads: int | None = None, dim: int = 8, value_dim: int | None = None,
    seed: int = 0, dtype: torch.dtype = torch.float64,
) -> list[Tensor]:  # fmt: skip
    """q, k, v and the gradient of out, normally distributed."""
    generator = torch.Generator().manual_seed(seed)
    keys, key_heads, value_dim = tokens if keys is None else keys, key_heads or heads, value_dim or dim
    shapes = [(batch, heads, tokens, dim), (batch, key_heads, keys, dim), (batch, key_heads, keys, value_dim), (batch, heads, tokens, value_dim)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def call(attend: Attention, tensors: Sequence[Tensor], **options: Any) -> Results:
    """out, lse and the gradients of a loss that reads both: every finite lse with a weight of its own, which follows from the gradient of its row."""
    q, k, v, dout = tensors
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out, lse = attend(*leaves, return_lse=True, **options)
    weight = dout.sum(-1).to(lse.dtype)
    # 0 * inf is NaN: rows without a key say nothing of a loss.
    loss = (out * dout).sum() + (torch.where(torch.isfinite(lse), lse, 0) * weight).sum().to(out.dtype)
    grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True) if loss.requires_grad else map(torch.zeros_like, leaves)
    return Results(out.detach(), lse.detach(), *grads)


FAR = 2**30 + 8  # three steps of it are more than 2**31 numbers


def spread_far(x: Tensor, axis: int) -> Tensor:
    """The same numbers, an axis of three with FAR numbers between its elements: in a file of 4 GB, of which a few pages are ever there."""
    strides = list(x.contiguous().stride())
    strides[axis] = FAR
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * (2 * FAR + x.numel() + 64))
        memory = mmap.mmap(file.fileno(), 0)
    return torch.frombuffer(memory, dtype=torch.float16).as_strided(x.shape, strides).copy_(x)


def differentiate(attend: Attention, tensors: Sequence[Tensor], dlse: Tensor, **options: Any) -> Results:
    """As `call`, for tensors as they lie in memory: the gradients of out and of lse are handed over as they are."""
    q, k, v, dout = tensors
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out, lse = attend(*leaves, return_lse=True, **options)
    return Results(out.detach(), lse.detach(), *torch.autograd.grad((out, lse), leaves, (dout, dlse), allow_unused=True, materialize_grads=True))


def run(
    text: str | srt.Spec, backend: str, tensors: Sequence[Tensor], *, heads: int | None = None, layers: int | None = None, tile: int | None = 16, **options: Any
) -> Results:
    spec = srt.parse(text) if isinstance(text, str) else text
    return call(srt.compile(spec, backend=backend, heads=heads, layers=layers, tile=tile), tensors, **options)


def assert_near(found: Results, wanted: Results, tolerance: float = 1e-9) -> None:
    for f, a, b in zip(fields(Results), found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda m, f=f: f"{f.name}: {m}")


def assert_same_bits(found: Results, wanted: Results) -> None:
    for f, a, b in zip(fields(Results), found, wanted, strict=True):
        assert torch.equal(a, b), f"{f.name} differs"


def assert_nothing(found: Results, rows: Any = slice(None)) -> None:
    """Queries that see nothing, and keys that nobody sees: exact zeros, and lse of minus infinity."""
    for f, x in zip(fields(Results), found.rows(rows), strict=True):
        assert bool((x == (float("-inf") if f.name == "lse" else 0)).all()), f.name
