"""Claims -> verdicts, and the whole of proving as a list.

    checked tree --claims--> obligations, in IR --meaning, tokens, pairs--> formulas about a call of any size, params and inputs --solve (z3)-->
        direct claims    a pair that breaks it (`paths`), or none
        no path          a path of few hops (`paths`), or a relation that every path keeps to (`invariants`)
        a path, a key    a rule by which there is one, or a call without (`witnesses`)
    what z3 leaves open --exhaust--> every small call tried, by `search` --> checked, or unknown
    what is refuted --replay--> run through reference layers before anybody hears of it --> refuted

Input: a checked spec. Output: a verdict for each claim, in the order of the text. Non-goals: printing them.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..compiler import ir
from ..compiler.front import front
from ..compiler.ir import Op, Program
from ..default_device import on_the_cpu
from ..diagnostics import InputError, Source
from ..grammar.checked import Checked, values_of
from ..grammar.syntax import Claim
from ..reference.facts import broken_in
from ..spec import Spec
from .claims import Obligation, facts_of, obligations
from .exhaust import Covered, Refutation, exhaust, sampled
from .hops import describe
from .invariants import End, all_of, by_layer, inductive, same_row, simple
from .known import name_of, recall, remember
from .limits import MOST_SECONDS, Budget, Undecided, check_seconds, within
from .paths import Found, Subject, attended_pair, is_possible, own_row, path
from .replay import replay
from .search import refute
from .solve import LOCK, USUAL
from .verdict import Outcome, Verdict
from .witnesses import every_pair_is_joined, every_query_attends
from .wording import in_words, invariant, more_time, remedies, shortened, smaller_layouts, ways_on
from .wording import scope as said_scope
from .worlds import sizes

SECONDS = USUAL  # for a claim; the limit of z3's own work is met before, on most machines
THINKING, TRYING = 0.65, 0.85  # of its seconds, when z3 has to be done, and when the small calls; the rest is for running and showing what refutes it
MOST_HOPS = 4
SMALL_CALLS = 256  # tokens, up to which calls are tried where z3 decides nothing
LARGER_CALLS = (40, 160, 500)
SECONDS_OF_CALLS = 3.0
SECONDS_OF_SHOWING = 0.5
MOST_SHOWN = 300  # tokens of a call among whose paths the shortest is looked for
PATHS = {Claim.NO_FLOW, Claim.NO_GRAD, Claim.NO_LEAK}
GRADIENTS = {Claim.NO_GRAD, Claim.GRAD}


@dataclass(frozen=True, slots=True)
class Proof:
    """Why a claim holds."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refuted:
    """Why it does not. `by_itself`: only by a row's own residual stream."""

    found: Found
    by_itself: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """Why it was not decided, and what was tried then."""

    reason: str
    covered: Covered | None = None


Finding = Proof | Refuted | Open


@on_the_cpu
def prove(spec: Spec, *, seconds: float = SECONDS, altogether: float | None = None) -> list[Verdict]:
    """A verdict for each claim of a spec, in the order of the text; and for `no leak` where there is a `predict` and the text does not say it.

    `seconds` is the most that one claim may take: then it is *unknown*. With `altogether`, all of them have so many seconds, each an even share of what
    those before it left. Proofs are kept from run to run. Raises InputError for what is no spec, and what is no number of seconds.
    """
    if not isinstance(spec, Spec):
        raise InputError(f"prove takes a Spec; got {type(spec).__name__}. For a text: srt_masks.parse(text)")
    for limit in (seconds, *([] if altogether is None else [altogether])):
        check_seconds(limit)
    checked, source = spec.checked, Source(spec.text, spec.filename)
    program, facts = front(checked), facts_of(checked)
    claims, whole = obligations(checked, program, source), within(altogether or MOST_SECONDS)
    with LOCK:
        return [_judge(spec, program, facts, o, _share(seconds, whole, len(claims) - number)) for number, o in enumerate(claims)]


def _share(seconds: float, whole: Budget, claims: int) -> Budget:
    """What the first of so many claims may take."""
    even = max(0.0, whole.left / claims)
    if even >= seconds:
        return within(seconds)
    return Budget(even, f"no answer within its share of the {whole.seconds:g} s for all claims of the text", is_share=True)


def _judge(spec: Spec, program: Program, facts: tuple[ir.Expr, ...], claim: Obligation, budget: Budget) -> Verdict:
    begun, checked = time.monotonic(), spec.checked

    def verdict(outcome: Outcome, reason: str, scope: str = said_scope(checked), **more: Any) -> Verdict:
        return Verdict(claim.words, outcome, reason, scope, time.monotonic() - begun, claim.line, claim.claim.span, **more)

    name = name_of(program, facts, claim, checked.speaks_of_layers)
    if (reason := recall(name)) is not None:
        return verdict(Outcome.PROVED, reason)
    subject = Subject(
        program, claim.kind in GRADIENTS, facts, checked.speaks_of_layers, budget.first(THINKING), names_layers=claim.names_layers,
        confirms=lambda found: _is_confirmed(checked, claim, found),
    )  # fmt: skip
    finding = _decide(checked, subject, claim)
    if isinstance(finding, Proof) and checked.facts_of_inputs and not is_possible(subject):
        given = " and ".join(dict.fromkeys(f"`{f.name}`" for f in checked.facts_of_inputs))
        return verdict(Outcome.UNKNOWN, f"no call keeps to what is given of {given}: of none, anything holds", "no call")
    if isinstance(finding, Open):
        finding = _tried(checked, claim, finding, budget.first(TRYING))
    match finding:
        case Proof(reason=reason):
            remember(name, reason)
            return verdict(Outcome.PROVED, reason)
        case Open(reason=reason, covered=covered):
            complete = covered is not None and covered.complete
            tried = covered.words if covered is not None else "nothing"
            return verdict(Outcome.CHECKED if complete else Outcome.UNKNOWN, reason, tried, remedies=ways_on(checked, claim, budget))
        case Refuted(found=found, by_itself=by_itself):
            found = _plainest(checked, claim, found, budget)
            try:
                shown = replay(checked, claim.claim, found.world, found.path, budget)
            except Undecided as why:
                reason = f"a call was found that may break it, and was not run: {why}"
                return verdict(Outcome.UNKNOWN, reason, "nothing", path=found.path, world=found.world, remedies=(more_time(budget),))
            except InputError:  # beyond what paths are searched in
                reason = f"a call of {max(found.world.tokens, found.world.keys):,} tokens was found that may break it, too large to be run"
                return verdict(Outcome.UNKNOWN, reason, "nothing", path=found.path, world=found.world, remedies=smaller_layouts(checked))
            parts = {"path": found.path, "world": found.world, "replay": shown.words}
            if not shown.confirmed:
                why = "internal error, please report it: this claim was refuted, and running the refutation does not confirm it"
                return verdict(Outcome.UNKNOWN, f"{why}: {shown.words}", **parts)
            parts["lines"] = shortened(describe(spec, found.world, found.path, claim.kind))
            written = _as_written(checked, replace(subject, budget=budget), claim, found)
            parts["remedies"] = remedies(checked, claim, found, by_itself, written)
            return verdict(Outcome.REFUTED, in_words(checked, claim, found, by_itself, written), **parts, holds_as_written=written)


def _plainest(checked: Checked, claim: Obligation, found: Found, budget: Budget) -> Found:
    """The refutation that people see: the path of fewest hops, between the first rows, in the smallest call up to the one that z3 came upon, which is
    another from day to day."""
    world = found.world
    if max(world.tokens, world.keys) > MOST_SHOWN:
        return found
    alike, deadline = not world.inputs and not world.layout, time.monotonic() + min(SECONDS_OF_SHOWING, budget.left / 3)
    smaller = (x for x in sizes(checked, max(world.tokens, world.keys)) if x.keys or not x.tokens)
    every = (replace(world, tokens=x.tokens, keys=x.keys) for x in smaller) if alike else iter([world])
    for tried in every:
        if time.monotonic() > deadline:
            return found
        if (shortest := refute(tried.row(checked), claim.claim)) is not None and (shortest.hops or not found.path.hops):
            if checked.speaks_of_layers or (claim.names_layers and len(shortest.hops) == 1):
                return Found(shortest, tried, ())
            hops = tuple(replace(h, layer=i) for i, h in enumerate(shortest.hops))
            layers = max(tried.layers if claim.names_layers else 1, len(hops))
            return Found(replace(shortest, hops=hops), replace(tried, layers=layers), ())
    return found


def _tried(checked: Checked, claim: Obligation, finding: Open, budget: Budget) -> Refuted | Open:
    """What z3 leaves open, at some larger calls, where paths are long, then at every small one."""
    larger = time.monotonic() + min(SECONDS_OF_CALLS, budget.left / 2)
    found = sampled(checked, claim.claim, LARGER_CALLS, larger)
    if found is None:
        found = exhaust(checked, claim.claim, SMALL_CALLS, min(time.monotonic() + SECONDS_OF_CALLS, budget.until))
    if isinstance(found, Refutation):
        return Refuted(Found(found.path, found.world, ()), by_itself=not found.path.hops and claim.kind in PATHS)
    return Open(finding.reason, found)


def _as_written(checked: Checked, subject: Subject, claim: Obligation, found: Found) -> bool:
    """Whether a claim that some values of the params refute holds for those of the text."""
    if not found.world.changed(checked):
        return False
    return isinstance(_decide(checked, replace(subject, fixed=values_of(checked.params)), claim), Proof)


def _decide(checked: Checked, subject: Subject, claim: Obligation) -> Finding:
    try:
        return _confirmed(checked, claim, _asked(checked, subject, claim))
    except (Undecided, InputError) as why:  # InputError: of a counterexample beyond what the reference lays out
        return Open(str(why))


def _confirmed(checked: Checked, claim: Obligation, finding: Finding) -> Finding:
    """Where formulas said too little, what refutes them may refute nothing. Of facts they say what holds at the tokens they name, and not what holds at
    those between."""
    if not isinstance(finding, Refuted):
        return finding
    row = finding.found.world.row(checked)
    if broken := [fact.name for fact in checked.facts_of_inputs if broken_in(fact, row) is not None]:
        return Open(f"z3 knows too little of what is given of {' and '.join(f'`{name}`' for name in dict.fromkeys(broken))}")
    if (why := finding.found.inexact) and not replay(checked, claim.claim, finding.found.world, finding.found.path).confirmed:
        return Open(f"z3 knows too little of {' and '.join(why)}")
    return finding


def _is_confirmed(checked: Checked, claim: Obligation, found: Found) -> bool:
    with suppress(InputError):  # beyond what the reference lays out
        return isinstance(_confirmed(checked, claim, Refuted(found)), Refuted)
    return False


def _asked(checked: Checked, subject: Subject, claim: Obligation) -> Finding:
    match claim.kind:
        case Claim.PAIRS | Claim.CACHEABLE:
            found = attended_pair(subject, claim.where)
            return Refuted(found) if found is not None else Proof("no attended pair breaks it")
        case Claim.EVERY_QUERY:
            return _or_proof(every_query_attends(subject, checked))
        case Claim.FLOW | Claim.GRAD:
            return _or_proof(every_pair_is_joined(subject, claim.where, checked))
        case Claim.NO_FLOW | Claim.NO_GRAD | Claim.NO_LEAK:
            return _no_path(subject, claim)


def _or_proof(found: Found | str) -> Finding:
    return Proof(found) if isinstance(found, str) else Refuted(found)


def _no_path(subject: Subject, claim: Obligation) -> Finding:
    """No row reaches another along a path that the claim forbids; nor, if it says so, itself."""
    program = subject.program
    joined = program.keys is None
    where = ir.apply(Op.AND, claim.where, ir.apply(Op.NOT, same_row())) if joined else claim.where
    proof: Proof | None = None
    # What a `predict` speaks of are tokens of the queries' layout: with two layouts, none but the row itself is in reach.
    if joined or claim.kind is not Claim.NO_LEAK:
        found = path(subject, where, 1)
        if found is not None:
            return Refuted(found)
        proof = _kept(subject, where) if joined else _no_pair(subject, where)
    else:
        proof = Proof("keys have a layout of their own")
    hops = 2
    while proof is None and joined and hops <= MOST_HOPS:
        found = path(subject, where, hops)
        if found is not None:
            return Refuted(found)
        hops += 1
    itself = own_row(subject, claim.where) if joined or claim.kind is Claim.NO_LEAK else None
    if itself is not None:
        return Refuted(itself, by_itself=True)
    return proof or Open(f"no relation was found that every path keeps to, and no path of up to {MOST_HOPS} hops breaks it")


def _no_pair(subject: Subject, where: ir.Expr) -> Proof | None:
    """With two layouts a path is one pair."""
    may = path(subject, where, 1, exactly=False) if subject.gradients else None
    return Proof("no attended pair is such a pair") if may is None else None


def _kept(subject: Subject, where: ir.Expr) -> Proof | None:
    pools = [(simple(where), end, False) for end in End] + [(all_of(subject.program, where), end, False) for end in End]
    if subject.has_layers:
        pools.append((by_layer(subject.program, where), End.SINK, False))
    pools.append((simple(where), End.SINK, True))
    for candidates, end, exact in pools:
        with suppress(Undecided):  # a path may refute it all the same
            kept = inductive(subject, where, candidates, end, exact)
            if kept is not None:
                return Proof(invariant(kept, where, subject.program.roles))
    return None
