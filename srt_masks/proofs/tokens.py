"""A call of unknown size, for z3: its extents, and tokens that may be any of a layout's.

Input: a layout. Output: whole numbers that z3 may choose, and what holds of them. Everything is linear: the position of a token is where its section
begins, plus its step times the rows of a step, plus its place among them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import z3

from ..grammar.checked import Layout
from .values import LONGEST, Int, Term, Truth, count, number


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token that z3 chooses. `holds` ties its attributes to each other and to the extents of its axis."""

    name: str
    fields: dict[str, Int]
    holds: Truth

    @property
    def pos(self) -> Term:
        return self.fields["pos"].term


@dataclass
class Axis:
    """The tokens of one layout, as many as `steps` makes them. Of a `layout given`, role, step and slot are functions of the position."""

    name: str
    layout: Layout
    data: tuple[int, ...]
    steps: Int
    tokens: Int
    holds: list[Truth]
    made: list[Token] = field(default_factory=list)
    given: dict[str, z3.FuncDeclRef] = field(default_factory=dict)

    def token(self, name: str) -> Token:
        made = self._given(name) if self.layout.given is not None else self._laid_out(name)
        self.made.append(made)
        return made

    def count_data(self) -> Int:
        """How many data tokens there are."""
        if self.layout.given is not None:
            found = count(f"{self.name}.data")
            self.holds += [0 <= found.term, found.term <= self.tokens.term]
            for t in self.made:
                behind = found.term - 1 - t.fields["index"].term
                self.holds += [0 <= behind, behind < self.tokens.term - t.pos]
            return found
        total: Term = z3.IntVal(0)
        for section in self.layout.sections:
            known = sum(n for role, n in section.rows if role in self.data)
            total = total + known * (self.steps.term if section.count is None else section.count)
        return Int(total, 0, LONGEST)

    def place(self, section: int, role: int, slot: int, step: Term) -> Term | None:
        """The position of a token of a section, by its role, slot and step; None if no step has one."""
        begin: Term = z3.IntVal(0)
        for number_, rows in enumerate(self.layout.sections):
            steps = self.steps.term if rows.count is None else rows.count
            if number_ == section:
                at, slots = 0, 0
                for own, n in rows.rows:
                    if own == role and slots <= slot < slots + n:
                        return begin + rows.rows_per_step * step + at + slot - slots
                    at, slots = at + n, slots + n * (own == role)
                return None
            begin = begin + rows.rows_per_step * steps
        return None

    def _laid_out(self, name: str) -> Token:
        """One of the groups of like rows of one of the sections."""
        terms: dict[str, Term] = {n: z3.Int(f"{name}.{n}") for n in ("pos", "section", "step", "slot", "role", "index")}
        kinds = []
        begin: Term = z3.IntVal(0)  # of this section
        counted: Term = z3.IntVal(-1)  # data tokens before it, minus 1
        for number_, section in enumerate(self.layout.sections):
            steps = self.steps.term if section.count is None else z3.IntVal(section.count)
            rows = section.rows_per_step
            known = sum(n for role, n in section.rows if role in self.data)
            place, data, slots = 0, 0, {}
            for role, n in section.rows:
                slot = slots.get(role, 0)
                within = terms["slot"] - slot
                is_data = role in self.data
                kinds.append(
                    z3.And(
                        terms["section"] == number_, terms["role"] == role, slot <= terms["slot"], terms["slot"] < slot + n,
                        0 <= terms["step"], terms["step"] < steps, terms["pos"] == begin + rows * terms["step"] + place + within,
                        terms["index"] == counted + known * terms["step"] + data + (within + 1 if is_data else 0),
                    )
                )  # fmt: skip
                place, data, slots[role] = place + n, data + n * is_data, slot + n
            begin, counted = begin + rows * steps, counted + known * steps
        return Token(name, self._ranged(terms), z3.Or(kinds) if len(kinds) != 1 else kinds[0])

    def _ranged(self, terms: dict[str, Term]) -> dict[str, Int]:
        sections = self.layout.sections
        roles = [role for s in sections for role, _ in s.rows]
        most = {
            "section": len(sections) - 1,
            "slot": max((sum(n for r, n in s.rows if r == role) for s in sections for role, _ in s.rows), default=1) - 1,
            "role": max(roles, default=0),
            "step": max((LONGEST if s.count is None else s.count for s in sections), default=1) - 1,
        }
        least = {"index": -1, "role": min(roles, default=0)}
        found = {n: Int(t, least.get(n, 0), most.get(n, LONGEST)) for n, t in terms.items()}
        # What has one value is that value: z3 need not find out.
        return {n: number(x.least) if x.only is not None else x for n, x in found.items()}

    def _given(self, name: str) -> Token:
        pos = z3.Int(f"{name}.pos")
        functions = {n: self.given.setdefault(n, z3.Function(f"{self.name}.{n}", z3.IntSort(), z3.IntSort())) for n in ("role", "step", "slot", "index")}
        terms: dict[str, Term] = {n: f(pos) for n, f in functions.items()}
        assert self.layout.given is not None
        is_data = z3.Or([terms["role"] == r for r in self.data])
        counted = [terms["index"] == pos] if set(self.layout.given) <= set(self.data) else [z3.Or(is_data, terms["index"] < pos)]
        counted += [] if set(self.layout.given) & set(self.data) else [terms["index"] == -1]
        holds = [
            *counted,
            0 <= pos, pos < self.tokens.term, z3.Or([terms["role"] == r for r in self.layout.given]),
            0 <= terms["step"], terms["step"] < self.steps.term, 0 <= terms["slot"], terms["slot"] < LONGEST,
            -1 <= terms["index"], terms["index"] <= pos, z3.Implies(is_data, 0 <= terms["index"]),
        ]  # fmt: skip
        this = (pos, terms["index"], is_data)
        for made in self.made:
            that = (made.pos, made.fields["index"].term, z3.Or([made.fields["role"].term == r for r in self.data]))
            holds += [*_counted(this, that), *_counted(that, this)]
        ranges = {"role": (0, LONGEST), "step": (0, LONGEST), "slot": (0, LONGEST), "index": (-1, LONGEST)}
        fields = {"pos": Int(pos, 0, LONGEST), "section": number(0), **{n: Int(terms[n], *ranges[n]) for n in terms}}
        return Token(name, fields, z3.And(holds))


def _counted(earlier: tuple[Term, Term, Truth], later: tuple[Term, Term, Truth]) -> list[Truth]:
    """`index` counts the data tokens up to and including its own: (position, index, whether it is data) of two tokens, if they are in this order."""
    (here, before, _), (there, after, is_data) = earlier, later
    others = there - here - z3.If(z3.Or(is_data, here == there), 0, 1)
    return [z3.Implies(here <= there, z3.And(before <= after, after - before <= others)), z3.Implies(z3.And(here < there, is_data), before < after)]


def axis(name: str, layout: Layout, data: tuple[int, ...], steps: Int) -> Axis:
    """The tokens of a layout of so many steps of its bare repeat, if it has one."""
    if layout.given is not None:
        tokens = count(f"{name}.tokens")
        span = count(f"{name}.steps")
        holds = [0 <= tokens.term, tokens.term <= LONGEST, 0 <= span.term, span.term <= LONGEST, (span.term == 0) == (tokens.term == 0)]
        made = Axis(name, layout, data, span, tokens, holds)
        # `steps` are what the last token of the latest step makes them.
        latest = made.token(f"{name}.latest")
        holds.append(z3.Implies(tokens.term > 0, z3.And(latest.holds, latest.fields["step"].term == span.term - 1)))
        return made
    if not layout.rows_per_step:
        return Axis(name, layout, data, number(layout.longest(0)), number(layout.fixed), [])
    tokens = Int(layout.fixed + layout.rows_per_step * steps.term, layout.fixed, LONGEST)
    return Axis(name, layout, data, steps, tokens, [0 <= steps.term, tokens.term <= LONGEST])
