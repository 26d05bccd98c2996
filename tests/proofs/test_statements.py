"""Statements of known truth: the true ones are proved, the false ones refuted by a path that a closure written anew confirms."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
from closure import Closure, claim_of
from statements import FALSE, TRUE, Statement

import srt_masks as srt
from srt_masks.proofs.worlds import params, sizes, worlds

SMALL = 5  # tokens of the calls in which the truth of a statement is looked up


def test_there_are_sixty_of_each():
    assert len(TRUE) >= 60 and len(FALSE) >= 60
    assert sum(bool(s.may_be_open) for s in TRUE) <= 5
    assert len({s.text for s in (*TRUE, *FALSE)}) == len(TRUE) + len(FALSE)


@pytest.mark.parametrize("said", TRUE, ids=lambda s: s.text)
def test_true(said: Statement):
    spec = srt.parse(said.text)
    verdict = srt.prove(spec)[-1]
    if said.may_be_open:
        assert verdict.outcome in ("checked", "unknown") and not verdict, f"it is seen now: {said}"
        assert "internal error" not in verdict.reason, "what refutes nothing is not even tried"
    else:
        assert verdict and verdict.outcome == "proved", verdict
    # Were it not true, it would be said of no call here.
    claim = claim_of(spec)
    for size in sizes(spec.checked, SMALL):
        for world in islice(worlds(spec.checked, replace(size, heads=2, layers=2, params=params(spec.checked)[0]))[0], 3):
            assert not Closure(spec.checked, world).wrong(claim), world


@pytest.mark.parametrize("said", FALSE, ids=lambda s: s.text)
def test_false(said: Statement):
    spec = srt.parse(said.text)
    verdict = srt.prove(spec)[-1]
    assert verdict.outcome == "refuted" and not verdict, verdict
    assert verdict.world is not None and verdict.path is not None
    Closure(spec.checked, verdict.world).check(claim_of(spec), verdict.path)
