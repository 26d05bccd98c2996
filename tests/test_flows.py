"""`flow`: every row of the report against paths found pair by pair, known truths of the zoo, the words; what `explain` says of paths."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_explanation import sizes_of
from zoo_case import SCHEMES, Scheme

import srt_masks as srt
from srt_masks.flows.distances import Unit, among
from srt_masks.flows.report import FlowReport, Hops, Learning, Reading, Return, State
from srt_masks.flows.sizes import LEAST, MOST_TOKENS, choose_steps
from srt_masks.proofs.search import fewest_hops, reach, shortest_path
from srt_masks.surface import lay_out_one
from srt_masks.testing import Case, whole

RANK = {"rank": torch.tensor([3, 0, 4, 1, 2, 7, 5, 6])}
VALID = {"valid": torch.tensor([True, True, True, True, False, False])}
REPORTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "self-reasoning": ({}, {}),
    "knowledge-insulation": ({"images": 4, "words": 4, "spoken": 6, "actions": 5}, {}),
    "xlnet": ({}, {"inputs": RANK}),
    "encoder-decoder": ({"sources": 6}, {"inputs": VALID}),
    "transformer-xl": ({"kept": 6}, {}),
    "patient-heads": ({}, {"heads": 8}),
    "gemma-3": ({"span": 3}, {"layers": 6}),
    "sliding-window": ({"span": 3}, {"steps": 12}),
}


def report_of(name: str) -> FlowReport:
    params, named = REPORTS[name]
    return srt.flow(srt.zoo(name).with_params(**params), **named)


def flow(text: str, **named: Any) -> FlowReport:
    return srt.flow(srt.parse(text), **named)


def reads(report: FlowReport) -> set[tuple[str, str, str, str, str]]:
    return {r.cells() for r in report.reads}


def learns(report: FlowReport) -> set[tuple[str, ...]]:
    return {(r.reader, r.read, str(r.distances), r.directly, r.otherwise) for r in report.learns}


@pytest.mark.parametrize("name", REPORTS)
def test_tables(name: str, update_golden: bool):
    path = ROOT / "tests" / "golden" / f"{name.replace('-', '_')}.flow.txt"
    if update_golden:
        path.write_text(f"{report_of(name)}\n")
    assert path.read_text() == f"{report_of(name)}\n"


# ------------------------------------------------------------------------------------------------ against paths found pair by pair


class Truth:
    """One call, pair by pair: what is read and taught directly, and in how many hops, by walking."""

    def __init__(self, spec: srt.Spec, sizes: dict[str, Any]):
        self.masks = srt.dense(spec, **sizes)
        row = lay_out_one(spec, **{n: x for n, x in sizes.items() if n != "lengths"})
        self.queries, self.keys = row.queries, row.keys
        self.layers, self.heads, self.nq, self.nk = self.masks.attend.shape
        self.has_two_layouts = spec.checked.keys is not None
        self.in_order = spec.checked.speaks_of_layers
        self.pairs = list(product(range(self.nq), range(self.nk)))
        m = self.masks
        several = m.attend.sum(-1, keepdim=True) > 1
        passes = m.attend & (((m.gate_k != 0) & several) | (m.gate_v != 0)) & (m.gate_hidden != 0)
        self.reads = self.walk(m.attend)
        self.taught = self.walk(passes)
        self.directly = m.attend.any(0).any(0).tolist()
        self.passes = passes.any(0).any(0).tolist()

    def walk(self, edges: torch.Tensor) -> dict[tuple[int, int], int]:
        """Hops by (row that asks, key), without rows that reach themselves."""
        if self.has_two_layouts:
            return {(int(i), int(j)): 1 for i, j in edges.any(0).any(0).nonzero()}
        by_layer = edges.any(1).tolist()
        place = {int(p): i for i, p in enumerate(self.queries["pos"])}
        found = {}
        for key in range(self.nk):
            hops = {key: 0}
            for layer in range(self.layers if self.in_order else self.nk):
                read = by_layer[layer if self.in_order else 0]
                hops = {
                    t: min([hops.get(t, 99), *(hops[m] + 1 for m in hops if t in place and read[place[t]][m])])
                    for t in range(self.nk)
                    if t in hops or (t in place and any(read[place[t]][m] for m in hops))
                }
            found |= {(place[t], key): h for t, h in hops.items() if t in place and t != key}
        return found

    def name(self, axis: dict[str, torch.Tensor], i: int, roles: tuple[str, ...]) -> str:
        role = roles[int(axis["role"][i])]
        sections = {int(s) for s, r in zip(axis["section"], axis["role"], strict=True) if r == axis["role"][i]}
        return role if len(sections) == 1 else f"{role} of section {int(axis['section'][i])}"

    def is_itself(self, i: int, j: int) -> bool:
        return not self.has_two_layouts and int(self.queries["pos"][i]) == j


def chosen(truth: Truth, spec: srt.Spec, way: Reading | Learning) -> list[tuple[int, int]]:
    """The pairs that a line speaks of."""
    found = []
    for i, j in truth.pairs:
        if (truth.name(truth.queries, i, spec.roles), truth.name(truth.keys, j, spec.roles)) != (way.reader, way.read):
            continue
        column = {Unit.STEPS: "step", Unit.TOKENS: "pos", Unit.NONE: None}[way.distances.unit]
        distance = 0 if column is None else int(truth.queries[column][i] - truth.keys[column][j])
        if any(a <= distance <= b for a, b in way.distances.ranges):
            found.append((i, j))
    return found


def assert_true(spec: srt.Spec, report: FlowReport, truth: Truth) -> None:
    direct, through, learnt = set(), set(), set()
    for way in report.reads:
        pairs = chosen(truth, spec, way)
        if way.hops is not None:
            hops = [truth.reads[p] for p in pairs if p in truth.reads and not truth.directly[p[0]][p[1]]]
            assert (way.pairs, way.of, way.hops.fewest, way.hops.most) == (len(hops), len(pairs), min(hops), max(hops)), way
            through |= {p for p in pairs if p in truth.reads and not truth.directly[p[0]][p[1]]}
        elif not way.where:
            own = [p for p in pairs if truth.is_itself(*p)] if way.distances.is_itself else pairs
            seen = int(sum(truth.masks.attend[:, :, i, j].sum() for i, j in pairs))
            alike = truth.layers * truth.heads
            assert way.pairs * len(own) * alike == seen * way.of, way  # the same share
            direct |= {p for p in pairs if truth.directly[p[0]][p[1]]}
        else:
            direct |= {p for p in pairs if truth.directly[p[0]][p[1]]}
    assert direct == {p for p in truth.pairs if truth.directly[p[0]][p[1]]}
    assert through == {p for p in truth.reads if not truth.directly[p[0]][p[1]]}
    for way in report.learns:
        pairs = chosen(truth, spec, way)
        read = [p for p in pairs if p in truth.reads]
        learnt |= set(read)
        missing = [p for p in read if not truth.passes[p[0]][p[1]]]
        back = [truth.taught[p] for p in missing if p in truth.taught]
        match len(missing), len(back):
            case 0, _:
                wanted = Return.DIRECTLY
            case n, 0:
                wanted = Return.NEVER if n == len(read) else Return.OR_NEVER
            case n, m:
                wanted = Return.INDIRECTLY if m == n else Return.PARTLY
        assert way.returns is wanted, way
        assert (way.hops is None) == (way.returns in (Return.DIRECTLY, Return.OR_NEVER, Return.NEVER))
        if way.hops is not None:
            assert (way.hops.fewest, way.hops.most) == (min(back), max(back)), way
        if way.where:
            continue
        for gate, state in (way.gates or {}).items():
            values = torch.cat([getattr(truth.masks, f"gate_{gate}")[:, :, i, j][truth.masks.attend[:, :, i, j]] for i, j in pairs])
            assert len(values)
            match state:
                case State.STOPPED:
                    assert bool((values == 0).all()), way
                case State.WHOLE:
                    assert bool((values == 1).all()), way
                case State.SCALED:
                    assert bool((values != 0).all()) and bool((values != 1).any()), way
                case State.MIXED:
                    assert bool((values == 0).any()) and bool((values != 0).any()), way
        if way.gates is None:
            assert not any(truth.directly[i][j] for i, j in pairs), way
    assert learnt == set(truth.reads)


def test_what_comes_back_of_some_pairs_alone_is_told_apart_and_in_how_many_hops():
    """What is 2 before comes back by way of the row between, but for row 0, which all stop; what is further on in 2 hops or more."""
    spec = srt.parse("attend causal\nstop k, v where q.pos - k.pos == 2 or k.pos == 0")
    lines = {way.distances.ranges: (way.returns, way.hops) for way in srt.flow(spec, steps=6).learns}
    assert lines[((2, 2),)] == (Return.PARTLY, Hops(2, 2))
    assert "some pairs, 2 hops" in str(srt.flow(spec, steps=6))
    whole = srt.parse("attend causal\nstop k, v where q.pos - k.pos > 2")
    lines = {way.distances.ranges: (way.returns, way.hops) for way in srt.flow(whole, steps=8).learns}
    assert lines == {((0, 2),): (Return.DIRECTLY, None), ((3, 7),): (Return.INDIRECTLY, Hops(2, 4))}
    assert "2 to 4 hops" in str(srt.flow(whole, steps=8))
    heads = srt.parse("attend causal\nstop k, v where head == 0 or q.pos - k.pos > 2 or k.pos == 1 and q.pos - k.pos == 2")
    lines = {(way.where, way.distances.ranges): (way.returns, way.hops) for way in srt.flow(heads, steps=8, heads=2).learns}
    assert lines["head 1", ((2, 2),)] == (Return.INDIRECTLY, Hops(2, 2))  # row 3 and row 1, by row 2
    assert lines["head 0", ((2, 7),)] == (Return.INDIRECTLY, Hops(2, 4))


def test_what_some_pairs_pass_is_no_sentence():
    spec = srt.parse("layout repeat { image }\nattend causal\nstop k, v where k.pos == 0")
    report = srt.flow(spec, steps=8)
    (first,) = [way for way in report.learns if way.returns is Return.OR_NEVER]
    assert first.gates is not None and first.gates["k"] is State.MIXED
    assert "learns nothing from image rows 7 steps after it" in str(report)
    assert str(report).count("learns nothing") == 1


@given(case=whole().filter(lambda c: c.batch == 1 and c.lengths is None and c.extents.tokens <= 14))
@settings(max_examples=25)
def test_random_texts_of_the_whole_language(case: Case):
    named = {n: x for n, x in case.sizes.items() if n != "lengths"}
    report = srt.flow(case.spec, **named)
    assert str(report) and json.loads(json.dumps(report.plain(), allow_nan=False))
    assert_true(case.spec, report, Truth(case.spec, named))


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_every_scheme(scheme: Scheme):
    """With its smallest case."""
    case = min(scheme.cases, key=lambda c: (c.heads or 1) * (c.layers or 1) * (c.steps or 1))
    spec = srt.parse(scheme.text, params=case.params)
    named = sizes_of(spec, case)
    report = srt.flow(spec, **named)
    assert str(report) and json.loads(json.dumps(report.plain(), allow_nan=False))
    if report.rows * report.keys <= 1000:
        assert_true(spec, report, Truth(spec, named))


@given(case=whole().filter(lambda c: c.batch == 1 and c.lengths is None and c.extents.tokens <= 14), gradients=st.booleans())
@settings(max_examples=15)
def test_fewest_hops_are_those_of_the_shortest_paths(case: Case, gradients: bool):
    row = case.row()
    hops, tokens = fewest_hops(row, gradients), range(len(row.own["pos"]))
    assert torch.equal(hops >= 0, reach(row, gradients))
    for sink, source in product(tokens, tokens):
        path = shortest_path(row, source, sink, gradients)
        assert int(hops[sink, source]) == (-1 if path is None else len(path.hops))


def test_hops_of_a_long_chain_and_of_layers_in_order():
    chain = fewest_hops(lay_out_one(srt.parse("attend k.pos == q.pos - 1"), steps=300))
    place = torch.arange(300)
    assert torch.equal(chain, torch.where(place[:, None] >= place, place[:, None] - place, -1))
    wide = fewest_hops(lay_out_one(srt.parse("attend causal and window(40)"), steps=300))  # more readers a row than are followed one by one
    assert torch.equal(wide, torch.where(place[:, None] >= place, (place[:, None] - place + 38) // 39, -1))
    in_order = "attend k.pos == q.pos - 1 and (layer == q.pos - 1 or layer == 5)"
    assert fewest_hops(lay_out_one(srt.parse(in_order), steps=5, layers=3)).tolist()[3] == [3, 2, 1, 0, -1]
    assert fewest_hops(lay_out_one(srt.parse(in_order), steps=5, layers=2)).tolist()[3] == [-1, -1, -1, 0, -1]


# ------------------------------------------------------------------------------------------------ known truths


def test_self_reasoning():
    report = flow((ROOT / "examples" / "self_reasoning.mask").read_text(), steps=19)
    assert reads(report) == {
        ("token", "token", "0 and more", "all", "directly"), ("token", "reason", "1 and more", "all", "directly"),
        ("reason", "token", "0 and more", "all", "directly"), ("reason", "reason", "1 and more", "all", "directly"), ("reason", "reason", "0", "62%", "directly"),
    }  # fmt: skip
    assert learns(report) == {
        ("token", "token", "0 and more", "k, v", ""), ("token", "reason", "1 to 16", "none: k, v stopped", "never"), ("token", "reason", "17 and more", "k, v", ""),
        ("reason", "token", "0 and more", "k, v", ""), ("reason", "reason", "0, 17 and more", "k, v", ""), ("reason", "reason", "1 to 16", "none: k, v stopped", "never"),
    }  # fmt: skip
    assert report.learns_in_words == ("A reason row learns nothing from token and reason rows 1 to 16 steps after it, directly or through other rows.",)


def test_a_rule_that_another_row_goes_round_is_said():
    """The word of the next step may train the thought, and so the word after that does."""
    report = flow("layout repeat { word, thought }\nattend causal\nstop k, v where k is thought and q.step - k.step == 2", steps=6)
    assert ("word", "thought", "2", "none: k, v stopped", "2 hops") in learns(report)
    assert report.learns_in_words == ("Every row that is read learns from each of its readers, directly or through other rows.",)


def test_knowledge_insulation_has_no_detour():
    report = report_of("knowledge-insulation")
    assert ("action", "context", "any", "none: k, v stopped", "never") in learns(report)
    assert not any(r.hops for r in report.reads) and ("action", "fast") not in {(r.reader, r.read) for r in report.reads}
    assert "A fast row is read by fast rows alone, directly or through other rows." in report.reads_in_words
    # If what is written could see what is done, it would be a way back into the context.
    open_ = srt.zoo("knowledge-insulation").with_params(**REPORTS["knowledge-insulation"][0])
    leaky = srt.flow(srt.parse(open_.text.replace("q is action and k is action", "q is action and k is not context"), params=dict(open_.params)))
    assert ("action", "context", "any", "none: k, v stopped", "never") in learns(leaky)
    half = srt.flow(srt.parse(open_.text.replace("stop k, v", "stop k"), params=dict(open_.params)))
    assert ("action", "context", "any", "v; k stopped", "") in learns(half)


def test_xlnet_never_reads_the_word_it_predicts():
    report = report_of("xlnet")
    own = [r for r in report.reads if (r.reader, r.read) == ("query", "content")]
    assert own and not any(a <= 0 <= b for r in own for a, b in r.distances.ranges)
    assert "A query row is read by no other row." in report.reads_in_words


def test_hidden_states_that_are_stopped():
    report = report_of("transformer-xl")
    assert ("token", "memory", "any", "none: hidden stopped", "never") in learns(report) and {r.reader for r in report.reads} == {"token"}


def test_the_gate_of_q_is_a_way_into_the_reader():
    report = flow("attend causal\nstop q where q.pos - k.pos == 1\nscale k by 0.5 where q.pos - k.pos == 2", steps=6)
    assert [r.own for r in report.learns] == ["q", "q stopped", "q"]
    assert [r.directly for r in report.learns] == ["k, v", "k, v", "v; k scaled"] and "reader, by q" in str(report)
    assert "reader, by q" not in str(flow("attend causal\nstop k", steps=6))


def test_gates_that_are_open_on_some_pairs():
    report = flow("attend causal\nstop v where q.pos == 3\nscale k by 2", steps=5)
    assert learns(report) == {("token", "token", "0 to 3", "k scaled; v on some pairs", ""), ("token", "token", "4", "v; k scaled", "")}


def test_heads_and_layers_that_differ():
    assert ("token", "token", "0 to 2", "all", "directly, layers 0-4") in reads(report_of("gemma-3"))
    report = flow("attend causal and (window(2) if head < 2 and layer == 1 else full)", heads=3, layers=2, steps=6)
    assert reads(report) == {
        ("token", "token", "0 to 1", "all", "directly, layer 1, heads 0-1"),
        ("token", "token", "0 and more", "all", "directly, layer 0; layer 1, head 2"),
    }
    alike = flow("layout repeat { note * 2 }\nattend causal and head < heads", heads=2, steps=4)
    assert reads(alike) == {("note", "note", "0", "75%", "directly"), ("note", "note", "1 and more", "all", "directly")}
    many = flow("attend causal and window(head + 1)", heads=8, steps=10)
    assert {(r.where, r.hops is None) for r in many.reads} == {("heads differ", True), ("", False)}
    assert "in others" not in str(many)


def test_what_stops_in_some_heads_comes_back_through_others():
    report = report_of("patient-heads")
    assert [(str(r.distances), r.where, r.otherwise) for r in report.learns] == [
        ("0 to 31", "heads 0-3", "directly, elsewhere"), ("32 and more", "heads 0-3", ""), ("0 and more", "heads 4-7", ""),
    ]  # fmt: skip


def test_sections_without_a_common_clock():
    report = flow("layout prompt * 4, repeat { token }, prompt\nattend causal and window(3)", steps=6)
    cells = reads(report)
    assert ("prompt of section 0", "prompt of section 0", "0 to 2 ", "all", "directly") not in cells
    assert ("prompt of section 0", "prompt of section 0", "0 to 2", "all", "directly") in cells
    assert ("token", "prompt of section 0", "any", "12%", "directly") in cells  # 3 of 24
    assert ("prompt of section 2", "token", "any", "33%", "directly") in cells
    line = next(x for x in str(report).splitlines() if "0 to 2 tokens" in x)
    assert "prompt of section 0" in line and "steps back" in str(report)


def test_two_layouts_have_paths_of_one_hop():
    report = report_of("encoder-decoder")
    assert (report.rows, report.keys, report.has_two_layouts) == (8, 6, True) and "one hop" in str(report) and "later" not in str(report)
    compared = flow("queries layout repeat { a }\nkeys layout repeat { b }\nattend k.step <= q.step\nstop k, v where k.step < q.step", steps=4)
    assert reads(compared) == {("a", "b", "0 and more", "all", "directly")}
    assert compared.learns_in_words == ("A b row learns nothing from a rows 1 step or more after it.",)


def test_a_layout_given():
    told = {"role": ["word", "word", "note", "word"], "step": [0, 1, 1, 5], "slot": [0, 0, 0, 0]}
    report = flow("layout given { word, note }\nattend causal and k is word", given=told)
    assert ("word", "word", "0 and more", "all", "directly") in reads(report) and ("note", "word", "0 and more", "all", "directly") in reads(report)
    assert report.steps == 6 and "A note row is read by no other row." in report.reads_in_words


def test_rows_that_read_nothing():
    for text in ("attend false", "attend diagonal"):
        report = flow(text)
        assert report.reads_in_words == ("No row reads another.",) and report.learns_in_words == ()
    assert "  nobody\n" in str(flow("attend false")) and reads(flow("attend diagonal")) == {("token", "token", "itself", "all", "directly")}
    assert flow("attend causal", steps=0).rows == 0 and "nobody" in str(flow("attend causal", steps=0))


def test_what_stands_behind_is_read_and_said():
    report = flow("attend abs(q.pos - k.pos) <= 1", steps=5)
    assert reads(report) == {
        ("token", "token", "0 to 1, 1 ahead", "all", "directly"),
        ("token", "token", "2 and more, 2 and more ahead", "all", "through other rows, 2 to 4 hops"),
    }
    assert report.reads_in_words == ()


# ------------------------------------------------------------------------------------------------ words and sizes


@pytest.mark.parametrize(
    ("chosen", "there", "words", "after"),
    [
        ({0}, range(-3, 4), "0", "in the same step"),
        ({1}, range(4), "1", "1 step after it"),
        ({1, 2, 3}, range(4), "1 and more", "1 step or more after it"),
        ({1, 2}, range(-3, 4), "1 to 2", "1 to 2 steps after it"),
        ({0, 1, 2}, range(-3, 4), "0 to 2", "in the same step or 1 to 2 steps after it"),
        ({-2, -1, 0, 3}, range(-3, 4), "0, 3, 1 to 2 ahead", "in the same step or 3 steps after it or 1 to 2 steps before it"),
        ({-3, -2}, range(-3, 4), "2 and more ahead", "2 steps or more before it"),
        (set(range(-3, 4)), range(-3, 4), "any", ""),
        ({0}, range(1), "0", "in the same step"),
        ({0, 2, 4, 6, 8}, range(-9, 10), "0, 2, 4, 2 more ranges", "in the same step or 2 steps after it or 4 steps after it or 2 more ranges"),
        ({0, 5}, [-5, 0, 5], "0 and more", "in the same step or 1 step or more after it"),
    ],
)  # fmt: skip
def test_distances_in_words(chosen: set[int], there: Any, words: str, after: str):
    distances = among(Unit.STEPS, chosen, list(there))
    assert (str(distances), distances.after()) == (words, after)


def test_steps_are_chosen_so_that_numbers_show():
    def steps(text: str, **params: int) -> tuple[int | None, str]:
        spec = srt.parse(text, params=params)
        return choose_steps(spec.checked, spec.params)

    assert steps("attend causal") == (LEAST, "steps by default")
    assert steps("param far = 30\nattend causal and window(far)") == (34, "enough steps for far = 30 to show")
    assert steps("attend causal and window(20)") == (24, "enough steps for the text's 20 to show")
    assert steps("param n = 30\nlayout repeat { a * n }\nattend causal") == (LEAST, "steps by default")
    assert steps("layout a * 4\nattend causal") == (None, "")
    assert steps("param far = 9000\nattend causal and window(far)") == (LEAST, "steps by default; too few for far = 9000")
    most = MOST_TOKENS // 4
    assert steps("param far = 9\nlayout repeat { a * 4 }\nattend causal and k.step > far", far=most - 4)[0] == most
    assert steps("param far = 9\nlayout repeat { a * 4 }\nattend causal and k.step > far", far=most - 3)[0] == LEAST
    assert flow("param far = 3\nattend window(far)", inputs={"far": 40}).steps == 44 and flow("attend causal", steps=5).chosen == ""


def test_steps_are_those_of_an_input():
    doc = torch.tensor([0, 0, 1, 1, 1, 2])
    assert flow("input doc: int per token\nattend same(doc)", inputs={"doc": doc}).steps == 6
    assert flow("input doc: int per token\nattend same(doc)", inputs={"doc": doc[None]}).steps == 6
    assert flow("layout repeat { a, b }\ninput doc: int per token\nattend same(doc)", inputs={"doc": doc}).steps == 3
    assert flow("layout repeat { a, b }\ninput doc: int per step\nattend same(doc)", inputs={"doc": doc}).steps == 6


def test_a_report_is_short_to_look_at_and_whole_as_json():
    report = report_of("self-reasoning")
    assert repr(report) == "<FlowReport of zoo:self-reasoning: 100 rows, 5 ways to read, 6 to learn>"
    plain = json.loads(json.dumps(report.plain()))
    assert plain["params"] == {"reasons": 4, "horizon": 16} and plain["layers"] is None and plain["steps"] == 20
    assert plain["reads"][3] == {
        "reader": "reason", "read": "reason", "distances": [[0, 0]], "unit": "steps", "in_words": "0", "pairs": 200, "of": 320,
        "how": "directly", "where": "", "hops": None,
    }  # fmt: skip
    assert plain["learns"][1] == {
        "reader": "token", "read": "reason", "distances": [[1, 16]], "unit": "steps", "in_words": "1 to 16", "where": "",
        "gates": {"q": "whole", "k": "stopped", "v": "stopped"}, "returns": "never", "hops": None,
    }  # fmt: skip


def test_a_long_table_is_cut_and_says_so():
    roles = [f"r{i}" for i in range(8)]
    report = flow(f"layout repeat {{ {', '.join(roles)} }}\nattend full", steps=2)
    assert len(report.reads) > 40 and f"(and {len(report.reads) - 40} more: the report as JSON has them all)" in str(report)


@pytest.mark.parametrize(
    ("text", "named", "words"),
    [
        ("attend causal", {"steps": 3000}, r"at most 4,194,304 pairs; 3,000 rows that ask and 3,000 that are read have 9,000,000: give fewer steps=$"),
        ("param n = 9\nlayout a * (n * 1000)\nattend causal", {}, r"give fewer steps=, or smaller params"),
        ("attend causal and head == 0", {}, r"speaks of heads: give heads="), ("attend causal and layer == 0", {}, r"speaks of layers: give layers="),
        ("attend causal", {"steps": -1}, r"0 or more"), ("layout a * 3\nattend causal", {"steps": 2}, r"one length"),
        ("input doc: int per token\nattend same(doc)", {}, r"missing input `doc`"),
        ("input doc: int per token\nattend same(doc)", {"inputs": {"doc": torch.zeros(2, 4, dtype=torch.int64)}}, r"one row of the batch is wanted"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, named: dict, words: str):
    with pytest.raises(srt.InputError, match=words):
        flow(text, **named)


def test_a_text_is_no_spec():
    with pytest.raises(srt.InputError, match=r"flow takes a Spec; got str"):
        srt.flow("attend causal")  # type: ignore[arg-type]
