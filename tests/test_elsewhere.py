"""Masks from elsewhere: compared with specs, and made specs of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

import srt_masks as srt
from srt_masks.diagnostics import Source
from srt_masks.elsewhere import comparing
from srt_masks.grammar.formatter import format_text
from srt_masks.testing.case import Case
from srt_masks.testing.strategies import cases, whole

WINDOW = srt.parse("attend causal and window(4)")


def attended(case: Case) -> Tensor:
    return case.masks().attend[:, 0]


# ------------------------------------------------------------------------------------------------ equivalent


@settings(max_examples=20)
@given(whole(), st.integers(0, 2**30))
def test_a_mask_is_itself_and_no_other(case: Case, seed: int):
    mask = attended(case).clone(memory_format=torch.contiguous_format)
    sizes = {"heads": case.heads, "lengths": case.lengths, "inputs": {**case.inputs, **case.params}, "given": case.given}
    steps = case.steps if case.spec.checked.repeats else None
    layer = {"layer": 0, "layers": case.layers} if case.layers and case.spec.checked.speaks_of_layers else {}
    verdict = srt.equivalent(case.spec, mask, steps=steps, **sizes, **layer)
    assert verdict.equal and verdict.pair is None and verdict.differing == 0, verdict
    if not mask.numel():
        return
    place = seed % mask.numel()
    mask.view(-1)[place] ^= True
    verdict = srt.equivalent(case.spec, mask, steps=steps, **sizes, **layer)
    b, h, q, k = (int(x) for x in torch.unravel_index(torch.tensor(place), mask.shape))
    assert not verdict and verdict.differing == 1 and verdict.pairs == mask.numel()
    assert verdict.pair is not None and (verdict.pair.batch, verdict.pair.head, verdict.pair.query, verdict.pair.key) == (b, h, q, k)
    assert f"query {q} and key {k}" in str(verdict) and ">" in verdict.picture and "^" in verdict.picture


def test_facts_say_nothing_of_padding_where_rows_of_q_are_counted():
    spec = srt.parse("input seen: bool per query, key given seen or q.pos != k.pos  layout given { word }  queries where pos % 2 == 0  attend seen")
    laid = {"role": ["word"] * 3, "step": [0, 1, 2], "slot": [0, 0, 0]}
    seen = torch.zeros(3, 3, dtype=torch.bool)
    seen[0, 0] = True  # the one token of the second row; the others are padding, and break the fact
    mask = torch.zeros(2, 1, 2, 3, dtype=torch.bool)
    mask[1, 0, 0, 0] = True
    assert srt.equivalent(spec, mask, inputs={"seen": seen}, given=laid, lengths=[0, 1])
    with pytest.raises(srt.InputError, match="seen"):
        srt.equivalent(spec, mask, inputs={"seen": seen}, given=laid, lengths=[0, 2])
    none = torch.zeros(0, 1, 0, 3, dtype=torch.bool)
    assert srt.equivalent(spec, none, inputs={"seen": seen}, given=laid, lengths=[])


def test_the_first_pair_that_differs_is_drawn():
    verdict = srt.equivalent(WINDOW, lambda b, h, q, k: (q >= k) & (q - k <= 4), steps=7)
    assert not verdict and verdict.differing == 3
    assert str(verdict) == (
        "different: the mask_mod attends query 4 and key 0 (row 0 of the batch, layer 0, head 0), the spec does not\n"
        "3 of 49 pairs differ\n"
        "scope: steps=7, 7 x 7 pairs, heads=1, layers=1; exact there, and for no other size; the mask alone\n"
        "       keys 0 to 6\n"
        "      0 # . . . . . .\n"
        "      1 # # . . . . .\n"
        "      2 # # # . . . .\n"
        "      3 # # # # . . .\n"
        ">     4 2 # # # # . .\n"
        "        ^\n"
        "      5 . 2 # # # # .\n"
        "      6 . . 2 # # # #\n"
        "# both attend   . neither   1 only the spec   2 only the mask_mod"
    )


def test_rows_are_looked_at_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(comparing, "PAIRS_AT_ONCE", 64)
    mask = srt.dense(WINDOW, steps=30).attend[0, 0].clone()
    assert srt.equivalent(WINDOW, mask) and srt.equivalent(WINDOW, lambda b, h, q, k: (k <= q) & (q - k < 4), steps=30)
    mask[29, 0] = mask[17, 2] = mask[17, 1] = True
    verdict = srt.equivalent(WINDOW, mask)
    assert verdict.differing == 3 and verdict.pair is not None and (verdict.pair.query, verdict.pair.key) == (17, 1)
    monkeypatch.setattr(comparing, "MOST_PAIRS", 100)
    with pytest.raises(srt.InputError, match=r"900 pairs are too many.*at most 100"):
        srt.equivalent(WINDOW, mask)


def test_a_mask_mod_by_head_and_row_of_the_batch():
    spec = srt.parse("input doc: int per token\nattend causal and (same(doc) or head == 1)")
    doc = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 2, 2]])
    mod = lambda b, h, q, k: (k <= q) & ((doc[b, q] == doc[b, k]) | (h == 1))  # noqa: E731
    assert srt.equivalent(spec, mod, steps=5, heads=2, inputs={"doc": doc})
    wrong = srt.equivalent(spec, lambda b, h, q, k: (k <= q) & (doc[b, q] == doc[b, k]), steps=5, heads=2, inputs={"doc": doc})
    assert wrong.pair is not None and (wrong.pair.batch, wrong.pair.head) == (0, 1) and not wrong


def test_conventions_of_dense_masks():
    mask = srt.dense(WINDOW, steps=9).attend[0, 0]
    for lowest in (float("-inf"), torch.finfo(torch.float32).min):
        assert srt.equivalent(WINDOW, torch.zeros(9, 9).masked_fill(~mask, lowest))
    for shape in ((9, 9), (1, 9, 9), (2, 9, 9), (3, 2, 9, 9), (3, 1, 9, 9)):
        assert srt.equivalent(WINDOW, mask.expand(shape))
    opposite = srt.equivalent(WINDOW, ~mask)
    assert not opposite and "opposites" in opposite.reason and "True = ignore" in opposite.reason and "~mask" in opposite.reason
    assert "opposites" not in srt.equivalent(WINDOW, torch.zeros_like(mask)).reason


def test_two_specs():
    stops = srt.parse("param near = 2\nattend causal\nstop v where q.pos - k.pos < near")
    assert srt.equivalent(stops, srt.parse("attend k.pos < q.pos + 1\nscale v by 0 where q.pos < k.pos + 2"), steps=9)
    # What differs only on pairs that nobody attends is no difference.
    assert srt.equivalent(stops, srt.parse("attend causal\nstop v where window(2)"), steps=9)
    verdict = srt.equivalent(stops, stops.with_params(near=3), steps=9)
    assert (
        not verdict and "gate v" in verdict.reason and verdict.differing == 7 and verdict.pair is not None and (verdict.pair.query, verdict.pair.key) == (2, 0)
    )
    for rule in ("stop q", "stop k", "stop hidden"):
        assert not srt.equivalent(srt.parse("attend causal"), srt.parse(f"attend causal\n{rule}"), steps=3)
    layers = srt.parse("attend causal and (layer == 1 or window(3))")
    wrong = srt.equivalent(layers, srt.parse("attend causal and window(3)"), steps=9, layers=3)
    assert wrong.pair is not None and wrong.pair.layer == 1
    reasoning = srt.parse("layout repeat { token, reason }\nattend causal")
    assert srt.equivalent(reasoning, srt.parse("attend causal"), steps=4)
    docs = srt.parse("input doc: int per token\nattend same(doc)")
    assert not srt.equivalent(docs, srt.parse("attend full"), steps=3, inputs={"doc": torch.tensor([0, 0, 1])})
    with pytest.raises(srt.InputError, match="neither spec has an input or param `docs`"):
        srt.equivalent(docs, docs, steps=3, inputs={"docs": torch.tensor([0, 0, 1])})


def test_what_is_left_out_is_said():
    stops = srt.parse("attend causal\nstop v")
    mask = torch.ones(3, 3).tril().bool()
    assert "gradient rules have no counterpart" in srt.equivalent(stops, mask).scope
    assert "gradient rules" not in srt.equivalent(srt.parse("attend causal"), mask).scope
    assert "no other size" in srt.equivalent(stops, stops, steps=3).scope


def block_mask(tokens: int = 300) -> BlockMask:
    return create_block_mask(lambda b, h, q, k: (q >= k) & (q - k < 4), None, None, tokens, tokens, device="cpu", BLOCK_SIZE=64)


def test_a_block_mask_is_held_to_its_own_predicate():
    assert srt.equivalent(WINDOW, block_mask())
    assert srt.equivalent(WINDOW, srt.compile(WINDOW, tile=16).plan(100).to_flex(device="cpu"))
    other = srt.equivalent(srt.parse("attend causal and window(5)"), block_mask())
    assert not other and "the BlockMask does not" in other.reason

    def faulty(change: Any) -> str:
        found = block_mask()
        change(found)
        verdict = srt.equivalent(WINDOW, found)
        assert not verdict
        return verdict.reason

    def drop(m: BlockMask) -> None:
        m.kv_num_blocks[0, 0, 2] = 1
        m.q_indices = m.q_num_blocks = None

    def promote(m: BlockMask) -> None:
        assert m.full_kv_num_blocks is not None and m.full_kv_indices is not None
        m.full_kv_num_blocks[0, 0, 3], m.full_kv_indices[0, 0, 3, 0] = 1, 1
        m.full_q_indices = m.full_q_num_blocks = None

    def twice(m: BlockMask) -> None:
        m.kv_indices[0, 0, 2, 1] = m.kv_indices[0, 0, 2, 0]

    def both(m: BlockMask) -> None:
        assert m.full_kv_num_blocks is not None and m.full_kv_indices is not None
        m.full_kv_num_blocks[0, 0, 0], m.full_kv_indices[0, 0, 0, 0] = 1, 0

    def outside(m: BlockMask) -> None:
        m.kv_indices[0, 0, 0, 0] = 7

    def backward(m: BlockMask) -> None:
        assert m.q_num_blocks is not None
        m.q_num_blocks[0, 0, 1] = 1

    assert "drop a pair that its mask_mod keeps" in faulty(drop)
    assert "a FULL tile holds a pair that its mask_mod refuses" in faulty(promote)
    assert "kv_indices lists a tile twice" in faulty(twice)
    assert "as FULL and as PARTIAL" in faulty(both)
    assert "tiles that are not there" in faulty(outside)
    assert "which the backward follows" in faulty(backward)


def test_a_block_mask_is_looked_at_a_few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(comparing, "PAIRS_AT_ONCE", 300 * 50)
    assert srt.equivalent(WINDOW, block_mask())


@settings(max_examples=15)
@given(cases(most_steps=8))
def test_our_block_masks_hold(case: Case):
    if case.steps == 0:
        return
    plan = srt.compile(case.spec, heads=case.heads, tile=16).plan(case.extents.tokens, inputs=dict(case.inputs))
    verdict = srt.equivalent(case.spec, plan.to_flex(device="cpu", gradients="drop"), heads=case.heads, inputs=dict(case.inputs))
    assert verdict, verdict


def test_comparisons_that_cannot_be_made():
    def refused(words: str, other: Any, spec: srt.Spec = WINDOW, **options: Any) -> None:
        with pytest.raises(srt.InputError, match=words):
            srt.equivalent(spec, other, **options)

    mask = torch.ones(9, 9).tril().bool()
    refused("mask.bool", mask.long())
    refused("True = ignore", mask.int())
    refused(r"0.5 at \[1, 0\] is neither", torch.zeros(2, 2).index_put((torch.tensor(1), torch.tensor(0)), torch.tensor(0.5)))
    refused("got shape", mask[0])
    refused("meta tensor", mask.to("meta"))
    refused(r"9 x 8 \(queries x keys\); the spec is 8 x 8", mask[:, :8])
    refused(r"padding mask \(batch, keys\).*mask\[:, None, None, :\]", torch.ones(2, 9).bool(), steps=9, lengths=[9, 4])
    refused("has 3 heads, this call has 2.*unsqueeze", mask.expand(3, 9, 9), heads=2)
    refused("has 3 rows of the batch, this call has 2", mask.expand(3, 1, 9, 9), lengths=[9, 9])
    refused("score_mod", lambda score, b, h, q, k: score, steps=4)
    refused("this one takes 2: q, k", lambda q, k: q >= k, steps=4)
    refused("a truth value for a pair; this one gives int64", lambda b, h, q, k: q - k, steps=4)
    refused("fails when FlexAttention's create_mask calls it: IndexError", lambda b, h, q, k: torch.ones(2, 2).bool()[q, k], steps=4)
    refused("give steps=", lambda b, h, q, k: q >= k)
    refused("got str", "attend causal", steps=4)
    refused(r"got ndarray: give torch.from_numpy\(mask\)", np.ones((4, 4), bool))
    refused(r"got list: give torch.tensor\(mask\)", [[True]])
    refused("where the mask_mod is called, and torch finds no 'gpu7x' here", lambda b, h, q, k: q >= k, steps=4, device="gpu7x")
    refused(r"2 x 4 .*padding mask \(batch, keys\) is no mask of pairs.*lengths=", torch.ones(2, 4).bool(), steps=4)
    refused("speaks of layers.*give layer=, from 0 to 1", mask, srt.parse("attend layer == 0 and causal"), layers=2)
    refused("this layout has 2 a step", mask, srt.parse("layout repeat { a, b }\nattend causal"))
    refused("differ in size", srt.parse("layout token * 3\nattend causal"), steps=4)
    with pytest.raises(srt.InputError, match="takes a Spec; got str"):
        srt.equivalent("attend causal", mask)  # type: ignore[arg-type]


def test_layers_of_a_spec_one_at_a_time():
    spec = srt.parse("attend causal and (layer == 1 or window(4))")
    window, causal = (srt.dense(spec, steps=9, layers=2).attend[i, 0] for i in range(2))
    assert srt.equivalent(spec, window, layers=2, layer=0) and srt.equivalent(spec, causal, layers=2, layer=1)
    assert not srt.equivalent(spec, window, layers=2, layer=1)


def test_one_layer_of_two_specs_alone():
    first, second = srt.parse("attend causal and (layer == 1 or window(4))"), srt.parse("attend causal")
    assert not srt.equivalent(first, second, steps=9, layers=2) and not srt.equivalent(first, second, steps=9, layers=2, layer=0)
    same = srt.equivalent(first, second, steps=9, layers=2, layer=1)
    assert same and same.scope.startswith("layer=1 of ")
    for layer in (2, -1):
        for other in (second, torch.ones(9, 9).tril().bool()):
            with pytest.raises(srt.InputError, match="layer is a whole number from 0 to 1"):
                srt.equivalent(first, other, steps=9, layers=2, layer=layer)


def test_other_tokens_that_ask_are_another_spec():
    """Both masks are 2 x 4 pairs, all attended: of the first two tokens, and of the last two."""
    first, second = (srt.parse(f"queries where pos {when} 2\nattend full") for when in ("<", ">="))
    found = srt.equivalent(first, second, steps=4)
    assert not found and "row 0 of q is token 0 in the first and 2 in the second" in found.reason
    assert srt.equivalent(second, srt.parse("queries where not pos < 2\nattend k.pos >= 0"), steps=4)


@pytest.mark.parametrize("mod", [lambda *places: places[2] >= places[3], lambda b, *rest: rest[1] >= rest[2], lambda b, h, q, k, *rest: q >= k])
def test_a_mask_mod_takes_its_arguments_as_it_likes(mod):
    assert srt.equivalent(srt.parse("attend causal"), mod, steps=4)


def test_a_factor_that_is_no_number_is_like_itself():
    spec, w = srt.parse("input w: float per key\nattend causal\nscale k by k.w"), torch.tensor([1.0, float("nan")])
    assert srt.equivalent(spec, spec, steps=2, inputs={"w": w})
    for other in (srt.parse("attend causal"), srt.parse(f"{spec.text} + 1.0")):
        assert not srt.equivalent(spec, other, steps=2, inputs={"w": w})


def test_fewer_heads_than_the_other_mask_has():
    from torch.nn.attention.flex_attention import create_block_mask

    spec, mask = srt.parse("attend causal"), torch.ones(4, 40, 40).tril().bool()
    blocks = create_block_mask(lambda b, h, q, k: (q >= k) & (h < 1), None, 4, 40, 40, device="cpu", BLOCK_SIZE=16)
    for other in (mask, blocks):
        with pytest.raises(srt.InputError, match="has 4 heads, this call has 1"):
            srt.equivalent(spec, other, heads=1)
    assert srt.equivalent(spec, mask) and not srt.equivalent(spec, blocks)


def test_the_scope_says_the_numbers_that_were_compared():
    first, second = (srt.parse(f"param w = {w}\nattend causal and window(w)") for w in (2, 3))
    assert "w=4" in srt.equivalent(first, second, steps=6, inputs={"w": 4}).scope
    assert "w=[2, 3]" in srt.equivalent(first, first, steps=6, inputs={"w": torch.tensor([2, 3])}).scope


# ------------------------------------------------------------------------------------------------ from_dense


def holds(mask: Tensor, **gates: Tensor) -> srt.Spec:
    """The spec and inputs of from_dense give the mask and the gates again, exactly."""
    spec, inputs = srt.from_dense(mask, **gates)
    steps = mask.shape[-1] if spec.checked.repeats else None
    shape = torch.broadcast_shapes(mask.shape, *(g.shape for g in gates.values()), (1, 1, 1, 1))
    found = srt.dense(spec, steps=steps, heads=shape[1], inputs=inputs)
    assert torch.equal(found.attend.reshape(-1, *shape[1:]).expand(shape), mask.expand(shape))
    for name, said in gates.items():
        wanted = (~said).double() if said.dtype is torch.bool else said.double()
        gate = getattr(found, f"gate_{name[-1]}")
        assert torch.equal(gate.reshape(-1, *shape[1:]).expand(shape), wanted.expand(shape)), name
    assert format_text(Source(spec.text)) == spec.text
    return spec


@given(st.integers(0, 2**30), st.sampled_from([(7, 7), (5, 9), (1, 1), (2, 6, 6), (1, 6, 6), (3, 2, 5, 4), (3, 1, 6, 6)]))
def test_random_masks_are_tables(seed: int, shape: tuple[int, ...]):
    torch.manual_seed(seed)
    mask = torch.rand(shape) < 0.5
    holds(mask)
    holds(mask, stop_v=torch.rand(shape) < 0.5, stop_k=torch.rand(shape[-2:]), stop_q=torch.rand(1, shape[-1]) < 0.3)


def test_gates_with_more_heads_than_the_mask():
    mask = torch.ones(6, 6).tril().bool()
    spec = holds(mask, stop_v=torch.rand(3, 6, 6) < 0.5)
    assert "attend causal" in spec.text and "input stop_v: bool per head, query, key" in spec.text


def test_regular_masks_get_their_words():
    q, k = torch.arange(12)[:, None], torch.arange(12)
    doc = srt.documents(lengths=[3, 1, 5, 3])["doc"]
    named = {
        "full": torch.ones(12, 12).bool(), "causal": k <= q, "causal and window(span)": (k <= q) & (q - k < 4), "window(span)": (q - k).abs() < 5,
        "causal or k.pos < prefix": (k <= q) | (k < 5), "causal and same(doc)": (k <= q) & (doc[:, None] == doc), "same(doc)": doc[:, None] == doc,
    }  # fmt: skip
    for words, mask in named.items():
        assert f"attend {words}\n" in holds(mask).text
        assert "input mask: bool per query, key" in srt.from_dense(mask, recognise=False).spec.text
        for _ in range(20):  # one pair changed makes another mask, or a table
            other = mask.clone()
            other.view(-1)[int(torch.randint(144, ()))] ^= True
            holds(other)
    assert srt.from_dense(torch.zeros(4, 4).bool()).spec.text.startswith("input")


def test_float_masks_and_results():
    mask = torch.rand(8, 8) < 0.6
    spec, inputs = srt.from_dense(torch.zeros(8, 8).masked_fill(~mask, float("-inf")))
    assert srt.equivalent(spec, mask, inputs=inputs)
    q, k, v = (torch.randn(1, 2, 8, 16) for _ in range(3))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).nan_to_num()
    assert torch.allclose(srt.compile(spec)(q, k, v, inputs=inputs), wanted, atol=1e-5)


def test_dense_masks_that_are_none():
    def refused(words: str, mask: Any, **gates: Any) -> None:
        with pytest.raises(srt.InputError, match=words):
            srt.from_dense(mask, **gates)

    mask = torch.ones(4, 4).bool()
    refused(r"a dense mask is a tensor; got list: give torch.tensor\(mask\)", [[True]])
    refused(r"got ndarray: give torch.from_numpy\(mask\)", np.ones((4, 4), bool))
    refused("mask.bool", mask.int())
    refused("at least one query and one key", torch.ones(0, 4).bool())
    refused("stop_v is a bool tensor, True = stopped, or a float one.*got int64", mask, stop_v=mask.long())
    refused("got list", mask, stop_k=[[True]])
    refused(r"stop_q has the mask's shape.*\(4, 4\); got \(3, 4\)", mask, stop_q=torch.ones(3, 4).bool())
    refused("stop_q has the mask's shape", mask.expand(2, 4, 4), stop_q=torch.ones(3, 4, 4).bool())
    refused("not finite", mask, stop_v=torch.full((4, 4), float("nan")))
    refused("requires grad", mask, stop_v=torch.ones(4, 4, requires_grad=True))


# ------------------------------------------------------------------------------------------------ documents


def test_documents_from_lengths_and_from_sums():
    found = srt.documents(lengths=[3, 0, 2])
    assert {n: t.tolist() for n, t in found.items()} == {"doc": [0, 0, 0, 2, 2], "start": [0, 0, 0, 3, 3], "position": [0, 1, 2, 0, 1]}
    again = srt.documents(cu_seqlens=torch.tensor([0, 3, 3, 5], dtype=torch.int32))
    assert all(torch.equal(found[n], t) for n, t in srt.documents(lengths=np.array([3, 0, 2], np.uint16)).items())
    assert all(torch.equal(found[n], again[n]) and found[n].dtype is torch.int64 for n in found)
    assert all(len(t) == 0 for t in srt.documents(lengths=[]).values()) and len(srt.documents(cu_seqlens=[0])["doc"]) == 0


@pytest.mark.parametrize(("arguments", "words"), [
    ({}, "one of the two"), ({"lengths": [1], "cu_seqlens": [0, 1]}, "one of the two"), ({"lengths": [2, -1]}, "0 or more"), ({"lengths": 3}, "vector of whole numbers"),
    ({"lengths": [1.5]}, "whole numbers"), ({"lengths": np.array([1.0])}, "whole numbers; got float64 of shape"), ({"lengths": [True]}, "whole numbers"), ({"lengths": "12"}, "whole numbers"), ({"lengths": [[1, 2]]}, "whole numbers"),
    ({"lengths": torch.tensor([1.0])}, "whole numbers; got float32 of shape"), ({"lengths": torch.ones(2, 2).long()}, r"shape \(2, 2\)"),
    ({"lengths": torch.tensor(3)}, r"shape \(\)"), ({"cu_seqlens": [1, 2]}, "begin with 0"), ({"cu_seqlens": [0, 3, 2]}, "running sums"), ({"cu_seqlens": []}, "begin with 0"),
    ({"lengths": [2**40]}, "at most"), ({"lengths": [2**62, 2**62]}, "at most"), ({"lengths": [2**70]}, "at most"), ({"cu_seqlens": [0, 2**40]}, "at most"),
    ({"lengths": torch.tensor([2**63], dtype=torch.uint64)}, "got uint64"), ({"lengths": torch.ones(2, device="meta").long()}, "meta"),
])  # fmt: skip
def test_documents_from_nonsense(arguments: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        srt.documents(**arguments)
