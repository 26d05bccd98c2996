"""Stages: which rows of a layout can be computed once so many data tokens are known, and stay as they are when more come. By them a cache advances.

Row by row, a stage ends before the first data token that is not known; where rows of one step look at each other both ways, it ends with the last step
whose data tokens are. Either is right only if no row looks beyond its own stage: that is held to the pairs of the very call, inputs included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..compiler import ir
from ..compiler.layout import attributes
from ..compiler.lookahead import Ahead, look_ahead
from ..diagnostics import InputError
from ..reference.masks import DenseMasks
from ..surface import dense
from .laid_out import LaidOut

if TYPE_CHECKING:
    from .transformer import SpecTransformer

WITHOUT = "cache=False (`--no-cache`) draws every token from a whole pass"
MOST_STEPS_SHOWN = 8  # of two neighbouring lengths at which a text that reads `length` is looked at for a pair to show


@dataclass(frozen=True, slots=True)
class Stages:
    """`ends` (data tokens + 1,): rows that can be computed once 0, 1, 2, ... data tokens are known."""

    ends: tuple[int, ...]

    def bounds(self, known: int, last: int) -> Tensor:
        """Of each row the first that is not there when it is computed: (rows,) int64. `known` data tokens come at once, then one after another, up to
        `last`; rows behind those are never computed, and have no bound."""
        rows = self.ends[-1]
        ends = torch.tensor(sorted({self.ends[n] for n in range(known, last + 1)}), dtype=torch.int64)
        number = torch.searchsorted(ends, torch.arange(rows), right=True)
        return torch.cat([ends, torch.full((1,), rows)])[number]


def check_text(model: SpecTransformer) -> None:
    """Raises InputError where the text alone forbids that keys and values are kept, whatever the call."""
    _check_tail(model)
    _check_length(model)


def stages_of(model: SpecTransformer, laid: LaidOut, known: Sequence[int], last: Sequence[int]) -> Stages:
    """The stages of a call of as many rows as there are to be; row b of the batch begins with `known[b]` data tokens and goes on to `last[b]`. Raises
    InputError, naming the pair that forbids it, where keys and values cannot be kept."""
    data = laid.rows.data[0]
    ahead: Ahead | None = None
    layer = 0
    for stages in (_by_row(data), _by_step(model, data)):
        bounds = [stages.bounds(*both) for both in zip(known, last, strict=True)]
        ahead, layer = _first_ahead(model, laid, bounds)
        if ahead is None:
            return stages
    assert ahead is not None
    where = f" in layer {layer}, head {ahead.head}" if model.spec.checked.speaks_of_layers or model.attend.compiled.speaks_of_head else ""
    raise InputError(
        f"keys and values cannot be kept: row {ahead.query} ({_name(model, laid, ahead.query)}) attends to row {ahead.key} ({_name(model, laid, ahead.key)}), "
        f"which comes later{where}; {WITHOUT}"
    )


def _by_row(data: Tensor) -> Stages:
    return Stages((*data.nonzero().flatten().tolist(), len(data)))


def _by_step(model: SpecTransformer, data: Tensor) -> Stages:
    tokens = attributes(model.spec.checked.queries, len(data), model.spec.checked.data, {})
    begins = torch.ones(len(data) + 1, dtype=torch.bool)
    begins[1:-1] = (tokens["step"].diff() != 0) | (tokens["section"].diff() != 0)
    steps = begins.nonzero().flatten()  # where a step may end: before each, and behind the last
    known = torch.cat([torch.zeros(1, dtype=torch.int64), data.cumsum(0)])[steps]  # data tokens of all steps before
    number = torch.searchsorted(known, torch.arange(int(data.sum()) + 1), right=True) - 1
    return Stages(tuple(steps[number].tolist()))


def _first_ahead(model: SpecTransformer, laid: LaidOut, bounds: Sequence[Tensor]) -> tuple[Ahead | None, int]:
    config, checked = model.config, model.spec.checked
    for layer in range(config.depth) if checked.speaks_of_layers else (0,):
        plan = model.attend.plan(len(bounds[0]), heads=config.heads, layer=layer, inputs=laid.beside["inputs"])
        if (ahead := look_ahead(plan, bounds)) is not None:
            return ahead, layer
    return None, 0


def _check_tail(model: SpecTransformer) -> None:
    """Raises InputError where something that matters stands behind the part that repeats: every new step would move it."""
    checked = model.spec.checked
    layout, names = checked.queries, checked.roles
    if layout.given is not None:
        raise InputError(f"the layout is `{layout.describe(names)}`, so which rows a next data token has is not known; {WITHOUT}")
    repeats = [number for number, s in enumerate(layout.sections) if s.count is None]
    for section in layout.sections[repeats[0] + 1 :] if repeats else ():
        for role, _ in section.rows:
            if role in checked.data or any(p.role == role for p in checked.predictions):
                raise InputError(
                    f"keys and values cannot be kept: `{names[role]}` stands behind the part of `{layout.describe(names)}` that repeats, so every step moves it; "
                    f"{WITHOUT}"
                )


def _check_length(model: SpecTransformer) -> None:
    """Raises InputError where what is said of a row or a pair may change as others are added behind it."""
    program = model.attend.compiled.program
    labels = [e for label in program.labels for e in (label.target, label.where)]
    reads = [n for n in ir.postorder(program.attend, program.position, *labels) if isinstance(n, ir.Scalar) and n.name in ("length", "steps")]
    looks = [n for n in ir.postorder(program.attend, program.position) if isinstance(n, ir.Gather)]
    if reads or looks:
        what = f"`{reads[0].name}`" if reads else "the token at a position, which may lie beyond the end"
        raise InputError(f"keys and values cannot be kept: this text reads {what}{_that_changes(model)}; {WITHOUT}")


def _that_changes(model: SpecTransformer) -> str:
    """A pair, or a position, that is another in a text of one step more; nothing where the text needs inputs, or none is found soon."""
    checked, config = model.spec.checked, model.config
    if checked.inputs or not checked.queries.rows_per_step:
        return ""

    def at(steps: int) -> DenseMasks:
        return dense(model.spec, steps=steps, heads=config.heads, layers=config.depth)

    for steps in range(1, MOST_STEPS_SHOWN):
        fewer, more = at(steps), at(steps + 1)
        rows = len(fewer.position)
        changed = (fewer.attend != more.attend[..., :rows, :rows]).nonzero()
        if len(changed):
            query, key = changed[0, -2:].tolist()
            does = "attends to" if bool(fewer.attend[tuple(changed[0].tolist())]) else "does not attend to"
            return f": in {steps} steps row {query} {does} row {key}, in {steps + 1} the other way round"
        moved = (fewer.position != more.position[:rows]).nonzero()
        if len(moved):
            row = int(moved[0])
            return f": in {steps} steps row {row} has position {int(fewer.position[row])}, in {steps + 1} {int(more.position[row])}"
    return ""


def _name(model: SpecTransformer, laid: LaidOut, row: int) -> str:
    tokens = attributes(model.spec.checked.queries, laid.rows.role.shape[1], model.spec.checked.data, {})
    return f"{model.spec.roles[int(laid.rows.role[0, row])]} of step {int(tokens['step'][row])}"
