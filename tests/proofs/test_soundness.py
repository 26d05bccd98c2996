"""Claims that are nearly true, and nearly proved: what breaks them is one rare call."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import pytest

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.proofs import known
from srt_masks.proofs.equal import Comparison, compare
from srt_masks.proofs.verdict import Outcome, Verdict


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("SRT_MASKS_CACHE", str(tmp_path))
    monkeypatch.setattr(known, "_MEMORY", OrderedDict())


def judged(text: str) -> Verdict:
    return srt.prove(srt.parse(text))[0]


REFUTED = {
    "the last layer lets its hop through as well": """
        attend k.pos == q.pos - 1 and (layer == 1 or layer == 0)
        assert no flow where layers == 2 and q.pos - k.pos == 2""",
    "what is behind two layers stays there in a third that nothing goes through": """
        attend k.pos == q.pos - 1 and (layer == 0 or layer == 1) and layer != 2
        assert no flow where layers > 2 and q.pos - k.pos == 2""",
    "a row that does not ask hands nothing on, though in short calls every row asks": """
        layout repeat { a, b }
        data a
        queries where role is a or pos < 6
        attend k.pos == q.pos - 1
        assert flow where k.pos < q.pos""",
    "one value of a param breaks it, and running does not confirm the first that z3 comes upon": """
        param n = 3
        attend causal
        assert not (n ** q.pos == 512 and q.pos == 3)""",
    "the smallest whole number by -1 wraps to itself": """
        input a: int per token
        input b: int per token
        attend causal
        assert not (q.a // q.b == q.a and q.b == -1 and q.a < 0)""",
}


@pytest.mark.parametrize("text", REFUTED.values(), ids=REFUTED)
def test_rare_calls_refute(text):
    verdict = judged(text)
    assert verdict.outcome is Outcome.REFUTED, verdict
    assert "internal error" not in verdict.reason


PROVED = {
    "`steps` of a layout given are those of its latest token": """
        layout given { a }
        data a
        attend q.pos == k.pos and q.step < steps - 1 and length == 1
        assert false""",
    "`index` is the position where every token is data": """
        layout given { a, b }
        data a, b
        attend causal
        assert q.index - k.index == q.pos - k.pos""",
    "before a layer the order still holds": """
        attend k.pos == q.pos - 1 and layer == 0
        assert no flow where q.pos - k.pos == 2""",
}


@pytest.mark.parametrize("text", PROVED.values(), ids=PROVED)
def test_what_no_call_breaks_is_proved(text):
    assert judged(text).outcome is Outcome.PROVED, judged(text)


def test_a_number_between_two_floats_refutes_nothing():
    verdict = judged("input x: float per token\nattend q.x > 0.1 and q.x < 0.10000000000000002\nassert false")
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.reason == "z3 knows too little of numbers that are no floats"


@pytest.mark.parametrize(
    "text", ["input x: int per token given 0 <= x < pos\nattend causal\nassert every query attends", "input x: int per token given x > pos and x < length\nattend k.pos <= q.x\nassert q.x > 0",
             "input x: int per token given x > 0 and x < 0\nattend causal\nassert false", "input x: int given x > 0 and x < 0\nattend causal\nassert no flow where k.pos < q.pos"],
)  # fmt: skip
def test_facts_that_contradict_each_other_prove_nothing(text):
    verdict = judged(text)
    assert (verdict.outcome, verdict.scope) == (Outcome.UNKNOWN, "no call")
    assert verdict.reason == "no call keeps to what is given of `x`: of none, anything holds"


@pytest.mark.parametrize("input", ["advantage: float per token", "weight_of: float per step", "seen: bool per query, key"])
def test_an_input_that_a_claim_does_not_rest_on_is_as_long_as_the_row(input):
    verdict = judged(f"input {input}\nattend causal\nassert no flow where k.pos < q.pos and q.pos > 2")
    assert verdict.world is not None and min(verdict.world.inputs[input.partition(":")[0]].shape) >= 4


def test_facts_about_the_same_tables_are_all_known():
    """They differ in which side is which alone."""
    text = """
        input x: int per token
        input m: bool per query, key given (m and false) or q.x <= k.x
        input n: bool per query, key given (n and false) or k.x <= q.x
        attend m or n
        assert q.x == k.x"""
    assert judged(text).outcome is Outcome.PROVED


# ------------------------------------------------------------------------------------------------ equality


def compared(one: str, other: str) -> Comparison:
    return compare(srt.parse(one).checked, srt.parse(other).checked)


@pytest.mark.parametrize(
    "one, other",
    [
        ("param n = 3 given n > 2\nattend causal and window(n)", "param n = 1 given n < 2\nattend full"),
        ("input x: int per token\nattend causal", "input x: int per token given x > 0 and x < 0\nattend full"),
    ],
    ids=["params", "inputs"],
)
def test_specs_whose_facts_exclude_each_other_are_not_equal(one, other):
    found = compared(one, other)
    assert (found.outcome, found.reason) == (Outcome.UNKNOWN, "no call keeps to what both specs state of it (`given`): of none, anything holds")


@pytest.mark.parametrize(
    "one, other, reason",
    [
        ("attend causal and window(n)", "attend causal and q.pos - k.pos < n", "they differ in who attends: query 4 and key 0, head 0 of layer 0, in a call of 5 tokens"),
        ("attend causal scale k by n", "attend causal scale k by n", "they differ in the gate of k: query 0 and key 0, head 0 of layer 0, in a call of 1 token"),
    ],
)  # fmt: skip
def test_texts_that_give_a_param_two_values_are_two_masks(one, other, reason):
    assert compared(f"param n = 4 {one}", f"param n = 4 {other}").reason == "no pair differs"
    found = compared(f"param n = 4 {one}", f"param n = 5 {other}")
    assert (found.outcome, found.reason) == (Outcome.REFUTED, f"they are equal for equal values of n; as written, {reason}, with n = 4 and 5")
    assert compared("param n = 4 attend causal and (window(n) or n == n)", "param n = 5 attend causal").outcome is Outcome.PROVED  # whatever it is


def test_heads_and_layers_that_are_given_are_those_of_the_calls_compared():
    one, heads, layers = (srt.parse(f"attend causal{x}") for x in ("", " and head < 2", " and layer != 3"))
    cases: tuple[tuple[srt.Spec, dict[str, Any]], ...] = ((heads, {"heads": 2}), (layers, {"layers": 3}))
    for other, said in cases:
        equal = srt.equivalent(other, one, **said)
        assert equal and f"any number of steps, {' '.join(f'{n} {name}' for name, n in said.items())}" in equal.scope
        assert not srt.equivalent(other, one) and not srt.equivalent(other, one, **{name: n + 1 for name, n in said.items()})
    with pytest.raises(srt.InputError, match="heads is a whole number, 1 or more; got 0"):
        srt.equivalent(one, heads, heads=0)


def test_index_of_a_layout_given_that_is_counted_in_two_ways_is_not_compared():
    texts = (f"layout given {{ a, b }}\ndata {data}\nattend k.index <= q.index" for data in "ab")
    with pytest.raises(srt.InputError, match="count `index` in two ways"):
        compared(*texts)


def test_the_scope_says_that_lengths_are_those_of_both():
    found = compared("attend causal", "layout token * 3\nattend causal and q.pos < 3")
    assert found.outcome is Outcome.PROVED
    assert found.scope == "every call that both can have: the first has any number of steps; the second 3 tokens"
    with pytest.raises(srt.InputError, match=r"no length in common, with a token in it, of `repeat \{ token \}` and `repeat 0 \{ token \}`"):
        compared("attend causal", "layout repeat 0 { token }\nattend causal")


def test_what_only_one_spec_reads_of_an_input_is_in_both_calls():
    found = compared("input x: bool per token\nattend causal and q.x", "input x: bool per token\nattend causal and k.x")
    assert found.worlds is not None
    ours, theirs = found.worlds
    assert ours.inputs["x"].tolist() == theirs.inputs["x"].tolist()
    assert found.outcome is Outcome.REFUTED


def test_products_of_numbers_that_are_known_are_known():
    assert compared("attend causal\nscale k by 2\nscale k by 3", "attend causal\nscale k by 6")
    assert not compared("attend causal\nscale k by 0.1\nscale k by 0.2", "attend causal\nscale k by 0.02")  # floats are rounded


@pytest.mark.parametrize("difference", ["head == 3 and k.pos == 5", "q.pos == length - 1 and q.pos == 130", "length < 3 and k.pos == 1", "layer == layers - 2"])
def test_one_corner_tells_specs_apart(difference):
    found = compared("attend causal", f"attend causal and not ({difference})")
    assert found.outcome is Outcome.REFUTED
    assert "internal error" not in found.reason


# ------------------------------------------------------------------------------------------------ what is said and kept


def test_a_call_with_a_float_that_is_no_number_is_json(tmp_path, capsys):
    path = tmp_path / "nan.mask"
    path.write_text("input x: float per token\nattend causal and q.x != q.x\nassert false\n")
    assert main(["prove", str(path), "--format", "json"]) == 1
    (found,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["call"]["inputs"]["x"] == ["nan"]


KEPT = "input x: int per token {}\nlayout repeat {{ a, b }}\ndata {}\n{}\nattend k.pos <= q.pos\n{}\n{}"


@pytest.mark.parametrize(
    "proved, other",
    [
        (KEPT.format("given x > 0", "a", "", "", "assert q.x > 0"), KEPT.format("", "a", "", "", "assert q.x > 0")),
        (KEPT.format("", "a", "", "", "assert q.index == q.step"), KEPT.format("", "a, b", "", "", "assert q.index == q.step")),
        (KEPT.format("", "a", "queries where role is a", "", "assert q is a"), KEPT.format("", "a", "", "", "assert q is a")),
        (KEPT.format("", "a", "", "stop hidden", "assert no grad where k.pos < q.pos"), KEPT.format("", "a", "", "", "assert no grad where k.pos < q.pos")),
        (KEPT.format("", "a", "", "", "assert no flow where k.pos > q.pos"), KEPT.format("", "a", "", "", "assert flow where k.pos > q.pos")),
    ],
    ids=["facts", "data", "asks", "hidden", "kind"],
)
def test_a_proof_is_of_what_was_proved_alone(proved, other):
    """It is kept, and what differs from it in one thing is not taken for it."""
    assert judged(proved).outcome is Outcome.PROVED and judged(proved).outcome is Outcome.PROVED
    assert judged(other).outcome is Outcome.REFUTED


def test_a_proof_is_of_a_text_that_speaks_of_layers_or_of_one_that_does_not():
    """Their masks are the same; one layer after the other, each once, is no path of any length."""
    text = "attend causal and window(2)\nassert flow where k.pos <= q.pos"
    assert [v.outcome for t in (text, f"let first_one = layer == 0\n{text}") for v in srt.prove(srt.parse(t))] == ["proved", "refuted"]
