"""What a claim means in one row: against a search written anew, pair by pair, from the dense masks; and cases decided by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import claiming_cases, row_of

import srt_masks as srt
from srt_masks.grammar import checked as c
from srt_masks.grammar.syntax import Claim
from srt_masks.proofs.exhaust import Covered, Refutation, exhaust
from srt_masks.proofs.search import MOST_TOKENS, about, edges, reach, refute, shortest_path
from srt_masks.proofs.verdict import Hop, Path
from srt_masks.reference.masks import Row
from srt_masks.testing.case import Case

# ------------------------------------------------------------------------------------------------ a search written anew


def graph(spec: srt.Spec, sizes: dict[str, Any], gradients: bool) -> list[set[tuple[int, int]]]:
    """For each layer the pairs (query, key), by position, that let something through in some head."""
    masks, asks = srt.dense(spec, **sizes), srt.tokens(spec, **sizes).asks.nonzero().flatten().tolist()
    found: list[set[tuple[int, int]]] = [set() for _ in range(masks.attend.shape[-4])]
    for layer, head, place, key in masks.attend.nonzero()[:, -4:].tolist():
        k, v, hidden = (float(g.expand(masks.attend.shape)[layer, head, place, key]) for g in (masks.gate_k, masks.gate_v, masks.gate_hidden))
        alone = int(masks.attend[layer, head, place].sum()) == 1
        if not gradients or (hidden != 0 and (v != 0 or (k != 0 and not alone))):
            found[layer].add((asks[place], key))
    return found


def hops_between(spec: srt.Spec, sizes: dict[str, Any], tokens: int, gradients: bool) -> dict[tuple[int, int], int]:
    """The fewest hops of a path, by (sink, source); pairs without one are not there."""
    layers = graph(spec, sizes, gradients)
    fewest = {(t, t): 0 for t in range(tokens)}
    if not spec.checked.speaks_of_layers:
        layers = [set().union(*layers)] * tokens
    for pairs in layers:
        after = dict(fewest)
        for (middle, source), hops in fewest.items():
            for query, key in pairs:
                if key == middle:
                    after[query, source] = min(after.get((query, source), hops + 1), hops + 1)
        fewest = after
    return fewest


def where_of(row: Row, claim: c.Claim) -> Iterator[tuple[int, int, np.ndarray]]:
    for layer, head in product(range(row.layers), range(row.heads)):
        shape = len(row.queries["pos"]), len(row.keys["pos"])
        yield layer, head, row.words(head, layer).value(claim.where).expand(shape).numpy() if claim.where is not None else np.ones(shape, dtype=bool)


def holds(spec: srt.Spec, sizes: dict[str, Any], row: Row, claim: c.Claim) -> tuple[bool, int]:
    """Whether a claim holds, and the fewest hops of what refutes it, between two tokens if there are any (else 0)."""
    attend = srt.dense(spec, **sizes).attend.numpy()
    asks = row.queries["pos"].tolist()
    table = srt.tokens(spec, **sizes)
    match claim.kind:
        case Claim.EVERY_QUERY:
            return bool(attend.any(-1).all()), 0
        case Claim.PAIRS:
            return not any((attend[layer, head] & ~where).any() for layer, head, where in where_of(row, claim)), 1
        case Claim.CACHEABLE:
            made = list(zip(table.section.tolist(), table.step.tolist(), strict=True))
            return not any(made[key] > made[asks[place]] for _, _, place, key in zip(*attend.nonzero(), strict=True)), 1
    fewest = hops_between(spec, sizes, len(table.role), claim.kind in (Claim.NO_GRAD, Claim.GRAD))
    if claim.kind is Claim.NO_LEAK:
        data = [i for i, role in enumerate(table.role) if spec.roles.index(role) in spec.checked.data]
        spoken = {(i, j) for i in range(len(table.role)) for j in data if int(table.target[i]) == int(table.index[j])}
    else:
        spoken = {(asks[place], key) for _, _, where in where_of(row, claim) for place, key in zip(*where.nonzero(), strict=True)}
    if claim.kind in (Claim.FLOW, Claim.GRAD):
        return spoken <= fewest.keys(), 0
    bad = spoken & fewest.keys()
    return not bad, min((fewest[p] for p in bad if p[0] != p[1]), default=0)


@given(claiming_cases())
@settings(max_examples=60)
def test_every_claim_of_random_texts_is_judged_as_a_search_written_anew_does(case: Case):
    spec, sizes, row = case.spec, case.sizes, case.row()
    for claim in spec.checked.claims:
        path = refute(row, claim)
        held, hops = holds(spec, sizes, row, claim)
        assert (path is None) == held, claim.kind
        if path is not None:
            assert len(path.hops) == hops, claim.kind
            sound(row, claim, path)


def sound(row: Row, claim: c.Claim, path: Path) -> None:
    """The path is one: every hop is there, each ends where the next begins, layers rise, and the claim speaks of its ends."""
    assert about(row, claim)[path.sink, path.source] or claim.kind is Claim.EVERY_QUERY
    at, layer = path.source, -1
    gradients = claim.kind in (Claim.GRAD, Claim.NO_GRAD)
    through = edges(row, gradients)
    for hop in path.hops:
        assert hop.key == at and (hop.layer > layer or not row.checked.speaks_of_layers)
        place = row.queries["pos"].tolist().index(hop.query)
        assert through[hop.layer if through.shape[0] > 1 else 0, hop.head if through.shape[1] > 1 else 0, place, hop.key]
        at, layer = hop.query, hop.layer
    assert at == path.sink or not path.hops


@given(claiming_cases(), st.booleans())
@settings(max_examples=30)
def test_reach_and_the_shortest_path_are_those_of_a_search_written_anew(case: Case, gradients: bool):
    spec, sizes, row = case.spec, case.sizes, case.row()
    tokens = len(row.own["pos"])
    fewest = hops_between(spec, sizes, tokens, gradients)
    found = reach(row, gradients)
    assert {tuple(p) for p in found.nonzero().tolist()} == set(fewest)
    assert bool((reach(row, gradients, may=True) >= found).all())
    assert torch.equal(reach(row, gradients, depth=tokens), found)
    for sink, source in product(range(0, tokens, 3), range(0, tokens, 2)):
        path = shortest_path(row, source, sink, gradients)
        assert (path is None) == ((sink, source) not in fewest)
        assert path is None or len(path.hops) == fewest[sink, source]


# ------------------------------------------------------------------------------------------------ decided by hand


def refuted(text: str, tokens: int, **named: Any) -> Path | None:
    row, claims = row_of(text, tokens, **named)
    return refute(row, claims[-1])


def test_layers_are_taken_in_order_and_once():
    text = "attend k.pos == q.pos - 1 if layer == 0 else k.pos == q.pos - 2\nassert no flow where q.pos - k.pos == "
    assert refuted(text + "3", 5, layers=2) == Path(0, 3, (Hop(1, 0, 0, 0), Hop(3, 1, 0, 1)))
    assert refuted(text + "4", 5, layers=2) is None  # two hops of the second layer
    assert refuted(text + "4", 5, layers=3) == Path(0, 4, (Hop(2, 0, 0, 1), Hop(4, 2, 0, 2)))
    back = "attend k.pos == q.pos - 2 if layer == 0 else k.pos == q.pos + 1\nassert no flow where q.pos - k.pos == "
    assert refuted(back + "1", 4, layers=2) == Path(0, 1, (Hop(2, 0, 0, 0), Hop(1, 2, 0, 1)))
    assert refuted("attend k.pos == q.pos + 1 if layer == 0 else k.pos == q.pos - 2 if layer == 1 else false\nassert no flow where k.pos == q.pos - 1", 4, layers=3) == Path(1, 2, (Hop(0, 1, 0, 0), Hop(2, 0, 0, 1)))  # fmt: skip
    assert refuted("attend k.pos == q.pos + 1 if layer == 1 else k.pos == q.pos - 2 if layer == 0 else false\nassert no flow where k.pos == q.pos - 1 and k.pos == 2", 4, layers=3) is None  # fmt: skip


def test_reach_takes_layers_in_order():
    text = "attend k.pos == q.pos - 1 if layer == 0 else k.pos == 0 and q.pos == 3"
    found = reach(row_of(text, 4, layers=2)[0])
    assert found.nonzero().tolist() == [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [3, 0], [3, 2], [3, 3]]
    other = reach(row_of(text.replace("layer == 0", "layer == 1"), 4, layers=2)[0])
    assert other.nonzero().tolist() == [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [3, 0], [3, 2], [3, 3]]
    # Nothing of 0 gets from 3 to anybody but in the second case, where there is a row behind 3.
    assert not reach(row_of(text, 5, layers=2)[0])[4, 0] and reach(row_of(text.replace("layer == 0", "layer == 1"), 5, layers=2)[0])[4, 0]


def test_of_pairs_against_a_claim_the_nearest_is_shown_whatever_the_layers():
    text = "attend k.pos == q.pos - 1 if layer < 3 else k.pos == q.pos - 4\nassert no flow where 1 < q.pos - k.pos"
    assert refuted(text, 6, layers=4) == Path(0, 4, (Hop(4, 0, 0, 3),))
    assert refuted(text, 6, layers=3) == Path(0, 2, (Hop(1, 0, 0, 0), Hop(2, 1, 0, 1)))


def test_two_layouts_are_joined_in_any_layer():
    text = "queries layout repeat { a }\nkeys layout repeat { b }\nattend layer == 1 and k.pos == q.pos\nassert no flow where k.pos == q.pos"
    assert refuted(text, 2, layers=2) == Path(0, 0, (Hop(0, 0, 0, 1),))
    assert refuted(text, 2, layers=1) is None
    assert reach(row_of(text, 2, layers=2)[0]).tolist() == [[True, False], [False, True]]


def test_where_layers_are_alike_there_are_as_many_as_a_path_needs():
    path = refuted("attend k.pos == q.pos - 1\nassert no flow where q.pos - k.pos == 5", 7)
    assert path == Path(0, 5, tuple(Hop(i + 1, i) for i in range(5)))


def test_a_head_is_named_by_the_pair_it_lets_through():
    path = refuted("attend k.pos == q.pos - 1 if head == 1 else k.pos == q.pos - 3\nassert no flow where q.pos - k.pos == 4", 6, heads=2)
    assert path == Path(0, 4, (Hop(1, 0, 1), Hop(4, 1, 0)))


def test_two_layouts_have_one_hop_and_nothing_that_stays():
    text = "queries layout repeat { a }\nkeys layout repeat { b }\nattend k.pos == q.pos + 1\nassert "
    assert refuted(text + "no flow where k.pos == 2", 3, keys=5) == Path(2, 1, (Hop(1, 2),))
    assert refuted(text + "no flow where k.pos == q.pos", 3, keys=5) is None
    assert refuted(text + "no flow where k.pos == q.pos + 2", 3, keys=5) is None
    assert refuted(text + "flow where k.pos == q.pos", 3, keys=5) == Path(0, 0)
    assert refuted(text + "cacheable", 3, keys=5) is None
    assert refuted(text + "every query attends", 3, keys=3) == Path(2, 2)


def test_leaks_of_two_layouts_are_those_of_a_row_itself():
    text = "queries layout repeat { a }\nkeys layout repeat { b }\ndata a\nattend full\npredict a -> index"
    assert refuted(text + " + 1\nassert no leak", 3, keys=5) is None
    assert refuted(text + "\nassert no leak", 3, keys=5) == Path(0, 0)


def test_a_row_trained_to_predict_itself_leaks_and_one_that_reads_its_target_does():
    assert refuted("attend k.pos < q.pos\npredict token -> index\nassert no leak", 3) == Path(0, 0)
    assert refuted("attend causal\npredict token -> index + 1\nassert no leak", 4) is None
    assert refuted("attend causal or k.pos == 3\npredict token -> index + 1\nassert no leak", 5) == Path(3, 2, (Hop(2, 3),))


def test_of_several_predictions_the_last_that_applies_is_what_is_trained():
    text = "attend k.pos == q.pos + 1\npredict token -> {} where pos > 0\npredict token -> {}\nassert no leak"
    assert refuted(text.format("index + 1", "index - 1"), 4) is None
    assert refuted(text.format("index - 1", "index + 1"), 4) == Path(1, 0, (Hop(0, 1),))


def test_a_rows_own_residual_refutes_only_where_nothing_else_does():
    assert refuted("attend k.pos < q.pos\nassert no flow where k.pos >= q.pos", 4) == Path(0, 0)
    assert refuted("attend causal or k.pos == 2\nassert no flow where k.pos >= q.pos", 4) == Path(2, 0, (Hop(0, 2),))
    assert refuted("attend causal\nstop q, k, v\nassert no grad where full", 3) == Path(0, 0)


def test_silent_rows_read_nothing_and_no_claim_is_about_what_they_read():
    text = "layout memory * 2, repeat { token }\nqueries where role is token and pos != 3\nattend causal\nassert "
    assert refuted(text + "flow where k.pos <= q.pos", 6) is None
    assert refuted(text + "no flow where k is memory and q is memory", 6) is None
    # Row 3 reads nothing, so nothing goes through it.
    chain = "queries where pos != 3\nattend k.pos == q.pos - 1\nassert no flow where q.pos - k.pos == 2"
    row, claims = row_of(chain, 7)
    assert [about(row, claims[0])[i].any().item() for i in range(7)] == [False, False, True, False, True, True, True]
    assert refute(row, claims[0]) == Path(0, 2, (Hop(1, 0), Hop(2, 1)))
    assert not reach(row)[4, 2] and reach(row)[4, 3]


SINGLE = "attend k.pos == q.pos - 1{}\nstop v\nassert {} where q.pos - k.pos == 1"


def test_one_key_alone_passes_no_gradient_through_k():
    """P = 1 whatever the key says."""
    assert refuted(SINGLE.format("", "no grad"), 4) is None
    assert refuted(SINGLE.format("", "grad"), 4) == Path(0, 1)
    assert refuted(SINGLE.format(" or k.pos == q.pos", "no grad"), 4) == Path(0, 1, (Hop(1, 0),))
    row, _ = row_of(SINGLE.format("", "no grad"), 4)
    assert not bool(reach(row, True)[1, 0]) and bool(reach(row, True, may=True)[1, 0])
    assert reach(row, False)[1, 0]


def test_one_key_alone_is_counted_in_each_head():
    text = "attend k.pos == q.pos - 1 or (head == 1 and k.pos == q.pos)\nstop v\nassert no grad where q.pos - k.pos == 1"
    assert refuted(text, 4, heads=1) is None
    assert refuted(text, 4, heads=2) == Path(0, 1, (Hop(1, 0, 1),))


@pytest.mark.parametrize(("rules", "passes"), [
    ("stop k", True), ("stop v", True), ("stop k, v", False), ("stop k\nstop v", False), ("stop q", True), ("stop hidden", False), ("stop q, k, v, hidden", False),
    ("scale k by 0\nscale v by 0.0", False), ("scale k by 0\nscale v by 0.5", True), ("scale hidden by 0", False), ("scale hidden by 2", True),
    ("scale k, v by weight_of where k.pos < q.pos", False), ("scale k, v by weight_of + 1", True), ("stop k\nstop v where k.pos > 3", True),
])  # fmt: skip
def test_gates_that_let_a_gradient_through(rules: str, passes: bool):
    text = f"input weight_of: float per query, key\nattend causal\n{rules}\nassert no grad where k.pos < q.pos"
    row, claims = row_of(text, 3, inputs={"weight_of": torch.zeros(3, 3, dtype=torch.float64)})
    assert (refute(row, claims[0]) is not None) == passes
    assert refute(row, srt.parse("attend full\nassert flow where k.pos < q.pos").checked.claims[0]) is None


def test_a_gradient_goes_round_what_is_stopped():
    text = (
        "layout repeat {{ token, reason }}\nattend causal\nstop {} where k is reason and q.step > k.step\nassert no grad where k is reason and q.step > k.step"
    )
    assert refuted(text.format("k, v"), 6) is None
    path = refuted(text.format("k"), 6)
    assert path == Path(1, 2, (Hop(2, 1),))  # through v
    # To a token in between, and from there.
    around = (
        "attend k.pos == q.pos - 1 or k.pos == q.pos or k.pos == 0\nstop k, v where k.pos == 0 and q.pos > 1\nassert no grad where k.pos == 0 and q.pos == 3"
    )
    assert refuted(around, 5) == Path(0, 3, (Hop(1, 0), Hop(2, 1), Hop(3, 2)))


def test_given_layouts():
    text = "layout given { a, b }\nattend k is a and k.step <= q.step\nassert no flow where k is b"
    layout = {"role": torch.tensor([0, 1, 1, 0]), "step": torch.tensor([0, 0, 1, 1]), "slot": torch.zeros(4, dtype=torch.int64)}
    assert refuted(text, 4, layout=layout) == Path(1, 1)
    assert refuted(text + " and q.pos != k.pos", 4, layout=layout) is None
    assert refuted(text.replace("k is b", "k is a and q is b"), 4, layout=layout) == Path(0, 1, (Hop(1, 0),))
    assert refuted(text.replace("no flow where k is b", "cacheable"), 4, layout=layout) is None


def test_direct_claims_name_the_first_pair():
    assert refuted("attend causal\nassert q.pos - k.pos < 2", 4) == Path(0, 2, (Hop(2, 0),))
    assert refuted("attend causal\nassert layer == 0", 2, layers=2) == Path(0, 0, (Hop(0, 0, 0, 1),))
    assert refuted("attend causal\nassert head < 2", 2, heads=3) == Path(0, 0, (Hop(0, 0, 2, 0),))
    assert refuted("attend k.pos < q.pos or head == 0\nassert every query attends", 3, heads=2) == Path(0, 0)
    assert refuted("layout repeat { a, b }\nattend k.step <= q.step + 1\nassert cacheable", 6) == Path(2, 0, (Hop(0, 2),))
    assert refuted("layout a, repeat { b }\nattend k.section <= q.section\nassert cacheable", 4) == Path(2, 1, (Hop(1, 2),))
    # What stands in a later section is made later, whatever its step.
    assert refuted("layout repeat { a }, repeat { b }\nattend same(step)\nassert cacheable", 4) == Path(2, 0, (Hop(0, 2),))


def test_only_data_tokens_leak():
    text = "layout repeat { token, reason }\nattend k is reason and k.step == q.step + 1\npredict reason -> index + 1\nassert no leak"
    assert refuted(text, 6) is None  # the next reason has the index of the token that is predicted
    assert refuted(text.replace("k is reason", "k is token"), 6) == Path(2, 1, (Hop(1, 2),))


def test_rows_without_tokens():
    for claim in ("no flow where full", "flow where full", "cacheable", "every query attends", "k.pos > 3", "no grad where full"):
        assert refuted(f"attend causal\nassert {claim}", 0) is None


def test_beyond_a_few_thousand_tokens_it_says_what_to_do():
    text = "attend causal\nassert no flow where k.pos > q.pos"
    row, claims = row_of(text, MOST_TOKENS + 1)
    for call in (lambda: reach(row), lambda: about(row, claims[0]), lambda: refute(row, claims[0]), lambda: shortest_path(row, 0, 1)):
        with pytest.raises(srt.InputError, match=r"at most 4,096 tokens .* this row has 4,097 tokens.*give fewer steps, heads or layers"):
            call()
    with pytest.raises(srt.InputError, match="12 x 8 x 2,000 x 2,000 pairs"):
        edges(row_of("attend head > layer\n", 2000, heads=8, layers=12)[0])


def test_two_thousand_tokens_take_a_moment():
    row, claims = row_of("attend causal and window(256)\nassert no flow where k.pos > q.pos\nassert no flow where q.pos - k.pos > 1000", 1500)
    start = time.monotonic()
    assert refute(row, claims[0]) is None
    path = refute(row, claims[1])
    assert path is not None and len(path.hops) == 4 and (path.source, path.sink) == (0, 1001)
    assert time.monotonic() - start < 20


# ------------------------------------------------------------------------------------------------ every small call


def tried(text: str, most: int = 8, seconds: float = 20.0) -> Covered | Refutation:
    checked = srt.parse(text).checked
    return exhaust(checked, checked.claims[-1], most, time.monotonic() + seconds)


def covered(text: str, most: int = 8) -> Covered:
    found = tried(text, most)
    assert isinstance(found, Covered), found
    return found


def refutation(text: str, most: int = 8) -> Refutation:
    found = tried(text, most)
    assert isinstance(found, Refutation), found
    checked = srt.parse(text).checked
    assert refute(found.world.row(checked), checked.claims[-1]) == found.path or not found.path.hops
    return found


def test_every_size_is_tried_in_order():
    found = covered("attend causal\nassert no flow where k.pos > q.pos")
    assert (found.tokens, found.whole, found.worlds, found.complete) == (8, 8, 9, True) and found.words == "every call up to 8 tokens (9 calls)"
    assert covered("layout sink, repeat { a, b }\nattend causal\nassert no flow where k.pos > q.pos").tokens == 7
    found = refutation("attend k.pos == q.pos - 1\nassert no flow where q.pos - k.pos == 3")
    assert found.world.tokens == 4 and len(found.path.hops) == 3


def test_truth_values_are_enumerated():
    text = "input open: bool per token\nattend causal and k.open\nassert no flow where not k.open and k.pos != q.pos"
    assert covered(text, 6).worlds == 2**7 - 1 and covered(text, 6).complete
    # One value in 2**5 refutes it.
    odd = "input open: bool per token\nattend causal and not (open[0] and not open[1] and open[2] and open[3] and open[4])\nassert every query attends"
    found = refutation(odd, 6)
    assert found.world.tokens == 5 and found.world.inputs["open"].tolist() == [True, False, True, True, True]


def test_whole_numbers_are_drawn_and_that_is_said():
    found = covered("input doc: int per token\nattend causal and same(doc)\nassert no flow where q.doc != k.doc")
    assert not found.complete and found.whole == 0 < found.tokens == 8 and "draws of the inputs at every size up to 8 tokens" in found.words
    found = refutation("input doc: int per token\nattend causal and q.doc <= k.doc + 1\nassert no flow where q.doc > k.doc + 1")
    assert len(found.path.hops) == 2


def test_the_values_of_params_that_the_text_gives_come_first():
    text = "param n = 3\nattend causal and q.pos - k.pos < n\nassert "
    found = covered(text + "no flow where k.pos > q.pos")
    assert found.words.endswith("n = 3, 0, 1, 2, -1 (45 calls)") and found.complete
    assert refutation(text + "every query attends").world.params == {"n": 0}
    assert refutation(text + "q.pos - k.pos < 2").world.params == {"n": 3}


def test_heads_and_layers_are_tried_where_they_matter():
    found = refutation("attend k.pos == q.pos - 1 if layer == 2 else k.pos == q.pos\nassert no flow where q.pos != k.pos")
    assert found.world.layers == 3 and found.path.hops[0].layer == 2
    assert refutation("attend causal\nassert head == 0").world.heads == 2
    assert covered("attend head >= 0 and causal\nassert k.pos <= q.pos").words.endswith("up to 2 heads (18 calls)")


def test_two_layouts_have_sizes_of_their_own():
    found = refutation("queries layout repeat { a }\nkeys layout repeat { b }\nattend k.pos < 3\nassert no flow where k.pos > q.pos + 1")
    assert (found.world.tokens, found.world.keys) == (1, 3)
    either = refutation(
        "queries layout repeat { a }\nkeys layout repeat { b }\nattend full\nassert no flow where k.pos == 0 and q.pos == 2 or k.pos == 3 and q.pos == 0"
    )
    assert (either.world.tokens, either.world.keys) == (3, 1)  # and not the larger 1 by 4
    assert covered("queries layout repeat { a }\nkeys layout b * 2\nattend full\nassert k.pos < 2", 4).worlds == 5


def test_given_layouts_are_drawn():
    found = covered("layout given { a, b }\nattend k is a\nassert no flow where k is b and q.pos != k.pos", 6)
    assert not found.complete and found.tokens == 6
    assert refutation("layout given { a, b }\nattend k.step <= q.step\nassert no flow where k is b and q is a").path.hops


@pytest.mark.parametrize(("text", "holds"), [
    # What would refute each, without its fact, is a value that the fact shuts out.
    ("input back: int per token given 0 <= back <= 3\nattend k.pos == q.pos - q.back\nassert k.pos <= q.pos", True),
    ("input back: int per token\nattend k.pos == q.pos - q.back\nassert k.pos <= q.pos", False),
    ("input rank: int per step given rank >= step\nattend k.rank <= q.step\nassert k.step <= q.step", True), ("input rank: int per step\nattend k.rank <= q.step\nassert k.step <= q.step", False),
    ("param n = 2 given n > 0\nattend causal and window(n)\nassert every query attends", True), ("param n = 2\nattend causal and window(n)\nassert every query attends", False),
    ("param n = 2 given n > 0\ninput far: int per token\nattend causal and window(n) and k.far * 0 == 0\nassert every query attends", True),
    ("input open: bool per token given open or pos > 0\nattend k.open and causal\nassert every query attends", True),
    ("input open: bool per token given open or pos < 1\nattend k.open and causal\nassert every query attends", False),
    ("input seen: bool per query, key given not seen or k.pos < q.pos\nattend seen\nassert k.pos < q.pos", True),
    ("input seen: bool per query, key given not seen or k.pos <= q.pos\nattend seen\nassert k.pos < q.pos", False),
    ("input w: float per head, token given w > 0.3\nattend k.w > 0.1 and causal\nassert every query attends", True),
    ("input w: float per head, token given w > 0\nattend k.w > 0.3 and causal\nassert every query attends", False),
])  # fmt: skip
def test_inputs_and_params_satisfy_the_facts_of_the_text(text: str, holds: bool):
    found = tried(text, 6)
    assert isinstance(found, Covered) == holds, found
    assert isinstance(found, Refutation) or found.worlds > 5


def test_a_fact_that_nothing_satisfies_leaves_nothing_tried():
    assert covered("input rank: int per token given rank == 1000 + pos\nattend k.rank == q.rank\nassert k.pos == q.pos", 4).worlds == 1  # of no tokens


def test_a_path_between_rows_is_preferred_to_a_rows_own_residual():
    text = "attend causal or k.pos == 5\nassert no flow where k.pos >= q.pos"
    assert refutation(text).path == Path(5, 0, (Hop(0, 5),))
    assert refutation(text, 5).path == Path(0, 0)


def test_sizes_that_time_did_not_suffice_for_are_not_counted(monkeypatch: pytest.MonkeyPatch):
    checked = srt.parse("param n = 3\nattend causal and q.pos - k.pos < n\nassert k.pos <= q.pos").checked
    ticks = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    found = exhaust(checked, checked.claims[0], 8, 40)  # two looks at the clock a call: five values at 0 to 3 tokens, and none left half-way
    assert isinstance(found, Covered) and found.tokens == found.whole == 3 and found.words.startswith("every call up to 3 tokens, n = 3, 0, 1, 2, -1 (")


@pytest.mark.parametrize(
    "words",
    ["param f = 0.5 attend causal scale k, v by 1 - f assert grad where k.pos < q.pos", "param n = 3 attend causal assert n ** q.pos != 1 or q.pos < 2"],
)
def test_every_value_of_a_param_is_tried_at_each_size(monkeypatch: pytest.MonkeyPatch, words: str):
    """Before the text's own has had all the time there is, at larger ones."""
    checked, ticks = srt.parse(words).checked, iter(range(1000))
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: next(ticks))
        found = exhaust(checked, checked.claims[0], 256, 40)
    assert isinstance(found, Refutation) and found.world.tokens <= 3 and [*found.world.params.values()] == [1]
    assert srt.prove(srt.parse(words))[0].outcome == "refuted"


def test_time_runs_out():
    checked = srt.parse("attend causal\nassert no flow where k.pos > q.pos").checked
    found = exhaust(checked, checked.claims[0], 8, time.monotonic() - 1)
    assert isinstance(found, Covered) and found.tokens == -1 and not found.complete and "no call was tried" in found.words
    found = covered("layout a * 20\nattend causal\nassert k.pos <= q.pos", 8)
    assert found.worlds == 0 and not found.complete
