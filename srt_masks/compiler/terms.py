"""Expressions about pairs -> steps of bounding them: each in the context of the guards it stands under.

In `g(q) and h(k) and P` it is enough to know P where g and h hold; in `g(q) or P`, where g fails. A `Term` is an expression with the guards it
stands under: its leaves are then summed up over the tokens of a tile that meet them alone. What is said of a term holds on the pairs whose tokens
meet its guards; a chain of `and` (of `or`) says the rest by its own guards, which are bounded without them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from . import ir
from .ir import Apply, Expr, Op, Side

MOST_STEPS = 4  # times the steps that there would be without guards: one expression may stand under many


@dataclass(frozen=True, slots=True)
class Term:
    """An expression over the pairs whose query meets one guard and whose key another: masks about one side; TRUE where there is none."""

    node: Expr
    query: Expr = ir.TRUE
    key: Expr = ir.TRUE

    @property
    def is_leaf(self) -> bool:
        return len(ir.sides(self.node)) < 2

    @property
    def side(self) -> Side | None:
        """Of a leaf: whose attributes it reads; None for a constant."""
        return next(iter(ir.sides(self.node)), None)

    @property
    def guard(self) -> Expr:
        """Of a leaf: the guard of its own side."""
        return self.key if self.side is Side.KEY else self.query


@dataclass(frozen=True)
class Step:
    """A term and those it is bounded by, which come before it. A chain has all its links; a pair's `%` the remainders of its two sides, too."""

    term: Term
    args: tuple[Term, ...]

    # Asked at every level of every plan.

    @cached_property
    def is_leaf(self) -> bool:
        return self.term.is_leaf

    @cached_property
    def side(self) -> Side | None:
        """Of a leaf."""
        return self.term.side

    @cached_property
    def compared(self) -> tuple[Term, Term] | None:
        """The leaves of query and key that `==` or `!=` compares."""
        match self.term.node, self.args:
            case Apply(op=(Op.EQ | Op.NE)), (a, b) if a.is_leaf and b.is_leaf and {a.side, b.side} == {Side.QUERY, Side.KEY}:
                return (a, b) if a.side is Side.QUERY else (b, a)
            case _:
                return None


def term(node: Expr, query: Expr = ir.TRUE, key: Expr = ir.TRUE) -> Term:
    """A leaf stands under the guard of its own side alone, a constant under none."""
    match [*ir.sides(node)]:
        case []:
            return Term(node)
        case [Side.QUERY]:
            return Term(node, query=query)
        case [Side.KEY]:
            return Term(node, key=key)
        case _:
            return Term(node, query, key)


def steps(*roots: Term) -> tuple[Step, ...]:
    """Every term below some roots once, arguments first."""
    plain = _steps([Term(r.node) for r in roots], False, None)
    assert plain is not None
    guarded = _steps(roots, True, MOST_STEPS * len(plain) + 64)
    if guarded is not None:
        return guarded
    # The roots' own guards are theirs to keep: what is asked is asked about them.
    found = _steps(roots, False, None)
    assert found is not None
    return found


def _steps(roots: tuple[Term, ...] | list[Term], guarded: bool, most: int | None) -> tuple[Step, ...] | None:
    found: dict[Term, Step] = {}
    stack = [(r, False) for r in reversed(roots)]
    waiting: dict[Term, tuple[Term, ...]] = {}
    while stack:
        here, ready = stack.pop()
        if here in found:
            continue
        if ready:
            found[here] = Step(here, waiting[here])
            continue
        if most is not None and len(waiting) > most:
            return None
        waiting[here] = () if here.is_leaf else _arguments(here, guarded)
        stack.append((here, True))
        stack += [(a, False) for a in reversed(waiting[here]) if a not in found]
    return tuple(found.values())


def _arguments(here: Term, guarded: bool) -> tuple[Term, ...]:
    match here.node:
        case Apply(op=(Op.AND | Op.OR) as op):
            links = chain(here.node, op)
            own = [*links.constants, *links.query, *links.key]
            inner = _under(here, links, op) if guarded else here
            return (*(term(x, here.query, here.key) for x in own), *(replace(inner, node=p) for p in links.pairs))
        case Apply(op=Op.MOD, args=(Apply(op=Op.SUB, args=(a, b)), divisor)) if not ir.sides(divisor) and max(len(ir.sides(x)) for x in (a, b)) < 2:
            parts = (here.node.args[0], divisor, ir.apply(Op.MOD, a, divisor), ir.apply(Op.MOD, b, divisor))
            return tuple(term(x, here.query, here.key) for x in parts)
        case node:
            return tuple(term(x, here.query, here.key) for x in ir.children(node))


@dataclass(frozen=True, slots=True)
class Chain:
    """What a chain of one operator links: one leaf at most of each side (and of none), and pair expressions."""

    constants: tuple[Expr, ...]
    query: tuple[Expr, ...]
    key: tuple[Expr, ...]
    pairs: tuple[Expr, ...]


def chain(root: Expr, op: Op) -> Chain:
    parts: dict[Side | None, Expr] = {}
    pairs: list[Expr] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Apply) and node.op is op and len(ir.sides(node)) > 1:
            stack += reversed(node.args)
        elif len(ir.sides(node)) > 1:
            pairs.append(node)
        else:
            side = next(iter(ir.sides(node)), None)
            parts[side] = ir.apply(op, parts[side], node) if side in parts else node
    of = {side: (parts[side],) if side in parts else () for side in (None, Side.QUERY, Side.KEY)}
    return Chain(of[None], of[Side.QUERY], of[Side.KEY], tuple(pairs))


def _under(here: Term, links: Chain, op: Op) -> Term:
    """The guards of a chain's pair expressions: those it stands under, and what the leaves beside them leave open."""

    def more(guard: Expr, own: tuple[Expr, ...]) -> Expr:
        for leaf in own:
            leaf = leaf if op is Op.AND else ir.apply(Op.NOT, leaf)
            guard = leaf if guard is ir.TRUE else ir.apply(Op.AND, guard, leaf)
        return guard

    return replace(here, query=more(here.query, links.query), key=more(here.key, links.key))


def guards_of(node: Expr) -> tuple[Expr, Expr]:
    """What every pair that a mask holds on must meet: by its query, by its key."""
    links = chain(node, Op.AND)
    inner = _under(Term(node), links, Op.AND)
    return inner.query, inner.key
