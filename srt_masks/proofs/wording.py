"""Verdicts in words: for which calls, by which relation, along which rows."""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler import ir
from ..compiler.ir import Expr
from ..compiler.wording import wording
from ..grammar.checked import Checked, Layout, values_of
from ..grammar.syntax import Claim
from .claims import Obligation
from .invariants import Candidate
from .limits import MOST_SECONDS, Budget
from .paths import Found
from .verdict import Path, World

MOST_PARTS = 3  # of a relation that are said
MOST_HOPS_SAID = 8
MOST_LINES = 8


def scope(checked: Checked, heads: int | None = None, layers: int | None = None, any_params: bool = True) -> str:
    """The calls that a proof is about: all sizes, heads, layers, params and inputs that a text leaves open, but for what is given, and for the params that
    make the layout, which have the text's value."""
    parts = [_sizes(checked.queries, "queries" if checked.keys is not None else "")]
    if checked.keys is not None:
        parts.append(_sizes(checked.keys, "keys"))
    if any_params:
        parts += [f"{p.name} = {p.value}" for p in checked.params if p.structural]
    for name, number, told in (("head", heads, checked.speaks_of_heads), ("layer", layers, checked.speaks_of_layers)):
        if told:
            parts.append(f"any {name}s" if number is None else f"{number} {name}{'s' if number > 1 else ''}")
    if values := [*(values_of(checked.params) if any_params else ()), *(i.name for i in checked.inputs)]:
        parts.append(f"any {_listed(values)}" + (" that the text allows" if checked.facts else ""))
    return ", ".join(parts)


def _sizes(layout: Layout, whose: str) -> str:
    name = f" of {whose}" if whose else ""
    if layout.given is not None:
        return f"any layout{name} that is given"
    least = ", one or more," if whose == "keys" else ""
    return f"any number of steps{name}{least}".rstrip(",") if layout.rows_per_step else f"{layout.fixed:,} tokens{name}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def invariant(kept: list[Candidate], where: Expr, roles: tuple[str, ...]) -> str:
    """The relation that every path keeps to, as far as the conclusion rests on it."""
    if [x.atom for x in kept] == [ir.apply(ir.Op.NOT, where)]:
        return "no hop makes such a path out of one that is none, whatever its length"
    parts = []
    for x in kept[:MOST_PARTS]:
        guards = " and ".join(f"{side} is {roles[r]}" for side, r in (("q", x.query), ("k", x.key)) if r is not None)
        parts.append(f"`{wording(x.atom, roles)}`" + (f" where {guards}" if guards else ""))
    rest = len(kept) - len(parts)
    return "along every path, of any length, " + ", and ".join(parts) + (f", and {rest} more" if rest > 0 else "")


def in_words(checked: Checked, claim: Obligation, found: Found, by_itself: bool, as_written: bool) -> str:
    """Why a claim does not hold, in a sentence or two; `describe` says it hop by hop."""
    path, world = found.path, found.world
    said = _refuted(checked, claim, path, world, by_itself)
    if changed := world.changed(checked):
        said += f", with {_listed([f'{n} = {v}' for n, v in changed.items()])}"
    if as_written:
        own = values_of(checked.params)
        said += f". With the text's {_listed([f'{n} = {own[n]}' for n in changed])} it holds"
    return said


def shortened(lines: Sequence[str]) -> tuple[str, ...]:
    """A long path by its ends."""
    if len(lines) <= MOST_LINES:
        return tuple(lines)
    return (*lines[: MOST_LINES // 2], f"... {len(lines) - MOST_LINES} more hops ...", *lines[-MOST_LINES // 2 :])


def remedies(checked: Checked, claim: Obligation, found: Found, by_itself: bool, as_written: bool) -> tuple[str, ...]:
    """What may be done about a refutation, apart from mending the rules."""
    said = []
    if as_written:
        own = values_of(checked.params)
        said += [f"say what a call may give: `param {n} = {own[n]} given ...`" for n in found.world.changed(checked)]
    elif checked.inputs and claim.kind is not Claim.NO_LEAK and not by_itself:
        names = _listed([f"`{i.name}`" for i in checked.inputs])
        said.append(f"if no such {names} comes, say so: {_with_given(checked)}")
    if by_itself and claim.kind is not Claim.NO_LEAK:
        said.append("leave the row itself out: `and q.pos != k.pos`")
    elif by_itself:
        said.append("a row knows its own word: predict a later one, as `predict token -> index + 1` does")
        if any(p.where is not None for p in checked.predictions):
            said.append("if those words are masked before the model has them, leave `predict` out: `model(x, all_rows=True)` gives what your loss takes")
    if claim.kind is Claim.NO_GRAD:
        said.append("this is about hidden states: weights of the rows that ask learn all the same")
    return tuple(said)


def ways_on(checked: Checked, claim: Obligation, budget: Budget) -> tuple[str, ...]:
    """What may be done about a claim that was not decided."""
    said = [more_time(budget)] if budget.is_share else []
    if claim.kind in (Claim.NO_FLOW, Claim.NO_GRAD):
        said.append("claim something stronger in its place, that no single pair breaks and that passes from pair to pair, as an order does")
    if claim.kind in (Claim.FLOW, Claim.GRAD, Claim.EVERY_QUERY):
        said.append("claim less: for the pairs or rows that it matters for" if claim.where is not ir.TRUE else "let every row see itself: `or q.pos == k.pos`")
    if checked.inputs:
        said.append(f"say what is known of inputs: {_with_given(checked)}")
    return (*said, *([] if budget.is_share else [more_time(budget)]))


def smaller_layouts(checked: Checked) -> tuple[str, ...]:
    """What may be done where a call that refutes a claim is too large to be run."""
    sizes = [f"--param {p.name}=..." for p in checked.params if p.structural]
    how = f": {' '.join(sizes)}, or srt_masks.parse(text, params=...)" if sizes else ""
    return (f"prove it of a smaller layout{how}",)


def more_time(budget: Budget) -> str:
    if budget.is_share:
        return "prove it before: `srt-masks prove`, or srt_masks.prove(spec), has 10 s for each claim, and keeps what it proves"
    more = min(10 * budget.seconds, MOST_SECONDS)
    return f"give it more time: --seconds {more:g}, or srt_masks.prove(spec, seconds={more:g})"


def _with_given(checked: Checked) -> str:
    return f"`input {checked.inputs[0]} given ...`"


def _refuted(checked: Checked, claim: Obligation, path: Path, world: World, by_itself: bool) -> str:
    row = world.row(checked)

    def named(pos: int, axis: dict | None = None) -> str:
        axis = row.own if axis is None else axis
        return f"row {pos} ({checked.roles[int(axis['role'][pos])]}, step {int(axis['step'][pos])})"

    size = f"of {world.tokens} token{'s' if world.tokens != 1 else ''}" if checked.keys is None else f"of {world.tokens} queries and {world.keys} keys"
    sink, source = named(path.sink), named(path.source, row.keys if checked.keys is not None and claim.kind not in (Claim.NO_LEAK, Claim.EVERY_QUERY) else None)
    match claim.kind:
        case Claim.PAIRS:
            return f"in a call {size}, {sink} attends to {source}, against it"
        case Claim.CACHEABLE:
            return f"in a call {size}, {sink} attends to {source}, which is made in a later step"
        case Claim.EVERY_QUERY:
            return f"in a call {size}, {sink} attends to nothing"
        case Claim.FLOW:
            return f"in a call {size}, no path leads from {source} to {sink}, through any number of layers"
        case Claim.GRAD:
            return f"in a call {size}, no gradient returns from {sink} to {source}, through any number of layers"
        case Claim.NO_LEAK if by_itself:
            return f"in a call {size}, {sink} is the token that it is to predict: it reaches itself by its residual stream, whatever it attends to"
        case _ if by_itself:
            return f"in a call {size}, {sink} reaches itself, by its residual stream alone"
        case _:
            rows = [str(p) for p in (path.sink, *(h.key for h in reversed(path.hops)))]
            hops = " <- ".join(rows if len(rows) <= MOST_HOPS_SAID else [*rows[:3], "...", *rows[-3:]])
            count = f"{len(path.hops)} hop{'s' if len(path.hops) > 1 else ''}"
            verb = "is trained to predict, and reads," if claim.kind is Claim.NO_LEAK else "is reached by"
            if claim.kind is Claim.NO_GRAD:
                return f"in a call {size}, a gradient returns from {sink} to {source}, in {count}: {hops}"
            return f"in a call {size}, {sink} {verb} {source}, in {count}: {hops}"
