"""The model that a spec describes, against a plain dense one written here; and what each choice of `build_model` means."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import Tensor

import srt_masks as srt
from srt_masks.reference.attention import attention

SELF_REASONING = (ROOT / "examples" / "self_reasoning.mask").read_text()
SIZES: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 4, "num_tokens": 13}
INSULATION = """
layout repeat 5 { context }, action * 3
data context, action
attend causal
stop k, v where q is action and k is context
position pos
predict context -> index + 1 where index < 4
predict action -> index + 1 where index < 7
"""


def model_of(text: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return srt.build_model(srt.parse(text), **{**SIZES, **options}).double()


def norm(x: Tensor, layer: Any) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * layer.weight


def turned(x: Tensor, position: Tensor) -> Tensor:
    """RoPE, one number after another."""
    out, half = torch.empty_like(x), x.shape[-1] // 2
    for n in range(half):
        angle = position.double() * 10_000 ** (-2 * n / x.shape[-1])
        a, b = x[..., n], x[..., n + half]
        out[..., n], out[..., n + half] = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
    return out


def feed_forward(x: Tensor, layer: Any) -> Tensor:
    h = norm(x, layer.norm) @ layer.up.weight.T + (0 if layer.up.bias is None else layer.up.bias)
    if layer.up.bias is None:
        gate, value = h[..., : h.shape[-1] // 2], h[..., h.shape[-1] // 2 :]
        h = gate * gate.sigmoid() * value
    else:
        h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
    return h @ layer.down.weight.T + (0 if layer.down.bias is None else layer.down.bias)


def dense_states(model: Any, x: Any, embeds: Any = None) -> Tensor:
    """The final states by the masks and gates of the reference, one row of weights after another: every row of a role with weights of its own goes
    through those."""
    spec, config = model.spec, model.config
    layout, given = spec.checked.queries, x if embeds is None else embeds
    steps = layout.steps(model.rows_for(given.shape[1])) if layout.rows_per_step else None
    table, masks = srt.tokens(spec, steps=steps, heads=config.heads, layers=config.depth), srt.dense(spec, steps=steps, heads=config.heads, layers=config.depth)
    sets = [model, *model.own]
    of_row = [config.own_weights.index(r) + 1 if r in config.own_weights else 0 for r in table.role]
    firsts, seen = {}, 0
    for role in spec.roles:
        firsts[role] = seen
        seen += max([0, *(int(s) + 1 for s, r in zip(table.slot, table.role, strict=True) if r == role)])
    state = []
    for row, role in enumerate(table.role):
        ends = sets[of_row[row]]
        h = model.slot_embedding.weight[firsts[role] + int(table.slot[row])].expand(len(given), -1)
        if config.positions == "learned":
            h = h + ends.position_embedding.weight[int(table.position[row])]
        if spec.roles.index(role) in spec.checked.data:
            h = h if x is None else h + ends.token_embedding.weight[x[:, int(table.index[row])]]
            h = h if embeds is None else h + embeds[:, int(table.index[row])]
        state.append(h)
    h = torch.stack(state, 1)

    def each(state: Tensor, pick: Any) -> Tensor:
        return torch.stack([pick(s, state[:, row]) for row, s in enumerate(of_row)], 1)

    for number, block in enumerate(model.blocks):
        weights = [block, *block.own]

        def qkv(state: Tensor, weights: Any = weights) -> list[Tensor]:
            wide = each(state, lambda s, y: norm(y, weights[s].attention.norm) @ weights[s].attention.to_qkv.weight.T)
            sizes = [n * config.dim_head for n in (config.heads, config.key_heads or config.heads, config.key_heads or config.heads)]
            heads = [part.unflatten(-1, (-1, config.dim_head)).transpose(1, 2) for part in wide.split(sizes, -1)]
            return [turned(y, table.position) if config.positions == "rotary" and n < 2 else y for n, y in enumerate(heads)]

        q, k, v = qkv(h)
        twins = dict(zip(("hidden_k", "hidden_v"), qkv(h.detach())[1:], strict=True)) if spec.checked.has_hidden_rules else {}
        gates = [m[number] for m in (masks.attend, masks.gate_q, masks.gate_k, masks.gate_v, masks.gate_hidden)]
        out, _ = attention(q, k, v, *gates, **twins)
        out = out.transpose(1, 2).flatten(2)
        h = h + each(out, lambda s, y, weights=weights: y @ weights[s].attention.to_out.weight.T)
        h = h + each(h, lambda s, y, weights=weights: feed_forward(y, weights[s].feed_forward))
    return each(h, lambda s, y: norm(y, sets[s].norm))


def dense_logits(model: Any, x: Any, embeds: Any = None) -> Tensor:
    state, config = dense_states(model, x, embeds), model.config
    sets = [model, *model.own]
    said = []
    for row, rows in enumerate(state.unbind(1)):
        ends = sets[config.own_weights.index(role) + 1 if (role := roles_of(model, x, embeds)[row]) in config.own_weights else 0]
        said.append(rows @ (ends.token_embedding if config.tied else ends.to_logits).weight.T)
    return torch.stack(said, 1)


def roles_of(model: Any, x: Any, embeds: Any) -> tuple[str, ...]:
    layout = model.spec.checked.queries
    steps = layout.steps(model.rows_for(len((x if embeds is None else embeds)[0]))) if layout.rows_per_step else None
    return srt.tokens(model.spec, steps=steps, heads=model.config.heads, layers=model.config.depth).role


def gradients(loss: Tensor, model: Any, *more: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [*model.parameters(), *more], allow_unused=True, materialize_grads=True))


CHOICES: list[dict[str, Any]] = [
    {}, {"key_heads": 2}, {"key_heads": 1, "feed_forward": "gated"}, {"positions": "rotary"}, {"tied": True, "dim_head": 6, "positions": "rotary"},
    {"key_heads": 2, "feed_forward": "gated", "positions": "rotary", "tied": True},
]  # fmt: skip
TEXTS = {
    "reasoning": "layout repeat { token, reason * 2 }\nattend causal\nstop k, v where k is reason and 0 < q.step - k.step <= 2\npredict token -> index + 1\npredict reason -> index + 1",
    "hidden": "attend causal\nstop hidden where k.pos < q.pos\nstop k where q.pos - k.pos == 2\npredict token -> index + 1",
    "heads and layers": "attend causal and window(2 + layer + head)\nstop v where head == layer and k.pos < q.pos\npredict token -> index + 1 weight 1 / (step + 1)",
}  # fmt: skip


@pytest.mark.parametrize("backend", ["tiled", "reference"])
@pytest.mark.parametrize("options", CHOICES, ids=str)
@pytest.mark.parametrize("name", TEXTS)
def test_a_model_is_the_dense_one_that_its_choices_describe(name: str, options: dict[str, Any], backend: str):
    """Logits, and the gradients of all weights, in float64."""
    model, x = model_of(TEXTS[name], backend=backend, **options), torch.randint(0, 13, (2, 5))
    found, wanted = model(x, all_rows=True), dense_logits(model, x)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    pull = torch.randn_like(found)
    for a, b in zip(gradients((found * pull).sum(), model), gradients((wanted * pull).sum(), model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("options", [{}, *CHOICES[-2:]], ids=str)
@pytest.mark.parametrize("own", [("action",), ("context", "action")])
def test_roles_with_weights_of_their_own_go_through_those(own: tuple[str, ...], options: dict[str, Any]):
    model, x = model_of(INSULATION, own_weights=own, **options), torch.randint(0, 13, (2, 8))
    found, wanted = model(x, all_rows=True), dense_logits(model, x)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    pull = torch.randn_like(found)
    for a, b in zip(gradients((found * pull).sum(), model), gradients((wanted * pull).sum(), model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("own", "stopped", "holds"), [(("action",), True, True), ((), True, False), (("action",), False, False)])
@pytest.mark.parametrize("options", [{}, {"tied": True, "positions": "rotary", "feed_forward": "gated", "key_heads": 2}], ids=str)
def test_knowledge_is_insulated_to_the_bit_by_rule_and_weights_together(own: tuple[str, ...], stopped: bool, holds: bool, options: dict[str, Any]):
    """Trained on the action rows alone, the context says what it said; with the rule alone, or with weights of its own alone, it does not."""
    text = INSULATION if stopped else INSULATION.replace("stop k, v where q is action and k is context\n", "")
    model = model_of(text.replace("predict context -> index + 1 where index < 4\n", ""), own_weights=own, **options).float()
    x = torch.randint(0, 13, (4, 8))
    before, loss_before = model(x, all_rows=True), model(x, return_loss=True).item()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(8):
        optimiser.zero_grad()
        model(x, return_loss=True).backward()
        optimiser.step()
    after = model(x, all_rows=True)
    assert torch.equal(before[:, :5], after[:, :5]) is holds
    assert not torch.equal(before[:, 5:], after[:, 5:]) and model(x, return_loss=True).item() < loss_before - 0.1


@pytest.mark.parametrize("own", [(), ("reason",)])
def test_embeds_stand_in_place_of_tokens_or_beside_them(own: tuple[str, ...]):
    model, x = model_of(TEXTS["reasoning"], own_weights=own), torch.randint(0, 13, (2, 5))
    embeds = torch.randn(2, 5, 16, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(model(embeds=model.token_embedding(x), all_rows=True), model(x, all_rows=True))
    for words in (None, x):
        found, wanted = model(words, embeds=embeds, all_rows=True), dense_logits(model, words, embeds)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
        (a,), (b,) = (torch.autograd.grad(y.square().sum(), [embeds]) for y in (found, wanted))
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    for words, given, message in (
        (None, None, "give x"),
        (x, embeds[:, :4], "same data tokens"),
        (None, embeds[..., :3], "data tokens, 16"),
        (None, x, "data tokens, 16"),
    ):
        with pytest.raises(srt.InputError, match=message):
            model(words, embeds=given, all_rows=True)
    with pytest.raises(srt.InputError, match="give x= beside embeds="):
        model(embeds=embeds, return_loss=True)


def test_states_are_what_the_heads_read():
    model, x = model_of(TEXTS["reasoning"]), torch.randint(0, 13, (2, 5))
    hidden = model(x, return_hidden=True)
    assert hidden.shape == (2, 15, 16)
    torch.testing.assert_close(hidden, dense_states(model, x), rtol=1e-9, atol=1e-11)
    assert torch.equal(model.to_logits(hidden), model(x, all_rows=True))


def test_a_regression_head_is_trained_by_predict_on_targets():
    text = "layout repeat { token, reason }\nattend causal\npredict token -> index + 1 weight 1 / 2\npredict reason -> index + 2 where step != 1"
    model, x = model_of(text, regression=3), torch.randint(0, 13, (2, 4))
    targets = torch.randn(2, 4, 3, dtype=torch.float64)
    table = model.tokens(4)
    state = dense_states(model, x)
    total = weights = torch.zeros((), dtype=torch.float64)
    last: dict[int, Tensor] = {}
    for row, (target, weight) in enumerate(zip(table.target.tolist(), table.weight.tolist(), strict=True)):
        if target >= 0:
            said = state[:, row] @ model.to_values.weight.T + model.to_values.bias
            total, weights = total + weight * (said - targets[:, target]).square().mean(-1).sum(), weights + 2 * weight
            last[target] = said
    loss = model(x, targets=targets)
    torch.testing.assert_close(loss, total / weights, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(model(x, return_values=True), torch.stack([last[t] for t in sorted(last)], 1), rtol=1e-9, atol=1e-11)
    for a, b in zip(gradients(loss, model), gradients(total / weights, model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    assert set(model(x, targets=targets, return_parts=True).parts) == {"token", "reason"}
    torch.testing.assert_close(model(embeds=model.token_embedding(x), targets=targets), loss)
    with pytest.raises(srt.InputError, match=r"targets is \(batch, data tokens, regression\) = \(2, 4, 3\)"):
        model(x, targets=targets[..., :2])
    plain = model_of(text)
    for options in ({"targets": targets}, {"return_values": True}):
        with pytest.raises(srt.InputError, match="no regression head"):
            plain(x, **options)


def test_a_model_of_numbers_alone_knows_no_tokens(tmp_path: Path):
    """What it predicts is read by no row, so a row may predict at its own index; the same weights with a vocabulary beside them say the same."""
    spec = srt.parse("attend causal\nstop k, v where k.pos < q.pos\npredict token -> index")
    sizes: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "regression": 1}
    with pytest.raises(srt.SpecError, match="no leak"):
        srt.build_model(spec, num_tokens=5, **sizes)
    model = srt.build_model(spec, **sizes).double()
    assert not [name for name, _ in model.named_parameters() if "token_embedding" in name or "to_logits" in name]
    embeds, targets = torch.randn(3, 6, 16, dtype=torch.float64), torch.randn(3, 6, 1, dtype=torch.float64)
    loss = model(embeds=embeds, targets=targets)
    both = srt.build_model(spec, num_tokens=5, proofs="off", **sizes).double()
    both.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(loss, both(embeds=embeds, targets=targets))
    said = model(embeds=embeds, return_values=True)
    torch.testing.assert_close(loss, (said - targets).square().mean())
    srt.save_model(model, tmp_path / "m.safetensors")
    assert torch.equal(srt.load_model(tmp_path / "m.safetensors")(embeds=embeds, return_values=True), said)
    for options, words in (({"x": torch.zeros(3, 6, dtype=torch.int64)}, "give embeds="), ({"embeds": embeds}, "no token head"), ({}, "give embeds=")):
        with pytest.raises(srt.InputError, match=words):
            model(**options)
    for wrong in ({"regression": None}, {"tied": True}):
        with pytest.raises(srt.InputError, match="num_tokens= says how many tokens"):
            srt.build_model(spec, **{**sizes, **wrong})
    claimed = srt.parse("attend causal\npredict token -> index\nassert no leak")
    with pytest.raises(srt.SpecError, match="no leak"):
        srt.build_model(claimed, **sizes)


def test_params_of_a_call_decide_positions_and_what_is_predicted():
    text = "param shift = 1 given 1 <= shift\nlayout repeat { token, reason }\nattend causal\nposition step + shift\npredict token -> index + shift"
    model, x = model_of(text), torch.randint(0, 13, (2, 6))
    first = model(x, return_loss=True)
    moved = srt.build_model(model.spec.with_params(shift=3), **SIZES).double()
    moved.load_state_dict(model.state_dict())
    assert torch.equal(model(x, return_loss=True, shift=3), moved(x, return_loss=True))
    assert model.tokens(6, shift=3).target.tolist()[::2] == [3, 4, 5, -1, -1, -1]
    assert torch.equal(model(x, return_loss=True), first) and first != model(x, return_loss=True, shift=3)


def test_log_probs_are_those_of_the_last_row_that_predicts_each_token():
    text = "layout repeat { token, reason }\nattend causal\npredict token -> index + 1\npredict reason -> index + 2"
    model, x = model_of(text), torch.randint(0, 13, (2, 5))
    found, logits, table = model.log_probs(x), model(x, all_rows=True), model.tokens(5)
    assert found.shape == (2, 5) and bool(found[:, 0].isnan().all())
    last = {t: row for row, t in enumerate(table.target.tolist()) if t >= 0}
    for token in range(1, 5):
        torch.testing.assert_close(found[:, token], logits[:, last[token]].log_softmax(-1).gather(1, x[:, token, None])[:, 0])
    torch.testing.assert_close(-found[:, 1:].mean(), model(x, return_parts=True).last)


def test_the_table_of_a_model_is_that_of_its_spec():
    model = model_of(SELF_REASONING)
    assert str(model.tokens(3)) == str(srt.tokens(model.spec, steps=3))
    with pytest.raises(srt.InputError, match="how many data tokens"):
        model.tokens()
    with pytest.raises(srt.InputError, match="whole number"):
        model.tokens(2.5)
    fixed = model_of(INSULATION)
    assert str(fixed.tokens()) == str(fixed.tokens(8)) == str(srt.tokens(fixed.spec))


@pytest.mark.parametrize("options", [*CHOICES, {"own_weights": {"reason"}, "tied": True}, {"regression": 2, "max_slots": 3}], ids=str)
def test_checkpoints_keep_every_choice(options: dict[str, Any], tmp_path: Path):
    model, x = model_of(TEXTS["reasoning"], **options), torch.randint(0, 13, (2, 5))
    srt.save_model(model, tmp_path / "m.safetensors")
    again = srt.load_model(tmp_path / "m.safetensors")
    assert again.config == model.config and torch.equal(again(x), model(x))


def test_files_from_before_the_choices_load(tmp_path: Path):
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    model, x = model_of(TEXTS["reasoning"]), torch.randint(0, 13, (2, 5))
    srt.save_model(model, tmp_path / "new")
    with safe_open(str(tmp_path / "new"), framework="pt") as file:
        metadata = dict(file.metadata())
    kept = ("dim", "depth", "heads", "num_tokens", "dim_head", "max_positions")
    metadata["config"] = json.dumps({n: v for n, v in json.loads(metadata["config"]).items() if n in kept})
    save_file(model.state_dict(), tmp_path / "old", metadata)
    assert torch.equal(srt.load_model(tmp_path / "old")(x), model(x))
    metadata["config"] = json.dumps({**json.loads(metadata["config"]), "experts": 4})
    save_file(model.state_dict(), tmp_path / "newer", metadata)
    with pytest.raises(srt.InputError, match=r"newer is no model that this version can build.*experts"):
        srt.load_model(tmp_path / "newer")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key_heads": 3}, "no multiple of key_heads"), ({"key_heads": 0}, "1 or more"), ({"feed_forward": "relu"}, "'gelu' or 'gated'"),
        ({"positions": "alibi"}, "'learned' or 'rotary'"), ({"positions": "rotary", "dim_head": 3}, "dim_head is even"), ({"tied": 1}, "True or False"),
        ({"own_weights": {"reson"}}, "did you mean `reason`"), ({"own_weights": "reason"}, "set of roles"), ({"regression": 0}, "1 or more"),
        ({"num_key_value_heads": 2}, "write key_heads="), ({"rope": True}, 'write positions="rotary"'),
    ],
)  # fmt: skip
def test_choices_that_do_not_fit(options: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        model_of(TEXTS["reasoning"], **options)


def test_rotary_positions_may_be_any_number_and_learned_ones_may_not():
    text = "attend causal\nposition pos - 3 if pos < 4 else pos * 100000\npredict token -> index + 1"
    x = torch.randint(0, 13, (1, 6))
    model = model_of(text, positions="rotary")
    torch.testing.assert_close(model(x, all_rows=True), dense_logits(model, x), rtol=1e-9, atol=1e-11)
    with pytest.raises(srt.InputError, match=r'positions run from -3 to 500000.*positions="rotary"'):
        model_of(text)(x)


def test_the_loss_in_double_is_in_double():
    model, x = model_of(TEXTS["reasoning"]), torch.randint(0, 13, (2, 5))
    assert model(x, return_loss=True).dtype is torch.float64 and model.float()(x, return_loss=True).dtype is torch.float32
    assert F.cross_entropy(model(x).flatten(0, 1), x[:, 1:].flatten()).isfinite()
