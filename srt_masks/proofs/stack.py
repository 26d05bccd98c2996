"""A stack of reference layers: what a row of states becomes, with gradients, under a text's masks and gates.

    h[l + 1] = h[l] + W_o attention(norm(W_q h[l]), norm(W_k h[l]), W_v h[l])        float64, random weights of their own for each layer

Weights are orthogonal, and queries and keys of length 1, so that no weight of the softmax is further than e^2 from the others of its row and values
are carried on linearly, however large: a change is lost neither on a path of many hops nor in a row of many keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..reference.attention import attention
from ..reference.masks import Row, pairs
from .limits import Budget, check

HEAD_DIM = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """`masks`: who attends, and the gates of q, k, v and the hidden state, each (heads, queries, keys). Weights (dim, dim)."""

    masks: tuple[Tensor, ...]
    w_q: Tensor
    w_k: Tensor
    w_v: Tensor
    w_o: Tensor


@dataclass(frozen=True, slots=True)
class Stack:
    row: Row
    layers: tuple[Layer, ...]

    @property
    def dim(self) -> int:
        return self.row.heads * HEAD_DIM

    def states(self) -> tuple[Tensor, Tensor]:
        """Random states to begin with: of the tokens (tokens, dim), and of the keys, which are the same tensor where there is one layout."""
        random = _random(1)
        own = torch.randn(len(self.row.own["pos"]), self.dim, generator=random, dtype=torch.float64)
        other = torch.randn(len(self.row.keys["pos"]), self.dim, generator=random, dtype=torch.float64)
        return own, own if self.row.checked.keys is None else other

    def run(self, own: Tensor, other: Tensor, budget: Budget | None = None) -> Tensor:
        """The tokens' states behind the last layer, (tokens, dim). With two layouts the keys' stay what they are. Raises Undecided where the time is
        spent."""
        for layer in self.layers:
            check(budget)
            out, _ = self.attention(layer, own, own if self.row.checked.keys is None else other)
            added = out[0].transpose(0, 1).flatten(1) @ layer.w_o
            own = own.index_add(0, self.row.queries["pos"], added)
        return own

    def attention(self, layer: Layer, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """One layer's out (1, heads, queries, HEAD_DIM) and lse (1, heads, queries)."""
        queries = _length_one(self._heads(own[self.row.queries["pos"]] @ layer.w_q))

        def projected(states: Tensor) -> tuple[Tensor, Tensor]:
            return _length_one(self._heads(states @ layer.w_k)), self._heads(states @ layer.w_v)

        keys, values = projected(other)
        hidden_k, hidden_v = projected(other.detach()) if self.row.checked.has_hidden_rules else (None, None)
        return attention(queries, keys, values, *layer.masks, hidden_k=hidden_k, hidden_v=hidden_v, scale=1.0)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.row.heads, HEAD_DIM)).transpose(0, 1)[None]


def stack(row: Row, depth: int) -> Stack:
    """So many layers, where the text does not speak of layers; else the row's, each with its own masks."""
    checked = row.checked
    shape = len(row.queries["pos"]), len(row.keys["pos"])

    def masks(layer: int) -> tuple[Tensor, ...]:
        heads = [pairs(checked, row.words(head, layer), *shape) for head in range(row.heads if checked.speaks_of_heads else 1)]
        return tuple(torch.stack([x.expand(shape) for x in same]).expand(row.heads, *shape) for same in zip(*heads, strict=True))

    numbers = range(row.layers) if checked.speaks_of_layers else [0] * depth
    by_layer = {number: masks(number) for number in sorted(set(numbers))}
    random, dim = _random(0), row.heads * HEAD_DIM
    layers = []
    for number in numbers:
        w_q, w_k, w_v, w_o = torch.linalg.qr(torch.randn(4, dim, dim, generator=random, dtype=torch.float64)).Q
        layers.append(Layer(by_layer[number], w_q, w_k, w_v, w_o))
    return Stack(row, tuple(layers))


def _length_one(x: Tensor) -> Tensor:
    x = x / x.detach().abs().amax(-1, keepdim=True)  # so that no square overflows; the quotient does not depend on it
    return x / x.square().sum(-1, keepdim=True).sqrt()


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
