"""What is refuted is run: true refutations are confirmed, made-up ones are not."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from rows import claiming_cases, world_by_hand, world_of

import srt_masks as srt
from srt_masks.grammar.syntax import Claim
from srt_masks.proofs import replay as module
from srt_masks.proofs.replay import Replay, replay
from srt_masks.proofs.search import about, reach, refute
from srt_masks.proofs.stack import stack
from srt_masks.proofs.verdict import Hop, Path
from srt_masks.testing.case import Case

GRADIENTS = (Claim.GRAD, Claim.NO_GRAD)

# ------------------------------------------------------------------------------------------------ random texts


@given(claiming_cases())
@settings(max_examples=60)
def test_what_the_search_refutes_is_confirmed(case: Case):
    world = world_of(case)
    for claim in case.spec.checked.claims:
        if path := refute(world.row(case.spec.checked), claim):
            found = replay(case.spec.checked, claim, world, path)
            assert found.confirmed, (claim.kind, path, found.words)


@given(claiming_cases())
@settings(max_examples=30)
def test_what_runs_is_what_the_search_says_pair_by_pair(case: Case):
    """Every output changes, and every gradient is other than 0, exactly where a path of so many layers leads."""
    row = case.row()
    if not len(row.own["pos"]) or not len(row.keys["pos"]):
        return
    for depth in (1, 3):
        layers = stack(row, depth)
        flows, returns = (reach(row, gradients, depth=depth) for gradients in (False, True))
        for token in range(0, len(row.keys["pos"]), 3):
            assert torch.equal(module._changed(layers, token, 200), flows[:, token])
        for token in range(0, len(row.own["pos"]), 3):
            assert torch.equal(module._touched(layers, token), returns[token])


@given(claiming_cases())
@settings(max_examples=30)
def test_a_claim_that_holds_has_no_refutation_that_is_confirmed(case: Case):
    """Of whatever pair, with a hop that is made up or without."""
    world = world_of(case)
    row = world.row(case.spec.checked)
    for claim in case.spec.checked.claims:
        if refute(row, claim) is None:
            for sink, source in [*about(row, claim).nonzero().tolist()[:4], (0, 0), (1, 0)]:
                for hops in ((), (Hop(sink, source),)):
                    assert not replay(case.spec.checked, claim, world, Path(source, sink, hops)).confirmed


# ------------------------------------------------------------------------------------------------ by hand


def replayed(text: str, tokens: int, path: Path | None = None, **named: Any) -> Replay:
    """The last claim of a text: what the search refutes it by, or the path given, run."""
    checked, world = world_by_hand(text, tokens, **named)
    claim = checked.claims[-1]
    found = path or refute(world.row(checked), claim)
    assert found is not None
    return replay(checked, claim, world, found)


CHAIN = "attend k.pos == q.pos - 1\nassert {}flow where q.pos - k.pos == 3"


@pytest.mark.parametrize(("text", "tokens", "named", "words"), [
    (CHAIN.format("no "), 6, {}, "another state of row 0 changes the output of row 3, through 3 reference layers; nothing changes at the 2 rows that no path joins"),
    ("attend causal\nassert no grad where q.pos - k.pos == 3", 5, {}, "the gradient of row 3's output into the state of row 0 is not 0, through 1 reference layer; it is exactly 0 at the 1 row that no path joins"),
    (CHAIN.format("").replace("== 3", "< 0"), 4, {}, "another state of row 1 changes no bit of the output of row 0, through 4 reference layers"),
    ("attend causal\nstop k, v where k.pos < q.pos\nassert grad where k.pos < q.pos", 4, {}, "the gradient of row 1's output into the state of row 0 is exactly 0, through 1 reference layer"),
    ("attend causal\nstop hidden where k.pos < q.pos\nassert grad where k.pos < q.pos", 4, {}, "is exactly 0"),
    ("attend causal\nscale k by 0\nscale v by 0.0\nassert grad where k.pos < q.pos", 4, {}, "is exactly 0"),
    ("attend k.pos == q.pos - 1\nstop v\nassert grad where q.pos == k.pos + 1", 3, {}, "is exactly 0"),  # one key: dS = 0
    ("attend causal\nstop v\nassert no grad where q.pos == k.pos + 1", 3, {}, "is not 0"), ("attend causal\nstop k\nassert no grad where q.pos == k.pos + 1", 3, {}, "is not 0"),
    ("attend causal\nscale hidden by 0.5\nstop k\nassert no grad where q.pos == k.pos + 1", 3, {}, "is not 0"), ("attend causal\nstop q\nassert no grad where q.pos == k.pos + 1", 3, {}, "is not 0"),
    ("attend k.pos < q.pos\nassert every query attends", 3, {}, "row 0 has lse = -inf and output 0 in head 0 of layer 0"),
    ("attend causal or head == 1\nassert k.pos <= q.pos", 3, {"heads": 2}, "another value at row 1 changes what row 0 reads, in the reference"),
    ("attend causal and layer == 0\nassert every query attends", 3, {"layers": 2}, "in head 0 of layer 1"), ("attend causal\nassert layer == 0", 3, {"layers": 2}, "another value at row 0 changes"),
    ("layout repeat { a, b }\nattend k.step <= q.step + 1\nassert cacheable", 6, {}, "another value at row 2 changes what row 0 reads"),
    ("attend k.pos < q.pos\nassert no flow where k.pos >= q.pos", 3, {}, "row 0 reaches itself, by its own residual stream, in every model"),
    ("attend k.pos < q.pos\npredict token -> index\nassert no leak", 3, {}, "row 0 reaches itself"),
    ("attend window(2)\npredict token -> index + 1\nassert no leak", 4, {}, "another state of row 1 changes the output of row 0, through 1 reference layer"),
    ("attend k.pos == q.pos - 1 if layer == 0 else k.pos == q.pos - 2\nassert no flow where q.pos - k.pos == 3", 6, {"layers": 3}, "changes the output of row 3, through 3 reference layers"),
    ("attend k.pos == q.pos - 1 if layer == 1 else k.pos == q.pos - 2\nassert flow where q.pos - k.pos == 4", 6, {"layers": 2}, "no bit of the output of row 4, through 2 reference layers"),
    ("queries layout repeat { a }\nkeys layout repeat { b }\nattend k.pos == q.pos + 1\nassert no flow where k.pos == 2", 3, {"keys": 5}, "state of row 2 changes the output of row 1, through 1 reference layer; nothing changes at the 2 rows"),
    ("queries layout repeat { a }\nkeys layout repeat { b }\nattend k.pos > q.pos\nassert no grad where k.pos == 4", 3, {"keys": 5}, "is not 0, through 1 reference layer; it is exactly 0 at the 1 row"),
    ("queries layout repeat { a }\nkeys layout repeat { b }\nattend k.pos > q.pos\nassert flow where k.pos == q.pos", 3, {"keys": 5}, "no bit of the output of row 0"),
    ("queries layout repeat { a }\nkeys layout repeat { b }\ndata a\nattend full\npredict a -> index\nassert no leak", 3, {"keys": 5}, "row 0 reaches itself"),
    ("layout memory * 2, repeat { token }\nqueries where role is token\nattend causal\nassert no flow where k is memory", 5, {}, "changes the output of row 2"),
])  # fmt: skip
def test_every_kind_of_claim(text: str, tokens: int, named: dict[str, Any], words: str):
    found = replayed(text, tokens, **named)
    assert found.confirmed and words in found.words, found.words


@pytest.mark.parametrize(("text", "path", "words"), [
    ("attend causal\nassert no flow where k.pos > q.pos", Path(2, 1, (Hop(1, 2),)), "row 1 reads row 2 in head 0 of layer 0: no, it is not attended"),
    ("attend causal\nassert no flow where k.pos < q.pos", Path(2, 1), "the claim does not speak of rows 1 and 2"), ("attend causal\nassert no flow where k.pos < q.pos", Path(0, 9), "the call has no rows 9 and 0"),
    ("attend causal\nassert no flow where k.pos < q.pos", Path(0, 2), "no hop leads from row 0 to row 2"), ("attend causal\nassert no flow where k.pos < q.pos", Path(0, 2, (Hop(2, 1),)), "the path was at row 0"),
    ("attend causal\nassert no flow where k.pos < q.pos", Path(0, 2, (Hop(1, 0),)), "the path ends at row 1, not at row 2"), ("attend causal\nassert no flow where k.pos < q.pos", Path(0, 2, (Hop(2, 0, 3),)), "there is no such pair"),
    ("attend causal\nassert flow where k.pos < q.pos", Path(0, 2), "changes the output of row 2"), ("attend causal\nassert grad where k.pos < q.pos", Path(0, 2), "is not 0"),
    ("attend causal\nassert flow where k.pos < q.pos", Path(0, 2, (Hop(2, 0),)), "refutes no claim that there is one"),
    ("attend causal\nstop k, v\nassert no grad where k.pos < q.pos", Path(0, 2, (Hop(2, 0),)), "no gradient passes"),
    ("attend k.pos == q.pos - 1\nstop v\nassert no grad where k.pos < q.pos", Path(0, 1, (Hop(1, 0),)), "no gradient passes"),
    ("attend causal\nassert every query attends", Path(1, 1), "row 1 sees a key in every head"), ("queries where pos > 1\nattend k.pos > 5\nassert every query attends", Path(1, 1), "row 1 does not ask"),
    ("attend causal\nassert k.pos <= q.pos", Path(2, 1, (Hop(1, 2),)), "not attended"), ("attend causal or head == 1\nassert head == 0 or k.pos < 9", Path(2, 1, (Hop(1, 2, 1),)), "does not speak of rows 1 and 2"),
    ("attend causal\nassert head == 0 or k.pos < q.pos", Path(1, 1, (Hop(1, 1),)), "the claim holds of rows 1 and 1 in head 0"),
    ("attend layer == 0 and k.pos == q.pos - 1 or layer == 1 and k.pos == q.pos - 2\nassert no flow where k.pos < q.pos", Path(0, 3, (Hop(2, 0, 0, 1), Hop(3, 2, 0, 0))), "the path is behind layer 1 already"),
    ("attend layer == 0 and k.pos == q.pos - 1 or layer == 1 and k.pos == q.pos - 2\nassert no flow where k.pos < q.pos", Path(0, 1, (Hop(1, 0, 0, 7),)), "this call has 2 layers"),
    ("attend window(3)\nassert k.pos <= q.pos", Path(3, 0, (Hop(1, 3), Hop(0, 1))), "2 hops, and one pair"),
    ("attend k.pos < q.pos\nassert k.pos < q.pos", Path(1, 1), "no hop leads from row 1 to row 1"),
])  # fmt: skip
def test_what_is_made_up_is_not_confirmed(text: str, path: Path, words: str):
    found = replayed(text, 4, path, heads=2, layers=2)
    assert not found.confirmed and words in found.words, found.words


def test_a_change_arrives_however_long_the_path_and_full_the_rows():
    """Each row reads the one before among all that hold nothing: 30 hops of a weight of 1 in 60."""
    text = "attend k.pos == q.pos - 1 or k.pos > length - 40\nassert no flow where k.pos == 0 and q.pos == 30"
    found = replayed(text, 70, heads=2)
    assert found.confirmed and "through 30 reference layers" in found.words
    assert replayed(text.replace("flow", "grad"), 70, heads=2).confirmed
    assert replayed("attend k.pos == q.pos - 1 or k.pos == q.pos\nassert no flow where k.pos == 0 and q.pos == 199", 200).confirmed


def test_a_mask_the_stack_does_not_keep_would_be_seen(monkeypatch: pytest.MonkeyPatch):
    """What no path joins is looked at in the same run."""
    checked, world = world_by_hand("attend causal and window(2)\nassert no flow where q.pos == k.pos + 1", 5)
    claim, path = checked.claims[0], Path(1, 2, (Hop(2, 1),))
    assert replay(checked, claim, world, path).confirmed

    def leaky(row: Any, depth: int) -> Any:
        layers = stack(row, depth)
        masks = (torch.ones_like(layers.layers[0].masks[0]), *layers.layers[0].masks[1:])
        return replace(layers, layers=(replace(layers.layers[0], masks=masks),))

    monkeypatch.setattr(module, "stack", leaky)
    found = replay(checked, claim, world, path)
    assert not found.confirmed and "a row changes that no path leads to: row 0" in found.words


def test_what_does_not_arrive_is_not_confirmed(monkeypatch: pytest.MonkeyPatch):
    checked, world = world_by_hand("attend causal\nassert no flow where k.pos < q.pos\nassert no grad where k.pos < q.pos", 3)
    path = Path(0, 1, (Hop(1, 0),))
    monkeypatch.setattr(module, "_changed", lambda layers, source, bits, budget: torch.zeros(3, dtype=torch.bool))
    monkeypatch.setattr(module, "_touched", lambda layers, sink, budget: torch.zeros(3, dtype=torch.bool))
    for claim, words in zip(checked.claims, ("another state of row 0 changes no bit of the output of row 1", "is 0, through 1 reference layer"), strict=True):
        found = replay(checked, claim, world, path)
        assert not found.confirmed and words in found.words


def test_the_same_every_time_and_quick():
    checked, world = world_by_hand("param reasons = 4\nlayout repeat { token, reason * reasons }\nattend causal\nstop k where k is reason and q.step > k.step\nassert no grad where k is reason and q.step > k.step", 20, heads=2)  # fmt: skip
    path = refute(world.row(checked), checked.claims[0])
    assert path is not None
    first = replay(checked, checked.claims[0], world, path)
    torch.manual_seed(7)
    took = []
    for _ in range(5):
        start = time.process_time()
        assert replay(checked, checked.claims[0], world, path) == first
        took.append(time.process_time() - start)
    assert min(took) < 0.1


def test_every_claim_of_the_zoo_that_a_change_breaks_is_confirmed():
    text = srt.zoo("self reasoning").text
    broken = {
        "stop k, v where": "stop k where", "attend causal": "attend causal or k.step == q.step + 1",
    }  # fmt: skip
    for old, new in broken.items():
        assert old in text
        checked, world = world_by_hand(text.replace(old, new), 30)
        found = [(claim, path) for claim in checked.claims if (path := refute(world.row(checked), claim))]
        assert found
        for claim, path in found:
            assert replay(checked, claim, world, path).confirmed
