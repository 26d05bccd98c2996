"""`srt_masks.nn.Attention`: a layer like others of PyTorch."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import srt_masks as srt
from srt_masks.reference.attention import attention

TEXT = "param span = 3\ninput doc: int per token\nattend causal and window(span) and same(doc)\nstop k where q.pos - k.pos == 1\nstop v where head == 1 and k.pos < q.pos"
DOC = torch.tensor([0, 0, 0, 0, 1, 1, 1])


def by_hand(layer: Any, x: Tensor, memory: Tensor | None = None, **sizes: Any) -> Tensor:
    masks, source = srt.dense(layer.attend.spec, heads=4, **sizes), x if memory is None else memory

    def heads(project: nn.Linear, x: Tensor) -> Tensor:
        return (x @ project.weight.T + (0 if project.bias is None else project.bias)).unflatten(-1, (-1, layer.dim_head)).transpose(1, 2)

    twins = {}
    if layer.attend.spec.checked.has_hidden_rules:
        twins = {"hidden_k": heads(layer.to_k, source.detach()), "hidden_v": heads(layer.to_v, source.detach())}
    gates = [m[0] for m in (masks.attend, masks.gate_q, masks.gate_k, masks.gate_v, masks.gate_hidden)]
    out, _ = attention(heads(layer.to_q, x), heads(layer.to_k, source), heads(layer.to_v, source), *gates, **twins)
    out = out.transpose(1, 2).flatten(2) @ layer.to_out.weight.T
    return out if layer.to_out.bias is None else out + layer.to_out.bias


def agree(found: Tensor, wanted: Tensor, *leaves: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    pull = torch.randn_like(found)
    for a, b in zip(*(torch.autograd.grad((y * pull).sum(), leaves) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"key_heads": 2, "bias": True}, {"key_heads": 1, "dim_head": 6}], ids=str)
def test_it_is_attention_by_the_reference_between_projections(options: dict[str, Any]):
    layer = srt.nn.Attention(srt.parse(TEXT), 16, 4, **options).double()
    x = torch.randn(2, 7, 16, dtype=torch.float64, requires_grad=True)
    agree(layer(x, doc=DOC), by_hand(layer, x, steps=7, inputs={"doc": DOC}), x, *layer.parameters())
    assert not torch.equal(layer(x, doc=DOC), layer(x, doc=DOC, span=1)) and not torch.equal(layer(x, doc=DOC), layer(x, doc=DOC * 0))


def test_scale_is_that_of_the_scores():
    layer = srt.nn.Attention(srt.parse(TEXT), 16, 4).double()
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    wanted = layer(x, doc=DOC, scale=0.3)
    with torch.no_grad():
        layer.to_q.weight *= 0.3 * 4**0.5  # in place of 1 / sqrt(dim_head)
    torch.testing.assert_close(layer(x, doc=DOC), wanted, rtol=1e-9, atol=1e-11)
    assert not torch.allclose(layer(x, doc=DOC, scale=0.3), wanted)


def test_memory_is_what_the_other_layout_reads_and_hidden_rules_detach_the_state():
    layer = srt.nn.Attention(srt.parse("queries layout repeat { a }\nkeys layout b * 5\nattend full\nstop v where k.pos < 2"), 16, 4).double()
    x, memory = (torch.randn(2, n, 16, dtype=torch.float64, requires_grad=True) for n in (3, 5))
    agree(layer(x, memory=memory), by_hand(layer, x, memory, steps=3), x, memory, *layer.parameters())
    with pytest.raises(srt.InputError, match="give memory="):
        layer(x)
    hidden = srt.nn.Attention(srt.parse("attend causal\nstop hidden where k.pos < q.pos"), 16, 4).double()
    agree(hidden(x), by_hand(hidden, x, steps=3), x, *hidden.parameters())
    with pytest.raises(srt.InputError, match="leave memory= out"):
        hidden(x, memory=memory)


def test_state_copies_pickles_dtypes_hooks_and_lengths():
    layer, x = srt.nn.Attention(srt.parse(TEXT), 16, 4, key_heads=2), torch.randn(2, 7, 16)
    assert set(layer.state_dict()) == {f"to_{n}.weight" for n in ("q", "k", "v", "out")}
    other = srt.nn.Attention(srt.parse(TEXT), 16, 4, key_heads=2)
    assert not torch.equal(other(x, doc=DOC), layer(x, doc=DOC))
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x, doc=DOC), layer(x, doc=DOC)) and all(a is not b for a, b in zip(twin.parameters(), layer.parameters(), strict=True))
    half = copy.deepcopy(layer).half()
    assert half(x.half(), doc=DOC).dtype is torch.float16
    torch.testing.assert_close(half(x.half(), doc=DOC).float(), layer(x, doc=DOC), rtol=2e-2, atol=2e-3)
    assert torch.equal(layer.to("cpu")(x, doc=DOC), layer(x, doc=DOC))
    seen = []
    layer.register_forward_hook(lambda module, arguments, out: seen.append(out.shape))
    short = layer(x, doc=DOC, lengths=[3, 7])
    assert seen == [(2, 7, 16)] and bool((short[0, 3:] == 0).all())
    torch.testing.assert_close(short[0, :3], layer(x[:1, :3], doc=DOC[:3])[0])


def test_rows_may_come_in_another_order_and_lse_is_not_there():
    layer, x, visited = srt.nn.Attention(srt.parse(TEXT), 16, 4), torch.randn(2, 7, 16), torch.tensor([3, 0, 6, 5, 1, 2, 4])
    torch.testing.assert_close(layer(x[:, visited], doc=DOC, visited=visited), layer(x, doc=DOC)[:, visited])
    assert inspect.signature(layer.forward).parameters["visited"].kind is inspect.Parameter.KEYWORD_ONLY
    with pytest.raises(srt.InputError, match=r"return_lse= belongs to a call of srt_masks\.compile"):
        layer(x, doc=DOC, return_lse=True)


def test_compiled_whole_it_is_the_same():
    layer, x = srt.nn.Attention(srt.parse(TEXT), 16, 4), torch.randn(2, 7, 16, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for found, wanted in [(compiled(x, doc=DOC), layer(x, doc=DOC))]:
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (found, wanted)))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"key_heads": 3}, "no multiple of key_heads"), ({"heads": 3}, "give dim_head="), ({"dim": 0}, "1 or more"), ({"dim": 2.0}, "whole number")],
)
def test_sizes_that_do_not_fit(options: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        srt.nn.Attention(srt.parse("attend causal"), **{"dim": 16, "heads": 4, **options})
    with pytest.raises(srt.InputError, match=r"x is \(batch, tokens, 16\)"):
        srt.nn.Attention(srt.parse("attend causal"), 16, 4)(torch.zeros(2, 16))
