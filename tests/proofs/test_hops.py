"""What people are told of a refutation, hop by hop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rows import world_by_hand

import srt_masks as srt
from srt_masks.proofs.hops import describe
from srt_masks.proofs.search import refute

ORDER = "attend k.pos == q.pos - 1 if layer == 0 else k.pos == q.pos - 2\n"


def told(text: str, tokens: int, **named: Any) -> list[str]:
    """Of the last claim, by what the search refutes it with."""
    checked, world = world_by_hand(text, tokens, **named)
    path = refute(world.row(checked), checked.claims[-1])
    assert path is not None
    return describe(srt.parse(text), world, path, checked.claims[-1].kind)


def test_a_gradient_that_goes_round_a_rule():
    text = "layout repeat { token, reason * 2 }\nattend causal\n\nstop k where k is reason  # and v\nassert no grad where k is reason and q.step == k.step + 2 and q.slot == 1"
    assert told(text.replace("attend causal", "attend causal and (k.step == q.step or k.pos == q.pos - 1)"), 9) == [
        "in a call with 9 tokens:",
        "row 3 (token of step 1) reads row 2 (reason 1 of step 0): line 2 `attend causal and (k.step == q.step or k.pos == q.pos - 1)`; k is stopped by line 4, the gradient goes through v",
        "row 5 (reason 1 of step 1) reads row 3 (token of step 1): line 2 `attend causal and (k.step == q.step or k.pos == q.pos - 1)`; the gradient goes through k and v",
        "row 6 (token of step 2) reads row 5 (reason 1 of step 1): line 2 `attend causal and (k.step == q.step or k.pos == q.pos - 1)`; k is stopped by line 4, the gradient goes through v",
        "row 8 (reason 1 of step 2) reads row 6 (token of step 2): line 2 `attend causal and (k.step == q.step or k.pos == q.pos - 1)`; the gradient goes through k and v",
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "tokens", "named", "last"), [
    ("attend causal\nassert no flow where k.pos < q.pos", 3, {}, "row 1 (token of step 1) reads row 0 (token of step 0): line 1 `attend causal`"),
    ("attend causal or head == 1\nassert k.pos <= q.pos", 3, {"heads": 2}, "row 0 (token of step 0) reads row 1 (token of step 1), head 1: line 1 `attend causal or head == 1`"),
    (ORDER + "assert no flow where q.pos - k.pos == 3", 6, {"layers": 2}, "row 3 (token of step 3) reads row 1 (token of step 1), layer 1: line 1 `attend k.pos == q.pos - 1 if layer == 0 else k.pos == q.pos…`"),
    (ORDER + "assert flow where q.pos - k.pos == 4", 6, {"layers": 2}, "nothing of row 0 (token of step 0) reaches row 4 (token of step 4), through 2 layers, each taken once: line 1 `attend k.pos == q.pos - 1 if layer == 0 else k.pos == q.pos…`"),
    (ORDER + "assert flow where q.pos - k.pos == 2", 6, {"layers": 1}, "nothing of row 0 (token of step 0) reaches row 2 (token of step 2), in the one layer: line 1 `attend k.pos == q.pos - 1 if layer == 0 else k.pos == q.pos…`"),
    (ORDER + "assert every query attends", 6, {"layers": 2}, "row 0 (token of step 0) attends to nothing in layer 0: line 1 `attend k.pos == q.pos - 1 if layer == 0 else k.pos == q.pos…`"),
    ("attend k.pos < q.pos or head == 0\nassert every query attends", 6, {"heads": 2}, "row 0 (token of step 0) attends to nothing in head 1: line 1 `attend k.pos < q.pos or head == 0`"),
    ("attend k.pos < q.pos\nassert no flow where k.pos >= q.pos", 6, {}, "row 0 (token of step 0) reaches itself by its own residual stream, whatever it attends to"),
    ("queries layout a, repeat { a * 2 }\nkeys layout repeat { b }\nattend k.pos == q.pos\nassert no flow where k.pos > 1", 3, {}, "row 2 (a 1 of step 0 of section 1) reads row 2 (b of step 2): line 3 `attend k.pos == q.pos`"),
    ("queries layout repeat { a }\nkeys layout repeat { b }\nattend k.pos == q.pos\nassert grad where k.pos > 1", 3, {}, "no gradient returns from row 0 (a of step 0) to row 2 (b of step 2), in any layer"),
    ("queries where pos > 1\nattend causal\nassert no grad where k.pos < 2", 4, {}, "row 2 (token of step 2) reads row 0 (token of step 0): line 2 `attend causal`; the gradient goes through k and v"),
])  # fmt: skip
def test_the_last_line(text: str, tokens: int, named: dict[str, Any], last: str):
    assert told(text, tokens, **named)[-1] == last


@pytest.mark.parametrize(("rules", "words"), [
    ("stop v", "v is stopped by line 2, the gradient goes through k"), ("stop k\nstop k", "k is stopped by lines 2 and 3, the gradient goes through v"),
    ("scale k by 0\nscale v by 0.5", "k is stopped by line 2, the gradient goes through v times 0.5"), ("scale k by 0.5\nscale hidden by 0.5", "the gradient goes through k times 0.25 and v times 0.5"),
    ("stop k where k.pos == 9\nstop q", "the gradient goes through k and v"), ("scale k by 0.0\nscale k by 2\nstop k where q.pos == 9", "k is stopped by line 2, the gradient goes through v"),
])  # fmt: skip
def test_the_gates_of_a_pair(rules: str, words: str):
    assert told(f"attend causal\n{rules}\nassert no grad where k.pos < q.pos", 3)[-1].partition("; ")[2] == words


@pytest.mark.parametrize(("text", "words"), [
    ("attend causal\nstop k, v", "k is stopped by line 2, v is stopped by line 2, no gradient goes through"), ("attend causal\nstop hidden", "the hidden state is stopped by line 2, no gradient goes through"),
    ("attend k.pos == q.pos - 1\nstop v", "v is stopped by line 2, k passes nothing, as the only key of its row, no gradient goes through"),
])  # fmt: skip
def test_why_no_gradient_returns_along_a_pair_that_is_attended(text: str, words: str):
    found = told(f"{text}\nassert grad where k.pos == q.pos - 1", 3)
    assert found[1] == "no gradient returns from row 1 (token of step 1) to row 0 (token of step 0), through any number of layers"
    assert found[2].partition("; ")[2] == words and len(found) == 3


def test_the_call_is_said():
    text = "param n = 3\nlayout given { a, b }\ninput open: bool per token\ninput far: int per query, key\nattend k.open and q.pos - k.pos < n and head < 2 and layer < 2 and far >= 0\nassert no flow where k is b and q.pos != k.pos"
    layout = {"role": torch.tensor([0, 1, 1]), "step": torch.tensor([0, 0, 1]), "slot": torch.zeros(3, dtype=torch.int64)}
    inputs = {"open": torch.tensor([True, True, False]), "far": torch.zeros(3, 3, dtype=torch.int64)}
    found = told(text, 3, layout=layout, inputs=inputs, heads=2, layers=2)
    assert (
        found[0]
        == "in a call with 3 tokens, 2 heads, 2 layers, n = 3, roles a b b, steps [0, 0, 1], open = [true, true, false], far = [[0, 0, 0], [0, 0, 0], [0, 0, 0]]:"
    )
    assert (
        told("input far: int per query, key\nattend far == 0\nassert k.pos == 0", 6, inputs={"far": torch.zeros(6, 6, dtype=torch.int64)})[0]
        == "in a call with 6 tokens, far = (6, 6) numbers:"
    )
