"""Facts about inputs, held to a call by the reference's own evaluator.

Input: rows of the batch, laid out. Output: the first fact that does not hold, and where. Non-goals: facts about params, which rest on numbers alone
(`grammar/facts.py`); it shares no code with what the kernels check by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from ..diagnostics import InputError
from ..grammar import checked as c
from ..grammar.checked import Checked, Fact, Side
from ..grammar.facts import Broken
from .masks import Evaluator, Row


def hold_facts(checked: Checked, rows: Sequence[Row], layer: int | None = None) -> None:
    """Raises InputError for the first token (of the first row of the batch, the first layer and head) at which an input is not what the text says.
    `layer` looks at that one alone. A fact that reads an input which was not given says nothing."""
    for number, row in enumerate(rows):
        for fact in checked.facts_of_inputs:
            if checked.reads(fact.where) <= row.inputs.keys() and (broken := broken_in(fact, row, layer)) is not None:
                raise InputError(f"input {replace(broken, row=number if len(rows) > 1 else None)}: correct the tensor, or the text")


def broken_in(fact: Fact, row: Row, layer: int | None = None) -> Broken | None:
    """Where a fact does not hold in a row: the first head of the first layer (or of one layer), the first token."""
    spoken = row.checked.globals_in(fact.where)
    layers = range(row.layers if "layer" in spoken else 1) if layer is None else (layer,)
    for own, head in product(layers, range(row.heads if "head" in spoken else 1)):
        words = about_everybody(row).words(head, own)
        places = (~truth(fact, row, head, own)).nonzero()
        if len(places):
            at = tuple(places[0].tolist())
            beside = {w: n for w, n in (("head", head), ("layer", own)) if w in spoken}
            return Broken(fact, tuple(_values(fact, words, at)), _named(fact, at), **beside)
    return None


def truth(fact: Fact, row: Row, head: int = 0, layer: int = 0) -> Tensor:
    """Where a fact holds in a row, bool: () of what speaks of no token, (tokens,) of tokens, (queries, keys) of pairs; with two layouts (queries, 1) or
    (1, keys) of the tokens of a side."""
    return about_everybody(row).words(head, layer).value(fact.where)


def about_everybody(row: Row) -> Row:
    """The row as facts see it: a token that does not ask has its entry of an input all the same."""
    return replace(row, queries=row.own)


def _named(fact: Fact, at: tuple[int, ...]) -> tuple[int, ...]:
    """The places of a truth that is (), (tokens,), (queries, 1), (1, keys) or (queries, keys) as those that the fact speaks of."""
    if len(at) < 2:
        return at
    sides = {n.side for n in c.walk(fact.where) if isinstance(n, c.Attribute | c.LetRef)}
    return tuple(place for side, place in zip((Side.QUERY, Side.KEY), at, strict=True) if side in sides)


def _values(fact: Fact, words: Evaluator, at: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int | float | bool]]:
    """What the fact reads of its own input at a place: each element once, with its place in the input's own sizes, or its position."""
    axes = len(next(i for i in words.checked.inputs if i.name == fact.name).axes)
    seen = set()
    for expr in _read_here(fact.where, fact.name):
        indices = (expr.index,) if isinstance(expr, c.At) else expr.indices[axes:]
        place = tuple(int(_at(words.value(i), at)) for i in indices)
        if place not in seen:
            seen.add(place)
            yield place, _at(words.value(expr), at).item()


def _read_here(root: c.Expr, name: str) -> Iterator[c.Read | c.At]:
    """Where an expression reads an input at the place at hand, or at a position."""
    match root:
        case c.Read(input=input, indices=indices):
            if input == name:
                yield root
            parts = indices
        case c.At(value=value, index=index):
            if isinstance(value, c.Read) and value.input == name:
                yield root
            parts = (index,)
        case c.Apply(args=args):
            parts = args
        case _:
            return
    for part in parts:
        yield from _read_here(part, name)


def _at(value: Tensor, at: tuple[int, ...]) -> Tensor:
    """An element of a value that broadcasts to where a fact speaks of."""
    if value.ndim < 2 and len(at) < 2:
        return value[at] if value.ndim else value
    rows, columns = torch.broadcast_to(value, (*[1] * (2 - value.ndim), *value.shape)).shape
    return value.reshape(rows, columns)[at[0] if rows > 1 else 0, at[1] if columns > 1 else 0]
