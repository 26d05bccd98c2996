"""A model lays its rows out once, in the order in which all its layers visit them: no layer gathers, and nothing else is noticed of it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_orders import orders_of
from test_orders import results as results_of
from test_zoo import inputs_of, steps_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from zoo_case import SCHEMES, Scheme

import srt_masks as srt
from srt_masks.kernels import planned
from srt_masks.kernels.attention import compile_spec
from srt_masks.models.transformer import SpecTransformer

SEEN_A_WHILE = "layout repeat { token, reason * 2 }\ndata token\nposition step\nattend causal and (k is token or q.step - k.step <= 2)\npredict token -> index + 1\npredict reason -> index + 2"
HIDDEN = f"{SEEN_A_WHILE}\nstop hidden where k is reason and 0 < q.step - k.step <= 1"
WORDS = 9


def model_of(spec: srt.Spec, **sizes: Any) -> SpecTransformer:
    torch.manual_seed(0)
    return srt.build_model(spec, **{"dim": 16, "depth": 2, "heads": 2, "num_tokens": 11, "max_positions": 64, "proofs": "off", **sizes}).double()


def in_order(model: SpecTransformer, order: str, backend: str = "tiled") -> SpecTransformer:
    """The model with an attention that visits tokens in an order, on tiles so small that there are several."""
    config = model.config
    model.attend = compile_spec(model.spec, heads=config.heads, layers=config.depth, backend=backend, tile=16, order=order)
    return model


def results(model: SpecTransformer, x: Tensor, **beside: Any) -> dict[str, Tensor]:
    """What the model says of x in every way, and the gradients of all weights: of the loss, or where nothing is predicted of all that is said."""
    found = {"states": model(x, return_hidden=True, **beside), "rows": model(x, all_rows=True, **beside)}
    target = found["rows"].square().mean()
    if model.spec.checked.predictions:
        loss = model(x, return_parts=True, **beside)
        found |= {"loss": loss.loss, "last": loss.last, **{f"loss of {n}": part for n, part in loss.parts.items()}}
        found |= {"said": model(x, **beside), "log_probs": model.log_probs(x, **beside)}
        target = loss.loss + target
    grads = torch.autograd.grad(target, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return {n: t.detach() for n, t in found.items()} | {n: g for (n, _), g in zip(model.named_parameters(), grads, strict=True)}


def assert_alike(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, x in found.items():
        torch.testing.assert_close(x, wanted[name], rtol=1e-12, atol=1e-12, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}")


def is_moved(model: SpecTransformer, x: Tensor, **beside: Any) -> bool:
    return model._as_visited(model.lay_out(x, **beside)).visited is not None


@pytest.fixture
def gathers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of every tensor that attention gathers, the number of its rows."""
    seen: list[int] = []

    def reorder(x: Tensor, there: Tensor, real: Callable[..., Tensor] = planned.reorder) -> Tensor:
        seen.append(x.shape[2])
        return real(x, there)

    monkeypatch.setattr(planned, "reorder", reorder)
    return seen


def text_of(scheme: Scheme) -> str:
    """With what a model needs beside the mask."""
    checked = srt.parse(scheme.text).checked
    return scheme.text + ("" if checked.position is not None or checked.queries.is_single_repeat else "\nposition pos")


def has_orders(scheme: Scheme) -> bool:
    """And a model: data, and one layout whose tokens all ask."""
    spec = srt.parse(scheme.text)
    return bool(spec.checked.data and spec.checked.asks is None and spec.checked.keys is None and orders_of(spec))


ORDERED = [s for s in SCHEMES if has_orders(s)]


@pytest.mark.parametrize("scheme", ORDERED, ids=lambda s: s.name)
def test_every_published_text_in_its_orders(scheme: Scheme, gathers: list[int]):
    case: SimpleNamespace = scheme.cases[0]
    spec = srt.parse(text_of(scheme), params=case.params)
    model = model_of(spec, dim=8 * case.heads, depth=case.layers, heads=case.heads)
    beside: dict[str, Any] = {"inputs": inputs_of(spec, case), "given": case.given}
    table = srt.tokens(spec, steps=steps_of(spec, case), heads=case.heads, layers=case.layers, **beside)
    x = torch.randint(0, 11, (2, sum(spec.roles.index(role) in spec.checked.data for role in table.role)))
    wanted = results(in_order(model, "natural"), x, **beside)
    assert not gathers
    for order in orders_of(spec)[:4]:
        moved = is_moved(in_order(model, order), x, **beside)
        plans = [model.attend.plan(len(table.role), heads=case.heads, layer=n, **beside) for n in range(case.layers)]
        assert moved is (plans[0].visited is not None and all(p.visited is not None and torch.equal(p.visited, plans[0].visited) for p in plans))
        gathers.clear()
        assert_alike(results(model, x, **beside), wanted)
        assert not (moved and gathers), "laid out in the order of the plans, and gathered nevertheless"


TWO_WIDTHS = f"param far = 2\n{SEEN_A_WHILE.replace('<= 2', '<= far')}"
BY_HEAD = SEEN_A_WHILE.replace("<= 2", "<= 1 + head")
BY_LAYER = SEEN_A_WHILE.replace("<= 2", "<= 1 + layer")
GIVEN = "layout given { token, reason }\ndata token\nposition step\nattend causal and (k is token or q.step == k.step)\npredict token -> index + 1"
ROLES = {
    "role": torch.tensor([0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0]), "step": torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 4, 5, 6, 6, 7, 8]),
    "slot": torch.tensor([0, 0, 1] + [0] * 11),
}  # fmt: skip
RANKED = "input rank: int per token\ndata token\nattend k.rank < q.rank or k.pos == q.pos\npredict token -> index + 1"
RANK = torch.stack([torch.randperm(WORDS, generator=torch.Generator().manual_seed(n)) for n in range(2)])
CALLS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], bool]] = {  # text, order, sizes, what the call gives, whether its rows are laid out anew
    "learned positions": (SEEN_A_WHILE, "by role", {}, {}, True),
    "rotary positions": (SEEN_A_WHILE, "by role", {"positions": "rotary", "tied": True, "feed_forward": "gated"}, {}, True),
    "weights of its own": (SEEN_A_WHILE, "by role", {"own_weights": ["reason"]}, {}, True),
    "grouped heads": (SEEN_A_WHILE, "by role", {"heads": 4, "key_heads": 2}, {}, True),
    "stop hidden": (HIDDEN, "by role", {}, {}, True),
    "heads of their own": (BY_HEAD, "by role", {}, {}, True),
    "layers of their own": (BY_LAYER, "by role", {}, {}, True),
    "a param by row": (TWO_WIDTHS, "by role", {}, {"far": torch.tensor([1, 3])}, True),
    "a given layout": (GIVEN, "by role", {"max_slots": 2}, {"given": ROLES}, True),
    "one input": (RANKED, "by k.rank", {}, {"rank": RANK[0]}, True),
    "an input by row": (RANKED, "by k.rank", {}, {"rank": RANK}, False),
    "all as long": (SEEN_A_WHILE, "by role", {}, {"lengths": [WORDS, WORDS]}, True),
    "ragged": (SEEN_A_WHILE, "by role", {}, {"lengths": [WORDS, 5]}, False),
    "all as short": (SEEN_A_WHILE, "by role", {}, {"lengths": [5, 5]}, False),
    "padded on the left": (SEEN_A_WHILE, "by role", {}, {"lengths": [WORDS, 5], "padding": "left"}, False),
    "the text's order": (SEEN_A_WHILE, "natural", {}, {}, False),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_model_says_what_it_says_in_the_order_of_the_text(name: str, gathers: list[int]):
    text, order, sizes, beside, moved = CALLS[name]
    model, x = model_of(srt.parse(text), **sizes), torch.randint(0, 11, (2, WORDS))
    wanted = results(in_order(model, "natural"), x, **beside)
    in_order(model, order)
    assert is_moved(model, x, **beside) is moved
    assert_alike(results(model, x, **beside), wanted)
    assert bool(gathers) is (not moved and order != "natural")


def test_layers_that_visit_rows_in_unlike_orders_gather_them(monkeypatch: pytest.MonkeyPatch, gathers: list[int]):
    """Each layer has orders of its own: what one visits as it comes, another gathers."""
    text = "data token\nattend causal and (layer == 0 and k.pos % 2 == q.pos % 2 or layer == 1 and k.pos % 3 == q.pos % 3)\npredict token -> index + 1"
    model, x = model_of(srt.parse(text), positions="rotary"), torch.randint(0, 11, (1, 300))
    wanted = results(in_order(model, "natural"), x)
    in_order(model, "auto")
    plans = [model.attend.plan(300, layer=n) for n in range(2)]
    assert all(p.visited is not None for p in plans) and not torch.equal(plans[0].visited, plans[1].visited)
    assert not is_moved(model, x)
    assert_alike(results(model, x), wanted)
    assert gathers


def test_a_model_as_it_is_built_takes_the_order_that_pays(gathers: list[int]):
    """Under autocast, too, where tokens have another dtype; and what is put in the place of its attention sees rows as the text has them."""
    model = model_of(srt.zoo("registers look ahead"), positions="rotary", depth=1).float()
    x = torch.randint(0, 11, (1, 600))
    assert is_moved(model, x) and not is_moved(model, x[:, :20])
    moved = model(x, return_loss=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_moved(model, x)
        model(x, return_loss=True).backward()
    assert not gathers
    seen: list[Tensor] = []
    hook = model.ends[0].norm.register_forward_hook(lambda module, given, out: seen.append(out.detach().clone()))
    model(x, return_loss=True)
    with FlopCounterMode(display=False):  # whatever sees the whole call is to see no plan, and rows as the text has them
        torch.testing.assert_close(model(x, return_loss=True), moved)
    hook.remove()
    visited = model._as_visited(model.lay_out(x)).visited
    torch.testing.assert_close(*(t.reshape(-1, 1200, 16) for t in (seen[0], seen[1].reshape(-1, 1200, 16)[:, visited])))
    assert gathers
    gathers.clear()
    attend = model.attend
    model.attend = lambda *a, **b: attend(*a, **b)
    assert not is_moved(model, x)
    torch.testing.assert_close(model(x, return_loss=True), moved)
    assert gathers


def test_numbers_in_and_out_and_what_is_asked_of_the_next_word(gathers: list[int]):
    model, x = model_of(srt.parse(SEEN_A_WHILE), regression=2), torch.randint(0, 11, (2, WORDS))
    embeds, targets = torch.randn(2, WORDS, 16, dtype=torch.float64, requires_grad=True), torch.randn(2, WORDS, 2, dtype=torch.float64)

    def found(order: str) -> list[Tensor]:
        in_order(model, order)
        loss = model(embeds=embeds, targets=targets)
        values = model(x, embeds=embeds, return_values=True)
        return [loss.detach(), values.detach(), model.next_logits(x).detach(), *torch.autograd.grad(loss + values.sum(), embeds)]

    for a, b in zip(found("by role"), found("natural"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert not gathers


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch looks at it while it compiles
def test_a_pass_that_is_done_again_is_the_same(gathers: list[int]):
    """Blocks whose states are let go of and computed again in the backward, and blocks that torch compiles."""
    model, x = in_order(model_of(srt.parse(HIDDEN)), "by role"), torch.randint(0, 11, (2, WORDS))
    wanted = results(model, x)
    for block in model.blocks:
        real = block.forward
        block.forward = lambda *a, real=real: torch.utils.checkpoint.checkpoint(real, *a, use_reentrant=False)
    assert_alike(results(model, x), wanted)
    for block in model.blocks:
        del block.forward
        block.compile(backend="eager")
    assert_alike(results(model, x), wanted)
    assert not gathers


def test_a_cache_reads_rows_as_they_become_known():
    model = in_order(model_of(srt.parse(SEEN_A_WHILE)), "by role")
    kept, whole = (srt.sample(model, [[1, 2, 3]], 5, temperature=0, cache=cache) for cache in (True, False))
    natural = in_order(model, "natural")
    assert kept == whole == srt.sample(natural, [[1, 2, 3]], 5, temperature=0, cache=False)


# ------------------------------------------------------------------------------------------------ attention that is told of the order


# Its first two heads share a key head and one order, its last two another.
OF_HEADS = "attend causal and (head < 2 and k.pos % 2 == q.pos % 2 or head >= 2 and k.pos % 3 == q.pos % 3)"


@pytest.mark.parametrize(("text", "backend", "order", "lengths"), [
    (SEEN_A_WHILE, "reference", "natural", [27, 18]), (HIDDEN, "reference", "natural", [27, 18]),
    (SEEN_A_WHILE, "tiled", "natural", [27, 18]), (HIDDEN, "tiled", "natural", [27, 18]),
    (SEEN_A_WHILE, "tiled", "by role", [27, 18]), (HIDDEN, "tiled", "by role", [27, 18]), (OF_HEADS, "tiled", "auto", [240, 133]),
], ids=lambda x: {SEEN_A_WHILE: "plain", HIDDEN: "hidden", OF_HEADS: "heads"}.get(x, x) if isinstance(x, str) else "")  # fmt: skip
def test_rows_come_in_any_order(text: str, backend: str, order: str, lengths: list[int]):
    """In that of the plan, which moves nothing, and in another; ragged, with grouped heads: out, lse and all gradients are those of the same tokens."""
    attend = srt.compile(srt.parse(text), backend=backend, tile=16, order=order, proofs="off")
    n = lengths[0]
    q, k, v = (torch.randn(2, h, n, 8, dtype=torch.float64) for h in (4, 2, 2))
    dout, dlse = torch.randn_like(q), torch.randn(q.shape[:3], dtype=torch.float64)
    plan = attend.plan(n, heads=4)
    names, visited = {name for *_, name in plan.orders}, plan.visited
    assert (visited is None) is (order != "by role") and len(names) == (2 if text is OF_HEADS else 1) and ("natural" in names) is (order == "natural")
    for order_of_rows in (torch.randperm(n), *([] if visited is None else [visited])):
        for own in ([n, n], lengths):
            reached = torch.isfinite(attend(q, k, v, lengths=own, return_lse=True, **twins_of(attend, k, v))[1])
            wanted = results_of(attend, q, k, v, dout, torch.where(reached, dlse, 0.0), lengths=own)
            moved = [x[:, :, order_of_rows] for x in (q, k, v, dout, torch.where(reached, dlse, 0.0))]
            for a, b in zip(results_of(attend, *moved, lengths=own, visited=order_of_rows), wanted, strict=True):
                torch.testing.assert_close(a, b[:, :, order_of_rows], rtol=1e-11, atol=1e-11)


def test_what_a_plan_visits_is_the_callers_to_write_into():
    attend = srt.compile(srt.parse(SEEN_A_WHILE), tile=16, order="by role", proofs="off")
    x = torch.randn(1, 1, 27, 8, dtype=torch.float64)
    first, wanted = attend.plan(27, dtype=x.dtype, head_dim=8).visited, attend(x, x, x)
    kept = first.clone()
    first.zero_()
    again = attend.plan(27, dtype=x.dtype, head_dim=8).visited
    assert torch.equal(again, kept)
    assert torch.equal(attend(x, x, x), wanted)
    torch.testing.assert_close(attend(*[x[:, :, kept]] * 3, visited=kept), wanted[:, :, kept], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_rows_of_no_batch(backend: str):
    attend = srt.compile(srt.parse("attend causal"), backend=backend)
    x = torch.randn(0, 1, 4, 8, requires_grad=True)
    out = attend(x, x, x, visited=torch.tensor([3, 1, 0, 2]))
    out.sum().backward()
    assert out.shape == x.grad.shape == (0, 1, 4, 8)
    with pytest.raises(srt.InputError, match="each of them once"):
        attend(x, x, x, visited=torch.tensor([0, 1, 1, 3]))


def test_an_array_that_is_read_backwards():
    """On its own, and where the call is watched."""
    attend = srt.compile(srt.parse("attend causal"))
    x, backwards = torch.randn(1, 1, 4, 8), np.arange(4)[::-1]
    wanted = attend(*[x.flip(2)] * 3).flip(2)
    torch.testing.assert_close(attend(x, x, x, visited=backwards), wanted)
    with FlopCounterMode(display=False):
        torch.testing.assert_close(attend(x, x, x, visited=backwards), wanted)


def test_only_an_attention_that_may_reorder_is_asked_for_its_plan():
    spec = srt.parse(SEEN_A_WHILE)
    assert not srt.compile(spec, order="natural").may_reorder(3000)
    assert srt.compile(spec, order="by role").may_reorder(3) and srt.compile(spec).may_reorder(3000) and not srt.compile(spec).may_reorder(30)


def test_a_mapped_call_has_one_order():
    attend = srt.compile(srt.parse(SEEN_A_WHILE), order="by role", proofs="off")
    q, visited = torch.randn(3, 2, 2, 12, 8, dtype=torch.float64), torch.randperm(12)
    found = torch.vmap(lambda x: attend(x, x, x, visited=visited))(q)
    torch.testing.assert_close(found, torch.stack([attend(x, x, x, visited=visited) for x in q]))


def twins_of(attend: Any, k: Tensor, v: Tensor) -> dict[str, Tensor]:
    return {"hidden_k": k, "hidden_v": v} if attend.spec.checked.has_hidden_rules else {}


@pytest.mark.parametrize(
    ("text", "call", "words"),
    [
        ("attend causal", {"visited": [0, 1, 2, 3]}, r"int64 of shape \(4,\); got \[0, 1, 2, 3\]"), ("attend causal", {"visited": torch.arange(3)}, r"got int64 of shape \(3,\)"),
        ("attend causal", {"visited": torch.arange(4.0)}, "got float32 of shape"), ("attend causal", {"visited": np.array(list("abcd"))}, "got an array of <U1"),
        ("attend causal", {"visited": torch.arange(4).to("meta")}, "got a meta tensor, which holds no numbers"),
        ("attend causal", {"visited": torch.arange(4).to_sparse()}, "got layout sparse_coo: give its .to_dense"), ("attend causal", {"visited": "0123"}, "got '0123'"),
        ("attend causal", {"visited": torch.tensor([0, 1, 1, 3])}, "each of them once"),
        ("attend causal", {"visited": torch.tensor([0, 1, 2, -1])}, "from 0 to 3"), ("attend causal", {"visited": torch.arange(4), "queries": range(4)}, "queries= says which rows"),
        ("queries layout a * 4\nkeys layout b * 4\nattend full", {"visited": torch.arange(4)}, "two layouts"),
        ("queries where pos >= 0\nattend causal", {"visited": torch.arange(4)}, "only some tokens ask"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_what_is_no_order_of_the_rows(text: str, call: dict[str, Any], words: str, backend: str):
    x = torch.randn(1, 1, 4, 8)
    with pytest.raises(srt.InputError, match=words):
        srt.compile(srt.parse(text), backend=backend)(x, x, x, **call)
