"""Are two specs one mask, at every length? Both are read over the same tokens, heads, params and inputs, and z3 is asked for a pair that differs.

Input: two checked specs. Output: a `Comparison`. Tokens are the same by their position: each spec sees them in its own layout. A param is an argument
of the call, and one name is one argument of both; where the two texts give it two values, they are compared as they are written, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import z3

from ..compiler.front import front
from ..compiler.ir import Gate
from ..diagnostics import InputError
from ..grammar.checked import Checked, values_of
from ..reference.masks import pairs as dense_pairs
from .call import Call, call
from .claims import facts_of
from .limits import Budget, Undecided, check_seconds, within
from .pairs import Pairs, Place
from .solve import LOCK, Solver, chosen, world
from .tokens import Token
from .values import Real, Term, Truth
from .verdict import Hop, Outcome, World
from .wording import scope

GATES = ("q", "k", "v", "hidden")
THINKING = 0.7  # of the seconds; the rest is for the question whether the texts' own params tell them apart


@dataclass(frozen=True, slots=True)
class Calls:
    """What calls are spoken of: of so many heads and layers (None: any), with the params that each text has (`as_written`) or any."""

    heads: int | None = None
    layers: int | None = None
    as_written: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether two specs attend alike and pass alike. Refuted, `pair` is the first difference found, `what` differs there, and `worlds` are the call
    as each spec sees it."""

    outcome: Outcome
    reason: str
    scope: str
    seconds: float
    what: str = ""
    pair: Hop | None = None
    worlds: tuple[World, World] | None = None

    def __bool__(self) -> bool:
        return self.outcome is Outcome.PROVED


def compare(one: Checked, other: Checked, *, calls: Calls = Calls(), seconds: float = 30.0) -> Comparison:
    """Raises InputError for specs that have nothing in common to be compared: an input that each declares its own way, one layout against two."""
    begun = time.monotonic()
    check_seconds(seconds)
    whole = within(seconds)
    _check_alike(one, other)
    where, told = _scope(one, other, calls), ""
    with LOCK:
        try:
            found = _difference(one, other, calls, whole.first(THINKING))
            if isinstance(found, str) and (names := [] if calls.as_written else _unlike(one, other)):
                told = f"they are equal for equal values of {' and '.join(names)}; as written, "
                found = _difference(one, other, replace(calls, as_written=True), whole)
            as_written = not isinstance(found, str) and _as_written(one, other, calls, found[2], whole)
        except Undecided as why:
            return Comparison(Outcome.UNKNOWN, f"{told}{why}", where, time.monotonic() - begun)
    spent = time.monotonic() - begun
    if isinstance(found, str):
        return Comparison(Outcome.PROVED, found, where, spent)
    what, pair, worlds = found
    if not _differs(one, other, what, pair, worlds):
        why = "internal error, please report it: z3 finds a difference and running both shows none"
        return Comparison(Outcome.UNKNOWN, why, where, spent, what, pair, worlds)
    return Comparison(Outcome.REFUTED, f"{told}{_words(what, pair, worlds, as_written)}", where, spent, what, pair, worlds)


def _scope(one: Checked, other: Checked, calls: Calls) -> str:
    """The calls that both specs can have."""
    ours, theirs = (scope(x, calls.heads, calls.layers, any_params=not calls.as_written) for x in (one, other))
    sizes = [[(x.fixed, x.rows_per_step, x.given) for x in (c.queries, c.keys) if x is not None] for c in (one, other)]
    said = ours if ours == theirs and sizes[0] == sizes[1] else f"every call that both can have: the first has {ours}; the second {theirs}"
    return f"{said}, params as written" if calls.as_written and (values_of(one.params) or values_of(other.params)) else said


def _unlike(one: Checked, other: Checked) -> list[str]:
    """The params that both texts have, each with a value of its own."""
    ours, theirs = values_of(one.params), values_of(other.params)
    return [n for n, v in ours.items() if n in theirs and theirs[n] != v]


def _as_written(one: Checked, other: Checked, calls: Calls, worlds: tuple[World, World], budget: Budget) -> bool:
    """Whether specs that some values of their params tell apart are one for those of their texts."""
    if not any(tried.changed(checked) for tried, checked in zip(worlds, (one, other), strict=True)):
        return False
    try:
        return isinstance(_difference(one, other, replace(calls, as_written=True), budget), str)
    except Undecided:
        return False  # they differ, whatever else


def _difference(one: Checked, other: Checked, calls: Calls, budget: Budget) -> str | tuple[str, Hop, tuple[World, World]]:
    """A pair that differs, or why there is none. Raises Undecided."""
    why: tuple[str, ...] = ()
    for exact in (False, True):
        sides = [_side(checked, calls, exact, prefix, budget) for checked, prefix in ((one, ""), (other, "other "))]
        a, b = sides
        solver = Solver(a.call, budget)
        solver.add(*_same_axes(a.call, b.call))
        query, key = (_twins(a, b, axis) for axis in ("queries", "keys"))
        place = a.place()
        if not exact:
            _check_common(one, other, solver, b.call)
            for p, q, k in zip(sides, query, key, strict=True):
                p.meaning(q, k, place)  # of which the facts hold
            solver.add(*b.call.holds)
            if solver.model() is None:
                raise Undecided("no call keeps to what both specs state of it (`given`): of none, anything holds")
        for what, differs in _differences(sides, query, key, place):
            solver.add(*b.call.holds)
            flag = z3.Bool(f"differs in {what}")
            solver.add(z3.Implies(flag, differs))
            model = solver.smallest(flag)
            if model is None:
                continue
            why = tuple(dict.fromkeys((*a.call.inexact, *b.call.inexact)))
            if why and not exact:
                break  # it may be that z3 was told too little
            a.call.loads = b.call.loads = _together(a.call.loads, b.call.loads)
            hop = Hop(*(chosen(model, x) for x in (query[0].pos, key[0].pos, place.head, place.layer)))
            worlds = world(model, a.call), world(model, b.call)
            why = tuple(dict.fromkeys((*a.call.inexact, *b.call.inexact)))
            if why and not _differs(one, other, what, hop, worlds):
                break
            return what, hop, worlds
        else:
            return "no pair differs"
    raise Undecided(f"z3 knows too little of {' and '.join(why)}")


def _check_common(one: Checked, other: Checked, solver: Solver, theirs: Call) -> None:
    """Raises InputError where no length is one of both."""
    solver.add(*theirs.holds)
    if solver.model() is None:
        described = (f"`{x.queries.describe(x.roles)}`" for x in (one, other))
        raise InputError(f"the two specs have no length in common, with a token in it, of {' and '.join(described)}: nothing can be compared")


def _together(ours: dict[str, list[Term]], theirs: dict[str, list[Term]]) -> dict[str, list[Term]]:
    """What either reads of an input, which is the same input."""
    return {name: [*ours.get(name, ()), *theirs.get(name, ())] for name in {**ours, **theirs}}


def _side(checked: Checked, calls: Calls, exact: bool, prefix: str, budget: Budget) -> Pairs:
    own = values_of(checked.params) if calls.as_written else None
    return Pairs(call(front(checked), own, exact, facts_of(checked), prefix, budget, calls.heads, calls.layers), False)


def _same_axes(a: Call, b: Call) -> list[Truth]:
    return [x.tokens.term == y.tokens.term for x, y in ((a.queries, b.queries), (a.keys, b.keys))]


def _twins(a: Pairs, b: Pairs, axis: str) -> tuple[Token, Token]:
    """One token, as each spec sees it."""
    one, other = (p.query() if axis == "queries" else p.key() for p in (a, b))
    a.call.holds.append(one.pos == other.pos)
    return one, other


def _differences(sides: list[Pairs], query: tuple[Token, Token], key: tuple[Token, Token], place: Place) -> Iterator[tuple[str, Truth]]:
    """What may differ, one after the other: who asks, who attends, then the gates of pairs that both attend."""
    asks = [p.asks(q, place) for p, q in zip(sides, query, strict=True)]
    yield "who asks", asks[0] != asks[1]
    attended = [p.attended(q, k, place) for p, q, k in zip(sides, query, key, strict=True)]
    yield "who attends", attended[0] != attended[1]
    gates = [(p.call.program.gate_q, p.call.program.gate_k, p.call.program.gate_v, p.call.program.gate_hidden) for p in sides]
    for name, ours, theirs in zip(GATES, *gates, strict=True):
        if ours == theirs == Gate():
            continue
        x, y = (_factor(p, gate, q, k, place) for p, gate, q, k in zip(sides, (ours, theirs), query, key, strict=True))
        yield f"the gate of {name}", z3.And(*attended, z3.Or(x.nan != y.nan, z3.And(z3.Not(x.nan), x.term != y.term)))


def _factor(pairs: Pairs, gate: Gate, query: Token, key: Token, place: Place) -> Real:
    meaning = pairs.meaning(query, key, place)
    weight = meaning.value(gate.weight)
    assert isinstance(weight, Real)
    is_open = meaning.truth(gate.open)
    return Real(z3.If(is_open, weight.term, z3.RealVal(0)), z3.And(is_open, weight.nan))


def _differs(one: Checked, other: Checked, what: str, pair: Hop, worlds: tuple[World, World]) -> bool:
    """Whether the reference says so too."""
    said = []
    for checked, tried in zip((one, other), worlds, strict=True):
        row = tried.row(checked)
        asking = row.queries["pos"].tolist()
        if what == "who asks" or pair.query not in asking:
            said.append((pair.query in asking,))
            continue
        attend, *gates = dense_pairs(checked, row.words(pair.head, pair.layer, asking.index(pair.query), pair.key), 1, 1)
        factors = (float(g) for g in gates) if what.startswith("the gate") else ()
        said.append((bool(attend), *(None if math.isnan(g) else g for g in factors)))  # a factor that is no number is like another that is none
    return said[0] != said[1]


def _words(what: str, pair: Hop, worlds: tuple[World, World], as_written: bool) -> str:
    said = f"they differ in {what}: query {pair.query} and key {pair.key}, head {pair.head} of layer {pair.layer}, in a call of {worlds[0].tokens} token{'' if worlds[0].tokens == 1 else 's'}"
    values = {n: dict.fromkeys(str(tried.params[n]) for tried in worlds if n in tried.params) for n in {**worlds[0].params, **worlds[1].params}}
    each = ", ".join(f"{n} = {' and '.join(known)}" for n, known in values.items())
    said += f", with {each}" if each else ""
    return f"{said}. With the params of the texts no pair differs" if as_written else said


def _check_alike(one: Checked, other: Checked) -> None:
    if (one.keys is None) != (other.keys is None):
        raise InputError("one spec has one layout and the other two, of queries and of keys: no pair of one is a pair of the other")
    if (one.queries.given is None) != (other.queries.given is None):
        raise InputError("one spec has a layout of its own, the other takes it from the call (`layout given`): compare them at sizes, with given=")
    if one.queries.given is not None and one.roles != other.roles:
        raise InputError(f"the roles of the two layouts given differ: {', '.join(one.roles)} and {', '.join(other.roles)}")
    if one.queries.given is not None and one.data != other.data:
        raise InputError("the two specs call other roles of the layout given `data`, and so count `index` in two ways: compare them at sizes, with given=")
    theirs = {i.name: i for i in other.inputs}
    for mine in one.inputs:
        if mine.name in theirs and theirs[mine.name] != mine:
            raise InputError(f"the two specs declare the input `{mine.name}` in two ways: `{mine}` and `{theirs[mine.name]}`")
