"""Models from a spec, checkpoints, sampling; and the original library's names with their meaning."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

import srt_masks as srt
from srt_masks.reference.attention import attention

SELF_REASONING = (ROOT / "examples" / "self_reasoning.mask").read_text()
SMALL = {"dim": 16, "depth": 2, "heads": 2, "num_tokens": 50}


def model_of(text: str, **params):
    return srt.build_model(srt.parse(text, params=params or None), **SMALL)


def test_the_loss_is_the_weighted_mean_over_predicting_rows():
    text = "layout repeat { token, reason }\nattend causal\npredict token -> index + 1\npredict reason -> index + 2 weight 1 / (step + 1) where step != 1"
    model, x = model_of(text), torch.randint(0, 50, (3, 5))
    table = srt.tokens(model.spec, steps=5)
    logits = model(x, all_rows=True)
    total = weights = 0.0
    for row in range(10):
        target, weight = int(table.target[row]), float(table.weight[row])
        if target >= 0:
            entropy = F.cross_entropy(logits[:, row], x[:, target], reduction="sum")
            total, weights = total + weight * entropy, weights + 3 * weight
    parts = model(x, return_parts=True)
    torch.testing.assert_close(parts.loss, total / weights)
    assert list(parts.parts) == ["token", "reason"]
    last = {int(t): row for row, t in enumerate(table.target.tolist()) if t >= 0}
    entropies = torch.cat([F.cross_entropy(logits[:, row], x[:, t], reduction="none") for t, row in last.items()])
    torch.testing.assert_close(parts.last, entropies.mean())
    torch.testing.assert_close(model(x, return_loss=True), parts.loss)


def test_logits_come_from_the_last_row_that_predicts_each_word():
    model, x = model_of(SELF_REASONING), torch.randint(0, 50, (2, 6))
    logits, rows = model(x), model(x, all_rows=True)
    assert logits.shape == (2, 5, 50) and rows.shape == (2, 30, 50)
    assert torch.equal(logits, rows[:, 4:25:5])
    torch.testing.assert_close(model.next_logits(x), rows[:, 29])


def test_a_model_is_causal_in_its_words():
    model, x = model_of(SELF_REASONING), torch.randint(0, 50, (1, 8))
    changed = x.clone()
    changed[0, 5] = (x[0, 5] + 1) % 50
    a, b = model(x, all_rows=True), model(changed, all_rows=True)
    assert torch.equal(a[:, :25], b[:, :25]) and not torch.equal(a[:, 25:], b[:, 25:])


def test_the_rule_holds_inside_the_model():
    """What the loss of one step teaches the keys and values of earlier reasoning tokens: nothing, within the horizon."""
    model = srt.build_model(srt.parse(SELF_REASONING, params={"reasons": 1, "horizon": 2}), dim=16, depth=1, heads=2, num_tokens=50)
    taught = {}
    attend = model.attend

    def watched(q, k, v, **options):
        k.register_hook(lambda g: taught.setdefault("k", g))
        v.register_hook(lambda g: taught.setdefault("v", g))
        return attend(q, k, v, **options)

    watched.compiled = attend.compiled  # type: ignore[attr-defined]
    model.attend = watched
    model(torch.randint(0, 50, (1, 6)), all_rows=True)[:, 8:10].square().sum().backward()  # the rows of step 4
    for name in ("k", "v"):
        by_row = taught[name].abs().amax((0, 1, 3))
        assert (by_row == 0).tolist() == [False, False, False, False, False, True, False, True, False, False, True, True]


def test_reference_and_tiled_train_alike():
    x = torch.randint(0, 50, (2, 5))
    grads = []
    for backend in ("tiled", "reference"):
        torch.manual_seed(1)
        model = srt.build_model(srt.parse(SELF_REASONING, params={"horizon": 2, "reasons": 2}), **SMALL, backend=backend).double()
        model(x, return_loss=True).backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_run_time_inputs_and_params_reach_the_model():
    text = "param far = 3\ninput doc: int per token\nattend causal and same(doc) and window(far)\npredict token -> index + 1 where doc[pos + 1] == doc"
    model, x = model_of(text), torch.randint(0, 50, (2, 6))
    doc = torch.tensor([0, 0, 0, 1, 1, 1])
    alone = model(x[:, 3:], all_rows=True, doc=torch.zeros(3, dtype=torch.int64))
    assert model(x, doc=doc).shape == (2, 4, 50)
    assert not torch.equal(model(x, doc=doc, all_rows=True), model(x, doc=doc * 0, all_rows=True))
    assert not torch.equal(model(x, doc=doc, all_rows=True), model(x, doc=doc, all_rows=True, far=1))
    assert alone.shape == (2, 3, 50)
    each = torch.stack([doc, doc * 0])
    batched = model(x, doc=each, return_loss=True)
    apart = [model(x[b : b + 1], doc=each[b], return_parts=True) for b in range(2)]
    torch.testing.assert_close(batched, (4 * apart[0].loss + 5 * apart[1].loss) / 9)


@pytest.mark.parametrize("ragged", [{}, {"lengths": [3, 6]}], ids=["whole", "ragged"])
def test_a_model_that_was_tried_in_inference_mode_learns_all_the_same(ragged: dict):
    model, x = model_of(SELF_REASONING), torch.randint(0, 50, (2, 6))
    with torch.inference_mode():
        tried = model(x, return_loss=True, **ragged)
        srt.sample(model, [[1, 2, 3]], 3, seed=0)
    loss = model(x, return_loss=True, **ragged)
    loss.backward()
    assert torch.equal(loss, tried)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("whole", [np.int64, torch.tensor])
def test_sizes_may_be_whole_numbers_of_numpy_and_torch(whole, tmp_path: Path):
    spec = srt.parse("attend causal\npredict token -> index + 1")
    model = srt.build_model(spec, **{name: whole(size) for name, size in {**SMALL, "key_heads": 1, "max_positions": 9}.items()})
    srt.save_model(model, tmp_path / "model.safetensors")  # as JSON, which knows Python's alone
    assert srt.load_model(tmp_path / "model.safetensors").config == model.config
    assert str(model.tokens(whole(3))) == str(model.tokens(3))
    layer = srt.nn.Attention(spec, whole(8), whole(2), key_heads=whole(1))
    assert layer(torch.zeros(1, 4, 8)).shape == (1, 4, 8)


def test_a_layout_with_sections_needs_positions():
    with pytest.raises(srt.InputError, match="position"):
        model_of("layout sink, repeat { token }\nattend causal")
    model = model_of("layout sink * 3, repeat { token }\nattend causal\nposition pos\npredict token -> index + 1")
    assert model(torch.randint(0, 50, (2, 5))).shape == (2, 4, 50)


def test_save_and_load_carry_the_spec(tmp_path: Path):
    model = model_of(SELF_REASONING, reasons=2)
    srt.save_model(model, tmp_path / "m.safetensors")
    again = srt.load_model(tmp_path / "m.safetensors")
    x = torch.randint(0, 50, (1, 5))
    assert torch.equal(model(x), again(x)) and again.spec.params == model.spec.params and again.spec.text == model.spec.text
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    srt.save_model(model.double(), tmp_path / "m.safetensors")
    assert next(srt.load_model(tmp_path / "m.safetensors").parameters()).dtype is torch.float64


@pytest.mark.parametrize("whole", [True, False], ids=["the model", "its blocks"])
def test_a_model_that_torch_compiled_is_saved_and_sampled_as_itself(whole: bool, tmp_path: Path):
    model, x, path = model_of(SELF_REASONING), torch.randint(0, 50, (2, 6)), tmp_path / "model.safetensors"
    logits, written = model(x), srt.sample(model, [[1, 2, 3]], 3, seed=0)
    compiled = torch.compile(model, backend="eager") if whole else model
    if not whole:
        for number, block in enumerate(model.blocks):
            model.blocks[number] = torch.compile(block, backend="eager")
    srt.save_model(compiled, path)
    assert torch.equal(srt.load_model(path)(x), logits)
    assert srt.sample(compiled, [[1, 2, 3]], 3, seed=0) == written


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path):
    path = tmp_path / "model.safetensors"

    def refused(model: object, words: str) -> None:
        with pytest.raises(srt.InputError, match=words):
            srt.save_model(model, path)
        assert not path.exists()

    refused(torch.nn.DataParallel(model_of(SELF_REASONING)), r"save_model takes a model of build_model; got DataParallel, round one: give its \.module")
    refused(torch.nn.Linear(2, 2), "got Linear$")
    model = model_of(SELF_REASONING)
    torch.nn.utils.parametrizations.weight_norm(next(m for m in model.modules() if isinstance(m, torch.nn.Linear)))
    refused(model, r"could not be loaded again: \S+parametrizations\S+ is none of build_model's")
    model = model_of(SELF_REASONING)
    model.slot_embedding = torch.nn.Embedding(9, 16)
    refused(model, r"slot_embedding.weight is \(5, 16\) as built, and \(9, 16\) here")
    with torch.device("meta"):
        refused(model_of(SELF_REASONING), "holds no numbers")


def test_several_predictions_of_one_role_are_those_of_the_reference():
    text = "attend causal\nposition step\npredict token -> index + 1\npredict token -> index + 2 weight 1 / 2\npredict token -> index + 3 where step == 0"
    model = srt.build_model(srt.parse(text), dim=16, depth=1, heads=2, num_tokens=7)
    x = torch.randint(0, 7, (1, 5))
    wanted = srt.tokens(model.spec, steps=5, heads=2, layers=1)
    assert wanted.target.tolist() == [3, 3, 4, 4, -1]
    logits = model(x, all_rows=True)[0]
    known = wanted.target >= 0
    losses = torch.nn.functional.cross_entropy(logits[known], x[0][wanted.target[known]], reduction="none")
    weights = wanted.weight[known].float()
    torch.testing.assert_close(model(x, return_loss=True), (losses * weights).sum() / weights.sum())


def test_words_of_any_whole_type_and_a_text_without_labels():
    model = model_of(SELF_REASONING)
    x = torch.randint(0, 11, (1, 6)).int()
    assert torch.equal(model(x, return_loss=True), model(x.long(), return_loss=True))
    silent = srt.build_model(srt.parse("attend causal"), dim=16, depth=1, heads=2, num_tokens=7)
    with pytest.raises(srt.InputError, match="has no `predict`"):
        silent(x % 7)
    assert silent(x % 7, all_rows=True).shape == (1, 6, 7)
    for name, words in (
        ("vocab_size", "write num_tokens="),
        ("dropout", "not part of the language"),
        ("dpeth", "did you mean `depth`"),
        ("zzz", "it takes dim"),
    ):
        with pytest.raises(srt.InputError, match=words):
            srt.build_model(silent.spec, dim=16, depth=1, heads=2, num_tokens=7, **{name: 1})


def test_broken_and_foreign_checkpoints_are_refused(tmp_path: Path):
    from safetensors.torch import save_file

    path = tmp_path / "m.safetensors"
    srt.save_model(model_of(SELF_REASONING), path)
    whole = path.read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise").write_bytes(os.urandom(1000))
    (tmp_path / "empty").write_bytes(b"")
    save_file({"x": torch.zeros(3)}, tmp_path / "foreign")
    save_file({"x": torch.zeros(3)}, tmp_path / "liar", {"format": "srt_masks model 1", "spec": "{", "config": "{}"})
    huge = json.dumps({"dim": 10**6, "depth": 10**6, "heads": 1, "num_tokens": 10**6, "dim_head": 1, "max_positions": 10})
    save_file(
        {"x": torch.zeros(3)},
        tmp_path / "huge",
        {"format": "srt_masks model 1", "spec": json.dumps({"text": "attend causal", "params": {}, "filename": "x"}), "config": huge},
    )
    greedy = {"text": "layout repeat { token, reason * 2000000000 }\nattend causal", "params": {}, "filename": "x"}
    sizes = {"dim": 8, "depth": 1, "heads": 1, "num_tokens": 10, "dim_head": 8, "max_positions": 10}
    save_file({"x": torch.zeros(3)}, tmp_path / "greedy", {"format": "srt_masks model 1", "spec": json.dumps(greedy), "config": json.dumps(sizes)})
    save_file({"x": torch.zeros(3)}, tmp_path / "later", {"format": "srt_masks model 2"})
    with pytest.raises(srt.InputError, match="later says `srt_masks model 2`; this version reads `srt_masks model 1`"):
        srt.load_model(tmp_path / "later")
    torch.save({"x": torch.zeros(3)}, tmp_path / "pickle")
    with pytest.raises(srt.InputError, match=r"pickle: it is a pickle, as torch\.save writes them"):
        srt.load_model(tmp_path / "pickle")
    odd = {"format": "srt_masks model 1", "spec": json.dumps({"text": "attend causal", "params": {}, "filename": "x"})}
    save_file({"x": torch.zeros(3)}, tmp_path / "escape", {**odd, "config": json.dumps({**sizes, "\x1b[2J": 1})})
    save_file({f"x{i}": torch.zeros(1) for i in range(5000)}, tmp_path / "layers", {**odd, "config": json.dumps({**sizes, "depth": 5000})})
    begin = time.process_time()
    with pytest.raises(srt.InputError) as error:
        srt.load_model(tmp_path / "escape")
    assert "\x1b" not in str(error.value)
    with pytest.raises(srt.InputError, match="sizes do not fit"):
        srt.load_model(tmp_path / "layers")
    assert time.process_time() - begin < 2
    for name in ("greedy", "cut", "noise", "empty", "foreign", "liar", "huge", "missing"):
        with pytest.raises(srt.InputError, match=name):
            srt.load_model(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"dim": 15}, "multiple of heads"), ({"heads": 0}, "1 or more"), ({"depth": True}, "whole number"), ({"num_tokens": 2.5}, "whole number")],
)
def test_sizes_that_do_not_fit(options: dict, words: str):
    with pytest.raises(srt.InputError, match=words):
        srt.build_model(srt.parse("attend causal"), **{**SMALL, **options})


def test_tokens_that_do_not_fit():
    model = model_of("layout repeat { token * 2, reason }\nattend causal\npredict reason -> index + 1")
    for x, words in (
        (torch.zeros(2, 5, dtype=torch.int64), "5 data tokens"), (torch.full((1, 4), 50), "knows 0 to 49"), (torch.zeros(1, 4), "whole numbers"), ([1, 2], "whole numbers"),
        (torch.zeros(1, 2, dtype=torch.int64), "nothing to predict"),
    ):  # fmt: skip
        with pytest.raises(srt.InputError, match=words):
            model(x, return_loss=True)
    with pytest.raises(srt.InputError, match="no `predict`"):
        model_of("attend causal")(torch.zeros(1, 4, dtype=torch.int64), return_loss=True)


# ------------------------------------------------------------------------------------------------ the original's names


def _original_masks(steps: int, reasons: int, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal, and too soon, written as the original's documentation says it."""
    rows = steps * (reasons + 1)
    step = torch.arange(rows) // (reasons + 1)
    late = step[:, None] - step[None]
    soon = (torch.arange(rows) % (reasons + 1) != 0)[None] & (late > 0) & (late <= horizon)
    return torch.ones(rows, rows).tril().bool(), soon


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("reasons", [0, 3])
def test_transformer_means_what_the_original_means(stop: bool, reasons: int):
    model = srt.Transformer(dim=16, num_tokens=20, depth=2, dim_head=8, heads=2, stop_grad_next_tokens_to_reason=stop).double()
    x = torch.randint(0, 20, (2, 6))
    causal, soon = _original_masks(5, reasons, 2)
    attended, gate = (causal, (~soon).double()) if stop else (causal & ~soon, torch.ones(1, 1))

    def plain(q, k, v):
        return attention(q, k, v, attended, torch.ones(1, 1), gate, gate)[0]

    words, labels = x[:, :-1], x[:, 1:]
    state = torch.stack([model.token_emb(words), *(model.reason_tokens[r].expand(2, 5, 16) for r in range(reasons))], 2).flatten(1, 2)
    state = state + model.pos_emb.weight[:5].repeat_interleave(reasons + 1, 0)
    for layer in model.layers:
        state = layer(state, plain)
    logits = model.to_logits(model.norm(state))
    expected = F.cross_entropy(logits.transpose(1, 2), labels.repeat_interleave(reasons + 1, 1), ignore_index=-1)
    loss = model(x, num_reason_tokens=reasons, return_loss=True)
    torch.testing.assert_close(loss, expected)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(loss, parameters, allow_unused=True), torch.autograd.grad(expected, parameters, allow_unused=True), strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b)
        else:
            assert all(g is None or not g.any() for g in (a, b))  # reasoning tokens that are not used
    torch.testing.assert_close(model(words, num_reason_tokens=reasons), logits)
    torch.testing.assert_close(model(words, num_reason_tokens=reasons, remove_reason_tokens_at_end=True), logits[:, :: reasons + 1])


def test_transformer_ignores_labels_and_refuses_what_does_not_fit():
    model = srt.Transformer(dim=16, num_tokens=20, depth=1, heads=2, max_seq_len=5, ignore_index=7)
    x = torch.tensor([[1, 7, 7, 3]])
    assert torch.equal(model(x.int(), return_loss=True), model(x, return_loss=True))
    only_last = F.cross_entropy(model(x[:, :-1])[:, 2], torch.tensor([3]))
    torch.testing.assert_close(model(x, return_loss=True), only_last)
    for arguments, words in (
        ((torch.zeros(1, 6, dtype=torch.int64),), "max_seq_len"),
        ((x, 5), "max_reason_seq_len"),
        ((x[0],), "batch, tokens"),
        ((x, 2.0), "whole number"),
        ((x + 19,), "knows 0 to 19"),
        ((x.float(),), "whole numbers"),
        (([1],), "whole numbers"),
    ):
        with pytest.raises(srt.InputError, match=words):
            model(*arguments)
    with pytest.raises(srt.InputError, match="2 tokens"):
        model(x[:, :1], return_loss=True)


def _gate(mask):
    return torch.ones(1, 1) if mask is None else (~mask).double() if mask.dtype is torch.bool else mask.double()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(12, 12), (5, 12), (12, 5)])
def test_stop_graddable_attn_means_what_the_original_means(causal: bool, queries: int, keys: int):
    q, k, v = (torch.randn(2, 3, n, 4, dtype=torch.float64, requires_grad=True) for n in (queries, keys, keys))
    seen = torch.rand(2, keys) > 0.2
    choices = [
        None,
        torch.rand(3, queries, keys) > 0.5,
        torch.rand(queries, keys),
        torch.rand(2, 1, queries, keys) > 0.5,
        torch.rand(2, 3, queries, keys),
        torch.rand(1, keys) > 0.5,
    ]
    for shift in range(len(choices)):
        gq, gk, gv = (choices[(shift + i) % len(choices)] for i in range(3))
        allowed = None if shift % 2 else torch.rand(3, queries, keys) > 0.2
        out = srt.stop_graddable_attn(q, k, v, seen, allowed, causal, gq, gk, gv)
        attend = seen[:, None, None].expand(2, 3, queries, keys)
        attend = attend & (torch.ones(queries, keys).tril(keys - queries).bool() if causal else True) & (True if allowed is None else allowed)
        expected, _ = attention(q, k, v, attend, _gate(gq), _gate(gk), _gate(gv))
        torch.testing.assert_close(out, expected)
        w = torch.randn_like(out)
        for a, b in zip(torch.autograd.grad(out, (q, k, v), w), torch.autograd.grad(expected, (q, k, v), w), strict=True):
            torch.testing.assert_close(a, b)


def test_stop_graddable_attn_says_what_a_mask_may_be():
    q, k, v = (torch.randn(1, 2, 4, 4) for _ in range(3))
    with pytest.raises(srt.InputError, match=r"k_stop_grad_mask is bool \(True = stopped\) or floating"):
        srt.stop_graddable_attn(q, k, v, k_stop_grad_mask=torch.ones(4, 4, dtype=torch.int64))
    with pytest.raises(srt.InputError, match="is a tensor, or None"):
        srt.stop_graddable_attn(q, k, v, attn_mask=[[True]])  # type: ignore[arg-type]
    with pytest.raises(srt.InputError, match="q is a tensor"):
        srt.stop_graddable_attn([1], k, v)  # type: ignore[arg-type]
    with pytest.raises(srt.InputError, match="broadcasts to"):
        srt.stop_graddable_attn(q, k, v, v_stop_grad_mask=torch.ones(3, 4))
    with pytest.raises(srt.InputError, match="True = may be attended"):
        srt.stop_graddable_attn(q, k, v, attn_mask=torch.ones(4, 4))
    with pytest.raises(srt.InputError, match="mask is bool"):
        srt.stop_graddable_attn(q, k, v, torch.ones(4).bool())
