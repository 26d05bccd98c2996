"""Verdicts of random texts held to every small call: what is proved no call refutes, what is refuted its own call refutes, by a second opinion.

A few dozen from fixed seeds in the ordinary run, 2,000 from fresh ones with HYPOTHESIS_PROFILE=thorough. A case is known by its seed:
`judge(seed)` says what was said of it, and raises where that is wrong.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product

import pytest
import torch
from closure import Closure, claim_of
from random_texts import text_of

import srt_masks as srt
from srt_masks.grammar.checked import Checked, Type
from srt_masks.proofs.search import refute
from srt_masks.proofs.verdict import Outcome, World
from srt_masks.proofs.worlds import params, sizes, worlds
from srt_masks.reference.facts import broken_in

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
PARTS = 4
CASES = 2_000 if THOROUGH else 48
FIRST = random.SystemRandom().randrange(2**32) if THOROUGH else 0
SECONDS = 2.0  # of z3, for a claim
SMALL = 6  # tokens
CALLS = 4  # of one size, values of the params, heads and layers
MOST_CALLS = 400
EXTREMES = (2**63 - 1, -(2**63), 2**62, 0, -1)


def small_calls(checked: Checked, seed: int, as_written: bool = False) -> Iterator[World]:
    """Calls of every small size that keep to the facts, some with numbers at the ends of what 64 bits hold, and floats that are none."""
    r, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    values = params(checked)
    tried = values[:1] + ([] if as_written else r.sample(values[1:], min(3, len(values) - 1)))
    for size, own in product(sizes(checked, SMALL), tried):
        if checked.keys is not None and not size.keys:
            continue  # a call on keys that has none is none
        for heads, layers in ((1, 1), (2, 3)):
            found, _ = worlds(checked, replace(size, params=own, heads=heads, layers=layers))
            for number, world in enumerate(islice(found, CALLS)):
                yield world
                if number == 0 and not as_written and (odd := _extreme(checked, world, generator)) is not None:
                    yield odd


def _extreme(checked: Checked, world: World, generator: torch.Generator) -> World | None:
    """The same call with odd numbers here and there, if the facts allow it."""
    inputs = dict(world.inputs)
    for declared in checked.inputs:
        old = inputs[declared.name]
        if declared.type is Type.BOOL or not old.numel():
            continue
        odd = torch.tensor(EXTREMES) if declared.type is Type.INT else torch.tensor([float("nan"), float("inf"), -float("inf")], dtype=torch.float64)
        drawn = odd[torch.randint(len(odd), old.shape, generator=generator)].to(old.dtype)
        inputs[declared.name] = torch.where(torch.rand(old.shape, generator=generator) < 0.4, drawn, old)
    found = replace(world, inputs=inputs)
    row = found.row(checked)
    return found if inputs and not any(broken_in(f, row) for f in checked.facts) else None


def judge(seed: int) -> Outcome | None:
    """What `prove` says of the claim of a random text, held to small calls. None where the text is none."""
    text = text_of(seed)
    try:
        spec = srt.parse(text)
    except srt.SpecError:
        return None
    claim = claim_of(spec)
    verdict = srt.prove(spec, seconds=SECONDS)[-1]
    said = f"seed {seed}: {text}\n{verdict}"
    if verdict.outcome is Outcome.REFUTED:
        assert verdict.world is not None and verdict.path is not None, said
        try:
            Closure(spec.checked, verdict.world).check(claim, verdict.path)
        except AssertionError as why:
            raise AssertionError(f"{said}\n{verdict.world}\n{why}") from why
        return verdict.outcome
    assert "internal error" not in verdict.reason, said
    if verdict.outcome is Outcome.UNKNOWN:
        return verdict.outcome
    for number, world in enumerate(islice(small_calls(spec.checked, seed, as_written=verdict.outcome is Outcome.CHECKED), MOST_CALLS)):
        path = refute(world.row(spec.checked), claim)
        second = bool(Closure(spec.checked, world).wrong(claim)) if number % 8 == 0 else path is not None
        assert (path is not None) == second, f"two searches differ: {said}\n{world}\n{path}"
        assert path is None, f"{said}\n{world}\n{path}"
    return verdict.outcome


# Wrong once: sections that a claim did not see, a table of no roles that are data, an input of one number, rows of two layouts, steps of a layout given.
SEEDS = (100037, 1601, 100471, 1439, 1256, 1018, 1186, 1107, 1291, 100438)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_wrong_once(seed: int):
    assert judge(seed) is not None


@pytest.mark.timeout(7200 if THOROUGH else 300)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_small_call_says_otherwise(part: int):
    outcomes: list[Outcome] = []
    seed, begun = FIRST + part * 1_000_000, time.monotonic()
    while len(outcomes) < CASES // PARTS:
        if (outcome := judge(seed)) is not None:
            outcomes.append(outcome)
        seed += 1
    print({o.value: outcomes.count(o) for o in Outcome}, f"{time.monotonic() - begun:.0f} s, seeds {FIRST + part * 1_000_000} to {seed}")
    assert outcomes.count(Outcome.PROVED) >= len(outcomes) // 10 and outcomes.count(Outcome.REFUTED) >= len(outcomes) // 4
