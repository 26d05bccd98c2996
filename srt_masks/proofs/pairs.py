"""What a pair of tokens lets through, in z3: who attends, and whether a gradient returns along the pair.

A gradient into the key's state passes unless the gates of k and v, or that of the hidden state, are 0 there. The gate of q cuts nothing: it stops
what the query's own state learns at the pair, which its residual stream brings all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import z3

from ..compiler.ir import TRUE, Expr, Gate, scalars
from .call import Call
from .meaning import Meaning
from .tokens import Axis, Token
from .values import Int, Truth, count


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A head of a layer."""

    head: Int
    layer: Int


@dataclass(frozen=True, slots=True)
class Edge:
    """The query reads the key, in a head of a layer: `holds` says that it does."""

    query: Token
    key: Token
    place: Place
    holds: Truth


def is_local(expr: Expr) -> bool:
    """Whether it changes from head to head or layer to layer."""
    return bool({"head", "layer"} & set(scalars(expr)))


@dataclass
class Pairs:
    """The pairs of one call. `gradients`: whether a pair has to let a gradient through, or just be attended."""

    call: Call
    gradients: bool
    memo: dict[tuple[str, str, Place | None], Meaning] = field(default_factory=dict)

    def meaning(self, query: Token, key: Token, place: Place | None) -> Meaning:
        name = query.name, key.name, place
        if name not in self.memo:
            self.memo[name] = Meaning(self.call, query, key, place.head if place else None, place.layer if place else None)
        return self.memo[name]

    def place(self) -> Place:
        """Any head of any layer."""
        head, layer = count(self.call.fresh("head")), count(self.call.fresh("layer"))
        self.call.holds += [0 <= head.term, head.term < self.call.heads.term, 0 <= layer.term, layer.term < self.call.layers.term]
        return Place(head, layer)

    def query(self) -> Token:
        return self._token(self.call.queries)

    def key(self) -> Token:
        return self._token(self.call.keys)

    def _token(self, axis: Axis) -> Token:
        token = axis.token(self.call.fresh("token"))
        self.call.holds.append(token.holds)
        return token

    def says(self, expr: Expr, query: Token, key: Token, place: Place | None = None) -> Truth:
        """An expression about a pair; in some head of some layer, unless told which."""
        if place is None and is_local(expr):
            place = self.place()
        return self.meaning(query, key, place).truth(expr)

    def asks(self, query: Token, place: Place) -> Truth:
        return z3.BoolVal(True) if self.call.program.asks is TRUE else self.says(self.call.program.asks, query, query, place)

    def attended(self, query: Token, key: Token, place: Place) -> Truth:
        return z3.And(self.asks(query, place), self.says(self.call.program.attend, query, key, place))

    def passes(self, query: Token, key: Token, place: Place, second: Truth | None = None) -> Truth:
        """Attended, and a gradient may return. `second`: whether the query attends another key too; with a single one P = 1 and dS = 0, and none returns
        through k."""
        program = self.call.program
        k, v, hidden = (self._open(gate, query, key, place) for gate in (program.gate_k, program.gate_v, program.gate_hidden))
        through_k = k if second is None else z3.And(k, second)
        return z3.And(self.attended(query, key, place), hidden, z3.Or(through_k, v))

    def _open(self, gate: Gate, query: Token, key: Token, place: Place) -> Truth:
        meaning = self.meaning(query, key, place)
        return z3.And(meaning.truth(gate.open), meaning.nonzero(gate.weight))

    def edge(self, query: Token, key: Token, exactly: bool = False) -> Edge:
        """The query reads the key somewhere. `exactly`: a gradient does return, and not only may."""
        place = self.place()
        if not self.gradients:
            return Edge(query, key, place, self.attended(query, key, place))
        if not exactly:
            return Edge(query, key, place, self.passes(query, key, place))
        other = self.key()
        return Edge(query, key, place, self.passes(query, key, place, z3.And(other.pos != key.pos, self.attended(query, other, place))))

    @property
    def is_local(self) -> bool:
        """Whether what flows changes from head to head or layer to layer."""
        program = self.call.program
        gates = (program.gate_k, program.gate_v, program.gate_hidden)
        return any(is_local(e) for e in (program.attend, *(x for g in gates for x in (g.open, g.weight))))
