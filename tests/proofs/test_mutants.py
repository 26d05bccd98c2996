"""Claims of the zoo with their known truth; and texts with one thing changed: refuted by a path, or still true for a reason that is stated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from closure import GRADIENTS, Closure, claim_of
from mutants import mutants
from statements import TRUE
from survivors import SURVIVORS

import srt_masks as srt
from srt_masks.grammar.syntax import Claim
from srt_masks.proofs.verdict import Outcome, Verdict, World
from srt_masks.proofs.worlds import params, sizes, worlds

SMALL = 12
KINDS = ("same", "fewer", "more")
# Every claim of the zoo is true: how many a text has, the automatic `no leak` among them.
ZOO = {
    "block_diffusion": 2, "coconut": 1, "decision_transformer": 1, "knowledge_insulation": 1, "packed_documents": 2, "pause_tokens": 1, "quiet_star": 1,
    "readouts": 1, "registers_look_ahead": 2, "self_reasoning": 3, "shared_prompt": 1, "xlnet": 2,
}  # fmt: skip
SMALLER = {  # for layouts of small calls
    "knowledge_insulation": {"images": 1, "words": 1, "spoken": 3, "actions": 3}, "pause_tokens": {"prompts": 2, "pauses": 2}, "quiet_star": {"thoughts": 1},
    "readouts": {"tasks": 1, "patches": 2}, "self_reasoning": {"reasons": 1}, "shared_prompt": {"prompts": 2, "rollouts": 2, "tokens": 3},
}  # fmt: skip
CHANGED = {**{name: srt.load(f"examples/{name}.mask").text for name in ZOO}, **{s.text: s.text for s in TRUE if not s.may_be_open}}


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name: str):
    verdicts = srt.prove(srt.load(f"examples/{name}.mask"))
    assert len(verdicts) == ZOO[name] and all(verdicts), verdicts


def test_no_claim_of_the_zoo_is_left_out():
    found = {p.stem for p in Path("examples").glob("*.mask") if srt.prove(srt.load(p))}
    assert found == set(ZOO)


def named(name: str, place: int, verdicts: list[Verdict]) -> str:
    """By what `SURVIVORS` has the survivors of a claim."""
    return name if len(verdicts) == 1 else f"{name}: {verdicts[place].claim}"


def small_calls(spec: srt.Spec) -> Iterator[World]:
    *smaller, largest = sizes(spec.checked, SMALL)
    for size in (*smaller[:4], largest):
        yield from islice(worlds(spec.checked, replace(size, heads=2, layers=2, params=params(spec.checked)[0]))[0], 2)


def is_as_stated(kind: str, ours: Closure, theirs: Closure, place: int, spec: srt.Spec, changed: srt.Spec) -> bool:
    """Of one call, of which the text and its mutant are two readings: what the claim speaks of is the same, or fewer pairs do, or more."""
    claim, other = claim_of(spec, place), claim_of(changed, place)
    gradients = claim.kind in GRADIENTS
    pairs = [(ours.edges(*p, gradients), theirs.edges(*p, gradients)) for p in ours.places()]
    if claim.kind is Claim.NO_LEAK or claim.kind in (*GRADIENTS, Claim.FLOW, Claim.NO_FLOW):
        spoken = [(ours.spoken(claim), theirs.spoken(other))]
    else:
        spoken = [] if claim.where is None else [(~ours.where(claim, *p), ~theirs.where(other, *p)) for p in ours.places()]
    match kind:
        case "same":
            return all((a == b).all() for a, b in (*pairs, *spoken))
        case "fewer":
            return all((b <= a).all() for a, b in (*pairs, *spoken))
        case _:
            return all((b >= a).all() for a, b in pairs) and all((b <= a).all() for a, b in spoken)


@pytest.mark.parametrize("name", CHANGED, ids=lambda n: n if n in ZOO else "")
def test_what_is_changed_is_refuted_or_holds_for_the_reason_stated(name: str):
    text, values = CHANGED[name], SMALLER.get(name)
    spec, met = srt.parse(text, params=values), []
    reasons = {key: why for key, why in SURVIVORS.items() if key == name or key.startswith(f"{name}: ")}
    for what, other in mutants(text):
        try:
            changed = srt.parse(other, params=values)
        except srt.SpecError:
            continue
        verdicts = srt.prove(changed, seconds=0.3 if any(why.get(what, "").startswith("open") for why in reasons.values()) else 10)
        for place, verdict in enumerate(verdicts):
            key, claim = named(name, place, verdicts), claim_of(changed, place)
            why = reasons.get(key, {}).get(what)
            if verdict.outcome is Outcome.REFUTED:
                assert why is None, (f"it does not hold: {why}", what, verdict)
                Closure(changed.checked, verdict.world).check(claim, verdict.path)
                continue
            assert why is not None, ("it holds, and no reason is stated", key, what, verdict)
            met.append((key, what))
            kind = why.partition(":")[0]
            expected = {"open": (Outcome.UNKNOWN, Outcome.CHECKED), "empty": (Outcome.UNKNOWN,)}.get(kind, (Outcome.PROVED,))
            assert verdict.outcome in expected and (kind == "empty") == (verdict.scope == "no call"), (why, what, verdict)
            calls = [(world, Closure(changed.checked, world)) for world in small_calls(changed)]
            assert any(c.rows for _, c in calls) != (kind == "empty"), (what, "no call is small")
            for world, theirs in calls:
                assert not theirs.wrong(claim), (what, verdict, world)
                assert kind not in KINDS or is_as_stated(kind, Closure(spec.checked, world), theirs, place, spec, changed), (why, what, world)
    assert sorted(met) == sorted((key, what) for key, own in reasons.items() for what in own), "a reason is stated of no mutant"


def test_no_reason_is_of_another_text():
    assert all(key in CHANGED or key.partition(": ")[0] in ZOO for key in SURVIVORS)
