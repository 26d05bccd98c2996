"""A program -> what the planner asks of a box of its pairs: the mask, and the gates that some rule speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from . import ir
from .ir import Expr, Gate, Op, Program
from .labels import SHIFTS, State
from .leaves import Split, split
from .simplify import simplified
from .terms import Step, Term, guards_of, steps, term


@dataclass(frozen=True, slots=True)
class GateQuestion:
    """What is asked of a gate: whether it is open anywhere, and everywhere, that is attended; and its weight. q, k and v of one gate are asked once."""

    names: str
    gate: Gate
    somewhere: Term
    everywhere: Term
    weight: Term

    def bits(self, states: NDArray) -> NDArray:
        """States as label bits."""
        label = np.zeros_like(states)
        for name in self.names:
            label = label | (states << SHIFTS[name])
        return label


@dataclass(frozen=True)
class Questions:
    """What is asked of a box. `always` are the label bits of the gates that no rule speaks of, which are 1."""

    attend: Expr
    gates: tuple[GateQuestion, ...]
    always: int

    @cached_property
    def attend_term(self) -> Term:
        return term(self.attend)

    @cached_property
    def mask(self) -> tuple[Step, ...]:
        """How the mask is bounded."""
        return steps(self.attend_term)

    @cached_property
    def rules(self) -> tuple[Step, ...]:
        """How the gates are bounded, in a box that may hold an attended pair."""
        return steps(*(t for g in self.gates for t in (g.somewhere, g.everywhere, g.weight)))

    @cached_property
    def roots(self) -> tuple[Expr, ...]:
        """What is evaluated of single pairs: the mask, then open and weight of each gate asked about."""
        return (self.attend, *(e for g in self.gates for e in (g.gate.open, g.gate.weight)))

    @cached_property
    def split(self) -> Split:
        """The leaves of single pairs."""
        return split(*self.roots)


def questions(program: Program) -> Questions:
    names: dict[Gate, str] = {}
    for name, gate in zip("qkv", program.gates, strict=True):
        names[gate] = names.get(gate, "") + name
    always = sum(State.ALL << SHIFTS[name] for name in names.pop(Gate(), ""))
    return Questions(program.attend, tuple(_question(program.attend, gate, n) for gate, n in names.items()), always)


def _question(attend: Expr, gate: Gate, names: str) -> GateQuestion:
    """A box that is asked may hold an attended pair. Where that and the gate have nothing in common that a law would find, the gate is asked alone, on
    the pairs that meet the guards of the mask."""
    query, key = guards_of(attend)
    alone, weight = term(gate.open, query, key), term(gate.weight, query, key)
    if gate.open is ir.TRUE:
        return GateQuestion(names, gate, alone, alone, weight)
    both, either = ir.apply(Op.AND, attend, gate.open), ir.apply(Op.OR, simplified(ir.apply(Op.NOT, attend)), gate.open)
    somewhere, everywhere = (alone if simplified(x) is x else term(simplified(x)) for x in (both, either))
    return GateQuestion(names, gate, somewhere, everywhere, weight)
