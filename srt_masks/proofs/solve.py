"""z3 asked, within limits; and what it found, as a call that can be run.

A question is a set of formulas about the unknowns of a `Call`. The answer is a model, none, or unknown where a limit was met: never a hang.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from threading import RLock, Thread
from typing import Any

import torch
import z3

from ..grammar.checked import Input, Type
from .call import Call
from .limits import Budget, Undecided
from .tokens import Axis
from .values import LONGEST, Int, Term, Truth
from .verdict import World

WORK = 20_000_000  # of z3's own units, for a claim of USUAL seconds: a question costs the same on every machine
USUAL = 10.0
MOST_WORK = 2**32 - 1
SMALL = (2, 5, 12, 40, 150, 600)  # the sizes that a counterexample is looked for in, before any
MOST_ELEMENTS = 10_000_000
LOCK = RLock()  # z3 has one context, for one thread at a time; a process that forks waits for it, or its child would wait for ever
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)


@dataclass
class Solver:
    """Questions about one call. What the call holds, it holds in every question."""

    call: Call
    budget: Budget
    solver: z3.Solver = field(default_factory=z3.SimpleSolver)
    added: int = 0

    def add(self, *formulas: Truth) -> None:
        self.solver.add(*formulas)

    def _catch_up(self) -> None:
        """Tells z3 what has become known of the unknowns since."""
        self.solver.add(*self.call.holds[self.added :])
        self.added = len(self.call.holds)

    def model(self, *assumptions: Truth) -> z3.ModelRef | None:
        """Values for which everything holds, or None if there are none. Raises Undecided."""
        self._catch_up()
        self.budget.check()
        work = int((WORK // 10 if self.call.exact else WORK) * max(1.0, self.budget.seconds / USUAL))
        self.solver.set(rlimit=min(work, MOST_WORK), timeout=max(1, int(1000 * self.budget.left)))
        answer = self._answer(*assumptions)
        if answer == z3.unknown:
            why = self.solver.reason_unknown()
            raise Undecided(self.budget.spent if why in ("timeout", "canceled", "max. resource limit exceeded") else f"z3 says: {why}")
        return self.solver.model() if answer == z3.sat else None

    def _answer(self, *assumptions: Truth) -> z3.CheckSatResult:
        """z3 thinks in a thread of its own: else Ctrl-C would end its thinking, and not the proof."""
        found: list[z3.CheckSatResult | Exception] = []

        def think() -> None:
            try:
                found.append(self.solver.check(*assumptions))
            except Exception as error:
                found.append(error)

        self.solver.set(ctrl_c=False)
        thinking = Thread(target=think, daemon=True)
        thinking.start()
        try:
            thinking.join()
        except BaseException:
            while thinking.is_alive():
                self.solver.interrupt()
                thinking.join(0.05)
            raise
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    def smallest(self, *assumptions: Truth) -> z3.ModelRef | None:
        """A model of a small call, with the text's values of the params and small inputs, if there is one; else any."""
        largest = self.model(*assumptions)
        if largest is None:
            return None
        own = z3.And([x == value for x, value in self._params()])
        for near in dict.fromkeys((own, z3.BoolVal(True))):
            for size in SMALL:
                small = [x <= size for x in self._sizes()]
                numbers = [z3.And(-size <= x, x <= size) for x in self._numbers()]
                with suppress(Undecided):
                    if (found := self.model(*assumptions, near, *small, *numbers)) is not None:
                        return found
        # Some claims fail for huge numbers alone.
        for size in SMALL:
            with suppress(Undecided):
                if (found := self.model(*assumptions, *[x <= size for x in self._sizes()])) is not None:
                    return found
        return largest

    def _params(self) -> Iterator[tuple[Term, int | float]]:
        if self.call.fixed is None:
            for p in self.call.program.params:
                if not p.structural:
                    yield (z3.Int if p.type is Type.INT else z3.Real)(f"param {p.name}"), p.value

    def _sizes(self) -> Iterator[Term]:
        """What makes a call large."""
        call = self.call
        for axis in {id(a): a for a in (call.queries, call.keys)}.values():
            yield axis.steps.term if axis.layout.given is None else axis.tokens.term
        yield from (x.term - 1 for x in (call.heads, call.layers) if x.only is None)
        for name, x in call.known.items():
            match name:
                case "tokens given":
                    yield x.term - call.queries.tokens.term
                case "steps given":
                    yield x.term - call.queries.steps.term
                case _ if name.startswith("size "):
                    yield x.term

    def _numbers(self) -> Iterator[Term]:
        """What need not be large: params that are not the text's, whole numbers of inputs."""
        yield from (x for x, value in self._params() if isinstance(value, int))
        for declared in self.call.program.inputs:
            if declared.type is Type.INT:
                yield from self.call.loads.get(declared.name, ())  # type: ignore[misc]


def chosen(model: z3.ModelRef, value: Any) -> int:
    """The whole number that a model gives a term."""
    found = model.eval(value.term if isinstance(value, Int) else value, model_completion=True)
    return found.as_long()  # type: ignore[union-attr]


def world(model: z3.ModelRef, call: Call) -> World:
    """The call that a model describes. Raises Undecided for one too large to be run."""
    tokens, keys = chosen(model, call.queries.tokens), chosen(model, call.keys.tokens)
    if call.fixed is not None:
        params = dict(call.fixed)
    else:
        params = {p.name: _param(model, call, p.name, p.type) for p in call.program.params if not p.structural}
    params |= {p.name: p.value for p in call.program.params if p.structural}
    inputs = {i.name: _input(model, call, i) for i in call.program.inputs}
    layout = _layout(model, call.queries, tokens) if call.program.queries.given is not None else {}
    return World(tokens, keys, chosen(model, call.heads), chosen(model, call.layers), params, inputs, layout)


def _param(model: z3.ModelRef, call: Call, name: str, type: Type) -> int | float:
    if type is Type.INT:
        return chosen(model, z3.Int(f"param {name}"))
    return _float(call, model.eval(z3.Real(f"param {name}"), model_completion=True))


def _input(model: z3.ModelRef, call: Call, declared: Input) -> torch.Tensor:
    """An input as a tensor: what the model says of it, and elsewhere what it says most cheaply."""
    shape = [_length(model, call, declared, place) for place in range(len(declared.axes) + len(declared.sizes))]
    total = 1
    for n in shape:
        total *= n
    if total > MOST_ELEMENTS:
        raise Undecided(f"the smallest counterexample found has an input `{declared.name}` of {total:,} elements, too many to be tried")
    dtype = {Type.BOOL: torch.bool, Type.FLOAT: torch.float64}.get(declared.type, torch.int64)
    known: dict[tuple[int, ...], Any] = {}
    for element in call.loads.get(declared.name, ()):
        place = tuple(chosen(model, i) for i in element.children())
        known[place] = _constant(call, model.eval(element, model_completion=True), declared.type)
        if declared.type is Type.FLOAT:
            nan = (
                z3.Function(f"nan {declared.name}", *(z3.IntSort() for _ in place), z3.BoolSort())(*element.children())
                if place
                else z3.Bool(f"nan {declared.name}")
            )
            if z3.is_true(model.eval(nan, model_completion=True)):
                known[place] = float("nan")
    # What no formula speaks of is alike all over: as what is spoken of, for it keeps to the facts.
    rest = next(iter(known.values()), 0)
    table = torch.full(shape, rest, dtype=dtype)
    for place, value in known.items():
        if all(0 <= i < n for i, n in zip(place, shape, strict=True)):
            table[place] = value
    return table


def _length(model: z3.ModelRef, call: Call, declared: Input, place: int) -> int:
    """How long an axis of an input is. Of one that no formula spoke of z3 knows no length, and it is as long as the row."""
    found, queries = chosen(model, call.extent(declared, place)), call.queries
    match declared.axes[place] if place < len(declared.axes) else "":
        case "token" | "query":
            return max(found, chosen(model, queries.tokens))
        case "step":
            return max(found, chosen(model, queries.steps), queries.layout.longest(0))
        case _:
            return found


def _constant(call: Call, value: Any, type: Type) -> int | float | bool:
    match type:
        case Type.BOOL:
            return z3.is_true(value)
        case Type.FLOAT:
            return _float(call, value)
        case _:
            return value.as_long()


def _float(call: Call, value: Any) -> float:
    """The float next to a real number; if it is another, the call notes that what z3 says of the number may not hold of the float."""
    exactly = value.as_fraction()
    try:
        found = float(exactly)
    except OverflowError:
        found = float("inf") if exactly > 0 else float("-inf")
    if abs(found) == float("inf") or Fraction(found) != exactly:
        call.note("numbers that are no floats")
    return found


def _layout(model: z3.ModelRef, axis: Axis, tokens: int) -> dict[str, torch.Tensor]:
    """Role, step and slot of a `layout given`: as the model says of the tokens it names; between them, what keeps `index` right."""
    if tokens > MOST_ELEMENTS or tokens > LONGEST:
        raise Undecided(f"the smallest counterexample found has {tokens:,} tokens, too many to be tried")
    assert axis.layout.given is not None
    silent = [r for r in axis.layout.given if r not in axis.data] or list(axis.layout.given)
    columns = {n: torch.zeros(tokens, dtype=torch.int64) for n in ("role", "step", "slot")}
    columns["role"][:] = silent[0]
    if tokens:
        columns["step"][:] = max(0, chosen(model, axis.steps) - 1)
    named = sorted({chosen(model, t.pos): t for t in axis.made if 0 <= chosen(model, t.pos) < tokens}.items())
    counted, begin = -1, 0
    for place, token in named:
        # Data tokens that nobody named, so that `index` is what it is said to be.
        missing = chosen(model, token.fields["index"]) - counted - (chosen(model, token.fields["role"]) in axis.data)
        for at in range(begin, min(place, begin + max(0, missing))):
            columns["role"][at] = axis.data[0]
        for n in columns:
            columns[n][place] = chosen(model, token.fields[n])
        counted, begin = chosen(model, token.fields["index"]), place + 1
    for at in range(begin, min(tokens, begin + chosen(model, z3.Int(f"{axis.name}.data")) - 1 - counted)):
        columns["role"][at] = axis.data[0]
    return columns
