"""`explain`: the same verdict and gates as the dense reference, the reason that decides, and words a user can follow."""

from __future__ import annotations

import json
from itertools import product
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from zoo_case import SCHEMES, Scheme

import srt_masks as srt
from srt_masks.explanation import Explanation, Node
from srt_masks.testing import Case, whole

GATES = ("q", "k", "v", "hidden")


def explained(text: str, query: int, key: int, **named: Any) -> Explanation:
    return srt.explain(srt.parse(text), query, key, **named)


def verdict(text: str, query: int, key: int, **named: Any) -> str:
    """The line that says whether it sees, and why."""
    return str(explained(text, query, key, **named)).splitlines()[3]


def reason(text: str, query: int, key: int, **named: Any) -> str:
    return verdict(text, query, key, **named).partition("). ")[2]


def nodes(node: Node | None) -> list[Node]:
    return [] if node is None else [node, *(inner for part in node.parts for inner in nodes(part))]


# ------------------------------------------------------------------------------------------------ against the reference


def assert_as_dense(spec: srt.Spec, most: int = 10**9, **sizes: Any) -> None:
    """Of every head, layer, query and key; where there are more than `most`, of so many drawn from all."""
    found, asks = srt.dense(spec, **sizes), srt.tokens(spec, **sizes).asks
    layers, heads, _, keys = found.attend.shape
    pairs = list(product(range(layers), range(heads), range(len(asks)), range(keys)))
    place = (asks.long().cumsum(0) - 1).tolist()  # the masks have a row for every query that asks
    for layer, head, query, key in Random(0).sample(pairs, min(most, len(pairs))):
        said = srt.explain(spec, query, key, layer=layer, head=head, **sizes)
        assert (said.query.pos, said.key.pos, said.layer, said.head) == (query, key, layer, head)
        assert (said.silent is None) == bool(asks[query])
        if said.silent is not None:
            assert not said.sees and not said.silent.applies
            continue
        at = (layer, head, place[query], key)
        assert said.sees == bool(found.attend[at]) == said.attend.applies, at
        assert dict(said.gates) == pytest.approx({name: float(getattr(found, f"gate_{name}")[at]) for name in GATES}, nan_ok=True), at
        assert str(said)


def sizes_of(spec: srt.Spec, case: SimpleNamespace) -> dict[str, Any]:
    axes = [spec.checked.queries, *([spec.checked.keys] if spec.checked.keys else [])]
    dtypes = {"bool": torch.bool, "int": torch.int64, "float": torch.float64}
    inputs = {i.name: torch.as_tensor(case.inputs[i.name]).to(dtypes[i.type.value]) for i in spec.checked.inputs}
    steps = case.steps if any(axis.rows_per_step for axis in axes) else None
    return {"steps": steps, "heads": case.heads, "layers": case.layers, "inputs": inputs, "given": case.given}


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_every_pair_of_the_zoo(scheme: Scheme):
    """A hundred pairs of every small case, over its heads and layers."""
    for case in scheme.cases:
        spec = srt.parse(scheme.text, params=case.params)
        assert_as_dense(spec, most=100, **sizes_of(spec, case))


@given(case=whole().filter(lambda c: c.batch == 1 and c.lengths is None))
@settings(max_examples=15)
def test_random_texts_of_the_whole_language(case: Case):
    assert_as_dense(case.spec, most=8, **{name: value for name, value in case.sizes.items() if name != "lengths"})


# ------------------------------------------------------------------------------------------------ the reason


@pytest.mark.parametrize(
    ("text", "query", "key", "words"),
    [
        ("attend causal and window(2)", 5, 1, "`window(2)` is false: 4 < 2."),
        ("attend causal and window(2)", 1, 5, "`causal` is false: 5 <= 1."),
        ("attend causal and window(2)", 5, 4, "`causal and window(2)` is true."),
        ("attend causal or first(1)", 0, 3, "`causal or first(1)` is false."),
        ("attend first(1) or causal", 3, 1, "`causal` is true: 1 <= 3."),
        ("attend not causal", 2, 1, "`causal` is true: 1 <= 2."),
        ("attend causal implies window(3)", 4, 3, "`window(3)` is true: 1 < 3."),
        ("attend causal implies window(3)", 1, 9, "`causal` is false: 9 <= 1."),
        ("attend causal implies window(3)", 9, 2, "`causal implies window(3)` is false."),
        ("attend causal if q.pos > 3 else full", 5, 1, "`causal if q.pos > 3 else full` is true."),
        ("attend k.pos <= q.pos < 7", 8, 1, "`k.pos <= q.pos < 7` is false: 1 <= 8 < 7."),
        ("param far = 3\nattend causal and q.pos - k.pos < far", 5, 1, "`q.pos - k.pos < far` is false: 4 < 3."),
        ("attend any(k.pos == q.pos - s * s for s in range(4))", 9, 5, "`s = 2: k.pos == q.pos - s * s` is true: 5 == 5."),
        ("attend any(k.pos == q.pos - s for s in range(2, 5))", 9, 6, "`s = 3: k.pos == q.pos - s` is true: 6 == 6."),
        ("attend any(k.pos == s for s in range(4))", 9, 4, "`any(k.pos == s for s in range(4))` is false."),
        ("attend any(k.pos == s for s in range(1))", 9, 4, "`s = 0: k.pos == s` is false: 4 == 0."),
        ("attend all(k.pos != s for s in {1, 3, 5, 7})", 9, 5, "`s = 5: k.pos != s` is false: 5 != 5."),
        ("attend all(k.pos != s for s in {1, 3, 5, 7})", 9, 4, "`all(k.pos != s for s in {1, 3, 5, 7})` is true."),
        ("let near(n) = q.pos - k.pos < n\nattend causal and near(3)", 9, 4, "`q.pos - k.pos < n` is false: 5 < 3."),
        ("let never(n) = false\nattend causal and never(3)", 4, 4, "`never(3)` is false."),
        ("let never(m) = false\nattend causal and never(first(2))", 4, 4, "`never(first(2))` is false."),
        ("let always(n) = true\nattend not always(3)", 4, 4, "`always(3)` is true."),
        ("let near = q.pos - k.pos < 3\nattend causal and near", 9, 4, "`q.pos - k.pos < 3` is false: 5 < 3."),
        ("let block = pos // 4\nattend same(block)", 5, 3, "`same(block)` is false: 1 == 0."),
        ("layout repeat { a, b }\nattend causal and k is a", 2, 1, "`k is a` is false: k is b."),
        ("layout repeat { a, b }\nattend causal and q is not a", 2, 1, "`q is not a` is false: q is a."),
        ("layout repeat { a, b, c }\nattend q in {b, c}", 3, 1, "`q in {b, c}` is false: q is a."),
        ("layout repeat { a, b, c }\nattend k not in {b, c}", 3, 1, "`k not in {b, c}` is false: k is b."),
        ("layout repeat { a, b }\nattend k is a", 1, 0, "`k is a` is true."),
        ("attend q.pos == 1 or # all\n  false", 1, 0, "`q.pos == 1` is true: 1 == 1."),
    ],
)  # fmt: skip
def test_what_decides_is_quoted_with_its_numbers(text: str, query: int, key: int, words: str):
    assert reason(text, query, key) == words


def test_names_of_the_prelude_are_quoted_by_the_users_own_words():
    text = "input doc: int per token\nattend causal and same(doc)"
    said = explained(text, 3, 1, inputs={"doc": torch.tensor([0, 1, 1, 2])})
    assert "`same(doc)` is false: 2 == 1." in str(said)
    inner = [n for n in nodes(said.attend.where) if n.text == "q.attr == k.attr"]
    assert [n.is_prelude for n in inner] == [True] and [n.value for n in inner] == [False]
    own = "let causal = k.pos < q.pos\nattend causal"
    assert reason(own, 2, 2) == "`k.pos < q.pos` is false: 2 < 2."


def test_the_members_that_decide_none_are_a_few():
    shown = str(explained("attend any(k.pos == q.pos - s * s for s in range(9))", 9, 4))
    assert "s = 2" in shown and "s = 3" not in shown and "and 6 more, all false" in shown
    shown = str(explained("attend all(k.pos != s for s in {1, 3, 5, 7, 9})", 9, 4))
    assert "s = 5" in shown and "s = 7" not in shown and "and 2 more, all true" in shown
    shown = str(explained("attend any(k.pos == s for s in {1, 3, 5, 7})", 9, 5))
    assert "s = 5" in shown and "s = 1:" not in shown and "more" not in shown


def test_the_tree_names_every_value():
    lines = str(explained("param far = 3\nattend causal and q.pos - k.pos < far", 5, 1)).splitlines()
    assert lines[5:-5] == [
        "line 2: attend causal and q.pos - k.pos < far",
        "  └ causal and q.pos - k.pos < far  false",
        "    ├ causal                        true",
        "    │ └ k.pos <= q.pos              true   1 <= 5",
        "    │   ├ k.pos                     1",
        "    │   └ q.pos                     5",
        "    └ q.pos - k.pos < far           false   4 < 3",
        "      ├ q.pos - k.pos               4",
        "      │ ├ q.pos                     5",
        "      │ └ k.pos                     1",
        "      └ far                         3",
        "",
        "A pair that is not attended teaches nothing.",
    ]


def test_a_text_is_quoted_on_one_line_without_comments():
    shown = str(explained("attend q.pos == 1 or # all of it\n  false", 1, 0))
    assert "line 1: attend q.pos == 1 or false\n" in shown and "all of it" not in shown


def test_lets_of_lets_are_written_out_once():
    chain = "let a0 = q.pos - k.pos\n" + "\n".join(f"let a{i + 1} = a{i} + a{i}" for i in range(40))
    said = explained(f"{chain}\nattend a40 >= 0", 3, 1)
    assert said.sees and f"a40 >= 0` is true: {2 * 2**40} >= 0." in str(said)
    assert [n.text for n in nodes(said.attend.where)].count("a5 + a5") == 1
    assert len(str(said)) < 20_000 and len(json.dumps(said.plain())) < 100_000


def test_a_let_is_written_out_once_for_each_side_and_anew_in_every_line():
    text = "let block = pos // 4\nattend q.block + q.block >= k.block\nstop k where q.block > k.block"
    said = explained(text, 9, 3)
    assert [n.value for n in nodes(said.attend.where) if n.text == "pos // 4"] == [2, 0]
    assert [n.value for n in nodes(said.rules[0].where) if n.text == "pos // 4"] == [2, 0]


def test_a_long_tree_is_cut():
    terms = " or ".join(f"q.pos == {n}" for n in range(100, 300))
    lines = str(explained(f"attend {terms}", 3, 1)).splitlines()
    assert any("… and 201 more" in line for line in lines) and len(lines) < 220 and max(map(len, lines)) < 400


# ------------------------------------------------------------------------------------------------ rules


def lessons(text: str, query: int, key: int, **named: Any) -> dict[str, str]:
    shown = str(explained(text, query, key, **named)).partition("What this pair teaches:\n")[2]
    return dict(line.split(maxsplit=1) for line in shown.splitlines() if line.startswith("  "))


def test_the_lines_that_are_blamed():
    text = "attend causal\nstop k, v where q.pos > k.pos\nscale k by 0.5\nscale v by 1\nscale q by (k.pos - q.pos) / 4"
    assert lessons(text, 3, 1) == {"q": "-0.5 of the gradient: scaled by line 5", "k": "no gradient: stopped by line 2", "v": "no gradient: stopped by line 2"}
    assert lessons(text, 1, 1) == {
        "q": "no gradient: stopped by line 5", "k": "0.5 of the gradient: scaled by line 3", "v": "the whole gradient (scaled by 1 by line 4)",
    }  # fmt: skip
    assert lessons("attend causal\nscale k by 0.5\nscale k, v by 0.5", 3, 1)["k"] == "0.25 of the gradient: scaled by lines 2, 3"
    assert lessons("attend causal\nstop k\nstop k where q.pos > k.pos", 3, 1)["k"] == "no gradient: stopped by lines 2, 3"
    assert lessons("attend causal\nscale k by 0 where q.pos > k.pos\nscale k by 3", 3, 1)["k"] == "no gradient: stopped by line 2"


def test_a_rule_that_does_not_hold_is_said_so_and_not_blamed():
    said = explained("attend causal\nstop k where q.pos - k.pos > 5", 3, 1)
    assert not said.rules[0].applies and "line 2: stop k where q.pos - k.pos > 5   (does not apply)" in str(said)
    assert lessons("attend causal\nstop k where q.pos - k.pos > 5", 3, 1)["k"] == "the whole gradient"
    assert "(applies)" in str(explained("attend causal\nstop k", 3, 1)) and "feed-forward learn" in str(explained("attend causal\nstop k", 3, 1))
    assert "feed-forward learn" not in str(explained("attend causal", 3, 1))
    assert "What this pair teaches" not in str(explained("attend causal\nstop k", 1, 3))


def test_a_query_that_sees_one_key_teaches_its_value_alone():
    """P = 1 and dS = P (dP - delta) = 0: exactly nothing reaches q and k."""
    spec = srt.parse("attend k.pos == q.pos - 1\nstop v where q.pos == 2")
    nothing = "no gradient from the output: it is the only key that the query sees, whose weight is 1 whatever {} is"
    assert lessons(spec.text, 1, 0) == {"q": nothing.format("q"), "k": nothing.format("k"), "v": "the whole gradient"}
    assert str(srt.explain(spec, 1, 0)).endswith("no shorter way than the pair itself, for what is read and for its gradient.")
    assert lessons(spec.text, 2, 1)["v"] == "no gradient: stopped by line 2"
    assert "no gradient returns to the key through other rows either" in str(srt.explain(spec, 2, 1))
    q, k, v = (torch.randn(1, 1, 3, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    srt.compile(spec, backend="reference")(q, k, v).square().sum().backward()
    assert [x.grad is not None and bool((x.grad.abs() < 1e-12).all()) for x in (q, k, v)] == [True, True, False]
    assert lessons("attend k.pos == q.pos - 1\nstop k", 1, 0)["k"] == "no gradient: stopped by line 2"
    elsewhere = srt.parse("attend k.pos == q.pos - 1 or head == 1 and causal\nstop v")
    assert "a gradient returns where 1: token (step 1, slot 0) reads 0: token (step 0, slot 0) in head 1." in str(srt.explain(elsewhere, 1, 0, heads=2))
    assert lessons("attend causal and window(2)", 1, 0)["k"] == "the whole gradient"


def test_hidden_is_spoken_of_only_where_a_rule_does():
    assert "hidden" not in lessons("attend causal\nstop k", 3, 1)
    assert lessons("attend causal\nstop hidden where q.pos > k.pos", 3, 1)["hidden"] == "no gradient: stopped by line 2"
    assert lessons("attend causal\nstop hidden where q.pos > k.pos", 1, 1)["hidden"] == "the whole gradient"


def test_float_gates_of_an_input():
    text = "input w: float per query, key\nattend full\nscale v by w"
    inputs = {"w": torch.tensor([[0.125, 2.0], [float("inf"), 1.0]], dtype=torch.float64)}
    assert [lessons(text, q, k, steps=2, inputs=inputs)["v"] for q, k in ((0, 0), (0, 1), (1, 0), (1, 1))] == [
        "0.125 of the gradient: scaled by line 3", "2 of the gradient: scaled by line 3", "inf of the gradient: scaled by line 3", "the whole gradient (scaled by 1 by line 3)",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ through other rows


def indirectly(text: str, query: int, key: int, **named: Any) -> str:
    return str(explained(text, query, key, **named)).partition("\nIndirectly: ")[2]


STOPPED = "layout repeat { token, reason }\nattend causal and window(3)\nstop k, v where k is reason and q is token"
SOMEWHERE = "attend causal\nstop k, v where head == 0"


@pytest.mark.parametrize(
    ("text", "pair", "named", "words"),
    [
        ("attend causal", (3, 1), {}, "no shorter way than the pair itself, for what is read and for its gradient."),
        ("attend causal", (1, 3), {}, "nothing of the key reaches the query, in any number of layers, among these 4 rows."),
        ("attend causal", (3, 3), {}, "a row reaches itself, and learns from itself, along its residual stream."),
        ("attend causal and k.pos < q.pos", (3, 3), {}, "a row reaches itself, and learns from itself, along its residual stream."),
        ("attend causal\nstop k, v", (3, 1), {}, "no gradient returns to the key through other rows either, in any number of layers, among these 4 rows."),
        ("attend causal\nstop k", (3, 1), {}, "no shorter way than the pair itself, for what is read and for its gradient."),
        # Row 1 sees one key: its weight is 1 whatever the key says, and k alone lets nothing back.
        ("attend k.pos == q.pos - 1\nstop v", (1, 0), {}, "no gradient returns to the key through other rows either, in any number of layers, among these 2 rows."),
        ("attend causal and window(2)", (3, 1), {},
         "the query reads the key in 2 hops, one a layer:\n  3: token (step 3, slot 0) reads 2: token (step 2, slot 0)\n"
         "  2: token (step 2, slot 0) reads 1: token (step 1, slot 0)\nA gradient returns the same way."),
        (STOPPED, (6, 1), {}, "the query reads the key in 3 hops, one a layer:\n  6: token (step 3, slot 0) reads 4: token (step 2, slot 0)\n"
         "  4: token (step 2, slot 0) reads 2: token (step 1, slot 0)\n  2: token (step 1, slot 0) reads 1: reason (step 0, slot 0)\n"
         "No gradient returns to the key through other rows either, in any number of layers, among these 8 rows."),
        # The word stops its reading of the reason, and not that of the reason behind it.
        ("layout repeat { token, reason }\nattend causal\nstop k, v where k is reason and q.pos == k.pos + 1", (2, 1), {"steps": 2},
         "no gradient returns to the key through other rows either, in any number of layers, among these 4 rows."),
        ("layout repeat { token, reason }\nattend causal\nstop k, v where k is reason and q.pos == k.pos + 3", (4, 1), {"steps": 3},
         "a gradient returns in 2 hops, one a layer:\n  4: token (step 2, slot 0) reads 2: token (step 1, slot 0)\n"
         "  2: token (step 1, slot 0) reads 1: reason (step 0, slot 0)"),
        (SOMEWHERE, (3, 1), {"heads": 2}, "a gradient returns where 3: token (step 3, slot 0) reads 1: token (step 1, slot 0) in head 1."),
        (SOMEWHERE, (3, 1), {"heads": 2, "head": 1}, "no shorter way than the pair itself, for what is read and for its gradient."),
        ("attend head == 1", (0, 1), {"heads": 2}, "0: token (step 0, slot 0) reads 1: token (step 1, slot 0) in head 1.\n"
         "A gradient returns where 0: token (step 0, slot 0) reads 1: token (step 1, slot 0) in head 1."),
        # A path takes layers in order: what is read in layer 0 may go on in layer 1, not the other way round.
        ("attend k.pos == q.pos - 1 and layer == q.pos - 1", (2, 0), {"layers": 2},
         "the query reads the key in 2 hops, one a layer:\n  2: token (step 2, slot 0) reads 1: token (step 1, slot 0) in layer 1\n"
         "  1: token (step 1, slot 0) reads 0: token (step 0, slot 0) in layer 0\nA gradient returns the same way."),
        ("attend k.pos == q.pos - 1 and layer == 2 - q.pos", (2, 0), {"layers": 2}, "nothing of the key reaches the query, in 2 layers, among these 3 rows."),
        ("layout memory * 2, repeat { token }\nqueries where role is token\nattend causal", (1, 0), {}, "nothing of the key reaches the query, in any number of layers, among these 2 rows."),
        ("queries layout repeat { a }\nkeys layout b * 2\nattend k.pos == q.pos", (1, 0), {"steps": 2}, "nothing of the key reaches the query, in any head or layer."),
        ("queries layout repeat { a }\nkeys layout b * 2\nattend full\nstop k, v", (1, 0), {"steps": 2}, "no gradient returns to the key, in any head or layer."),
        ("attend causal", (9000, 3), {}, "paths are searched among at most"),
    ],
)  # fmt: skip
def test_ways_through_other_rows(text: str, pair: tuple, named: dict, words: str):
    said = indirectly(text, *pair, **named)
    assert said.startswith(words) if words.endswith("most") else said == words


# ------------------------------------------------------------------------------------------------ layouts, heads, layers


def test_a_query_that_does_not_ask():
    said = explained("let late = pos >= 3\nattend causal\nqueries where late", 2, 1)
    assert not said.sees and not said.query.asks and said.silent is not None and said.silent.number == 3
    assert "No: the query does not ask. `pos >= 3` is false: 2 >= 3." in str(said) and "teaches" not in str(said)
    asking = explained("let late = pos >= 3\nattend causal\nqueries where late", 4, 1)
    assert asking.sees and asking.silent is None and asking.key.asks is False and "1 <= 4" in str(asking)


def test_a_layout_given():
    text = "layout given { word, note }\nattend k is note and k.step <= q.step"
    told = {"role": ["note", "word", "note"], "step": [0, 1, 2], "slot": [0, 0, 1]}
    assert explained(text, 1, 0, given=told).sees and not explained(text, 1, 2, given=told).sees
    said = explained(text, 2, 1, given=told)
    assert (said.query.role, said.query.step, said.query.slot) == ("note", 2, 1) and "`k is note` is false: k is word." in str(said)


def test_two_axes():
    text = "queries layout repeat { a }\nkeys layout b * 2, repeat { c }\nattend k is b or k.step <= q.step"
    said = explained(text, 1, 4)
    assert not said.sees and (said.key.role, said.key.section, said.key.step, said.key.position) == ("c", 1, 2, 2)
    assert "key   4: c (step 2, slot 0, section 1; index -1, position id 2)" in str(said)
    assert explained(text, 1, 1).sees and explained(text, 2, 4).sees


def test_tokens_are_described_by_the_layout():
    said = explained("data word\nlayout sink, repeat { word, note * 2 }\nattend full\nposition pos * 2", 6, 4)
    assert str(said.query) == "6: note (step 1, slot 1, section 1; index 1, position id 12)"
    assert str(said.key) == "4: word (step 1, slot 0, section 1; index 1, position id 8)"


def test_a_head_or_layer_asked_for_is_there():
    heads = "attend head == 0 or window(2)"
    assert "(head 1, layer 0)" in verdict(heads, 5, 1, head=1) and not explained(heads, 5, 1, head=1).sees
    assert explained(heads, 5, 1, heads=2).sees and explained(heads, 5, 1, head=0, heads=2).sees
    layers = "attend layers == 3 and layer == 2"
    assert explained(layers, 5, 1, layer=2).sees and not explained(layers, 5, 1, layer=2, layers=4).sees
    both = "attend causal\nstop k where layer == 1 and head == 2"
    assert explained(both, 3, 1, layer=1, head=2).gates["k"] == 0 and explained(both, 3, 1, layer=0, head=2, layers=2).gates["k"] == 1


def test_steps_are_as_few_as_the_two_positions_need():
    text = "layout sink * 2, repeat { a, b }\nattend steps == 3"
    assert [explained(text, q, k).sees for q, k in ((7, 0), (0, 6), (5, 0), (8, 0))] == [True, True, False, False]
    assert explained(text, 0, 0, steps=3).sees
    assert explained("layout sink * 2, repeat { a, b }\nattend steps == 0", 1, 0).sees


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("text", "pair", "named", "words"),
    [
        ("attend full", (4, 0), {"steps": 4}, r"query 4 is beyond the last position, 3: give more steps="),
        ("attend full", (0, 4), {"steps": 4}, r"key 4 is beyond the last position, 3: give more steps="),
        ("layout a * 3\nattend full", (3, 0), {}, r"query 3 is beyond the last position, 2: this layout has 3 tokens"),
        ("layout a * 3\nattend full", (1, 0), {"steps": 2}, r"has one length, 3 tokens"),
        ("attend full", (-1, 0), {}, r"query is a whole number, 0 or more; got -1"),
        ("attend full", (0, 1.0), {}, r"key is a whole number, 0 or more; got 1\.0"),
        ("attend full", (True, 0), {}, r"query is a whole number, 0 or more; got True"),
        ("attend full", (0, 0), {"head": -1}, r"head is a whole number, 0 or more"),
        ("attend full", (0, 0), {"layer": "0"}, r"layer is a whole number, 0 or more"),
        ("attend full", (0, 0), {"head": 2, "heads": 2}, r"head is from 0 to 1; got 2: give heads= for more"),
        ("attend full", (0, 0), {"layer": 1, "layers": 1}, r"layer is from 0 to 0; got 1: give layers= for more"),
        ("attend head == 0", (0, 0), {}, r"speaks of heads: give heads="),
        ("attend layer == 0", (0, 0), {}, r"speaks of layers: give layers="),
        ("layout given { a }\nattend full", (0, 0), {}, r"give given="),
        ("input doc: int per token\nattend same(doc)", (0, 0), {}, r"missing input `doc`"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered(text: str, pair: tuple, named: dict, words: str):
    with pytest.raises(srt.InputError, match=words):
        explained(text, *pair, **named)


def test_a_text_is_no_spec():
    with pytest.raises(srt.InputError, match=r"takes a Spec; got str.*srt_masks\.parse"):
        srt.explain("attend causal", 0, 0)  # type: ignore[arg-type]


def test_plain_is_json():
    text = "input w: float per query, key\nattend causal\nscale k by w\nstop q where q.pos > 9"
    found = explained(text, 1, 0, inputs={"w": torch.tensor([[1.0, 1.0], [float("nan"), float("inf")]], dtype=torch.float64)})
    plain = json.loads(json.dumps(found.plain(), allow_nan=False))
    assert plain["gates"] == {"q": 1.0, "k": "nan", "v": 1.0, "hidden": 1.0} and plain["rules"][0]["factor"]["value"] == "nan"
    assert plain["query"] == {"pos": 1, "role": "token", "section": 0, "step": 1, "slot": 0, "index": 1, "position": 1, "asks": True}
    assert plain["attend"]["where"]["parts"][0]["note"] == "0 <= 1" and plain["rules"][1]["targets"] == ["q"] and plain["silent"] is None
