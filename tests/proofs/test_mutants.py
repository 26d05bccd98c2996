"""Claims of the zoo with their known truth; and texts with one thing changed: refuted by a path, or still proved and no small call says otherwise."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from closure import Closure, claim_of
from mutants import mutants
from statements import TRUE

import srt_masks as srt
from srt_masks.proofs.verdict import Outcome
from srt_masks.proofs.worlds import params, sizes, worlds

SMALL = 6
# Every claim of the zoo is true: how many a text has, the automatic `no leak` among them.
ZOO = {
    "block_diffusion": 2, "coconut": 1, "decision_transformer": 1, "knowledge_insulation": 1, "packed_documents": 2, "pause_tokens": 1, "quiet_star": 1,
    "registers_look_ahead": 2, "self_reasoning": 3, "shared_prompt": 1, "xlnet": 2,
}  # fmt: skip
# Not those whose facts lead from row to row, where what is changed takes an induction that the prover does not do.
CHANGED = [
    *(srt.load(f"examples/{name}.mask").text for name in ("decision_transformer", "knowledge_insulation", "registers_look_ahead")),
    *(s.text for s in TRUE if not s.may_be_open and "[pos " not in s.text),
]


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name: str):
    verdicts = srt.prove(srt.load(f"examples/{name}.mask"))
    assert len(verdicts) == ZOO[name] and all(verdicts), verdicts


def test_no_claim_of_the_zoo_is_left_out():
    found = {p.stem for p in Path("examples").glob("*.mask") if srt.prove(srt.load(p))}
    assert found == set(ZOO)


def test_what_is_changed():
    outcomes = []
    for text in CHANGED:
        for what, changed in mutants(text):
            try:
                spec = srt.parse(changed)
            except srt.SpecError:
                continue
            for place, verdict in enumerate(srt.prove(spec)):
                claim = claim_of(spec, place)
                outcomes.append(verdict.outcome)
                if verdict.outcome is Outcome.REFUTED:
                    Closure(spec.checked, verdict.world).check(claim, verdict.path)
                    continue
                assert verdict.outcome is Outcome.PROVED, (what, verdict)
                for size in islice(sizes(spec.checked, SMALL), SMALL):
                    for world in islice(worlds(spec.checked, replace(size, heads=2, layers=2, params=params(spec.checked)[0]))[0], 2):
                        assert not Closure(spec.checked, world).wrong(claim), (what, verdict, world)
    assert len(outcomes) >= 80 and outcomes.count(Outcome.REFUTED) >= len(outcomes) // 3, (len(outcomes), outcomes.count(Outcome.REFUTED))
