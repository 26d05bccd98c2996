"""Small calls on a text: sizes that its layout can have, values of its params, inputs.

Truth values are enumerated, all inputs of a size at once, where they are few. Whole numbers and floats have no end: they are drawn, in the shapes
that texts read them in (documents, their first positions, ranks, trees), and again where a fact of the text does not hold of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from ..grammar.checked import Checked, Input, Layout, Type
from ..reference.facts import truth
from ..reference.masks import DTYPE
from .verdict import World

MOST_BITS = 10  # of all inputs of a size together, for every value of them to be tried
DRAWS = 24  # of the inputs of a size that have more
REPAIRS = 32  # of one draw
MOST_MISSES = 3  # draws of a size that could not be repaired
MOST_CHOICES = 36  # of the params' values together
FLOATS = torch.tensor([0.0, 1.0, 0.5, -1.5, 0.25, 2.0], dtype=torch.float64)


def sizes(checked: Checked, most_tokens: int) -> Iterator[World]:
    """Worlds without inputs and params, for all numbers of tokens that the layout can have up to `most_tokens`, the smallest first."""

    def axis(layout: Layout) -> list[int]:
        if layout.given is not None:
            return list(range(most_tokens + 1))
        if not layout.rows_per_step:
            return [layout.fixed] if layout.fixed <= most_tokens else []
        return list(range(layout.fixed, most_tokens + 1, layout.rows_per_step))

    if checked.keys is None:
        yield from (World(n, n) for n in axis(checked.queries))
    else:
        both = product(axis(checked.queries), axis(checked.keys))
        yield from (World(*pair) for pair in sorted(both, key=lambda pair: (max(pair), pair)))


def params(checked: Checked) -> list[dict[str, int | float]]:
    """Values of all params: the text's; then others of those that a call may give, small ones first."""
    own = {p.name: p.value for p in checked.params}
    free = [p for p in checked.params if not p.structural]
    others = [[p.value, *(x for x in ((0, 1, 2, 3, -1) if p.type is Type.INT else (0.0, 1.0, 0.25)) if x != p.value)] for p in free]
    every = [{**own, **dict(zip((p.name for p in free), values, strict=True))} for values in product(*others)]
    return [*every[:1], *every[1 :: max(1, len(every) // MOST_CHOICES)]]


def worlds(checked: Checked, size: World) -> tuple[Iterator[World], bool]:
    """Worlds of a size whose inputs satisfy the facts of the text, and whether they are all there are."""
    shapes = {i.name: _shape(checked, i, size) for i in checked.inputs}
    bits = sum(_numbers(shape) for shape in shapes.values())
    bounded = not any(isinstance(n, str) for i in checked.inputs for n in i.sizes)
    countable = bits <= MOST_BITS and all(i.type is Type.BOOL for i in checked.inputs) and checked.queries.given is None
    generator = torch.Generator().manual_seed(size.tokens * 64 + size.keys)
    if bounded and (countable or size.tokens + bits == 0):
        size = replace(size, layout=_layout(checked.queries.given, 0, generator)) if checked.queries.given is not None else size
        return (world for world in _every(checked, size, shapes, bits) if _broken(checked, world) is None), True
    return _draws(checked, size, generator), False


# ------------------------------------------------------------------------------------------------ inputs


def _shape(checked: Checked, declared: Input, size: World, named: Callable[[str], int] = lambda name: 0) -> tuple[int, ...]:
    steps = int(size.layout["step"].max()) + 1 if len(size.layout.get("step", ())) else 0
    if checked.queries.given is None:
        steps = checked.queries.longest(checked.queries.steps(size.tokens))
    extents = {"token": size.tokens, "query": size.tokens, "key": size.keys, "step": steps, "head": size.heads, "layer": size.layers}
    return (*(extents[a] for a in declared.axes if a != "sequence"), *(named(n) if isinstance(n, str) else n for n in declared.sizes))


def _numbers(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _every(checked: Checked, size: World, shapes: Mapping[str, tuple[int, ...]], bits: int) -> Iterator[World]:
    """All values of inputs that are truth values, or have none, false ones first."""
    parts = [_numbers(shape) for shape in shapes.values()]
    for values in product((False, True), repeat=bits):
        own = torch.tensor(values, dtype=torch.bool).split(parts) if parts else ()
        yield replace(size, inputs={i.name: x.reshape(shapes[i.name]).to(DTYPE[i.type]) for i, x in zip(checked.inputs, own, strict=True)})


def _draws(checked: Checked, size: World, generator: torch.Generator) -> Iterator[World]:
    misses = 0
    for _ in range(DRAWS):
        world = _drawn(checked, size, generator)
        if world is not None:
            yield world
        elif (misses := misses + 1) == MOST_MISSES:
            return  # the facts are such as no draw hits upon


def _drawn(checked: Checked, size: World, generator: torch.Generator) -> World | None:
    """One world of a size; None where none of many draws satisfies the facts."""
    sizes: dict[str, int] = {}

    def named(name: str) -> int:
        return sizes.setdefault(name, _below(5, generator))

    if checked.queries.given is not None:
        size = replace(size, layout=_layout(checked.queries.given, size.tokens, generator))
    inputs = {i.name: _values(i.type, _shape(checked, i, size, named), size.tokens, generator) for i in checked.inputs}
    world = replace(size, inputs=inputs)
    declared = {i.name: i for i in checked.inputs}
    for _ in range(REPAIRS):
        broken = _broken(checked, world)
        if broken is None:
            return world
        name, where = broken
        if name not in declared:
            return None  # of a param
        old = world.inputs[name]
        new = _values(declared[name].type, tuple(old.shape), size.tokens, generator)
        if where.shape == old.shape[: where.ndim]:
            new = torch.where(where.reshape((*where.shape, *[1] * (old.ndim - where.ndim))), new, old)  # what holds is kept
        world = replace(world, inputs={**world.inputs, name: new})
    return None


def _broken(checked: Checked, world: World) -> tuple[str, Tensor] | None:
    """The name of an input or param of which a fact of the text does not hold, and where it does not."""
    if not checked.facts:
        return None
    row = world.row(checked)
    for fact, layer, head in product(checked.facts, range(world.layers), range(world.heads)):
        holds = truth(fact, row, head, layer)
        if not bool(holds.all()):
            return fact.name, ~holds.squeeze()
    return None


def _layout(roles: tuple[int, ...], tokens: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Role, step and slot of so many tokens: steps that go on, slots that count."""
    which = torch.tensor(roles)[torch.randint(len(roles), (tokens,), generator=generator)]
    return {"role": which, "step": _runs((tokens,), generator), "slot": torch.randint(3, (tokens,), generator=generator)}


def _values(type: Type, shape: tuple[int, ...], tokens: int, generator: torch.Generator) -> Tensor:
    """Values of one input, in one of the shapes that texts read them in."""
    match type:
        case Type.BOOL:
            return torch.rand(shape, generator=generator) < torch.rand((), generator=generator)
        case Type.FLOAT:
            return FLOATS[torch.randint(1 + _below(len(FLOATS), generator), shape, generator=generator)]
    match _below(6, generator):
        case 0:
            return _runs(shape, generator)
        case 1:  # where the run at hand begins
            runs = _runs(shape, generator)
            return torch.searchsorted(runs, runs) if len(shape) else runs
        case 2 if len(shape):
            return torch.rand(shape, generator=generator).argsort(-1)  # ranks
        case 3:
            return torch.randint(2, shape, generator=generator)
        case 4:  # a position no later than the one at hand, as a parent has
            return (torch.rand(shape, generator=generator) * (1 + torch.arange(shape[-1] if shape else 1))).long().reshape(shape)
        case _:
            return torch.randint(-2, tokens + 3, shape, generator=generator)


def _runs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Whole numbers that rise by 1 now and then, from 0, as those of documents do."""
    rises = torch.rand(shape, generator=generator) < 0.4
    if not shape:
        return rises.long()
    rises[..., :1] = False
    return rises.long().cumsum(-1)


def _below(most: int, generator: torch.Generator) -> int:
    return int(torch.randint(most, (), generator=generator))
