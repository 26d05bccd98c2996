"""Models of a `layout given`: what is given row by row comes to what the same layout comes to where the text repeats it, each row of a batch by its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import srt_masks as srt

REST = """
attend causal and (k is token or same(step) or q.step - k.step <= 2)
stop k, v where k is reason and 0 < q.step - k.step <= 1
stop hidden where k is token and q.step - k.step == 2
position 2 * step + slot
predict token -> index + 1
predict reason -> index + 1 weight 1 / (slot + 2)
"""
REPEATED, GIVEN = "layout repeat { token, reason * 2 }" + REST, "layout given { token, reason }" + REST
SLOTS = 3  # of each role, more than are used


def model_of(text: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return srt.build_model(srt.parse(text), dim=16, depth=2, heads=2, num_tokens=13, max_slots=SLOTS, **options).double()


def two_models(**options: Any) -> tuple[Any, Any]:
    """The same weights; a model of a layout given has embeddings of slots that the other has not."""
    repeated, given = model_of(REPEATED, **options), model_of(GIVEN, **options)
    given.load_state_dict({**repeated.state_dict(), "slot_embedding.weight": given.state_dict()["slot_embedding.weight"]})
    with torch.no_grad():
        given.slot_embedding.weight[[0, SLOTS, SLOTS + 1]] = repeated.slot_embedding.weight
    return repeated, given


def rows(*thoughts: int, pad: int = 0) -> dict[str, list[Any]]:
    """A token and so many reasoning tokens for each step; then padding, that looks like tokens of a step."""
    role, step, slot = [], [], []
    for number, count in enumerate(thoughts):
        role += ["token"] + ["reason"] * count
        step += [number] * (1 + count)
        slot += [0, *range(count)]
    return {"role": role + ["token"] * pad, "step": step + [len(thoughts)] * pad, "slot": slot + [0] * pad}


def stacked(each: list[dict[str, list[Any]]]) -> dict[str, list[list[Any]]]:
    return {name: [one[name] for one in each] for name in each[0]}


OPTIONS: list[dict[str, Any]] = [{}, {"positions": "rotary", "key_heads": 1, "own_weights": {"reason"}, "tied": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_given_what_another_text_repeats_it_is_that_model(options: dict[str, Any]):
    repeated, given = two_models(**options)
    x, same = torch.randint(0, 13, (2, 5)), {"given": rows(2, 2, 2, 2, 2)}
    torch.testing.assert_close(given(x, all_rows=True, **same), repeated(x, all_rows=True), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(given(x, **same), repeated(x), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(given.log_probs(x, **same), repeated.log_probs(x), rtol=1e-10, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(given.next_logits(x, **same), repeated.next_logits(x), rtol=1e-10, atol=1e-12)
    parts = [m(x, return_parts=True, **beside) for m, beside in ((repeated, {}), (given, same))]
    torch.testing.assert_close(parts[0].loss, parts[1].loss, rtol=1e-10, atol=1e-12)
    assert list(parts[1].parts) == ["token[0]", "reason[0]", "reason[1]"]
    grads = []
    for model, part in zip((repeated, given), parts, strict=True):
        part.loss.backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
    slots = grads[1].pop("slot_embedding.weight")
    torch.testing.assert_close(slots[[0, SLOTS, SLOTS + 1]], grads[0].pop("slot_embedding.weight"), rtol=1e-9, atol=1e-11)
    assert not bool(slots[[1, 2, SLOTS + 2]].any())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_row_of_a_batch_is_laid_out_as_it_is_given(options: dict[str, Any]):
    """As latent thoughts of several lengths are: rows have unlike many tokens between the same words, and unlike many words."""
    model, x = model_of(GIVEN, **options), torch.randint(0, 13, (3, 4))
    shapes, lengths = [(1, 0, 2), (0, 0, 3, 1), (2, 1)], [3, 4, 2]
    alone = [rows(*shape) for shape in shapes]
    most = max(len(one["role"]) for one in alone)
    together = stacked([rows(*shape, pad=most - len(one["role"])) for shape, one in zip(shapes, alone, strict=True)])
    for ask in ({}, {"all_rows": True}, {"return_hidden": True}):
        found = model(x, given=together, lengths=lengths, **ask)
        for b, n in enumerate(lengths):
            wanted = model(x[b : b + 1, :n], given=alone[b], **ask)[0]
            torch.testing.assert_close(found[b, : len(wanted)], wanted, rtol=1e-9, atol=1e-11)
            assert not bool(found[b, len(wanted) :].any())


def test_the_reference_says_the_same():
    x, same, found = torch.randint(0, 13, (2, 4)), {"given": rows(2, 0, 1, 2)}, []
    for backend in ("tiled", "reference"):
        model = model_of(GIVEN, backend=backend)
        loss = model(x, return_loss=True, **same)
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)])
    for a, b in zip(*found, strict=True):
        if isinstance(a, Tensor):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
        else:
            assert a is b


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give given="), ({"given": rows(2, 2)}, "holds 2 data tokens in row 0 of the batch, and the call 4: give lengths="),
        ({"given": rows(0, 1), "lengths": [4]}, "holds 2 data tokens .*; lengths= says 4"),
        ({"given": rows(0, 0, 0, 4)}, r"given\['slot'\] goes up to 3; this model has 3 slots .* larger max_slots"),
        ({"given": rows(1, 1, 1, 1), "lengths": [4], "padding": "left"}, 'padding="right"'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(options: dict[str, Any], words: str):
    model, x = model_of(GIVEN), torch.randint(0, 13, (1, 4))
    with pytest.raises(srt.InputError, match=words):
        model(x, **options)


def test_rows_for_a_number_of_words_are_not_known():
    with pytest.raises(srt.InputError, match=r"its rows are those of given="):
        model_of(GIVEN).rows_for(4)
    table = model_of(GIVEN).tokens(given=rows(1, 0))
    assert list(table.role) == ["token", "reason", "token"] and table.target.tolist()[:2] == [1, 1]
