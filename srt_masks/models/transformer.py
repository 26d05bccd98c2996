"""The blocks a model is made of, and `SpecTransformer`, the model that a spec describes.

Pre-norm decoder: RMSNorm, attention by the spec, RMSNorm, feed-forward. Every token embeds its role and slot; data tokens also
their value; positions are learned.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..binding import Call, Sizes, bind_call
from ..compiler.rows import Rows, rows_of
from ..diagnostics import InputError
from ..kernels.attention import compile_spec
from ..spec import Spec


class AttentionLayer(nn.Module):
    """Norm, projections, attention by a callable, output projection: (batch, tokens, dim) -> (batch, tokens, dim).

    With `hidden_rules` the callable also gets `hidden_k` and `hidden_v`: keys and values once more, by the same norm and weights, from the
    detached state.
    """

    def __init__(self, dim: int, heads: int, dim_head: int, hidden_rules: bool = False):
        super().__init__()
        self.heads, self.hidden_rules = heads, hidden_rules
        self.norm = nn.RMSNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, x: Tensor, attend: Callable[..., Tensor]) -> Tensor:
        q, k, v = self._project(x)
        twins = dict(zip(("hidden_k", "hidden_v"), self._project(x.detach())[1:], strict=True)) if self.hidden_rules else {}
        return self.to_out(rearrange(attend(q, k, v, **twins), "b h n d -> b n (h d)"))

    def _project(self, x: Tensor) -> Tensor:
        return rearrange(self.to_qkv(self.norm(x)), "b n (three h d) -> three b h n d", three=3, h=self.heads)


class FeedForward(nn.Module):
    def __init__(self, dim: int, multiple: int = 4):
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        self.up = nn.Linear(dim, multiple * dim)
        self.down = nn.Linear(multiple * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norm(x))))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, dim_head: int, hidden_rules: bool = False):
        super().__init__()
        self.attention = AttentionLayer(dim, heads, dim_head, hidden_rules)
        self.feed_forward = FeedForward(dim)

    def forward(self, x: Tensor, attend: Callable[..., Tensor]) -> Tensor:
        x = x + self.attention(x, attend)
        return x + self.feed_forward(x)


@dataclass(frozen=True, slots=True)
class Config:
    """The sizes of a model; with the spec, all that is needed to build it again."""

    dim: int
    depth: int
    heads: int
    num_tokens: int
    dim_head: int
    max_positions: int


@dataclass(frozen=True, slots=True)
class Loss:
    """In nats. `loss` is sum(weight * cross entropy) / sum(weight); `parts` the plain means by role and slot; `last` the plain
    mean over the last row that predicts each data token: the figure to compare models by."""

    loss: Tensor
    parts: dict[str, Tensor]
    last: Tensor


class SpecTransformer(nn.Module):
    """A trainable transformer from a spec; see `build_model`."""

    def __init__(self, spec: Spec, config: Config, backend: str = "auto"):
        super().__init__()
        self.spec, self.config = spec, config
        self.attend = compile_spec(spec, heads=config.heads, layers=config.depth, backend=backend)
        layout = spec.checked.queries
        slots = _slots_of_roles(spec)
        self.first_slot = [0, *accumulate(slots)][:-1]
        self.token_embedding = nn.Embedding(config.num_tokens, config.dim)
        self.slot_embedding = nn.Embedding(max(1, sum(slots)), config.dim)
        self.position_embedding = nn.Embedding(config.max_positions, config.dim)
        self.blocks = nn.ModuleList(Block(config.dim, config.heads, config.dim_head, spec.checked.has_hidden_rules) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.dim)
        self.to_logits = nn.Linear(config.dim, config.num_tokens, bias=False)
        self.apply(_initialise)
        for block in self.blocks:
            # The residual stream keeps its size with depth (GPT-2).
            for layer in (block.attention.to_out, block.feed_forward.down):  # type: ignore[union-attr]
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * config.depth))  # type: ignore[union-attr, arg-type]
        self._data_per_step = sum(s.rows_per_step and sum(n for r, n in s.rows if r in spec.checked.data) for s in layout.sections if s.count is None)
        self._data_fixed = sum(s.count * sum(n for r, n in s.rows if r in spec.checked.data) for s in layout.sections if s.count is not None)
        self._rows: OrderedDict[int, Rows] = OrderedDict()

    # ------------------------------------------------------------------------------------------ rows

    def rows_for(self, data_tokens: int) -> int:
        """Rows of a sequence with so many data tokens. Raises InputError where the layout has no such sequence."""
        layout, text = self.spec.checked.queries, self.spec.checked.queries.describe(self.spec.roles)
        if not self._data_per_step:
            if data_tokens != self._data_fixed:
                raise InputError(f"x has {data_tokens} data tokens a row; the layout `{text}` has {self._data_fixed}, always")
            return layout.fixed
        steps, rest = divmod(data_tokens - self._data_fixed, self._data_per_step)
        if rest or steps < 0:
            raise InputError(f"x has {data_tokens} data tokens a row; the layout `{text}` has {self._data_fixed} and {self._data_per_step} a step")
        return layout.tokens(steps)

    def rows(self, call: Call) -> Rows:
        tokens, program = call.sizes.tokens, self.attend.compiled.program
        scalars = {"heads": self.config.heads, "layers": self.config.depth}
        if call.inputs or call.row_params or call.params != self.spec.params:
            return rows_of(program, tokens, call.rows() if call.has_batch else [call.row(0)], scalars)
        if tokens not in self._rows:
            self._rows[tokens] = rows_of(program, tokens, [({}, {}, call.params)], scalars)
            while len(self._rows) > 8:
                self._rows.popitem(last=False)
        return self._rows[tokens]

    # ------------------------------------------------------------------------------------------ passes

    def hidden(self, x: Tensor, inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any) -> tuple[Tensor, Rows]:
        """The final normalised states (batch, rows, dim) and what each row is. x (batch, data tokens), whole numbers."""
        x = check_tokens(x, self.config.num_tokens)
        tokens = self.rows_for(x.shape[1])
        sizes = Sizes(tokens, tokens, self.config.heads, self.config.depth, x.shape[0])
        rows = self.rows(bind_call(self.spec.checked, sizes, None, inputs, inputs_and_params, device=x.device))
        named = {**(inputs or {}), **inputs_and_params}
        state = self.slot_embedding((torch.tensor(self.first_slot)[rows.role] + rows.slot).to(x.device))
        state = state.expand(x.shape[0], -1, -1).clone()
        state[:, rows.data.to(x.device)] += self.token_embedding(x)
        state = state + self.position_embedding(self._positions(rows.position).to(x.device))
        for number, block in enumerate(self.blocks):
            state = block(state, lambda q, k, v, n=number, **twins: self.attend(q, k, v, layer=n, inputs=named, **twins))
        return self.norm(state), rows

    def forward(self, x: Tensor, *, return_loss: bool = False, return_parts: bool = False, all_rows: bool = False,
                inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any) -> Any:  # fmt: skip
        """Logits (batch, predicted data tokens, num_tokens), each from the last row that predicts that token; with `all_rows`
        one for every row of the layout. With `return_loss` the loss in nats, a scalar; with `return_parts` a `Loss`."""
        if not (all_rows or self.spec.checked.predictions):
            raise InputError("this spec has no `predict`, so no row is trained to predict: write `predict token -> index + 1`, or give all_rows=True")
        x = check_tokens(x, self.config.num_tokens)
        state, rows = self.hidden(x, inputs, **inputs_and_params)
        if return_loss or return_parts:
            loss = self._loss(state, rows, x)
            return loss if return_parts else loss.loss
        if all_rows:
            return self.to_logits(state)
        target = self._shared(rows.target)
        last = _last_rows(target, x.shape[1]).nonzero().flatten()
        return self.to_logits(state[:, last[target[last].argsort()]])

    def next_logits(self, x: Tensor, inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any) -> Tensor:
        """Logits (batch, num_tokens) of the data token that follows x."""
        state, rows = self.hidden(x, inputs, **inputs_and_params)
        last = (self._shared(rows.target) == x.shape[1]).nonzero().flatten()
        if not len(last):
            raise InputError("no row of this spec predicts the token that comes next: it cannot continue a text")
        return self.to_logits(state[:, last[-1]])

    # ------------------------------------------------------------------------------------------ parts

    def _loss(self, state: Tensor, rows: Rows, x: Tensor) -> Loss:
        if not self.spec.checked.predictions:
            raise InputError("this spec has no `predict`: it says nothing of a loss")
        batch = x.shape[0]
        # Weights are float64, which not every device has; the loss is float32.
        target, weight = rows.target.expand(batch, -1).to(x.device), rows.weight.float().expand(batch, -1).to(x.device)
        known = (target >= 0) & (target < x.shape[1])
        if not bool(known.any()):
            raise InputError(f"nothing to predict: none of the {x.shape[1]} data tokens of a row is a target; give longer rows")
        labels = x.gather(1, torch.where(known, target, 0))
        entropy = F.cross_entropy(self.to_logits(state[known]).float(), labels[known], reduction="none")
        factor = weight[known]
        total = factor.sum()
        loss = (factor * entropy).sum() / torch.where(total == 0, 1.0, total)
        parts: dict[str, Tensor] = {}
        kind = (torch.tensor(self.first_slot)[rows.role] + rows.slot).expand(batch, -1).to(x.device)[known]
        names = [f"{role}[{s}]" if n > 1 else role for role, n in zip(self.spec.roles, _slots_of_roles(self.spec), strict=True) for s in range(n)]
        for number in kind.unique().tolist():
            parts[names[number]] = entropy[kind == number].mean()
        last = torch.stack([_last_rows(t, x.shape[1]) for t in rows.target.reshape(-1, rows.target.shape[-1])])
        return Loss(loss, parts, entropy[last.expand(batch, -1).to(x.device)[known]].mean())

    def _shared(self, target: Tensor) -> Tensor:
        if target.ndim > 1:
            raise InputError("an input with a batch axis decides what is predicted, so rows differ: ask for all_rows=True")
        return target

    def _positions(self, position: Tensor) -> Tensor:
        most = self.config.max_positions
        if position.numel() and (int(position.max()) >= most or int(position.min()) < 0):
            raise InputError(
                f"positions run from {int(position.min())} to {int(position.max())}; this model learned 0 to {most - 1}: build it with a larger max_positions"
            )
        return position


def _last_rows(target: Tensor, data: int) -> Tensor:
    """Which rows are the last to predict a data token, bool (rows,)."""
    last: dict[int, int] = {t: row for row, t in enumerate(target.tolist()) if 0 <= t < data}
    chosen = torch.zeros(len(target), dtype=torch.bool)
    chosen[list(last.values())] = True
    return chosen


def _slots_of_roles(spec: Spec) -> list[int]:
    """Slots of each role: the most that one step of any section has."""
    most = [0] * len(spec.roles)
    for section in spec.checked.queries.sections:
        here = [0] * len(spec.roles)
        for role, count in section.rows:
            here[role] += count
        most = [max(a, b) for a, b in zip(most, here, strict=True)]
    return most


def check_tokens(x: Any, num_tokens: int) -> Tensor:
    """x as int64. Raises InputError unless it is (batch, tokens) of whole numbers that the vocabulary has."""
    if not isinstance(x, Tensor) or x.ndim != 2 or x.is_floating_point() or x.dtype is torch.bool:
        came = f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"x is (batch, tokens), whole numbers from 0 to {num_tokens - 1}; got {came}")
    if x.numel() and (int(x.min()) < 0 or int(x.max()) >= num_tokens):
        raise InputError(f"x holds tokens from {int(x.min())} to {int(x.max())}; this model knows 0 to {num_tokens - 1}")
    return x.long()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
