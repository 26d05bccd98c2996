"""Counterexamples: a row, a pair, or a path of a few hops, in a call of any size and any inputs, found by z3.

Input: a program, and what a question asks of the rows it names. Output: the smallest call that z3 finds, and the path in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import z3

from ..compiler.ir import Expr, Program
from ..grammar.checked import values_of
from .call import call
from .limits import Budget, Undecided
from .pairs import Edge, Pairs
from .solve import Solver, chosen, world
from .tokens import Token
from .values import Truth
from .verdict import Hop, Path, World

OTHER_VALUES = (1, 2, 3, 0, 8)  # of a param, beside the text's, where z3 cannot reason about all


@dataclass(frozen=True, slots=True)
class Question:
    """Rows, from the sink to the source, and hops between them, the last to happen first; and what holds of them."""

    rows: tuple[Token, ...]
    edges: tuple[Edge, ...]
    holds: tuple[Truth, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A counterexample. `inexact`: what z3 knew too little of; if there is nothing, running it must confirm it."""

    path: Path
    world: World
    inexact: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What questions are about: a program, whether gradients or values flow, what is known of inputs, and how long to think. `confirms` runs what z3 found
    knowing too little."""

    program: Program
    gradients: bool
    facts: tuple[Expr, ...]
    has_layers: bool  # whether the text speaks of them
    budget: Budget
    fixed: Mapping[str, int | float] | None = None  # the params, if the question is about some values alone
    names_layers: bool = False  # whether the claim does
    confirms: Callable[[Found], bool] = lambda found: True

    def pairs(self, fixed: Mapping[str, int | float] | None = None, exact: bool = False) -> Pairs:
        return Pairs(call(self.program, self.fixed if fixed is None else fixed, exact, self.facts, budget=self.budget), self.gradients)


@dataclass(frozen=True, slots=True)
class Way:
    """How to ask. What is asked of all params is said of all; `exact`: products and quotients as they are."""

    fixed: Mapping[str, int | float] | None
    exact: bool
    is_general: bool


def counterexample(subject: Subject, ask: Callable[[Pairs], Question]) -> Found | None:
    """A call and a path for which everything holds; None if there are none, whatever the sizes, params and inputs. What running does not confirm is
    what is found only if no other way of asking finds what it does. Raises Undecided."""
    why: tuple[str, ...] = ()
    doubtful: Found | None = None
    for way in _ways(subject):
        pairs = subject.pairs(way.fixed, way.exact)
        question = ask(pairs)
        solver = Solver(pairs.call, subject.budget)
        solver.add(*question.holds, *(e.holds for e in question.edges))
        try:
            model = solver.smallest()
        except Undecided:
            if doubtful is None and (not way.exact or subject.budget.left <= 0):
                raise
            continue
        if model is None and way.is_general:
            return None
        if not way.exact:
            why = tuple(pairs.call.inexact)
        if model is None or (why and not way.exact):
            continue
        in_layers = subject.has_layers or (subject.names_layers and len(question.edges) == 1)
        path = Path(chosen(model, question.rows[-1].pos), chosen(model, question.rows[0].pos), _hops(model, question.edges, in_layers))
        called = world(model, pairs.call)
        if not subject.has_layers:
            called = replace(called, layers=max(called.layers if subject.names_layers else 1, len(path.hops)))
        found = Found(path, called, tuple(pairs.call.inexact))
        if not found.inexact or subject.confirms(found):
            return found
        doubtful = found
    if doubtful is not None:
        return doubtful
    raise Undecided(f"{' and '.join(why)}: z3 cannot decide it, and the values tried refute nothing")


def is_possible(subject: Subject) -> bool:
    """Whether some call with a token in it keeps to the facts, as far as they are of its first and last rows, and another. What z3 cannot say counts as
    one."""
    pairs = subject.pairs()
    first, last = pairs.query(), pairs.key()
    pairs.call.holds += [first.pos == 0, last.pos == pairs.call.keys.tokens.term - 1]
    for query, key in ((first, last), (pairs.query(), pairs.key())):
        pairs.meaning(query, key, pairs.place())  # of which the facts hold
    try:
        return Solver(pairs.call, subject.budget).model() is not None
    except Undecided:
        return True


def path(subject: Subject, where: Expr, hops: int, exactly: bool = True) -> Found | None:
    """A path of so many hops, from a row to another, along which something flows that must not; or, not `exactly`, along which it may."""

    def ask(pairs: Pairs) -> Question:
        rows = (*(pairs.query() for _ in range(hops)), pairs.key())
        edges = tuple(pairs.edge(query, key, exactly) for query, key in pairwise(rows))
        holds = [pairs.says(where, rows[0], rows[-1])]
        if subject.program.keys is None:
            holds += [z3.Distinct(*(r.pos for r in rows))]
        if subject.has_layers:
            holds += [after.place.layer.term > before.place.layer.term for after, before in pairwise(edges)]
        return Question(rows, edges, tuple(holds))

    return counterexample(subject, ask)


def attended_pair(subject: Subject, where: Expr) -> Found | None:
    """A pair that is attended, of which something does not hold."""

    def ask(pairs: Pairs) -> Question:
        query, key = pairs.query(), pairs.key()
        edge = pairs.edge(query, key)
        return Question((query, key), (edge,), (z3.Not(pairs.says(where, query, key, edge.place)),))

    return counterexample(subject, ask)


def own_row(subject: Subject, where: Expr) -> Found | None:
    """A row of which something holds beside itself: it reaches itself, by its residual stream."""

    def ask(pairs: Pairs) -> Question:
        query, place = pairs.query(), pairs.place()
        return Question((query,), (), (pairs.asks(query, place), pairs.says(where, query, query, place)))

    return counterexample(subject, ask)


def _hops(model: z3.ModelRef, edges: tuple[Edge, ...], in_layers: bool) -> tuple[Hop, ...]:
    found = []
    for number, edge in enumerate(reversed(edges)):
        # Where no layer differs from another, the hops take them in turn.
        layer = chosen(model, edge.place.layer) if in_layers else number
        found.append(Hop(chosen(model, edge.query.pos), chosen(model, edge.key.pos), chosen(model, edge.place.head), layer))
    return tuple(found)


def _ways(subject: Subject) -> Iterator[Way]:
    """What the params may be: anything; or numbers, with which more is decided: those of the text, then others one at a time."""
    yield Way(None, False, True)
    yield Way(None, True, True)
    if subject.fixed is not None:
        return
    values = values_of(subject.program.params)
    if values:
        yield Way(values, True, False)
    for name, old in values.items():
        yield from (Way({**values, name: new}, True, False) for new in OTHER_VALUES if new != old and isinstance(old, int))
