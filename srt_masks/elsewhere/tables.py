"""`from_dense`: a mask given pair by pair -> a spec, and the inputs that it reads.

A mask that is one of the common regular ones is written as words; any other becomes an input, a table of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..default_device import on_the_cpu
from ..diagnostics import InputError, Source
from ..grammar.formatter import format_text
from ..packed import documents
from ..spec import Spec, parse
from .others import as_tensor, dense

GATES = ("q", "k", "v")


class Tabled(NamedTuple):
    """A spec and the inputs that it is to be called with, by name: `spec, inputs = from_dense(mask)`."""

    spec: Spec
    inputs: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Words:
    """A mask in words: declarations, the expression, and the inputs it reads."""

    expression: str
    declared: tuple[str, ...] = ()
    inputs: tuple[tuple[str, Tensor], ...] = ()


@on_the_cpu
def from_dense(mask: Any, *, stop_q: Any = None, stop_k: Any = None, stop_v: Any = None, recognise: bool = True) -> Tabled:
    """A spec and its inputs that attend exactly the pairs of a dense mask: `srt_masks.dense(spec, inputs=inputs).attend` is the mask.

    `mask` is (queries, keys), (heads, queries, keys) or (batch, heads, queries, keys): bool, True = attend, or float, 0 = attend, -inf = not.
    `stop_q`, `stop_k` and `stop_v` say of each pair which gradients it passes: bool, True = stopped, or float, a factor; of the mask's shape, or one
    that broadcasts to it.
    With `recognise`, a square mask that is causal, a window, a prefix, or documents, plain or causal, is written in these words, which say more than
    a mask of one size does: the spec then holds for any length. Else it is a table, of its own size alone, as large as the mask itself; square ones
    want `steps=` from `srt_masks.dense`, others know their size.
    Raises InputError for another shape or dtype, or a gate that is not finite or requires grad.
    """
    if not isinstance(mask, Tensor):
        raise InputError(f"a dense mask is a tensor; got {type(mask).__name__}{as_tensor(mask)}")
    pairs = dense(mask.detach()).mask.cpu()
    queries, keys = pairs.shape[-2:]
    if not queries or not keys:
        raise InputError(f"a dense mask has at least one query and one key; got shape {tuple(mask.shape)}")
    words = (_recognised(pairs[0, 0]) if recognise and pairs.shape[:2] == (1, 1) and queries == keys else None) or _table("mask", "bool", pairs)
    lines, inputs = [], dict(words.inputs)
    if queries != keys:
        lines += [f"queries layout query * {queries}", f"keys layout key * {keys}"]
    lines += words.declared
    rules = []
    for gate, given in zip(GATES, (stop_q, stop_k, stop_v), strict=True):
        if given is None:
            continue
        value, stops = _gate(gate, given, mask, pairs)
        rule = _table(f"{'stop' if stops else 'scale'}_{gate}", "bool" if stops else "float", value)
        lines += rule.declared
        inputs.update(rule.inputs)
        rules.append(f"stop {gate} where {rule.expression}" if stops else f"scale {gate} by {rule.expression}")
    text = "\n".join([*lines, f"attend {words.expression}", *rules])
    return Tabled(parse(format_text(Source(text)), filename="<dense mask>"), inputs)


def _table(name: str, type: str, pairs: Tensor) -> _Words:
    """A table of pairs (batch or 1, heads or 1, queries, keys) as an input of that name; axes along which there is but one are left out."""
    axes = "query, key" if pairs.shape[1] == 1 else "head, query, key"
    value = pairs[:, 0] if pairs.shape[1] == 1 else pairs
    value = value[0] if value.shape[0] == 1 else value
    return _Words(name, (f"input {name}: {type} per {axes}",), ((name, value.contiguous()),))


def _gate(name: str, given: Any, mask: Tensor, pairs: Tensor) -> tuple[Tensor, bool]:
    """A gate as (batch or 1, heads or 1, queries, keys), and whether it is one that stops: bool, and not a factor."""
    if not isinstance(given, Tensor) or (given.dtype is not torch.bool and not given.is_floating_point()):
        came = str(given.dtype).removeprefix("torch.") if isinstance(given, Tensor) else type(given).__name__
        raise InputError(f"stop_{name} is a bool tensor, True = stopped, or a float one, a factor of the gradient; got {came}")
    if given.requires_grad:
        raise InputError(f"stop_{name} requires grad, and gates are constants of the backward: give stop_{name}.detach()")
    value = given.cpu()[(None,) * max(0, 4 - given.ndim)]
    try:
        whole = value.expand(*(max(a, b) for a, b in zip(value.shape[:2], pairs.shape[:2], strict=True)), *pairs.shape[2:])
        whole.expand(torch.broadcast_shapes(whole.shape, pairs.shape))
    except RuntimeError:
        raise InputError(f"stop_{name} has the mask's shape, or one that broadcasts to it: {tuple(mask.shape)}; got {tuple(given.shape)}") from None
    if value.dtype is not torch.bool:
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"stop_{name} holds a number that is not finite; a factor of a gradient is")
        return whole.double(), False
    return whole, True


# ------------------------------------------------------------------------------------------------ masks that have a name


def _recognised(mask: Tensor) -> _Words | None:
    """The first regular mask that a square one (tokens, tokens) is; each is rebuilt and compared, so none is taken for another."""
    tokens = len(mask)
    q, k = torch.arange(tokens)[:, None], torch.arange(tokens)
    before = k <= q
    if bool(mask.all()):
        return _Words("full")
    if torch.equal(mask, before):
        return _Words("causal")
    near = int(mask[-1].sum())  # the last row of a window is as long as it gets
    for words, whole in (("causal and window(span)", before & (q - k < near)), ("window(span)", (q - k).abs() < near)):
        if near and torch.equal(mask, whole):
            return _Words(words, (f"param span = {near}",))
    prefix = int(mask[0].sum())
    if torch.equal(mask, before | (k < prefix)):
        return _Words("causal or k.pos < prefix", ("input prefix: int per sequence",), (("prefix", torch.tensor(prefix)),))
    # A document begins where the token before is not seen.
    counts = torch.cat([(~mask.diagonal(-1)).nonzero().flatten() + 1, torch.tensor([tokens])]).diff(prepend=torch.tensor([0]))
    doc = documents(lengths=counts)["doc"]
    alike = doc[:, None] == doc
    for words, whole in (("causal and same(doc)", before & alike), ("same(doc)", alike)):
        if torch.equal(mask, whole):
            return _Words(words, ("input doc: int per token",), (("doc", doc),))
    return None
