"""Words <-> the rows of a layout: what a model of transformers is given, and what its logits say of the words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...default_device import on_the_cpu
from ...diagnostics import InputError, listing
from ...spec import Spec
from ...surface import tokens
from .settings import check_usable

if TYPE_CHECKING:
    from ...reference.masks import TokenTable

IGNORED = -100  # a label that trains nothing, as torch and transformers have it


@on_the_cpu
def interleave(
    spec: Spec, input_ids: Tensor, ids: Mapping[str, int | Sequence[int]], *, labels: Tensor | None = None, attention_mask: Tensor | None = None
) -> dict[str, Tensor]:  # fmt: skip
    """What to call a causal model with, `model(**interleave(...))`: input_ids, attention_mask and position_ids (batch, rows), and labels where the spec predicts.

    `input_ids` (batch, words) are words alone; `ids` gives every other role its id in the model's vocabulary, or one for each slot. `labels` (batch, words) are the
    words to learn, input_ids unless given; -100 trains nothing. `attention_mask` (batch, words) is true where a word is real: each row is laid out as if alone.
    `labels` come back as transformers shifts them: a row's target stands one row on; `shift_labels`, beside them, hold it in its own row, and are what
    the loss takes. Raises InputError.
    """
    check_usable(spec)
    words = _words("input_ids", input_ids, None)
    batch, width = words.shape
    learned = words if labels is None else _words("labels", labels, words)
    real = torch.ones_like(words, dtype=torch.bool) if attention_mask is None else _words("attention_mask", attention_mask, words).to(torch.bool)
    counts, firsts = real.sum(1).tolist(), real.long().argmax(1).tolist()
    is_ragged = min(counts, default=width) < width
    if is_ragged and not spec.checked.queries.is_single_repeat:
        raise InputError("padded words are laid out where the layout is a single `repeat`; this one has more: give each length a call of its own")
    rows = rows_for(spec, width)
    found = {
        "input_ids": torch.zeros(batch, rows, dtype=torch.int64), "attention_mask": torch.zeros(batch, rows, dtype=torch.int64),
        "position_ids": torch.zeros(batch, rows, dtype=torch.int64), "shift_labels": torch.full((batch, rows), IGNORED),
    }  # fmt: skip
    tables: dict[int, TokenTable] = {}
    for b, (count, first) in enumerate(zip(counts, firsts, strict=True)):
        if not bool(real[b, first : first + count].all()):
            raise InputError(f"attention_mask of row {b} has padding between its words: pad at one end")
        table = tables.setdefault(count, _table(spec, count))
        here = slice(begin := rows_for(spec, first) if is_ragged else 0, begin + len(table.role))
        own, wanted = (x[b, first : first + count].cpu() for x in (words, learned))
        found["input_ids"][b, here] = _filled(spec, table, own, ids)
        found["attention_mask"][b, here] = 1
        found["position_ids"][b, here] = table.position
        found["shift_labels"][b, here] = _targets(table, wanted)
    if not spec.checked.predictions:
        del found["shift_labels"]
    else:
        found["labels"] = torch.nn.functional.pad(found["shift_labels"][:, :-1], (1, 0), value=IGNORED)
    return {name: x.to(words.device) for name, x in found.items()}


@on_the_cpu
def word_logits(spec: Spec, logits: Tensor) -> Tensor:
    """(batch, predicted words, vocabulary) of a model's logits (batch, rows, vocabulary): for each word that is predicted, in order, those of the last row that
    predicts it. Rows are not padded. Raises InputError."""
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        raise InputError(f"logits are (batch, rows, vocabulary); got {tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__}")
    if not spec.checked.predictions:
        raise InputError("this spec has no `predict`: no row of it predicts a word")
    layout, rows = spec.checked.queries, logits.shape[1]
    if layout.whole(rows) != rows:
        raise InputError(f"logits have {rows} rows, which are no whole steps of the layout `{layout.describe(spec.roles)}`")
    table = tokens(spec, steps=layout.steps(rows) if layout.rows_per_step else None)
    last = {t: row for row, t in enumerate(table.target.tolist()) if t >= 0}
    return logits[:, [last[t] for t in sorted(last)]]


def rows_for(spec: Spec, words: int) -> int:
    """Rows of a layout that holds so many words. Raises InputError where none does."""
    layout, data = spec.checked.queries, spec.checked.data
    if not data:
        raise InputError("this spec says nothing of data: write `data ROLE` for the tokens that carry words")
    fixed = sum((s.count or 0) * sum(n for r, n in s.rows if r in data) for s in layout.sections)
    each = sum(sum(n for r, n in s.rows if r in data) for s in layout.sections if s.count is None)
    steps, rest = divmod(words - fixed, each) if each else (0, words - fixed)
    if rest or steps < 0:
        raise InputError(f"{words} words a row; the layout `{layout.describe(spec.roles)}` holds {fixed}{f' and {each} a step' if each else ', always'}")
    return layout.tokens(steps)


def _table(spec: Spec, words: int) -> TokenTable:
    if spec.inputs and spec.checked.predictions:
        raise InputError(
            f"what a row predicts may depend on the spec's inputs ({listing(spec.inputs)}), which interleave is not given: lay the words out by srt_masks.tokens"
        )
    layout, rows = spec.checked.queries, rows_for(spec, words)
    return tokens(spec, steps=layout.steps(rows) if layout.rows_per_step else None)


def _filled(spec: Spec, table: TokenTable, words: Tensor, ids: Mapping[str, int | Sequence[int]]) -> Tensor:
    """The id of every row: a word's, or that of its role and slot."""
    data = {spec.roles[r] for r in spec.checked.data}
    for role in ids:
        if role not in spec.roles or role in data:
            raise InputError(f"ids has `{role}`, which is no role beside the words; those are {listing(r for r in spec.roles if r not in data) or 'none'}")
    found = []
    for role, slot, index in zip(table.role, table.slot.tolist(), table.index.tolist(), strict=True):
        if role in data:
            found.append(int(words[index]))
            continue
        own: Any = ids.get(role)
        if own is None:
            raise InputError(f"which id stands for a `{role}`? ids={{'{role}': ...}} says so, one number or one for each slot")
        if not isinstance(own, int) and slot >= len(own):
            raise InputError(f"ids has {len(own)} for `{role}`, and the layout has a slot {slot}")
        found.append(own if isinstance(own, int) else int(own[slot]))
    return torch.tensor(found, dtype=torch.int64)


def _targets(table: TokenTable, labels: Tensor) -> Tensor:
    """The word each row learns to predict, -100 where none. Raises InputError for weights, which the loss of these models has not."""
    known = (table.target >= 0) & (table.target < len(labels)) & (table.weight != 0)
    if bool((table.weight[known] != 1).any()):
        raise InputError("this spec weighs what it predicts, and the loss of these models is a plain mean: take `weight` out, or use srt_masks.build_model")
    return torch.where(known, labels[torch.where(known, table.target, 0)] if len(labels) else IGNORED, IGNORED)


def _words(name: str, x: Any, like: Tensor | None) -> Tensor:
    if not isinstance(x, Tensor) or x.ndim != 2 or x.is_floating_point() or (like is not None and x.shape != like.shape):
        came = f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name} is (batch, words){'' if like is None else f', {tuple(like.shape)} here'}, whole numbers; got {came}")
    return x.long()
