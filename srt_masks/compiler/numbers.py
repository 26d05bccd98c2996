"""What the numbers of a call come to: calls whose numbers come to the same have the same plan, whatever the numbers are.

A text that says `layer % 2 == 0` speaks of two kinds of layers, not of as many as there are; `window(64 if layer % 6 != 5 else 4096)` likewise.
The largest expressions about numbers alone (params, `layer`, `layers`, `heads`, inputs per layer) are evaluated, and a plan is known by their
values. Non-goals: numbers that differ from head to head or row to row, which the plan itself tells apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from . import ir
from .evaluate import DTYPES, read, step
from .ir import Apply, Const, Expr, Load, Program, Scalar

_NOT_OF_THE_CALL = ("head", "length", "steps")

Values = tuple[int | float | bool, ...]


def come_to(program: Program, numbers: Mapping[str, int | float], tables: Mapping[str, Tensor]) -> Values:
    """The values of everything a program makes of `numbers`, and of `tables` that are the same for every row of the batch."""
    looked_up = tuple(i.name for i in program.inputs if i.axes == ("layer",) and i.name in tables)
    nodes = _largest(program, frozenset(numbers), looked_up)
    names = frozenset(n.name for n in ir.postorder(*nodes) if isinstance(n, Scalar))
    own = tuple((name, value) for name, value in numbers.items() if name in names)
    if any(isinstance(n, Load) for n in ir.postorder(*nodes)):
        return _values(nodes, dict(own), tables)
    return _known_values(nodes, own)


@lru_cache(maxsize=256)
def _largest(program: Program, numbers: frozenset[str], tables: tuple[str, ...]) -> tuple[Expr, ...]:
    """The largest expressions that read nothing but these, constants of the text apart."""
    closed: set[Expr] = set()
    found: dict[Expr, None] = {}
    roots = (*program.pair_roots, program.asks)
    for node in ir.postorder(*roots):
        match node:
            case Const():
                closed.add(node)
            case Scalar(name=name) if name in numbers and name not in _NOT_OF_THE_CALL:
                closed.add(node)
            case Apply() if closed.issuperset(node.args):
                closed.add(node)
            case Load(table=table, indices=indices) if table in tables and closed.issuperset(indices):
                closed.add(node)
            case _:
                found |= dict.fromkeys(c for c in ir.children(node) if c in closed)
    found |= dict.fromkeys(r for r in roots if r in closed)
    return tuple(n for n in found if not isinstance(n, Const))


@lru_cache(maxsize=1024)
def _known_values(nodes: tuple[Expr, ...], numbers: tuple[tuple[str, int | float], ...]) -> Values:
    return _values(nodes, dict(numbers), {})


def _values(nodes: tuple[Expr, ...], numbers: Mapping[str, int | float], tables: Mapping[str, Tensor]) -> Values:
    values: dict[Expr, Tensor] = {}
    for node in ir.postorder(*nodes):
        match node:
            case Scalar(name=name, type=type):
                values[node] = torch.tensor(numbers[name], dtype=DTYPES[type])
            case Load(table=table, indices=indices):
                values[node] = read(tables[table], [values[i] for i in indices])
            case _:
                values[node] = step(node, values)
    return tuple(values[n].item() for n in nodes)
