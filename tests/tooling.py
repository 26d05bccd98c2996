"""What the tests of torch's tools call: a text with inputs, params and rules, tensors of any sizes, a model, and results with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from srt_masks.kernels.attention import Attention

DOCUMENTS = """
param far = 9
param w = 0.5
input doc: int per token
attend causal and same(doc) and window(far)
scale k by w where q.pos - k.pos > 2
stop v where q.pos % 3 == 1
"""


def tensors(tokens: int, batch: int = 2, heads: int = 4, key_heads: int = 2, queries: int | None = None, **options: Any) -> list[Tensor]:
    shapes = ((heads, queries or tokens, 8), (key_heads, tokens, 8), (key_heads, tokens, 6))
    return [torch.randn(batch, *shape, requires_grad=True, **options) for shape in shapes]


def results(f: Callable[..., Any], data: list[Tensor]) -> list[Tensor]:
    """What a call gives, and the gradients of a number made of it."""
    found = f(*data)
    outputs = found if isinstance(found, tuple) else (found,)
    number = sum((n + 1) * x.float().nan_to_num(neginf=0.0).square().sum() for n, x in enumerate(outputs))
    return [*outputs, *torch.autograd.grad(number, data)]


def assert_same(found: Any, wanted: Any) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype is b.dtype and a.stride() == b.stride() and torch.equal(a, b)


class Model(torch.nn.Module):
    def __init__(self, attend: Attention) -> None:
        super().__init__()
        self.project, self.attend = torch.nn.Linear(8, 24), attend

    def forward(self, x: Tensor, doc: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in self.project(x).chunk(3, -1))
        return self.attend(q, k, v, doc=doc, far=7)
