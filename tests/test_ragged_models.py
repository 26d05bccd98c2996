"""Models of rows of several lengths: each row comes to what it comes to alone, wherever its padding stands."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import srt_masks as srt

TEXTS = {
    "reasoning": "layout repeat { token, reason * 2 }\nattend causal\nstop k, v where k is reason and 0 < q.step - k.step <= 2\npredict token -> index + 1\npredict reason -> index + 1",
    "sections": "layout sink, repeat { token }, close * 2\nattend causal\nstop v where k is sink\nposition pos\npredict token -> index + 1 weight 1 / (step + 1)",
    "the end": "attend causal and (k.pos >= length - 3 or window(2))\nposition steps - step\npredict token -> index + 1 where index < length - 2",
    "inputs": "input doc: int per token\ninput far: int per step\nattend causal and same(doc) and q.pos - k.pos <= q.far\npredict token -> index + 1 where doc[pos + 1] == doc",
    "pairs": "input seen: bool per query, key\nattend k.pos <= q.pos and (seen or k.pos == q.pos)\npredict token -> index + 1",
}
LENGTHS = [5, 9, 2]


def model_of(text: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return srt.build_model(srt.parse(text), dim=16, depth=2, heads=2, num_tokens=13, **options).double()


def inputs_of(name: str, batch: int, length: int) -> dict[str, Tensor]:
    if name == "inputs":
        return {"doc": torch.randint(0, 2, (batch, length)).sort(1).values + 1, "far": torch.randint(0, 4, (batch, length))}
    return {"seen": torch.rand(batch, length, length) > 0.4} if name == "pairs" else {}


@pytest.mark.parametrize("options", [{}, {"positions": "rotary", "own_weights": "last", "tied": True}], ids=str)
@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("name", TEXTS)
def test_N7_F7_a_short_row_is_what_it_is_alone(name: str, padding: str, options: dict[str, Any]):
    """Logits, states, log-probabilities, and the loss with the gradients of all weights, which is the token-weighted mean of the rows alone. Padding holds
    what no vocabulary has."""
    spec = srt.parse(TEXTS[name])
    options = {**options, "own_weights": {spec.roles[-1]}} if "own_weights" in options else options
    model, x = model_of(TEXTS[name], **options), torch.randint(0, 13, (3, 9))
    inputs = inputs_of(name, 3, 9)
    own = [slice(0, n) if padding == "right" else slice(9 - n, 9) for n in LENGTHS]
    alone = [x[b : b + 1, s] for b, s in enumerate(own)]
    apart = [{k: v[(b, *[s] * (v.ndim - 1))] for k, v in inputs.items()} for b, s in enumerate(own)]
    for b, s in enumerate(own):
        outside = torch.ones(9, dtype=torch.bool)
        outside[s] = False
        x[b, outside] = -100
    beside = {"lengths": LENGTHS, "padding": padding, "inputs": inputs}

    def side(t: Tensor, n: int) -> tuple[Tensor, Tensor]:
        return (t[:n], t[n:]) if padding == "right" else (t[len(t) - n :], t[: len(t) - n])

    for ask in ({}, {"all_rows": True}, {"return_hidden": True}):
        together = model(x, **beside, **ask)
        for b in range(3):
            wanted = model(alone[b], inputs=apart[b], **ask)[0]
            found, padded = side(together[b], len(wanted))
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
            assert bool((padded == 0).all())
    logs = model.log_probs(x, **beside)
    for b in range(3):
        found, padded = side(logs[b], LENGTHS[b])
        torch.testing.assert_close(found, model.log_probs(alone[b], inputs=apart[b])[0], rtol=1e-9, atol=1e-11, equal_nan=True)
        assert bool(padded.isnan().all())

    total = weights = torch.zeros((), dtype=torch.float64)
    for b, words in enumerate(alone):
        table = model.tokens(LENGTHS[b], inputs=apart[b])
        weight = table.weight[(table.target >= 0) & (table.target < LENGTHS[b])].sum()
        if weight:
            total, weights = total + weight * model(words, inputs=apart[b], return_loss=True), weights + weight
    loss = model(x, **beside, return_loss=True)
    torch.testing.assert_close(loss, total / weights, rtol=1e-6, atol=1e-8)
    parameters = list(model.parameters())
    for a, b in zip(*(torch.autograd.grad(y, parameters, allow_unused=True, materialize_grads=True) for y in (loss, total / weights)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("padding", ["right", "left"])
def test_the_next_token_of_each_row_is_that_of_the_row_alone(padding: str):
    model, x = model_of(TEXTS["reasoning"]), torch.randint(0, 13, (3, 9))
    found = model.next_logits(x, lengths=LENGTHS, padding=padding)
    for b, n in enumerate(LENGTHS):
        words = x[b : b + 1, :n] if padding == "right" else x[b : b + 1, 9 - n :]
        torch.testing.assert_close(found[b], model(words, all_rows=True)[0, -1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("padding", ["right", "left"])
def test_embeds_and_targets_are_padded_on_the_same_side(padding: str):
    model = model_of(TEXTS["reasoning"], regression=2)
    embeds, targets = torch.randn(2, 6, 16, dtype=torch.float64), torch.randn(2, 6, 2, dtype=torch.float64)
    own = slice(0, 4) if padding == "right" else slice(2, 6)
    alone = [model(embeds=embeds[:1, own], targets=targets[:1, own]), model(embeds=embeds[1:], targets=targets[1:])]
    outside = slice(4, 6) if padding == "right" else slice(0, 2)
    embeds[0, outside], targets[0, outside] = torch.nan, torch.nan
    embeds.requires_grad_()
    loss = model(embeds=embeds, targets=targets, lengths=torch.tensor([4, 6]), padding=padding)
    torch.testing.assert_close(loss, (9 * alone[0] + 15 * alone[1]) / 24)
    (grad,) = torch.autograd.grad(loss, embeds)
    assert bool((grad[0, outside] == 0).all()) and bool((grad[0, own].abs().sum(-1) != 0).any())


def test_packed_documents_are_documents_alone():
    text = "input doc: int per token\ninput start: int per token\nattend causal and same(doc)\nposition pos - start\npredict token -> index + 1 where doc[pos + 1] == doc and pos + 1 < length"
    model, x, lengths = model_of(text), torch.randint(0, 13, (1, 12)), [5, 1, 6]
    packed = srt.documents(lengths=lengths)
    inputs = {n: packed[n] for n in ("doc", "start")}
    together, begin, losses = model(x, all_rows=True, inputs=inputs), 0, []
    for n in lengths:
        one, alone = x[:, begin : begin + n], {"doc": torch.zeros(n, dtype=torch.int64), "start": torch.zeros(n, dtype=torch.int64)}
        torch.testing.assert_close(together[:, begin : begin + n], model(one, all_rows=True, inputs=alone), rtol=1e-9, atol=1e-11)
        losses += [(n - 1) * model(one, return_loss=True, inputs=alone)] if n > 1 else []
        begin += n
    torch.testing.assert_close(model(x, return_loss=True, inputs=inputs), torch.stack(losses).sum() / 9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lengths": [1]}, "wanted 2, got 1"), ({"lengths": [1, 7]}, "from 0 to 6"), ({"lengths": [1.0, 2.0]}, "vector of whole numbers"), ({"padding": "both"}, '"right" or "left"'),
        ({"lengths": [1, 1]}, "nothing to predict"),
    ],
)  # fmt: skip
def test_lengths_that_do_not_fit(options: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        model_of(TEXTS["reasoning"])(torch.zeros(2, 6, dtype=torch.int64), return_loss=True, **options)


def test_a_row_that_the_layout_has_not_is_refused():
    model = model_of("layout repeat { token * 2, reason }\nattend causal\npredict reason -> index + 1")
    with pytest.raises(srt.InputError, match="3 data tokens a row"):
        model(torch.zeros(2, 4, dtype=torch.int64), lengths=[3, 4], return_loss=True)
