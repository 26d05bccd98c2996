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
    """Each (batch, tokens), or (1, tokens) where the rows of the batch are alike. What is not `live` is padding: it is no data, has position 0 and no
    target. `target` is a data token by index, also beyond the data (the next word, in generation), -1 = none; `weight` is 0 where there is no target."""

    live: Tensor  # whether the row of the batch is so long
    role: Tensor
    slot: Tensor
    index: Tensor
    data: Tensor  # whether it is a data token
    position: Tensor
    target: Tensor
    weight: Tensor


def rows_of(
    program: Program,
    tokens: int,
    batch: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, int | float]]],
    scalars: Mapping[str, int | float],
    lengths: Sequence[int] | None = None,
) -> Rows:
    """`batch` holds (inputs, layout, params) of each row of the batch, or one for all; `lengths` the tokens of each, laid out as if alone. Raises
    InputError beyond MAX_TOKENS."""
    if tokens > MAX_TOKENS:
        raise InputError(f"{tokens:,} tokens are too many for a model: what is known of each would take {48 * tokens / 2**30:.0f} GiB; at most {MAX_TOKENS:,}")
    own = [_row(program, length, *row, scalars) for row, length in zip(batch, [tokens] * len(batch) if lengths is None else lengths, strict=True)]
    nothing = (False, 0, 0, 0, False, 0, -1, 0.0)
    return Rows(*(_stacked(columns, tokens, fill) for columns, fill in zip(zip(*own, strict=True), nothing, strict=True)))


def _stacked(columns: Sequence[Tensor], tokens: int, fill: float) -> Tensor:
    """(batch, tokens) of vectors, padded."""
    if len(columns) == 1 and len(columns[0]) == tokens:
        return columns[0][None]
    stacked = columns[0].new_full((len(columns), tokens), fill)
    for row, column in zip(stacked, columns, strict=True):
        row[: len(column)] = column
    return stacked


def _row(
    program: Program, tokens: int, inputs: Mapping[str, Tensor], layout: Mapping[str, Tensor], params: Mapping[str, int | float],
    scalars: Mapping[str, int | float],
) -> tuple[Tensor, ...]:  # fmt: skip
    """The columns of `Rows` for one row of the batch, each (tokens,)."""
    own = attributes(program.queries, tokens, program.data, layout)
    numbers = {**scalars, **params, "head": 0, "layer": 0, "length": tokens, "steps": steps_of(program.queries, own)}
    environment = Environment(numbers, {n: t.cpu() for n, t in inputs.items()}, own, own)
    role, data = own["role"], torch.isin(own["role"], torch.tensor(program.data, dtype=torch.int64))
    (position,) = environment.evaluate(program.position)
    target = torch.full_like(role, -1)
    weight = torch.zeros(tokens, dtype=torch.float64)
    count = int(data.sum())
    for label in program.labels:
        where, wanted, factor = environment.evaluate(label.where, label.target, label.weight)
        # The last statement that names a data token counts; one that points beyond them (the next word) only where none does.
        known = (target >= 0) & (target < count)
        mine = (role == label.role) & where & (wanted >= 0) & ((wanted < count) | ~known)
        target = torch.where(mine, wanted, target)
        weight = torch.where(mine, factor.double(), weight)
    return torch.ones(tokens, dtype=torch.bool), role, own["slot"], own["index"], data, position.expand(tokens), target, weight
