"""Reports of kinds D and N, and L4: masks that something drops on the way, rules that nobody can read, gradients that are missing or leak."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from calls import ANY_BACKEND, BACKENDS, FEW, Results, assert_near, assert_same_bits, call, qkv, run
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import srt_masks as srt
from srt_masks.testing import Broken, Case, check
from srt_masks.testing.claims import judge

# ------------------------------------------------------------------------------------------------ D4: nothing given is not no mask


def keys_that_matter(attend: Any, q: Tensor, k: Tensor, v: Tensor, row: int, **options: Any) -> list[int]:
    """By what moves: the keys whose value reaches a row, in any head."""
    before, found = attend(q, k, v, **options)[:, :, row], []
    for key in range(k.shape[2]):
        other = v.clone()
        other[:, :, key] += 1
        if not torch.equal(attend(q, k, other, **options)[:, :, row], before):
            found.append(key)
    return found


NOTHING: list[dict[str, Any]] = [{}, {"inputs": None}, {"inputs": {}}, {"lengths": None}, {"lengths": [5]}, {"queries": None}, {"given": None}, {"scale": None}]


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_D4_causal_is_causal_whatever_else_is_given_or_not(backend: str):
    attend, (q, k, v, _) = srt.compile(srt.parse("attend causal"), backend=backend), qkv(5, heads=1)
    for row in range(5):
        assert keys_that_matter(attend, q, k, v, row) == list(range(row + 1))
    out = attend(q, k, v)
    assert all(torch.equal(attend(q, k, v, **options), out) for options in NOTHING)


def test_D4_in_the_original_function_too():
    q, k, v, _ = qkv(5, heads=1)
    none = {name: None for name in ("mask", "attn_mask", "q_stop_grad_mask", "k_stop_grad_mask", "v_stop_grad_mask")}
    for options in ({}, none):

        def attend(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any] = options) -> Tensor:
            return srt.stop_graddable_attn(q, k, v, causal=True, **options)

        assert [keys_that_matter(attend, q, k, v, row) for row in range(5)] == [list(range(row + 1)) for row in range(5)]


CAUSAL_TEXTS = [
    "attend causal",
    "layout repeat { token, reason }\nattend causal\nstop k, v where k is reason",
    "attend causal\nstop hidden where k.pos < q.pos",
]


def model_of(text: str, backend: str = "tiled", depth: int = 2) -> Any:
    """`proofs` off: some of these texts let a token see what it is to predict, and what becomes of it is what is looked at."""
    torch.manual_seed(0)
    spec = srt.parse(text + "\npredict token -> index + 1")
    return srt.build_model(spec, dim=16, depth=depth, heads=2, num_tokens=13, backend=backend, proofs="off").double()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", CAUSAL_TEXTS)
def test_D4_a_model_is_causal(text: str, backend: str):
    """No logit before a word changes by a bit with it, and all from it on do."""
    model, x = model_of(text, backend), torch.arange(6)[None] * 2
    rows = model.rows_for(6) // 6
    before = model(x, all_rows=True)
    for word in range(6):
        other = x.clone()
        other[0, word] += 1
        changed = (model(other, all_rows=True) != before).any(-1)[0]
        assert changed.tolist() == [row // rows >= word for row in range(len(changed))]


# ------------------------------------------------------------------------------------------------ D6: recomputed layers


class Recomputed(nn.Module):
    """A block whose inner states are thrown away and computed again in the backward."""

    def __init__(self, block: nn.Module, reentrant: bool):
        super().__init__()
        self.block, self.reentrant = block, reentrant

    def forward(self, x: Tensor, attend: Any) -> Any:
        return checkpoint(self.block, x, attend, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", [*CAUSAL_TEXTS[1:], "input doc: int per token\nattend causal and same(doc) and window(2 + layer)\nstop k where head == layer"])
def test_D6_recomputed_layers_keep_mask_rules_and_inputs(text: str, backend: str, reentrant: bool):
    """Loss and the gradients of all weights, to the bit; and without the mask they would be others."""
    x, named = torch.arange(8)[None], {"doc": torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])} if "doc" in text else {}

    def gradients(text: str, recomputed: bool, **named: Any) -> list[Tensor]:
        model = model_of(text, backend)
        if recomputed:
            model.blocks = nn.ModuleList(Recomputed(block, reentrant) for block in model.blocks)
        loss = model(x, return_loss=True, **named)
        loss.backward()
        return [loss.detach(), *(p.grad for p in model.parameters())]

    plain = gradients(text, False, **named)
    assert all(torch.equal(a, b) for a, b in zip(gradients(text, True, **named), plain, strict=True))
    layout = text.partition("\n")[0] if "layout" in text else ""
    assert not all(torch.equal(a, b) for a, b in zip(gradients(f"{layout}\nattend causal", True), plain, strict=True))


# ------------------------------------------------------------------------------------------------ L4: what no path leads to

PATHS = [
    "attend causal", "attend causal and window(3)", "attend causal and same(pos // 3)", "attend k.pos <= q.pos and (pos_is_even or k.pos == q.pos)",
    "layout sink * 2, repeat { token, reason }\nattend causal and (k is not reason or same(step))\nposition pos", "attend q.pos // 4 == k.pos // 4",
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", PATHS)
def test_L4_what_no_path_leads_to_does_not_change_by_a_bit(text: str, backend: str):
    """Through three layers of a model, for every word; what a path leads to does change. Paths are those of the dense masks."""
    text = text.replace("pos_is_even", "k.pos % 2 == 0")
    model, x = model_of(text, backend, depth=3), torch.arange(7)[None]
    spec = model.spec
    steps = 7
    edges = srt.dense(spec, steps=steps, heads=2, layers=3).attend[0].any(0)
    reach = torch.eye(len(edges), dtype=torch.double)
    for _ in range(3):
        reach = reach + edges.double() @ reach
    words = [i for i, role in enumerate(srt.tokens(spec, steps=steps).role) if role == "token"]
    before = model(x, all_rows=True)
    for word, row in enumerate(words):
        other = x.clone()
        other[0, word] += 1
        assert (model(other, all_rows=True) != before).any(-1)[0].tolist() == (reach[:, row] > 0).tolist()


@pytest.mark.parametrize("name", ["self_reasoning", "self_reasoning_hidden", "patient_heads", "quiet_star", "myopic_training"])
def test_L4_texts_drawn_with_and_without_a_cache_are_one(name: str):
    """In float64, of weights with which a difference of logits would show; and the draws do differ by seed. Logits of every scheme: `test_sampling.py`."""
    text = (ROOT / "examples" / f"{name}.mask").read_text()
    model = srt.build_model(srt.parse(text + ("" if "predict" in text else "\npredict token -> index + 1")), dim=16, depth=2, heads=2, num_tokens=256).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    drawn = [srt.sample(model, [b"The ", b"A longer prompt"], 16, temperature=1.5, seed=seed, cache=cache) for seed in (1, 2) for cache in (True, False)]
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3] and drawn[0] != drawn[2]


# ------------------------------------------------------------------------------------------------ N1: a rule in words


CROSS = "queries layout repeat { image }\nkeys layout repeat { word }\nattend full\nstop k, v where k.pos == 0"


@FEW
@given(ANY_BACKEND, st.integers(1, 20), st.integers(1, 20), st.integers(0, 3))
def test_N1_a_detach_blend_on_the_first_key(backend: str, queries: int, keys: int, first: int):
    """As it is written by hand: a mask of 1s blends keys and values with their detached selves. The query's gradient is whole."""
    tensors = qkv(queries, keys=keys)
    q, k, v, dout = (x.clone().requires_grad_(i < 3) for i, x in enumerate(tensors))
    blend = torch.ones(keys, 1, dtype=torch.float64)
    blend[:first] = 0

    def blended(x: Tensor) -> Tensor:
        return blend * x + (1 - blend) * x.detach()

    scores = q @ blended(k).transpose(-1, -2) * 8**-0.5
    out, lse = scores.softmax(-1) @ blended(v), scores.logsumexp(-1)
    grads = torch.autograd.grad((out * dout).sum() + (lse * dout.sum(-1)).sum(), (q, k, v))
    found = run(CROSS.replace("== 0", f"< {first}"), backend, tensors)
    assert_near(found, Results(out.detach(), lse.detach(), *grads))
    torch.testing.assert_close(found.dq, run(CROSS.replace("== 0", "< 0"), backend, tensors).dq, rtol=1e-12, atol=1e-12)
    assert bool((found.dk[:, :, :first] == 0).all()) and bool((found.dv[:, :, :first] == 0).all())


def test_N1_and_words_say_what_learns():
    """Of a pair with the first key, and of another: what reaches q, k and v, and that weights of the asking row learn all the same."""
    spec = srt.parse(CROSS)
    first, other = (" ".join(str(srt.explain(spec, 1, key, steps=3)).split()) for key in (0, 2))
    assert "q the whole gradient k no gradient: stopped by line 4 v no gradient: stopped by line 4" in first
    assert "q the whole gradient k the whole gradient v the whole gradient" in other
    assert "the asking row's output projection and feed-forward learn all the same" in first
    stopped = str(srt.flow(srt.parse(CROSS.replace(" where k.pos == 0", "")), steps=3))
    assert "A word row learns nothing from image rows" in stopped and "W_q, W_o and the feed-forward of the row that reads learn all the same" in stopped
    assert "learns nothing" not in str(srt.flow(srt.parse(CROSS.replace("k.pos == 0", "k.pos == 0 and q.pos == 0")), steps=3))


# ------------------------------------------------------------------------------------------------ N4: a gradient that is missing

PROMPT = "layout prompt * 3, repeat { token }\nattend causal\nassert grad where q is token and k is prompt"


@pytest.mark.parametrize("backend", BACKENDS)
def test_N4_a_prompt_without_a_loss_learns_through_keys_and_values(backend: str):
    tensors = qkv(12)
    tensors[3][:, :, :3] = 0  # no loss at the prompt
    unclaimed = PROMPT.partition("\nassert")[0]  # with the claim it would be refused
    learns, stopped = run(PROMPT, backend, tensors), run(unclaimed + "\nstop k, v where k is prompt", backend, tensors)
    assert all(bool((x[:, :, :3] != 0).all()) for x in (learns.dk, learns.dv))
    assert all(bool((x[:, :, :3] == 0).all()) and bool((x[:, :, 3:] != 0).any()) for x in (stopped.dk, stopped.dv))
    assert torch.equal(learns.out, stopped.out) and torch.equal(learns.dq, stopped.dq)


def test_N4_a_claim_that_something_learns_catches_it():
    check(srt.parse(PROMPT), laws=["claims"])
    for rule in ("stop k, v where k is prompt", "scale k, v by 0 where q is token and k is prompt", "stop hidden where k is prompt"):
        with pytest.raises(Broken, match=r"assert grad where q is token and k is prompt.*does not reach"):
            check(srt.parse(f"{PROMPT}\n{rule}"), laws=["claims"])


# ------------------------------------------------------------------------------------------------ N5: sinks, and causality of gradients

# Rows that everybody sees, and that see nothing of what comes later.
SINKS = [
    "layout sink * 2, repeat { token }\nattend causal", "layout sink, repeat { token }\nattend causal and (k is sink or window(3))", "attend causal and (k.pos < 2 or window(3))",
    "layout register * 3, repeat { token }\nattend k is register or (causal and q is token)", "layout repeat { token, register }\nattend causal\nstop k, v where k is register and q.step - k.step > 2",
    "layout sink * 2, repeat { token }\nattend causal\nscale k by 0.5 where k is sink\nstop q where k is sink",
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", SINKS)
def test_N5_no_gradient_comes_from_what_is_later(text: str, backend: str):
    """Two layers of self-attention: the loss of each row, back to the states they began with. Exact zeros after it, and none for the first row."""
    spec = srt.parse(text)
    steps, heads = 6, 2
    tokens = spec.checked.queries.tokens(steps)
    attend, maps = srt.compile(spec, backend=backend, tile=16), torch.randn(3, heads, 8, 8, dtype=torch.float64)
    start = torch.randn(1, heads, tokens, 8, dtype=torch.float64)
    sinks = [i for i, role in enumerate(srt.tokens(spec, steps=steps).role) if role == "register" and "register *" in text]

    def step(x: Tensor) -> Tensor:
        q, k, v = (x @ m for m in maps)
        return x + attend(q, k, v)

    for row in range(tokens) if backend != "triton" else (0, tokens // 2, tokens - 1):
        x = start.clone().requires_grad_()
        (grad,) = torch.autograd.grad(step(step(x))[:, :, row].sum(), x)
        after = [i for i in range(row + 1, tokens) if i not in sinks]
        assert bool((grad[:, :, after] == 0).all()) and bool((grad[:, :, row] != 0).all())
        assert bool((grad[:, :, 0] != 0).any())


@pytest.mark.parametrize("backend", BACKENDS)
def test_N5_a_register_that_reads_everything_leaks_and_is_found(backend: str):
    """One layer looks causal; in the second the past learns from the future. A claim says so before anything is trained."""
    text = (
        "layout register, repeat { token }\nattend causal or k is register or q is register\nassert no flow where k.step > q.step and q is token and k is token"
    )
    with pytest.raises(srt.SpecError, match=r"is reached by row 2 .*in 2 hops"):
        srt.compile(srt.parse(text), backend=backend)
    attend, start = srt.compile(srt.parse(text), backend=backend, proofs="off"), torch.randn(1, 1, 6, 8, dtype=torch.float64)
    for layers, leaks in ((1, False), (2, True)):
        x = start.clone().requires_grad_()
        state: Tensor = x
        for _ in range(layers):
            state = state + attend(state, state, state)
        (grad,) = torch.autograd.grad(state[:, :, 1].sum(), x)
        assert bool((grad[:, :, 2:] != 0).any()) is leaks
    (verdict,) = judge(Case(srt.parse(text), 5))
    assert "reaches" in verdict.wrong


# ------------------------------------------------------------------------------------------------ N9: one prompt, several responses

SHARED = (
    "input response: int per token\nattend causal and (k.response == 0 or same(response))\nstop k where q.response > 0 and k.response == 0 and q.pos % 3 == 1"
)
ALONE = "input place: int per token\ninput response: int per token\nattend causal\nstop k where q.response > 0 and k.response == 0 and q.place % 3 == 1"


def assert_shared_is_separate(backend: str, prompt: int, responses: list[int]) -> None:
    """`place` tells a response run alone where it stood in the pack, so that the rule of gradients means the same."""
    number = torch.repeat_interleave(torch.arange(len(responses) + 1), torch.tensor([prompt, *responses]))
    tensors = qkv(prompt + sum(responses))
    together = run(SHARED, backend, tensors, response=number)
    sums, seen = [torch.zeros_like(together.dk), torch.zeros_like(together.dv)], torch.zeros_like(number, dtype=torch.bool)
    for response in range(1, len(responses) + 1):
        at = ((number == 0) | (number == response)).nonzero().flatten()
        q, k, v, dout = (x[:, :, at] for x in tensors)
        alone = run(ALONE, "reference", [q, k, v, dout * ~seen[at][:, None]], response=number[at], place=at)  # a prompt's own loss counts once
        seen[at] = True
        own = torch.arange(len(at)) >= prompt
        torch.testing.assert_close(together.out[:, :, at], alone.out, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.lse[:, :, at], alone.lse, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.dq[:, :, at[own]], alone.dq[:, :, own], rtol=1e-9, atol=1e-9)
        for total, grad in zip(sums, (alone.dk, alone.dv), strict=True):
            total[:, :, at] += grad
    for found, wanted in zip((together.dk, together.dv), sums, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@FEW
@given(ANY_BACKEND, st.integers(0, 12), st.lists(st.integers(0, 12), min_size=1, max_size=3))
def test_N9_responses_to_one_prompt_are_the_responses_alone(backend: str, prompt: int, responses: list[int]):
    assert_shared_is_separate(backend, prompt, responses)


@pytest.mark.parametrize(("backend", "shrink"), [("tiled", 1), ("reference", 1), ("triton", 4)])
def test_N9_as_reported(backend: str, shrink: int):
    assert_shared_is_separate(backend, 70 // shrink, [40 // shrink] * 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_N9_positions_restart_behind_the_prompt(backend: str):
    """By position id: a window counts from the prompt's end in each response."""
    text = "input response: int per token\ninput place: int per token\nattend causal and (k.response == 0 or same(response)) and q.place - k.place < 4"
    number = torch.tensor([0] * 5 + [1] * 4 + [2] * 4)
    place = torch.tensor([*range(5), *range(5, 9), *range(5, 9)])
    tensors = qkv(13)
    found = call(srt.compile(srt.parse(text), backend=backend, tile=16), tensors, response=number, place=place)
    at = torch.tensor([*range(5), *range(9, 13)])
    alone = run("attend causal and window(4)", backend, [x[:, :, at] for x in tensors])
    torch.testing.assert_close(found.out[:, :, at], alone.out, rtol=1e-12, atol=1e-12)
    assert_same_bits(found, call(srt.compile(srt.parse(text), backend=backend, tile=16), tensors, response=number, place=place))
