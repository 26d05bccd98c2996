"""A call of a model, laid out: from data tokens to the rows of the layout, and to what attention is told of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..binding import Call, Sizes, bind_call
from ..compiler.ir import Program
from ..compiler.order import inverse
from ..compiler.rows import Rows, rows_of
from ..default_device import on_the_cpu
from ..diagnostics import InputError
from ..grammar.checked import Checked
from .words import Words

MOST_KEPT = 8  # lengths whose rows are kept

Keep = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class LaidOut:
    """`own` are the rows of the layout that each row of the batch has of its own; `beside` is what every call of attention gets beside q, k and v. Where
    these are some rows of a longer text, `keep` takes the keys and values of a layer and gives those of the whole. Where all rows of the layout come in
    an order of their own, `visited` (rows,) is the row of the layout at each place."""

    words: Words
    rows: Rows
    own: tuple[int, ...]
    beside: Mapping[str, Any]
    keep: Keep | None = None
    visited: Tensor | None = None

    @property
    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of every data token of the batch in turn: its row of the batch, its row of the layout, its index. On the CPU."""
        data = self.rows.data.expand(self.words.batch, -1)
        batch, row = data.nonzero(as_tuple=True)
        return batch, row, self.rows.index.expand(self.words.batch, -1)[data]

    def at(self, rows: Tensor) -> LaidOut:
        """Some rows of the layout alone, int64, in any order. Attention is told of the whole layout nevertheless."""
        picked = Rows(*(getattr(self.rows, f.name)[:, rows] for f in fields(Rows)))
        return replace(self, rows=picked, own=tuple(picked.live.expand(self.words.batch, -1).sum(1).tolist()))

    def in_order(self, visited: Tensor) -> LaidOut:
        """All rows of the layout in another order, (rows,) int64 on the CPU, of which attention is told."""
        return replace(self.at(visited), beside={**self.beside, "visited": visited}, visited=visited)

    def places_of(self, rows: Tensor) -> Tensor:
        """Where some rows of the layout stand among these, int64."""
        return rows if self.visited is None else inverse(self.visited)[rows]


class Layouter:
    """Lays calls out by a checked text. Rows that nothing but their length decides are kept."""

    def __init__(self, checked: Checked, program: Program, heads: int, layers: int):
        self.checked, self.program, self.heads, self.layers = checked, program, heads, layers
        layout = checked.queries
        self._per_step = sum(sum(n for r, n in s.rows if r in checked.data) for s in layout.sections if s.count is None)
        self._fixed = sum(s.count * sum(n for r, n in s.rows if r in checked.data) for s in layout.sections if s.count is not None)
        self._kept: OrderedDict[tuple[int, tuple[int, ...] | None], Rows] = OrderedDict()

    def rows_for(self, data_tokens: int) -> int:
        """Rows of a sequence with so many data tokens. Raises InputError where the layout has no such sequence."""
        layout, text = self.checked.queries, self.checked.queries.describe(self.checked.roles)
        if layout.given is not None:
            raise InputError(f"the layout is `{text}`: its rows are those of given=, whatever the number of data tokens")
        if not self._per_step:
            if data_tokens != self._fixed:
                raise InputError(f"the call has {data_tokens} data tokens a row; the layout `{text}` has {self._fixed}, always")
            return layout.fixed
        steps, rest = divmod(data_tokens - self._fixed, self._per_step)
        if rest or steps < 0:
            raise InputError(f"the call has {data_tokens} data tokens a row; the layout `{text}` has {self._fixed} and {self._per_step} a step")
        return layout.tokens(steps)

    def room_for(self, data_tokens: int) -> int:
        """Data tokens of the shortest sequence that has so many, or more. Raises InputError where the layout has none."""
        layout = self.checked.queries
        if layout.given is None and not self._per_step and data_tokens > self._fixed:
            raise InputError(f"{data_tokens} data tokens are wanted; the layout `{layout.describe(self.checked.roles)}` has {self._fixed}, always")
        return self._fixed - (self._fixed - max(data_tokens, self._fixed)) // (self._per_step or 1) * self._per_step

    @on_the_cpu
    def lay_out(self, words: Words, given: Any, inputs: Mapping[str, Any] | None, named: Mapping[str, Any]) -> LaidOut:
        """Raises InputError for what fits neither the layout nor the text."""
        tokens = self.rows_for(words.count) if self.checked.queries.given is None else _rows_given(given)
        sizes = Sizes(tokens, tokens, self.heads, self.layers, words.batch)
        call = bind_call(self.checked, sizes, None, inputs, named, given, device=words.any.device)
        own = self._own_rows(words, call)
        beside = {"inputs": {**(inputs or {}), **named}, "given": given}
        if words.lengths is not None:
            aligned = self._aligned(words, call, own)
            beside |= {"inputs": {**beside["inputs"], **aligned}, "lengths": own}
            call = Call(sizes, own, aligned, call.layout, call.params, call.row_params, call.given)
        return LaidOut(words, self._rows(call), own, beside)

    def _own_rows(self, words: Words, call: Call) -> tuple[int, ...]:
        """Rows of the layout that each row of the batch has."""
        tokens = call.sizes.tokens
        if self.checked.queries.given is None:
            return (tokens,) * words.batch if words.lengths is None else tuple(self.rows_for(n) for n in words.lengths)
        role = call.layout["role"].expand(words.batch, -1)
        index = torch.isin(role, torch.tensor(self.checked.data, dtype=torch.int64)).cumsum(1) - 1
        for number, held in enumerate((index[:, -1] + 1).tolist() if tokens else []):
            if words.lengths is None and held != words.count:
                raise InputError(f"given= holds {held} data tokens in row {number} of the batch, and the call {words.count}: give lengths= where rows differ")
            if words.lengths is not None and held < words.lengths[number]:
                raise InputError(f"given= holds {held} data tokens in row {number} of the batch; lengths= says {words.lengths[number]}")
        if words.lengths is None:
            return (tokens,) * words.batch
        if words.left:
            raise InputError('rows of a `layout given` begin at the first token of given=: padding="right"')
        # What stands behind a data token belongs to it.
        return tuple((index < torch.tensor(words.lengths)[:, None]).sum(1).tolist())

    def _aligned(self, words: Words, call: Call, own: Sequence[int]) -> dict[str, Tensor]:
        """Inputs whose rows begin at 0, as those of x do, and hold nothing beyond each row's own length."""
        aligned = {}
        layout = self.checked.queries
        steps = [layout.longest(layout.steps(n)) for n in own] if layout.given is None else None
        for declared in self.checked.inputs:
            tensor = call.inputs[declared.name]
            for number, axis in enumerate(declared.axes):
                ends = own if axis in ("token", "query", "key") else steps if axis == "step" else None
                if ends is not None:
                    tensor = words.to_front(tensor.expand(words.batch, *tensor.shape[1:]), ends, number + 1)
            aligned[declared.name] = tensor
        return aligned

    def _rows(self, call: Call) -> Rows:
        scalars = {"heads": self.heads, "layers": self.layers}
        tokens, params = call.sizes.tokens, {p.name: p.value for p in self.checked.params}
        if call.inputs or call.layout or call.row_params or call.params != params:
            return rows_of(self.program, tokens, call.rows() if call.has_batch else [call.row(0)], scalars, call.lengths)
        key = (tokens, call.lengths)
        if key not in self._kept:
            with torch.inference_mode(False):  # what is kept serves calls that learn, whatever mode the first was made in
                self._kept[key] = rows_of(self.program, tokens, [({}, {}, call.params)] * len(call.lengths or (0,)), scalars, call.lengths)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]


def _rows_given(given: Any) -> int:
    """Tokens that a given layout speaks of; what it is not is said where it is bound."""
    role = given.get("role") if isinstance(given, Mapping) else None
    if isinstance(role, Tensor):
        return role.shape[-1] if role.ndim else 0
    if not isinstance(role, list | tuple):
        return 0
    return len(role[0]) if role and isinstance(role[0], list | tuple) else len(role)
