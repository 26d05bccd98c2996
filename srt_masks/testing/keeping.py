"""Random values that keep to what a text states with `given`: what is drawn is mended where it does not, and else left as it is.

Input: a spec and values of its params, or a `Case`. Output: the same with other values, or None where none were found. Whether a fact holds is asked of
the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ..grammar.checked import Fact, Type
from ..grammar.facts import holds
from ..reference.facts import broken_in, truth
from ..reference.masks import Row
from ..spec import Spec
from .case import Case

ROUNDS = 16  # of random values, before each simple one has a turn
FLOATS = [0.0, 1.0, 0.5, -1.5, 0.25, 2.0]


def keeps(case: Case) -> bool:
    """Whether the inputs and params of a case are what its text says of them. Raises InputError for inputs that are wrong in another way."""
    checked = case.spec.checked
    bodies = {let.name: let.body for let in checked.lets}
    for number in range(case.batch if checked.facts_of_params else 0):
        own: dict[str, Any] = {n: x[number].item() if isinstance(x, Tensor) and x.ndim else x for n, x in case.params.items()}
        if not all(holds(fact, {**case.spec.params, **own}, bodies) for fact in checked.facts_of_params):
            return False
    return not checked.facts_of_inputs or all(broken_in(fact, row) is None for row in case.rows() for fact in checked.facts_of_inputs)


def keeping_params(spec: Spec, values: Mapping[str, int | float]) -> dict[str, int | float]:
    """Values of some params: in place of one that breaks what is stated with it, that of the text; of all, where that is not enough."""
    bodies = {let.name: let.body for let in spec.checked.lets}
    found = {**spec.params, **values}
    for fact in spec.checked.facts_of_params:
        if not holds(fact, found, bodies):
            found[fact.name] = spec.params[fact.name]
    right = all(holds(fact, found, bodies) for fact in spec.checked.facts_of_params)
    return {name: (found if right else spec.params)[name] for name in values}


def keeping_inputs(case: Case) -> dict[str, Tensor] | None:
    """The inputs of a case; one that breaks a fact is sorted, or the entries that break it are replaced, by random values and then by simple ones, or all
    of its entries are one. None where nothing served."""
    generator = torch.Generator().manual_seed(case.seed)
    inputs = dict(case.inputs)
    rows = case.rows()
    for fact in case.spec.checked.facts_of_inputs:
        kept = next((x for x in _tries(fact, case, rows, inputs[fact.name], generator) if not _wrong(fact, rows, x).any()), None)
        if kept is None:
            return None
        inputs[fact.name] = kept
        rows = _given(fact, rows, kept)
    return inputs


def _tries(fact: Fact, case: Case, rows: list[Row], own: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    simple = _simple(fact, case)
    yield own
    if own.ndim and own.dtype is not torch.bool:
        yield own.sort(-1).values
    mended = own
    for fresh in (*(_random(own, (3, len(simple))[n % 2], generator) for n in range(ROUNDS)), *(torch.full_like(own, x) for x in simple)):
        # Of entries that stand together, as those of a table, some stay.
        moves = torch.rand(own.shape, generator=generator) < 0.6
        mended = torch.where(_wrong(fact, rows, mended) & moves, fresh, mended)
        yield mended
    yield from (torch.full_like(own, x) for x in simple)


def _simple(fact: Fact, case: Case) -> list[int | float | bool]:
    match case.spec.inputs[fact.name].type:
        case Type.BOOL:
            return [False, True]
        case Type.FLOAT:
            return [*FLOATS, -1.0, 10.0]
        case _:
            return [*range(max(case.extents.tokens, case.extents.keys, 4) + 2), -1, -2]


def _random(like: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Other values: those of an input that was drawn."""
    if like.dtype is torch.bool:
        return torch.rand(like.shape, generator=generator) < 0.5
    if like.is_floating_point():
        return torch.tensor(FLOATS, dtype=like.dtype)[torch.randint(len(FLOATS), like.shape, generator=generator)]
    return torch.randint(-2, most, like.shape, generator=generator, dtype=like.dtype)


def _given(fact: Fact, rows: list[Row], value: Tensor) -> list[Row]:
    """The rows of a batch with another input."""
    declared = next(i for i in rows[0].checked.inputs if i.name == fact.name)
    batched = value.ndim > len(declared.axes) + len(declared.sizes)
    own = [value[number if value.shape[0] > 1 else 0] if batched else value for number in range(len(rows))]
    return [replace(row, inputs={**row.inputs, fact.name: x}) for row, x in zip(rows, own, strict=True)]


def _wrong(fact: Fact, rows: list[Row], value: Tensor) -> Tensor:
    """The entries of the input of a fact that stand where it does not hold, in the input's shape."""
    checked = rows[0].checked
    declared = next(i for i in checked.inputs if i.name == fact.name)
    batched = value.ndim > len(declared.axes) + len(declared.sizes)
    found = torch.zeros(value.shape, dtype=torch.bool)
    spoken = checked.globals_in(fact.where)
    for number, row in enumerate(_given(fact, rows, value)):
        for layer, head in product(range(row.layers if "layer" in spoken else 1), range(row.heads if "head" in spoken else 1)):
            broken = ~truth(fact, row, head, layer)
            if broken.any():
                places = broken.nonzero(as_tuple=True)
                index = [_along(axis, places, row, head, layer) for axis in declared.axes]
                found[((number if value.shape[0] > 1 else 0), *index) if batched else tuple(index)] = True
    return found


def _along(axis: str, places: tuple[Tensor, ...], row: Row, head: int, layer: int) -> Tensor | int | slice:
    """Where along an axis of an input the entries are that some places read."""
    match axis:
        case "head":
            return head
        case "layer":
            return layer
        case _ if not places:
            return slice(None)
        case "step":
            return row.own["step"][places[0]]
        case _:
            return places[-1] if axis == "key" else places[0]
