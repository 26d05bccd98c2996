"""Faults planted in the attention, each of which a law of every text has to catch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_testing import DOCUMENTS, SLIDING, broken

import srt_masks as srt
from srt_masks.compiler.plan import Geometry
from srt_masks.kernels import tiled, tiled_rectangles, tiled_rows
from srt_masks.kernels.attention import Attention, compile_spec
from srt_masks.kernels.cache import PlanCache
from srt_masks.kernels.tiled_plan import Task
from srt_masks.testing import LAWS, Broken, Case
from srt_masks.testing import case as case_module


@pytest.fixture
def another_mask(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The backend follows another text than the reference."""

    def use(text: str) -> None:
        def compiled(spec: srt.Spec, **options: Any) -> Any:
            return compile_spec(srt.parse(text), **options)

        monkeypatch.setattr(case_module, "compile_spec", compiled)

    return use


def test_a_mask_that_is_not_followed_is_caught(another_mask):
    spec = srt.parse("attend causal\nstop k where k.pos < 2\nstop v where k.pos < 2")
    another_mask("attend full\nstop k where k.pos < 2\nstop v where k.pos < 2")
    assert "differs from the reference" in broken(spec, "agrees_with_reference")
    assert "which does not see it" in broken(spec, "perturbation")
    assert "in another order" in broken(spec, "permutation")


def test_a_gate_that_is_dropped_is_caught(another_mask):
    spec = srt.parse("attend causal\nstop v where k.pos < 2")
    another_mask("attend causal")
    assert "dv" in broken(spec, "agrees_with_reference")
    assert "reaches the value of" in broken(spec, "perturbation")
    LAWS["permutation"](Case(spec, 5))


def test_a_neighbour_that_is_heard_is_caught(monkeypatch: pytest.MonkeyPatch):
    forward = tiled.forward

    def leaky(task: Task) -> Any:
        found = forward(task)
        return replace(found, out=found.out + 1e-14 * task.q.sum(0, keepdim=True))

    monkeypatch.setattr(tiled, "forward", leaky)
    assert "changes with its neighbours" in broken(srt.parse("attend causal"), "batch_invariance")


def test_a_leak_between_layers_is_caught(monkeypatch: pytest.MonkeyPatch):
    """The second layer hears a whisper of every state: no gradient shows it, and no key alone does."""
    call = Case.call

    def whispering(self: Case, attend: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int = 0, **more: Any) -> Any:
        out, lse = call(self, attend, q, k, v, layer, **more)
        return (out + 1e-9 * q.detach().mean(2, keepdim=True) if layer == 1 else out), lse

    monkeypatch.setattr(Case, "call", whispering)
    with pytest.raises(Broken, match="no path leads there"):
        LAWS["perturbation"](Case(srt.parse("attend k.pos == q.pos or layer == 0 and k.pos == q.pos - 1"), 8, layers=2))


def test_a_plan_kept_too_long_is_caught(monkeypatch: pytest.MonkeyPatch):
    """Known by everything but the values it was made from; by nothing at all; by everything but the lengths."""
    find, reuse = PlanCache.find, LAWS["reuse"]
    documents = Case(srt.parse(DOCUMENTS), 3, inputs={"doc": torch.tensor([0, 0, 1])})
    monkeypatch.setattr(PlanCache, "find", lambda self, key, given, make: find(self, key, (), make))
    assert "a call with other inputs gives other bits" in broken(srt.parse(DOCUMENTS), "reuse")
    with monkeypatch.context() as alone:
        alone.setattr("srt_masks.testing.calls._others", lambda case, layer: iter(()))
        with pytest.raises(Broken, match="inputs were changed in place gives other bits"):
            reuse(replace(documents, inputs={"doc": torch.tensor([[0, 0, 1], [0, 1, 1]])}, batch=2))
    monkeypatch.setattr(PlanCache, "find", lambda self, key, given, make: find(self, (), (), make))
    with pytest.raises(Broken, match="a call of another length fails on an attention that was called before"):
        reuse(documents)
    monkeypatch.setattr(PlanCache, "find", lambda self, key, given, make: find(self, _sizes_of(key), given, make))
    with pytest.raises(Broken, match="a call without lengths gives other bits"):
        reuse(Case(srt.parse("attend full"), 3, lengths=(2,)))


def _sizes_of(key: Any) -> Any:
    """A key of the cache that forgets the lengths."""
    return tuple(replace(part, lengths=None) if isinstance(part, Geometry) else part for part in key)


def forget(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    """The call ignores some of its arguments."""
    call = Attention.__call__

    def forgetful(self: Attention, *tensors: Any, **named: Any) -> Any:
        return call(self, *tensors, **{**named, **{n: x for n, x in changed.items() if n in named}})

    monkeypatch.setattr(Attention, "__call__", forgetful)


@pytest.mark.parametrize("law", ["agrees_with_reference", "permutation"])
def test_params_at_the_call_that_are_ignored_are_caught(monkeypatch: pytest.MonkeyPatch, law: str):
    spec = srt.parse(SLIDING)
    forget(monkeypatch, span=1)
    said = broken(spec, law)
    assert "params=params" in said and "params = {'span': " in said


@pytest.mark.parametrize("law", ["agrees_with_reference", "permutation"])
def test_lengths_that_are_ignored_are_caught(monkeypatch: pytest.MonkeyPatch, law: str):
    forget(monkeypatch, lengths=None)
    assert "lengths=(" in broken(srt.parse("attend full"), law)


def test_a_nan_that_leaks_is_caught(monkeypatch: pytest.MonkeyPatch):
    for design in (tiled_rectangles, tiled_rows):
        monkeypatch.setattr(design, "without_dead", lambda tensors, mask, before: tensors)
    assert "NaN in what nobody attends reaches a result: " in broken(srt.parse("attend causal and k.pos > 1"), "poison")


def test_a_gradient_where_nobody_attends_is_caught(monkeypatch: pytest.MonkeyPatch):
    backward = tiled.backward
    monkeypatch.setattr(tiled, "backward", lambda *rest: tuple(g if g is None else g + 1 for g in backward(*rest)))
    assert "is not 0 where nobody attends" in broken(srt.parse("attend k.pos > q.pos"), "poison")


def test_a_gradient_dropped_unless_all_are_asked_for_is_caught(monkeypatch: pytest.MonkeyPatch):
    backward = tiled.backward

    def lazy(*rest: Any) -> Any:
        grads = backward(*rest)
        return grads if all(rest[-1]) else tuple(g if g is None else torch.zeros_like(g) for g in grads)

    monkeypatch.setattr(tiled, "backward", lazy)
    assert "alone" in broken(srt.parse("attend causal"), "agrees_with_reference")


@pytest.mark.parametrize("strides", [(2, "v"), (3, "upstream")])
def test_strides_that_are_misread_are_caught(monkeypatch: pytest.MonkeyPatch, strides: tuple[int, str]):
    """A kernel that reads a tensor of stride 0 as if its rows lay one behind the other."""
    forward, backward = tiled.forward, tiled.backward

    def misread(task: Task, dout: torch.Tensor | None, *rest: Any) -> Any:
        return backward(task, dout * 2 if dout is not None and not any(dout.stride()) else dout, *rest)

    monkeypatch.setattr(tiled, "forward", lambda task: forward(replace(task, v=task.v * 2) if task.v.stride(2) == 0 and task.v.numel() else task))
    monkeypatch.setattr(tiled, "backward", misread)
    assert "strides one_" in broken(srt.parse("attend causal"), "agrees_with_reference")


@pytest.mark.parametrize("law", ["agrees_with_reference", "permutation"])
def test_a_mask_wrong_beyond_a_block_of_queries_is_caught(another_mask, law: str):
    another_mask("attend causal and not (q.pos >= 64 and k.pos == 3)")
    assert "steps=120" in broken(srt.parse("attend causal"), law)


def test_a_formatter_that_changes_the_text_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("srt_masks.testing.laws.format_text", lambda source: source.text.replace("causal", "full"))
    assert "changes what the text says" in broken(srt.parse("attend causal"), "formatting")
