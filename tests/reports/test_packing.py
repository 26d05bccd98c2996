"""Reports of kind F: packed documents that see each other, pads as documents, blocks and positions that do not begin with the document."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from calls import ANY_BACKEND, BACKENDS, FEW, assert_near, assert_nothing, call, qkv, run
from hypothesis import given
from hypothesis import strategies as st

import srt_masks as srt

# Texts that keep to a document. Rows a step, then what the inputs count: tokens, or steps.
DOCUMENTS = {
    "causal": ("input doc: int per token\nattend causal and same(doc)", 1),
    "both ways": ("input doc: int per token\nattend same(doc)\nstop k where q.pos < k.pos", 1),
    "window by head": ("input doc: int per token\nattend causal and same(doc) and window(2 + 3 * head)\nstop v where q.pos - k.pos > 1", 1),
    "gates": ("input doc: int per token\nattend causal and same(doc)\nscale k by 1 / 4 where q.pos - k.pos > 3\nstop q where (q.pos - k.pos) % 3 == 1", 1),
    "blocks": ("input doc: int per token\ninput place: int per token\nlet block = place // 4\nattend same(doc) and k.block <= q.block", 1),
    "start": ("input start: int per token\nattend k.pos >= start[q.pos] and k.pos <= q.pos\nstop v where k.pos == q.start", 1),
    "reasoning": ("layout repeat { token, reason * 2 }\ninput doc: int per step\nattend causal and same(doc)\nstop k, v where k is reason and q.step > k.step", 3),
    "by number": ("input doc: int per token\nattend causal and same(doc) and (k.doc % 2 == 0 or window(3))", 1),
}  # fmt: skip


NAMES = {"place": "position"}  # which is a word of the language


def described(text: str, lengths: list[int], rows: int, number: int | None = None) -> dict[str, Any]:
    """The inputs that a text declares; `number`: those of one document alone, under the number it has in the pack."""
    spec = srt.parse(text)
    by_step, by_token = (srt.documents(lengths=[n * r for n in lengths]) for r in (1, rows))
    found = {name: (by_step if declared.axes == ("step",) else by_token)[NAMES.get(name, name)] for name, declared in spec.inputs.items()}
    return found if number is None else {n: x + number if n == "doc" else x for n, x in found.items()}


def assert_packed_is_alone(name: str, backend: str, lengths: list[int]) -> None:
    text, rows = DOCUMENTS[name]
    tensors = qkv(sum(lengths) * rows)
    together = run(text, backend, tensors, heads=2, **described(text, lengths, rows))
    for number, (end, length) in enumerate(zip(accumulate(lengths), lengths, strict=True)):
        at = slice((end - length) * rows, end * rows)
        alone = [x[:, :, at] for x in tensors]
        assert_near(together.rows(at), run(text, backend, alone, heads=2, **described(text, [length], rows, number)))
    assert_near(together, run(text, "reference", tensors, heads=2, **described(text, lengths, rows)))


@FEW
@given(ANY_BACKEND, st.sampled_from(sorted(DOCUMENTS)), st.lists(st.integers(0, 12), min_size=1, max_size=5))
def test_F1_packed_documents_are_the_documents_alone(backend: str, name: str, lengths: list[int]):
    assert_packed_is_alone(name, backend, lengths)


@pytest.mark.parametrize("backend", BACKENDS)
def test_F1_as_reported(backend: str):
    assert_packed_is_alone("causal", backend, [5, 130, 1, 64])


# ------------------------------------------------------------------------------------------------ F3: numbers of documents

# What a narrower number, a hash of 64 slots or a sentinel would confuse.
IDS = st.sampled_from([0, 1, 2, 63, 64, 65, 128, -1, -64, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**40, -(2**40), 2**53 + 1, 2**53 + 2, 2**62, -(2**62)])


@given(ANY_BACKEND, st.lists(IDS, min_size=1, max_size=40), st.booleans())
def test_F3_any_number_names_a_document(backend: str, ids: list[int], sort: bool):
    doc = torch.tensor(sorted(ids) if sort else ids)
    text = "input doc: int per token\nattend same(doc)\nstop k where q.doc < 0"
    plan = srt.compile(srt.parse(text), tile=16).plan(len(ids), doc=doc)
    assert torch.equal(plan.to_dense()[0, 0], torch.tensor([[a == b for b in doc.tolist()] for a in doc.tolist()]))
    tensors = qkv(len(ids), heads=1)
    assert_near(run(text, backend, tensors, doc=doc), run(text, "reference", tensors, doc=doc))


@given(ANY_BACKEND, st.lists(st.sampled_from([0, 0, 1, 2, -1, 2**40]), min_size=1, max_size=40))
def test_F3_pads_see_nothing_and_nobody_sees_them(backend: str, ids: list[int]):
    doc = torch.tensor(ids)
    tensors = qkv(len(ids), heads=1)
    for x in tensors[:3]:
        x[:, :, doc == 0] = float("nan")
    text = "input doc: int per token\nattend same(doc) and q.doc != 0"
    found = run(text, backend, tensors, doc=doc)
    assert_nothing(found, doc == 0)
    real = (doc != 0).nonzero().flatten()
    if backend != "reference" and len(real):
        without = call(srt.compile(srt.parse(text), backend="reference"), [x[:, :, real] for x in tensors], doc=doc[real])
        torch.testing.assert_close(found.out[:, :, real], without.out, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_F3_as_reported(backend: str):
    found = run("input doc: int per token\nattend same(doc) and q.doc > 0", backend, qkv(6), doc=torch.tensor([1, 1, 1, 0, 0, 0]))
    assert_nothing(found, slice(3, 6))
    assert bool((found.out[:, :, :3] != 0).all())


# ------------------------------------------------------------------------------------------------ F5: what restarts with a document

RESTARTS = {
    "blocks": ("let block = place // size\nattend same(doc) and same(block)", lambda p, q, size: p // size == q // size),
    "blocks before": ("let block = place // size\nattend same(doc) and k.block <= q.block", lambda p, q, size: q // size <= p // size),
    "residues": ("attend same(doc) and q.place % size == k.place % size", lambda p, q, size: p % size == q % size),
    "first": ("attend same(doc) and k.place < size", lambda p, q, size: q < size),
}


@given(ANY_BACKEND, st.sampled_from(sorted(RESTARTS)), st.lists(st.integers(0, 14), min_size=1, max_size=4), st.integers(1, 6))
def test_F5_what_is_said_of_a_place_is_said_of_the_place_in_the_document(backend: str, name: str, lengths: list[int], size: int):
    """Against the rule written out in Python, and on a backend against the reference."""
    body, rule = RESTARTS[name]
    text = f"param size = 1\ninput doc: int per token\ninput place: int per token\n{body}"
    place = [(d, p) for d, n in enumerate(lengths) for p in range(n)]
    named = described(text, lengths, 1)
    wanted = torch.tensor([[d == e and rule(p, q, size) for e, q in place] for d, p in place], dtype=torch.bool).reshape(len(place), len(place))
    assert torch.equal(srt.dense(srt.parse(text, params={"size": size}), steps=len(place), inputs=named).attend[0, 0], wanted)
    assert torch.equal(srt.compile(srt.parse(text), tile=16).plan(len(place), size=size, **named).to_dense()[0, 0], wanted)
    tensors = qkv(len(place), heads=1)
    assert_near(run(text, backend, tensors, size=size, **named), run(text, "reference", tensors, size=size, **named))


def test_F5_as_reported():
    text = "input doc: int per token\ninput place: int per token\nlet block = place // 4\nattend same(doc) and same(block)"
    named = described(text, [5, 6], 1)
    for dense in (srt.dense(srt.parse(text), steps=11, inputs=named).attend, srt.compile(srt.parse(text)).plan(11, **named).to_dense()):
        assert dense[0, 0, 5].nonzero().flatten().tolist() == [5, 6, 7, 8]


# ------------------------------------------------------------------------------------------------ F7: positions under left padding


@FEW
@given(st.integers(0, 6), st.integers(2, 8), st.sampled_from(["attend causal and k.pos >= start", "attend causal and k.pos >= start and window(3)"]))
def test_F7_left_padding_moves_no_position(pad: int, words: int, mask: str):
    """A model with learned positions: the logits of a prompt behind pads are those of the prompt, and so are the gradients of its weights."""
    text = f"input start: int per sequence\n{mask}\nposition max(pos - start, 0)\npredict token -> index + 1 where pos >= start"
    torch.manual_seed(0)
    model = srt.build_model(srt.parse(text), dim=16, depth=2, heads=2, num_tokens=13).double()
    x = torch.randint(0, 13, (2, words))
    padded = torch.cat([torch.randint(0, 13, (2, pad)), x], 1)

    def gradients(tokens: torch.Tensor, start: int) -> list[torch.Tensor]:
        model.zero_grad()
        model(tokens, return_loss=True, start=torch.tensor(start)).backward()
        return [p.grad.clone() for p in model.parameters()]

    alone, behind = model(x, all_rows=True, start=torch.tensor(0)), model(padded, all_rows=True, start=torch.tensor(pad))
    torch.testing.assert_close(behind[:, pad:], alone, rtol=1e-9, atol=1e-9)
    for a, b in zip(gradients(padded, pad), gradients(x, 0), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_F7_every_row_of_a_batch_has_its_own_padding():
    text = "input start: int per sequence\nattend causal and k.pos >= start\nposition max(pos - start, 0)\npredict token -> index + 1"
    torch.manual_seed(0)
    model = srt.build_model(srt.parse(text), dim=16, depth=2, heads=2, num_tokens=13).double()
    x = torch.randint(0, 13, (3, 9))
    starts = torch.tensor([3, 0, 5])
    together = model(x, all_rows=True, start=starts)
    for row, start in enumerate(starts.tolist()):
        alone = model(x[row : row + 1, start:], all_rows=True, start=torch.tensor(0))
        torch.testing.assert_close(together[row : row + 1, start:], alone, rtol=1e-9, atol=1e-9)
