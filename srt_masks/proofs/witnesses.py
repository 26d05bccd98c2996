"""Claims that something exists: every query attends; a path joins every such pair.

A witness is a row named by its place: the query itself, the row before it, the token of the same step, what a table says. Candidates are learnt
from calls in which those known do not do: z3 finds such a call, the reference says which row serves there, and its place is put in terms of the
query (and the key) in every way that fits (counterexample-guided, as in Solar-Lezama et al., ASPLOS 2006). A call in which nothing serves refutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import z3

from ..compiler import ir
from ..compiler.ir import Expr, Side
from ..grammar.checked import Checked, Type
from ..reference.masks import Row
from ..reference.masks import pairs as dense_pairs
from .limits import Undecided
from .pairs import Pairs, Place
from .paths import Found, Subject
from .search import reach, shortest_path
from .solve import Solver, chosen, world
from .tokens import Axis, Token
from .values import Int, Term, Truth, number
from .verdict import Path

MOST_ROUNDS = 12
MOST_ROWS = 4096  # of a call that the reference lays out
Landing = Callable[[Pairs, Axis, Token, Token | None], Term | None]  # where, seen from a query and perhaps a key


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row by its place. `name` says it in words, and tells candidates apart."""

    name: str
    landing: Landing

    def at(self, pairs: Pairs, axis: Axis, query: Token, key: Token | None) -> tuple[Token, Truth] | None:
        place = self.landing(pairs, axis, query, key)
        return None if place is None else pairs.call.land(axis, place)


def every_query_attends(subject: Subject, checked: Checked) -> Found | str:
    """A call with a query that attends nothing, or which keys serve whatever the call. Raises Undecided."""
    candidates = {c.name: c for c in (_shifted("query", 0), _absolute(0), *_read(subject, Side.QUERY))}
    for _ in range(MOST_ROUNDS):
        pairs = subject.pairs()
        query, place = pairs.query(), pairs.place()
        solver = Solver(pairs.call, subject.budget)
        solver.add(pairs.asks(query, place))
        used = {}
        for name, candidate in candidates.items():
            landed = candidate.at(pairs, pairs.call.keys, query, None)
            if landed is not None:
                key, inside = landed
                used[z3.Bool(f"not {name}")] = name
                solver.add(z3.Implies(z3.Bool(f"not {name}"), z3.Not(z3.And(inside, pairs.says(pairs.call.program.attend, query, key, place)))))
        model = solver.smallest(*used)
        if model is None:
            core = {str(x) for x in solver.solver.unsat_core()}
            return "every query attends " + " or ".join(name for x, name in used.items() if str(x) in core)
        tried = world(model, pairs.call)
        row = _row(max(tried.tokens, tried.keys), lambda tried=tried: tried.row(checked))
        own = chosen(model, query.pos)
        number_of = int((row.queries["pos"] < own).sum())
        attended = dense_pairs(checked, row.words(chosen(model, place.head), chosen(model, place.layer), number_of), 1, len(row.keys["pos"]))[0][0]
        keys = attended.nonzero().flatten().tolist()
        if not keys:
            return Found(Path(own, own), tried, ())
        known = len(candidates)
        for key in sorted(keys, key=lambda k: (abs(k - own), k))[:3] + keys[:1] + keys[-1:]:
            candidates |= {c.name: c for c in _generalised(row, own, key, row.keys)}
        if len(candidates) == known:
            break
    raise Undecided("no rule was found by which every query has a key, and no call in which one has none")


def every_pair_is_joined(subject: Subject, where: Expr, checked: Checked) -> Found | str:
    """A call with a pair that no path joins, or how all are joined whatever the call. Raises Undecided."""
    candidates: dict[str, Candidate] = {}
    for _ in range(MOST_ROUNDS):
        pairs = subject.pairs()
        query, key, place = pairs.query(), pairs.key(), pairs.place()
        solver = Solver(pairs.call, subject.budget)
        solver.add(pairs.asks(query, place), pairs.says(where, query, key, place))
        if subject.program.keys is None:
            solver.add(query.pos != key.pos)
        joins = {"directly": _surely(pairs, query, key, z3.BoolVal(True))}
        # A path of any length is a hop and a shorter one; which layers it takes is free only where layers are alike.
        for name, candidate in candidates.items() if not subject.has_layers and subject.program.keys is None else ():
            landed = candidate.at(pairs, pairs.call.queries, query, key)
            if landed is not None:
                joins[name] = _through(pairs, query, key, *landed, where, place)
        used = {z3.Bool(f"not {name}"): name for name in joins}
        solver.add(*(z3.Implies(x, z3.Not(joins[name])) for x, name in used.items()))
        model = solver.smallest(*used)
        if model is None:
            core = {str(x) for x in solver.solver.unsat_core()}
            return "a path: " + " or ".join(("by way of " if name != "directly" else "") + name for x, name in used.items() if str(x) in core)
        tried = world(model, pairs.call)
        row = _row(max(tried.tokens, tried.keys), lambda tried=tried: tried.row(checked))
        source, sink = chosen(model, key.pos), chosen(model, query.pos)
        if not bool(reach(row, subject.gradients, budget=subject.budget)[sink, source]):
            return Found(Path(source, sink), tried, ())
        known = len(candidates)
        path = shortest_path(row, source, sink, subject.gradients, budget=subject.budget)
        between = [h.query for h in path.hops[:-1]] if path is not None else []
        for at in dict.fromkeys(between[:1] + between[-1:]):
            candidates |= {c.name: c for c in _generalised(row, sink, at, row.own, source)}
        if len(candidates) == known:
            break
    raise Undecided("no rule was found by which every such pair is joined, and no call in which one is not")


def _through(pairs: Pairs, query: Token, key: Token, row: Token, inside: Truth, where: Expr, place: Place) -> Truth:
    """The query reads a row that reads the key, or that has the same claim on it from nearer by; or the other way about."""

    def near(a: Token, b: Token) -> Term:
        return z3.If(a.pos < b.pos, b.pos - a.pos, a.pos - b.pos)

    up, down = _surely(pairs, query, row, inside), _surely(pairs, row, key, inside)
    claimed_down = z3.And(pairs.asks(row, place), pairs.says(where, row, key, place), near(row, key) < near(query, key))  # of rows that ask alone
    claimed_up = z3.And(pairs.says(where, query, row, place), near(query, row) < near(query, key))
    return z3.And(inside, z3.Or(z3.And(up, z3.Or(down, claimed_down)), z3.And(down, claimed_up)))


def _surely(pairs: Pairs, query: Token, key: Token, inside: Truth) -> Truth:
    """Whether the query reads the key, and a gradient returns if one has to, in the first or last head of the first or last layer."""
    call, found = pairs.call, []
    heads, layers = ([number(0), *([Int(n.term - 1, 0, n.most)] if pairs.is_local else [])] for n in (call.heads, call.layers))
    for head, layer in product(heads, layers):
        place = Place(head, layer)
        if not pairs.gradients:
            found.append(pairs.attended(query, key, place))
            continue
        others = [call.land(call.keys, at) for at in (query.pos, z3.IntVal(0), key.pos - 1, key.pos + 1)]
        second = z3.Or([z3.And(there, other.pos != key.pos, pairs.attended(query, other, place)) for other, there in others])
        found.append(pairs.passes(query, key, place, second))
    return z3.And(inside, z3.Or(found))


def _row(tokens: int, lay_out: Callable[[], Row]) -> Row:
    if tokens > MOST_ROWS:
        raise Undecided(f"a call of {tokens:,} tokens is too large to be looked at")
    return lay_out()


# ------------------------------------------------------------------------------------------------ places in words


def _generalised(row: Row, query: int, found: int, axis: dict, key: int | None = None) -> Iterator[Candidate]:
    """The ways in which a row stands to the query (and the key): how far, in which step, from which end."""
    for name, other in (("query", query), ("key", key)):
        if other is not None:
            yield _shifted(name, found - other)
    section, step, slot, role = (int(axis[n][found]) for n in ("section", "step", "slot", "role"))
    kind = row.checked.roles[role]
    if row.checked.queries.given is None:
        for name, other in (("query", query), ("key", key)):
            if other is not None:
                yield _in_step(name, section, role, slot, step - int(row.own["step"][other]), kind)
        yield _fixed_step(section, role, slot, step, kind)
    yield _absolute(found)
    yield _from_end(len(axis["pos"]) - 1 - found)


def _shifted(name: str, by: int) -> Candidate:
    def landing(pairs: Pairs, axis: Axis, query: Token, key: Token | None) -> Term | None:
        token = query if name == "query" else key
        return None if token is None else token.pos + by

    words = f"the {name}'s row {'plus' if by > 0 else 'minus'} {abs(by)}" if by else "itself" if name == "query" else "the key"
    return Candidate(words, landing)


def _absolute(pos: int) -> Candidate:
    return Candidate(f"row {pos}", lambda *_: z3.IntVal(pos))


def _from_end(back: int) -> Candidate:
    return Candidate("the last row" if not back else f"the row {back} before the last", lambda _, axis, *__: axis.tokens.term - 1 - back)


def _in_step(name: str, section: int, role: int, slot: int, by: int, kind: str) -> Candidate:
    def landing(pairs: Pairs, axis: Axis, query: Token, key: Token | None) -> Term | None:
        token = query if name == "query" else key
        return None if token is None else axis.place(section, role, slot, token.fields["step"].term + by)

    when = "of its step" if not by and name == "query" else f"of the {name}'s step" + ("" if not by else f" {'plus' if by > 0 else 'minus'} {abs(by)}")
    return Candidate(f"{kind} {slot} {when}" + (f" (section {section})" if section else ""), landing)


def _fixed_step(section: int, role: int, slot: int, step: int, kind: str) -> Candidate:
    return Candidate(
        f"{kind} {slot} of step {step}" + (f" (section {section})" if section else ""), lambda _, axis, *__: axis.place(section, role, slot, z3.IntVal(step))
    )


def _read(subject: Subject, side: Side) -> Iterator[Candidate]:
    """The rows that tables name: every whole number that the mask asks of the query alone."""
    for i, node in enumerate(ir.postorder(subject.program.attend, land=False)):
        if node.type is Type.INT and ir.sides(node) == {side} and not isinstance(node, ir.Field) and not {"head", "layer"} & set(ir.scalars(node)):

            def landing(pairs: Pairs, _: Axis, query: Token, __: Token | None, node: Expr = node) -> Term | None:
                found = pairs.meaning(query, query, None).value(node)
                return getattr(found, "term", None)

            yield Candidate(f"the row that the text names ({i})", landing)
