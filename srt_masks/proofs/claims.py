"""Checked claims -> obligations: what has to be shown of every call, in IR.

Input: `Checked`. Output: obligations in the order of the text, and `no leak` where there is a `predict` that no claim guards. Non-goals: showing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..compiler import ir
from ..compiler.ir import Expr, Op, Program, Side
from ..compiler.lower import translate
from ..compiler.simplify import simplified
from ..diagnostics import Source, Span
from ..grammar import checked
from ..grammar.parser import parse
from ..grammar.syntax import Claim, Predict

DATA_TOKENS = "data tokens"  # a scalar of proofs alone: how many there are


@dataclass(frozen=True, slots=True)
class Obligation:
    """A claim. `where` is about a query and a key: what has to hold of attended pairs (`assert`, `cacheable`), or which pairs a path may not, or
    has to, join."""

    claim: checked.Claim
    words: str
    where: Expr
    line: int | None = None  # None: stated by no one, but by a `predict`

    @property
    def kind(self) -> Claim:
        return self.claim.kind

    @property
    def names_layers(self) -> bool:
        return bool({"layer", "layers"} & set(ir.scalars(self.where)))


def obligations(spec: checked.Checked, program: Program, source: Source) -> list[Obligation]:
    expr = translate(spec)
    found = []
    for claim in spec.claims:
        line, _ = source.place(claim.span.start)
        words = " ".join(_without_comments(source.text[claim.span.start : claim.span.end]).split())
        where = simplified(expr(claim.where)) if claim.where is not None else _meant(claim.kind, program)
        found.append(Obligation(claim, words, where, line))
    if program.labels and not any(x.kind is Claim.NO_LEAK for x in found):
        # It stands where the first `predict` does.
        spans = [s.span for s in parse(source)[0].statements if isinstance(s, Predict)]
        claim = checked.Claim(Claim.NO_LEAK, None, next(iter(spans), Span(0, 0)))
        found.append(Obligation(claim, Claim.NO_LEAK.value, _meant(Claim.NO_LEAK, program)))
    return found


def facts_of(spec: checked.Checked) -> tuple[Expr, ...]:
    """What the text states of inputs and params: hypotheses, of a query, a pair, or of numbers."""
    expr = translate(spec)
    return tuple(simplified(expr(fact.where)) for fact in spec.facts)


def _meant(kind: Claim, program: Program) -> Expr:
    match kind:
        case Claim.NO_LEAK:
            return simplified(leaks(program))
        case Claim.CACHEABLE:
            return simplified(ir.apply(Op.NOT, later(program)))
        case _:
            return ir.TRUE


def leaks(program: Program) -> Expr:
    """Whether the key is the data token that the query is trained to predict. Of several labels of a role, the last that has a target sets it."""
    index = ir.attribute(Side.KEY, "index")
    is_data = _any(_equal(ir.attribute(Side.KEY, "role"), ir.const(r, ir.attribute(Side.KEY, "role").type)) for r in program.data)
    found: list[Expr] = []
    for number, label in enumerate(program.labels):
        later = [x for x in program.labels[number + 1 :] if x.role == label.role]
        mine = [_applies(label), *(ir.apply(Op.NOT, _applies(x)) for x in later), is_data, _equal(index, label.target)]
        found.append(_all(mine))
    return _any(found)


def _applies(label: ir.Label) -> Expr:
    role = ir.attribute(Side.QUERY, "role")
    count = ir.scalar(DATA_TOKENS)
    inside = _all([ir.apply(Op.LE, ir.const(0), label.target), ir.apply(Op.LT, label.target, count)])
    return _all([_equal(role, ir.const(label.role, role.type)), label.where, inside])


def later(program: Program) -> Expr:
    """Whether the key is made after the query: a sequence is made section by section and step by step, a step at once. Keys of a layout of their
    own are there from the start."""
    if program.keys is not None:
        return ir.FALSE
    (q, k), (s, t) = ([ir.attribute(side, name) for side in (Side.QUERY, Side.KEY)] for name in ("section", "step"))
    return _any([ir.apply(Op.LT, q, k), _all([_equal(q, k), ir.apply(Op.LT, s, t)])])


def _equal(a: Expr, b: Expr) -> Expr:
    return ir.apply(Op.EQ, a, b)


def _all(parts: list[Expr]) -> Expr:
    result = parts[0]
    for part in parts[1:]:
        result = ir.apply(Op.AND, result, part)
    return result


def _any(parts: Iterable[Expr]) -> Expr:
    result: Expr = ir.FALSE
    for part in parts:
        result = ir.apply(Op.OR, result, part)
    return result


def _without_comments(text: str) -> str:
    return "\n".join(line.partition("#")[0] for line in text.splitlines())
