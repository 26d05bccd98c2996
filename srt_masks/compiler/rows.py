"""What a model needs to know of its rows: which token each is, its position id, and what it is trained to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diagnostics import InputError
from .evaluate import Environment
from .ir import Program
from .layout import attributes, steps_of

MAX_TOKENS = 2**25  # six attributes of 8 bytes each: 1.5 GiB


@dataclass(frozen=True, slots=True)
class Rows:
    """Each (tokens,), or (batch, tokens) where a batched input decides: `target` is a data token by index, also beyond the
    data (the next word, in generation), -1 = none; `weight` is 0 where there is no target."""

    role: Tensor
    slot: Tensor
    data: Tensor  # whether the row holds a data token
    position: Tensor
    target: Tensor
    weight: Tensor


def rows_of(
    program: Program,
    tokens: int,
    batch: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, int | float]]],
    scalars: Mapping[str, int | float],
) -> Rows:
    """`batch` holds (inputs, layout, params) of each row of the batch that differs from the others, or one for all. Raises InputError beyond
    MAX_TOKENS."""
    if tokens > MAX_TOKENS:
        raise InputError(f"{tokens:,} tokens are too many for a model: what is known of each would take {48 * tokens / 2**30:.0f} GiB; at most {MAX_TOKENS:,}")
    labels, own = [], attributes(program.queries, tokens, program.data, batch[0][1])
    for inputs, _, params in batch:
        numbers = {**scalars, **params, "head": 0, "layer": 0, "length": tokens, "steps": steps_of(program.queries, own)}
        labels.append(_labels(program, Environment(numbers, {n: t.cpu() for n, t in inputs.items()}, own, own), own["role"]))
    position, target, weight = (x[0] if len(batch) == 1 else torch.stack(x) for x in zip(*labels, strict=True))
    is_data = torch.isin(own["role"], torch.tensor(program.data, dtype=torch.int64))
    return Rows(own["role"], own["slot"], is_data, position, target, weight)


def _labels(program: Program, environment: Environment, role: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    (position,) = environment.evaluate(program.position)
    target = torch.full_like(role, -1)
    weight = torch.zeros(len(role), dtype=torch.float64)
    count = int(torch.isin(role, torch.tensor(program.data, dtype=torch.int64)).sum())
    for label in program.labels:
        where, wanted, factor = environment.evaluate(label.where, label.target, label.weight)
        # The last statement that names a data token counts; one that points beyond them (the next word) only where none does.
        known = (target >= 0) & (target < count)
        mine = (role == label.role) & where & (wanted >= 0) & ((wanted < count) | ~known)
        target = torch.where(mine, wanted, target)
        weight = torch.where(mine, factor.double(), weight)
    return position.expand(len(role)), target, weight
