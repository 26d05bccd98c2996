"""`srt_masks.nn`: attention by a spec as a layer of any network of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from ..diagnostics import InputError
from ..kernels.attention import compile_spec
from ..proofs.guard import hold
from ..spec import Spec
from ..values import counted

__all__ = ["Attention"]


class Attention(nn.Module):
    """Projections, attention by a spec, output projection: (batch, tokens, dim) -> (batch, tokens, dim), whose rows are those of the spec's layout.

    `dim_head` is dim / heads unless given; `key_heads` (`heads`) keys and values are shared by groups of query heads. `layers` is how many layers the
    network has, where the text mentions `layer`; the call says which one it is. With `stop hidden`, x is the hidden state whose detached half k and v
    are projected from once more. Its state is its weights alone. Raises InputError for a size that does not fit, SpecError for a claim that does not hold.
    """

    def __init__(
        self, spec: Spec, dim: int, heads: int, *, key_heads: int | None = None, dim_head: int | None = None, bias: bool = False,
        layers: int | None = None, backend: str = "auto", proofs: str = "warn",
    ):  # fmt: skip
        super().__init__()
        dim, heads = counted("dim", dim, 1), counted("heads", heads, 1)
        key_heads = heads if key_heads is None else counted("key_heads", key_heads, 1)
        dim_head = None if dim_head is None else counted("dim_head", dim_head, 1)
        if heads % key_heads:
            raise InputError(f"heads {heads} is no multiple of key_heads {key_heads}: every key head is shared by as many query heads")
        if dim_head is None and dim % heads:
            raise InputError(f"dim {dim} is no multiple of heads {heads}: give dim_head=, or other sizes")
        self.attend = compile_spec(spec, heads=heads, layers=layers, backend=backend)
        hold(spec, proofs)
        self.dim, self.dim_head = dim, dim_head or dim // heads
        # Found once: torch.compile does not follow what a checked text finds when it is first asked.
        self.two_layouts, self.hidden_rules = spec.checked.keys is not None, spec.checked.has_hidden_rules
        if spec.checked.asks is not None:
            raise InputError("where only some tokens ask (`queries where`) a row of x has no output of its own; srt_masks.compile serves such a text")
        self.to_q = nn.Linear(dim, heads * self.dim_head, bias=bias)
        self.to_k = nn.Linear(dim, key_heads * self.dim_head, bias=bias)
        self.to_v = nn.Linear(dim, key_heads * self.dim_head, bias=bias)
        self.to_out = nn.Linear(heads * self.dim_head, dim, bias=bias)

    def extra_repr(self) -> str:
        return f"{self.attend.spec!r}, dim_head={self.dim_head}"

    def forward(
        self, x: Tensor, /, *, memory: Tensor | None = None, layer: int | None = None, lengths: Sequence[int] | Tensor | None = None,
        given: Any = None, scale: float | None = None, visited: Tensor | None = None, inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any,
    ) -> Tensor:  # fmt: skip
        """x (batch, tokens, dim). `memory` (batch, keys, dim), of a text with two layouts, is what k and v are projected from. The others are those of
        a call of `srt_masks.compile`: `lengths` counts the tokens of each row. `visited` (tokens,) int64 names the token of each row of x, which then
        has its rows in that order, and so has the result. Raises InputError."""
        if "return_lse" in inputs_and_params:
            raise InputError(
                "return_lse= belongs to a call of srt_masks.compile: here every head's `out` goes through the output projection, and lse is left; leave it out"
            )
        for name, tensor in (("x", x), ("memory", memory)):
            if tensor is not None and (not isinstance(tensor, Tensor) or tensor.ndim != 3 or tensor.shape[-1] != self.dim):
                came = f"shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
                raise InputError(f"{name} is (batch, tokens, {self.dim}); got {came}")
        if (memory is None) is self.two_layouts:
            wanted = "give memory=, the states that it reads" if memory is None else "it reads x: leave memory= out"
            raise InputError(f"this spec has {'a `keys layout` of its own' if self.two_layouts else 'one layout'}: {wanted}")
        source = x if memory is None else memory
        twins = {}
        if self.hidden_rules:
            twins = {"hidden_k": self._heads(self.to_k, source.detach()), "hidden_v": self._heads(self.to_v, source.detach())}
        out = self.attend(
            self._heads(self.to_q, x), self._heads(self.to_k, source), self._heads(self.to_v, source),
            layer=layer, lengths=lengths, given=given, scale=scale, visited=visited, inputs=inputs, **twins, **inputs_and_params,
        )  # fmt: skip
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))

    def _heads(self, project: nn.Linear, x: Tensor) -> Tensor:
        return rearrange(project(x), "b n (h d) -> b h n d", d=self.dim_head)
