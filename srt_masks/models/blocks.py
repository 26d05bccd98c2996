"""The blocks of a model: norm, attention by a callable, norm, feed-forward, each added to the residual stream."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .groups import TOGETHER, Groups

Attend = Callable[..., Tensor]


class AttentionLayer(nn.Module):
    """Norm, projections, attention by a callable, output projection: (batch, rows, dim) -> (batch, rows, dim).

    The callable gets q (batch, heads, rows, dim_head), and k and v (batch, key_heads, rows, dim_head). With `hidden_rules` it also gets `hidden_k` and
    `hidden_v`: keys and values once more, by the same norm and weights, from the detached state.
    """

    def __init__(self, dim: int, heads: int, dim_head: int, hidden_rules: bool = False, key_heads: int | None = None):
        super().__init__()
        self.heads, self.key_heads, self.hidden_rules = heads, key_heads or heads, hidden_rules
        self.norm = nn.RMSNorm(dim)
        self.to_qkv = nn.Linear(dim, (heads + 2 * self.key_heads) * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        return self.to_out(self.attended(self.project, x, attend))

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values end to end: (..., dim) -> (..., (heads + 2 * key_heads) * dim_head)."""
        return self.to_qkv(self.norm(x))

    def attended(self, project: Callable[[Tensor], Tensor], x: Tensor, attend: Attend) -> Tensor:
        """What attention gives before the output projection, (batch, rows, heads * dim_head)."""
        q, k, v = self._split(project(x))
        twins = dict(zip(("hidden_k", "hidden_v"), self._split(project(x.detach()))[1:], strict=True)) if self.hidden_rules else {}
        return rearrange(attend(q, k, v, **twins), "b h n d -> b n (h d)")

    def _split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        dim_head = qkv.shape[-1] // (self.heads + 2 * self.key_heads)
        sizes = [n * dim_head for n in (self.heads, self.key_heads, self.key_heads)]
        return tuple(rearrange(x, "b n (h d) -> b h n d", d=dim_head) for x in qkv.split(sizes, -1))


class FeedForward(nn.Module):
    """Norm, two layers with a GELU between them."""

    def __init__(self, dim: int, multiple: int = 4):
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        self.up = nn.Linear(dim, multiple * dim)
        self.down = nn.Linear(multiple * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norm(x))))


class GatedFeedForward(nn.Module):
    """Norm, and SwiGLU: one half of `up`, through SiLU, gates the other. As many weights as `FeedForward`, without biases."""

    def __init__(self, dim: int, multiple: int = 4):
        super().__init__()
        inner = 8 * math.ceil(multiple * dim / 12)  # two thirds, as there are three matrices; a multiple of 8
        self.norm = nn.RMSNorm(dim)
        self.up = nn.Linear(dim, 2 * inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(self.norm(x)).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class Block(nn.Module):
    """`own` sets of the same weights beside the shared one, for rows of their own: `groups` says which row goes through which; attention is one."""

    def __init__(self, dim: int, heads: int, dim_head: int, hidden_rules: bool = False, key_heads: int | None = None, feed_forward: str = "gelu", own: int = 0):
        super().__init__()
        self.attention = AttentionLayer(dim, heads, dim_head, hidden_rules, key_heads)
        self.feed_forward = GatedFeedForward(dim) if feed_forward == "gated" else FeedForward(dim)
        self.own = nn.ModuleList(Block(dim, heads, dim_head, hidden_rules, key_heads, feed_forward) for _ in range(own))

    def forward(self, x: Tensor, attend: Attend, groups: Groups = TOGETHER) -> Tensor:
        if not self.own:
            x = x + self.attention(x, attend)
            return x + self.feed_forward(x)
        sets = [self, *(s for s in self.own if isinstance(s, Block))]

        def project(state: Tensor) -> Tensor:
            return groups.apply([s.attention.project for s in sets], state.flatten(0, 1)).unflatten(0, x.shape[:2])

        mixed = self.attention.attended(project, x, attend)
        x = x + groups.apply([s.attention.to_out for s in sets], mixed.flatten(0, 1)).unflatten(0, x.shape[:2])
        return x + groups.apply([s.feed_forward for s in sets], x.flatten(0, 1)).unflatten(0, x.shape[:2])


def initialise(model: nn.Module, depth: int) -> None:
    """Weights of GPT-2: normal, 0.02; what adds to the residual stream less, that it may keep its size with depth."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for block in model.modules():
        if isinstance(block, Block):
            for layer in (block.attention.to_out, block.feed_forward.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * depth))
