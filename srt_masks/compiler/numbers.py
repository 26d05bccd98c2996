"""What the numbers of a call come to: calls whose numbers come to the same have the same plan, whatever the numbers are.

A text that says `layer % 2 == 0` speaks of two kinds of layers, not of as many as there are; `window(64 if layer % 6 != 5 else 4096)` likewise.
The largest expressions about numbers alone (params, `layer`, `layers`, `heads`, inputs per layer) are evaluated, and a plan is known by their
values. Non-goals: numbers that differ from head to head or row to row, which the plan itself tells apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from torch import Tensor

from . import ir
from .compiled import Compiled
from .evaluate import NUMPY_DTYPES, Array, array, read, step
from .ir import Apply, Const, Expr, Load, Scalar

_NOT_OF_THE_CALL = ("head", "length", "steps")

Values = tuple[int | float | bool, ...]


def come_to(compiled: Compiled, numbers: Mapping[str, int | float], inputs: Mapping[str, Tensor]) -> Values:
    """The values of everything a program makes of `numbers`, and of the inputs per layer that are the same for every row of the batch. `inputs`
    are (batch or 1, *axes, *sizes)."""
    per_layer = [i.name for i in compiled.program.inputs if i.axes == ("layer",)]
    tables = {n: inputs[n][0] for n in per_layer if inputs[n].shape[0] == 1 and inputs[n].device.type == "cpu"}
    nodes, names = _largest(compiled, frozenset(numbers), tuple(tables))
    own = tuple((name, numbers[name]) for name in names)
    return _values(nodes, dict(own), tables) if tables else _known_values(nodes, own)


@lru_cache(maxsize=256)
def _largest(compiled: Compiled, numbers: frozenset[str], tables: tuple[str, ...]) -> tuple[tuple[Expr, ...], tuple[str, ...]]:
    """The largest expressions that read nothing but these, constants of the text apart; and the numbers they read."""
    program = compiled.program
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
    nodes = tuple(n for n in found if not isinstance(n, Const))
    return nodes, tuple(sorted({n.name for n in ir.postorder(*nodes) if isinstance(n, Scalar)}))


@lru_cache(maxsize=1024)
def _known_values(nodes: tuple[Expr, ...], numbers: tuple[tuple[str, int | float], ...]) -> Values:
    return _values(nodes, dict(numbers), {})


def _values(nodes: tuple[Expr, ...], numbers: Mapping[str, int | float], tables: Mapping[str, Tensor]) -> Values:
    values: dict[Expr, Array] = {}
    with np.errstate(all="ignore"):  # whole numbers wrap, floats may be none
        for node in ir.postorder(*nodes):
            match node:
                case Scalar(name=name, type=type):
                    values[node] = np.asarray(numbers[name], NUMPY_DTYPES[type])
                case Const(value=value, type=type):
                    values[node] = np.asarray(value, NUMPY_DTYPES[type])
                case Load(table=table, indices=indices):
                    values[node] = read(array(tables[table]), [values[i] for i in indices])
                case _:
                    values[node] = step(node, values)
    return tuple(values[n].item() for n in nodes)
