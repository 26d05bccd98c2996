"""Models whose data tokens are numbers: `numbers=` is what `embeds=` of the same linear layer is, and `huber=` is another loss of the same figures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import srt_masks as srt
from srt_masks.models.work import work_of
from srt_masks.proofs import guard
from srt_masks.training.evaluate import evaluate

SIZES: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "numbers": 3, "regression": 2}
TEXTS = {
    "reasoning": "layout repeat { token, reason }\nattend causal\nstop k, v where k is token and k.pos < q.pos\npredict token -> index weight 1 / 2\npredict reason -> index",
    "insulation": "layout repeat 4 { context }, action * 2\ndata context, action\nattend causal\nstop k, v where q is action and k is context\nposition pos\n"
    "predict context -> index weight 1 / 4\npredict action -> index",
}
ROLES = {"reasoning": "token", "insulation": "action"}


def model_of(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return srt.build_model(srt.parse(TEXTS[name]), proofs="off", **{**SIZES, **options}).double()


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def embedded(model: Any, numbers: Tensor) -> Tensor:
    """What the linear layers of the model make of numbers, (batch, data tokens, dim): of every data token that of its role."""
    of_role = dict(zip(model.config.own_weights, model.own, strict=True))
    table = model.tokens(numbers.shape[1])
    roles = [role for number, role in enumerate(table.role) if model.spec.roles.index(role) in model.spec.checked.data]
    return torch.stack([of_role.get(role, model).number_embedding(numbers[:, n]) for n, role in enumerate(roles)], 1)


def gradients(loss: Tensor, model: Any, *more: Tensor) -> list[Tensor]:
    weights = [*model.parameters(), *more]
    return list(torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("num_tokens", [None, 5])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", TEXTS)
def test_numbers_are_the_embeds_that_a_linear_layer_makes_of_them(name: str, own: bool, num_tokens: int | None):
    """Alone, or added to tokens: the same loss to the bit, and the same gradients of all weights and of the numbers, those of own weights apart."""
    model = model_of(name, own_weights={ROLES[name]} if own else (), num_tokens=num_tokens)
    numbers, targets = drawn(2, 6, 3).requires_grad_(), drawn(2, 6, 2)
    x = None if num_tokens is None else torch.randint(0, num_tokens, (2, 6))
    found, wanted = model(x, numbers=numbers, targets=targets), model(x, embeds=embedded(model, numbers), targets=targets)
    assert torch.equal(found, wanted)
    for a, b in zip(gradients(found, model, numbers), gradients(wanted, model, numbers), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
    layers = [model.number_embedding, *(e.number_embedding for e in model.own)]
    taught = [bool(g.abs().max() > 0) for g in gradients(found, torch.nn.ModuleList(layers))[::2]]
    # The shared layer learns where a role without weights of its own has data.
    assert taught == ([name == "insulation", True] if own else [True])
    assert torch.equal(model(x, numbers=numbers, embeds=drawn(2, 6, 16) * 0, return_values=True), model(x, numbers=numbers, return_values=True))


def test_the_layer_begins_as_every_linear_layer_does():
    model = model_of("reasoning", dim=64, numbers=8)
    assert model.number_embedding.weight.shape == (64, 8) and 0.015 < model.number_embedding.weight.std().item() < 0.025
    assert bool((model.number_embedding.bias == 0).all())


def test_what_is_said_of_tokens_is_said_with_their_numbers():
    model, x, numbers = model_of("reasoning", num_tokens=5), torch.randint(0, 5, (2, 6)), drawn(2, 6, 3)
    embeds = embedded(model, numbers)
    torch.testing.assert_close(model.log_probs(x, numbers=numbers), model.log_probs(x, embeds=embeds), rtol=0, atol=0)
    torch.testing.assert_close(model(x, numbers=numbers, return_loss=True), model(x, embeds=embeds, return_loss=True), rtol=0, atol=0)
    assert not torch.equal(model.log_probs(x, numbers=numbers), model.log_probs(x, numbers=numbers * 2))


@pytest.mark.parametrize("num_tokens", [None, 5])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_a_short_row_of_numbers_is_what_it_is_alone(padding: str, num_tokens: int | None):
    """Padding holds NaN, and teaches nothing."""
    model, numbers, targets = model_of("reasoning", num_tokens=num_tokens), drawn(2, 6, 3), drawn(2, 6, 2)
    x = None if num_tokens is None else torch.randint(0, num_tokens, (2, 6))
    own = slice(0, 4) if padding == "right" else slice(2, 6)
    outside = slice(4, 6) if padding == "right" else slice(0, 2)
    short, whole = (
        model(None if x is None else x[b : b + 1, s], numbers=numbers[b : b + 1, s], targets=targets[b : b + 1, s], huber=0.5)
        for b, s in ((0, own), (1, slice(None)))
    )
    numbers[0, outside], targets[0, outside] = torch.nan, torch.nan
    numbers.requires_grad_()
    loss = model(x, numbers=numbers, targets=targets, huber=0.5, lengths=[4, 6], padding=padding)
    wanted = (4 * short + 6 * whole) / 10
    torch.testing.assert_close(loss, wanted)
    for a, b in zip(gradients(loss, model), gradients(wanted, model), strict=True):
        torch.testing.assert_close(a, b)
    (grad,) = torch.autograd.grad(loss, numbers)
    assert bool((grad[0, outside] == 0).all()) and bool((grad[0, own] != 0).all())


@pytest.mark.parametrize("own", [(), ("reason",)])
def test_huber_is_the_loss_of_torch_and_the_figures_stay_squared(own: tuple[str, ...]):
    model, numbers, targets = model_of("reasoning", own_weights=own), drawn(2, 5, 3), 3 * drawn(2, 5, 2)
    found, squared = (model(numbers=numbers, targets=targets, return_parts=True, **options) for options in ({"huber": 0.7}, {}))
    states = model(numbers=numbers, return_hidden=True).unflatten(1, (5, 2))
    said = model.values(states[:, :, 0]), (model.own[0] if own else model).values(states[:, :, 1])
    errors = [F.huber_loss(s, targets, reduction="none", delta=0.7).mean(-1) for s in said]
    wanted = (errors[0].sum() / 2 + errors[1].sum()) / 15
    torch.testing.assert_close(found.loss, wanted, rtol=1e-9, atol=1e-11)
    for a, b in zip(gradients(found.loss, model), gradients(wanted, model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    assert torch.equal(found.last, squared.last) and found.parts == squared.parts and found.parts.keys() == {"token", "reason"}
    torch.testing.assert_close(found.last, (said[1] - targets).square().mean(), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.parts["token"], (said[0] - targets).square().mean(), rtol=1e-9, atol=1e-11)
    assert torch.equal(model(numbers=numbers, targets=targets, huber=0.7), found.loss)
    torch.testing.assert_close(model(numbers=numbers, targets=targets, huber=1000), squared.loss / 2)


def test_numbers_of_any_floating_type_come_in_as_the_weights_are():
    model, numbers, targets = model_of("reasoning").float(), drawn(2, 5, 3), drawn(2, 5, 2)
    loss = model(numbers=numbers, targets=targets, huber=1.0)
    assert loss.dtype is torch.float32
    assert torch.equal(loss, model(numbers=numbers.float(), targets=targets, huber=1.0))
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(numbers=numbers.float(), targets=targets, huber=1.0)
        hidden = model(numbers=numbers.float(), return_hidden=True)
    assert rough.dtype is torch.float32 and hidden.dtype is torch.float32
    torch.testing.assert_close(rough, loss, rtol=0.05, atol=0.05)
    exact, other = (torch.autograd.grad(y, model.number_embedding.weight)[0] for y in (loss, rough))
    assert F.cosine_similarity(exact.flatten(), other.flatten(), dim=0) > 0.99
    model = model.bfloat16()
    assert model(numbers=numbers, targets=targets).dtype is torch.float32 and model(numbers=numbers, return_values=True).dtype is torch.bfloat16


def test_a_file_keeps_how_many_numbers_there_are(tmp_path: Path):
    model, numbers = model_of("reasoning", own_weights={"token"}, num_tokens=5), drawn(2, 5, 3)
    srt.save_model(model, tmp_path / "m.safetensors")
    again, x = srt.load_model(tmp_path / "m.safetensors"), torch.randint(0, 5, (2, 5))
    assert again.config == model.config and again.config.numbers == 3
    assert torch.equal(again(x, numbers=numbers), model(x, numbers=numbers))


@pytest.mark.parametrize("num_tokens", [None, 5])
def test_the_work_of_embedding_numbers_is_counted(num_tokens: int | None):
    own, without = (work_of(model_of("reasoning", num_tokens=num_tokens, numbers=numbers), 7) for numbers in (3, None))
    assert own.multiplications - without.multiplications == 7 * 3 * 16 and own.pairs == without.pairs


X, NUMBERS, TARGETS, EMBEDS = torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5, 3), torch.zeros(2, 5, 2), torch.zeros(2, 5, 16)


@pytest.mark.parametrize(
    ("sizes", "call", "words"),
    [
        ({}, {}, r"give numbers=, \(batch, data tokens, 3\) floating, or embeds=, \(batch, data tokens, 16\) in their place"),
        ({}, {"x": X}, "knows no tokens.*and x came: give numbers="),
        ({}, {"numbers": NUMBERS[..., :2]}, r"numbers is \(batch, data tokens, 3\), floating; got float32 of shape \(2, 5, 2\)"),
        ({}, {"numbers": NUMBERS.long()}, "floating; got int64 of shape"),
        ({}, {"numbers": NUMBERS[0]}, r"floating; got float32 of shape \(5, 3\)"),
        ({}, {"numbers": [[1.0]]}, "floating; got list"),
        ({}, {"numbers": NUMBERS, "embeds": EMBEDS[:, :4]}, "embeds and numbers speak of the same data tokens"),
        ({}, {"numbers": NUMBERS, "targets": TARGETS[:, :4]}, r"targets is .* = \(2, 5, 2\)"),
        ({}, {"numbers": NUMBERS, "targets": TARGETS, "lengths": [6, 5]}, "from 0 to 5; got 6"),
        ({"num_tokens": 7}, {"x": X}, r"give x, .* and numbers=, \(batch, data tokens, 3\) floating, or embeds="),
        ({"num_tokens": 7}, {"numbers": NUMBERS}, "give x, .* and numbers="),
        ({"num_tokens": 7}, {"x": X[:1], "numbers": NUMBERS}, r"x and numbers speak of the same data tokens; x is \(1, 5\), numbers \(2, 5, 3\)"),
        ({"num_tokens": 7, "numbers": None}, {"x": X, "numbers": NUMBERS}, "embeds no numbers: build it with numbers="),
        ({}, {"numbers": NUMBERS, "targets": TARGETS, "huber": 0}, "huber is a number above 0.*got 0"),
        ({}, {"numbers": NUMBERS, "targets": TARGETS, "huber": True}, "huber is a number above 0.*got True"),
        ({}, {"numbers": NUMBERS, "targets": TARGETS, "huber": float("inf")}, "huber is a number above 0.*got inf"),
        ({}, {"numbers": NUMBERS, "targets": TARGETS, "huber": float("nan")}, "huber is a number above 0.*got nan"),
        ({}, {"numbers": NUMBERS, "huber": 1.0, "return_values": True}, "huber= is of the loss of the regression head: give targets="),
        ({"num_tokens": 7}, {"x": X, "numbers": NUMBERS, "huber": 1.0, "return_loss": True}, "huber= is of the loss of the regression head"),
    ],
)  # fmt: skip
def test_calls_that_do_not_fit(sizes: dict[str, Any], call: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        model_of("reasoning", **sizes).float()(**call)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"numbers": 0}, "numbers is a whole number, 1 or more; got 0"), ({"regression": None}, "num_tokens= says how many"), ({"in_features": 2}, "write numbers="), ({"number": 2}, "did you mean `numbers`")],
)  # fmt: skip
def test_sizes_that_do_not_fit(options: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        model_of("reasoning", **options)


def test_what_has_no_numbers_to_give_says_so(tmp_path: Path):
    model = model_of("reasoning", num_tokens=256)
    with pytest.raises(srt.InputError, match=r"reads numbers= beside its tokens \(numbers=3\)"):
        srt.sample(model, b"a", 1)
    srt.save_model(model, tmp_path / "model.safetensors")
    (tmp_path / "text").write_bytes(b"some text")
    with pytest.raises(srt.InputError, match="numbers beside its tokens, and files hold none"):
        evaluate(tmp_path, [tmp_path / "text"], quiet=True)


@pytest.mark.parametrize("target, mask, refused", [("index", "full", False), ("index + 1", "full", True), ("index + 1", "causal", False)])
def test_a_leak_is_told_where_targets_may_be_what_rows_read(target: str, mask: str, refused: bool):
    spec = srt.parse(f"data token\nattend {mask}\npredict token -> {target}")
    sizes = {"dim": 8, "depth": 1, "heads": 2, "numbers": 1, "regression": 1}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        guard._SAID.clear()
        srt.build_model(spec, **sizes)
    assert ["unless targets= are of something that no row reads" in str(w.message) for w in said] == [True] * refused
    if refused:
        with pytest.raises(srt.SpecError, match="is trained to predict, and reads, row 1"):
            srt.build_model(spec, proofs="strict", **sizes)
        with pytest.raises(srt.SpecError, match="assert no leak"):
            srt.build_model(srt.parse(spec.text + "\nassert no leak"), **sizes)
    else:
        srt.build_model(spec, proofs="strict", **sizes)


def test_names_that_a_text_and_a_call_share_are_told_apart():
    spec = srt.parse("param huber = 3\nattend causal and q.pos - k.pos < huber\npredict token -> index")
    model = srt.build_model(spec, dim=8, depth=1, heads=2, numbers=1, regression=1).double()
    x = torch.randn(1, 6, 1, dtype=torch.float64)
    with pytest.raises(srt.InputError, match=r"`huber` is an argument of the call, and a param of this text: .* inputs=\{'huber': \.\.\.\}"):
        model(numbers=x, targets=x, huber=1)
    other = srt.build_model(srt.parse(spec.text.replace("huber", "near")), dim=8, depth=1, heads=2, numbers=1, regression=1).double()
    other.load_state_dict(model.state_dict())
    wanted = other(numbers=x, targets=x, huber=0.1, near=1)
    assert torch.equal(model(numbers=x, targets=x, huber=0.1, inputs={"huber": 1}), wanted) and wanted != other(numbers=x, targets=x, huber=0.1)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"number": torch.zeros(1, 6, 1)}, "no argument `number`: did you mean `numbers`"),
        ({"hubr": 1.0}, "no argument `hubr`: did you mean `huber`"),
        ({"targets": torch.zeros(1, 6, 1), "return_hidden": True}, "targets= are of a loss, and return_hidden=True asks for states"),
        ({"targets": torch.zeros(1, 6, 1), "huber": 10**400}, "huber is a number above 0"),
        ({"return_loss": True}, "no token head .*give targets="),
    ],
)
def test_calls_that_cannot_be_meant(arguments: dict, words: str):
    model = srt.build_model(srt.parse("attend causal\npredict token -> index"), dim=8, depth=1, heads=2, numbers=1, regression=1)
    with pytest.raises(srt.InputError, match=words):
        model(**{"numbers": torch.zeros(1, 6, 1), **arguments})
    loss = {"numbers": torch.zeros(1, 6, 1), "targets": torch.ones(1, 6, 1)}
    assert torch.equal(model(**loss, huber=np.float32(0.5)), model(**loss, huber=0.5))


def test_rows_stay_in_the_order_of_the_layout_where_that_is_asked_for():
    spec, x = srt.zoo("registers look ahead"), torch.randint(0, 9, (1, 600))
    for order, same in (("natural", True), ("auto", False)):
        model = srt.build_model(spec, dim=8, depth=1, heads=2, num_tokens=9, order=order, max_positions=4000)
        seen = []
        model.norm.register_forward_hook(lambda module, given, state, seen=seen: seen.append(state))
        hidden = model(x, return_hidden=True)
        assert torch.equal(seen[0].reshape(hidden.shape), hidden) is same
