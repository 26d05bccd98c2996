"""Facts about inputs, held to the tensors of a call: what a text states with `given`.

Input: a checked text; then the rows of a batch. Output: `Facts`; then the first that does not hold, and where (`Broken`). Non-goals: facts about
params, which rest on numbers alone (`grammar/facts.py`), and when a call is known again (`kernels/facts.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..grammar.checked import Checked
from ..grammar.checked import Fact as Stated
from ..grammar.facts import Broken
from . import ir
from .batch import BatchRow
from .evaluate import Environment
from .ir import Expr, Gather, Load, Side
from .layout import attributes, steps_of
from .leaves import evaluate, split
from .lower import translate

AT_ONCE = 2**20  # pairs looked at together


@dataclass(frozen=True, slots=True, eq=False)
class Fact:
    """A fact, and what it says. With one layout both sides are all tokens, whoever asks."""

    stated: Stated
    where: Expr
    axes: int  # of the input it is stated with, its own sizes apart


@dataclass(frozen=True, eq=False)
class Facts:
    """The facts about the inputs of a text. False where there are none."""

    checked: Checked
    facts: tuple[Fact, ...]

    def __bool__(self) -> bool:
        return bool(self.facts)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """The params they read, and of `heads layers layer`."""
        return tuple(sorted({name for f in self.facts for name in ir.scalars(f.where)} - {"head", "steps", "length"}))

    def broken(self, rows: Sequence[BatchRow], tokens: int, keys: int, scalars: Mapping[str, int | float]) -> Broken | None:
        """The first fact that does not hold, at its first token, in the first row of the batch. `tokens` are those of the layout that queries stand
        in, `keys` those of the layout of keys; `scalars` are `heads`, `layer` and `layers`. The tensors of `rows` are on the CPU."""
        known = set()
        for number, row in enumerate(rows):
            own = _name(row)
            if own in known:
                continue
            known.add(own)
            environment = _laid_out(self.checked, row, tokens, keys, scalars)
            for fact in self.facts:
                for head in range(int(scalars["heads"])) if "head" in ir.scalars(fact.where) else (0,):
                    here = replace(environment, scalars={**environment.scalars, "head": head})
                    if (at := _first(fact.where, here)) is not None:
                        return _told(fact, here, at, number if len(rows) > 1 else None)
        return None


def lower_facts(checked: Checked) -> Facts:
    expr = translate(checked)
    axes = {i.name: len(i.axes) for i in checked.inputs}
    return Facts(checked, tuple(Fact(stated, expr(stated.where), axes[stated.name]) for stated in checked.facts_of_inputs))


def _name(row: BatchRow) -> Any:
    """Rows of one name were given the same, in the same memory."""
    return row.length, tuple(t.data_ptr() for t in (*row.inputs.values(), *row.layout.values())), tuple(row.params.items())


def _laid_out(checked: Checked, row: BatchRow, tokens: int, keys: int, scalars: Mapping[str, int | float]) -> Environment:
    """What the names mean in one row: every token of it, whether it asks or not, and none of its padding."""
    length = tokens if row.length is None else row.length
    own = attributes(checked.queries, length, checked.data, row.layout)
    others = own if checked.keys is None else attributes(checked.keys, keys, checked.data, row.layout)
    return Environment({**scalars, **row.params, "length": length, "steps": steps_of(checked.queries, own)}, row.inputs, own, others)


def _first(where: Expr, environment: Environment) -> tuple[int, ...] | None:
    """The first place at which an expression is false: (), a token of its side, or a query and a key."""
    sides = ir.sides(where)
    if len(sides) < 2:
        (truth,) = environment.evaluate(where)
        if truth.all():
            return None
        if not sides or not truth.ndim:
            return (0,) * len(sides) if not sides or len(environment.axis(next(iter(sides)))) else None
        return (int((~truth).nonzero()[0]),)
    leaves = evaluate(split(where), environment)
    queries, keys = len(environment.queries), len(environment.keys)
    rows = max(1, AT_ONCE // max(1, keys))
    for begin in range(0, queries, rows):
        (truth,) = leaves.pairs(slice(begin, begin + rows), slice(0, keys), where)
        if not truth.all():
            query, key = (~truth).expand(min(rows, queries - begin), keys).nonzero()[0].tolist()
            return begin + query, key
    return None


def _told(fact: Fact, environment: Environment, at: tuple[int, ...], row: int | None) -> Broken:
    """What is broken at a place, with what the fact reads of its own input there: each element once, with its place in the input's own sizes, or its
    position."""
    names, sides = ir.scalars(fact.where), ir.sides(fact.where)
    place = dict(zip(sorted(sides, key=list(Side).index), at, strict=True))
    queries, keys = (slice(place.get(side, 0), place.get(side, 0) + 1) for side in Side)

    def here(node: Expr) -> int | float | bool:
        (value,) = evaluate(split(node), environment).pairs(queries, keys, node)
        return value.item()

    values: dict[tuple[int, ...], int | float | bool] = {}
    for node, indices in _read_here(fact):
        values.setdefault(tuple(int(here(i)) for i in indices), here(node))
    layer = int(environment.scalars["layer"]) if "layer" in names else None
    return Broken(fact.stated, tuple(values.items()), at, row, int(environment.scalars["head"]) if "head" in names else None, layer)


def _read_here(fact: Fact) -> Iterator[tuple[Expr, tuple[Expr, ...]]]:
    """Where a fact reads its input, and the places in the input's own sizes, or the position it is read at."""
    for node in ir.postorder(fact.where, land=False):
        match node:
            case Load(table=fact.stated.name, indices=indices):
                yield node, indices[fact.axes :]
            case Gather(value=Load(table=fact.stated.name, indices=indices), index=index) if len(indices) == fact.axes:
                yield node, (index,)
