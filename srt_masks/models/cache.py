"""`Cache`: keys and values of rows that were computed, kept, so that a next data token costs its own rows alone.

The whole text that is to be is laid out at once; there is room for the keys and values of all its rows. Every advance computes the rows that became
known, at the places they have in the layout, and reads the keys before them from what is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compiler.rows import Rows
from ..diagnostics import InputError
from .laid_out import LaidOut
from .stages import check_text, stages_of
from .words import Words

if TYPE_CHECKING:
    from .transformer import SpecTransformer


class Cache:
    """One text for each row of the batch. `known[b]` data tokens of row b are known at first, and up to `last[b]` will be, all of them computed.

    Raises InputError where keys and values of this spec cannot be kept, or where the layout or the learned positions have no room."""

    def __init__(self, model: SpecTransformer, known: Sequence[int], last: Sequence[int], inputs: Mapping[str, Any] | None, named: Mapping[str, Any]):
        check_text(model)
        self.model = model
        words = model.layouter.room_for(max(last) + 1)
        device = next(model.parameters()).device
        self.x = torch.zeros(len(known), words, dtype=torch.int64, device=device)
        laid = model.layouter.lay_out(Words(self.x), None, inputs, named)
        stages = stages_of(model, laid, known, last)
        self.ends, self.rows = stages.ends, laid.rows.role.shape[1]
        used = stages.ends[max(last)]
        model.check_positions(laid.rows.position[:, :used])
        # Rows that are never asked for are computed all the same where others of the batch have more: they stand at a position that there is.
        there = torch.arange(self.rows) < used
        self.laid = replace(laid, rows=replace(laid.rows, position=torch.where(there, laid.rows.position, 0)))
        self.done = [0] * len(known)  # rows computed
        self.known = [0] * len(known)
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._said: list[dict[int, Tensor]] = [{} for _ in known]

    def feed(self, words: Sequence[Sequence[int]]) -> None:
        """More data tokens of each row of the batch (none of some), and all rows that can now be computed."""
        for number, own in enumerate(words):
            if own:
                begin = self.known[number]
                self.x[number, begin : begin + len(own)] = torch.tensor(own, device=self.x.device)
                self.known[number] += len(own)
        stops = [self.ends[n] for n in self.known]
        count = max(stop - done for stop, done in zip(stops, self.done, strict=True))
        if not count:
            return
        # Rows of the batch may have unlike many. What a row has too many is not known yet, and computed again when it is.
        starts = [min(done, self.rows - count) for done in self.done]
        laid = self._part(starts, count)
        state = self.model.states(laid)
        row = torch.tensor(starts)[:, None] + torch.arange(count)
        fresh = (row >= torch.tensor(self.done)[:, None]) & (row < torch.tensor(stops)[:, None])
        self._note(laid, state, fresh)
        self.done = stops

    def next_logits(self, number: int) -> Tensor:
        """Logits (num_tokens,), on the CPU, of the data token that comes next in a row of the batch, by the last row computed that predicts it. Raises InputError
        where none does."""
        logits = self._said[number].get(self.known[number])
        if logits is None:
            raise InputError(
                f"no row of this spec predicts data token {self.known[number]} from those before it: it cannot continue a text of {self.known[number]}"
                + ("" if self.known[number] else "; give a prompt")
            )
        return logits

    def _note(self, laid: LaidOut, state: Tensor, fresh: Tensor) -> None:
        """What fresh rows say of data tokens that are not known yet; later rows over earlier ones."""
        target = laid.rows.target.expand(len(self.known), -1)
        batch, place = (fresh & (target >= torch.tensor(self.known)[:, None])).nonzero(as_tuple=True)
        last = {(b, t): p for b, p, t in zip(batch.tolist(), place.tolist(), target[batch, place].tolist(), strict=True)}
        for number, said in enumerate(self._said):
            self._said[number] = {t: logits for t, logits in said.items() if t >= self.known[number]}
        if last:
            rows = torch.tensor([b for b, _ in last]), torch.tensor(list(last.values()))
            for (b, t), logits in zip(last, self.model.logits_of(laid, state, *rows).cpu(), strict=True):
                self._said[b][t] = logits

    def _part(self, starts: Sequence[int], count: int) -> LaidOut:
        """The rows start .. start + count of each row of the batch, as a call."""
        laid, together = self.laid, len(set(starts)) == 1
        row = torch.tensor(starts)[:, None] + torch.arange(count)

        def part(column: Tensor) -> Tensor:
            if together:
                return column[:, starts[0] : starts[0] + count]
            return column.expand(len(starts), -1).gather(1, row)

        rows = Rows(*(part(getattr(laid.rows, name)) for name in Rows.__dataclass_fields__))
        queries = range(starts[0], starts[0] + count) if together else starts
        device = self.x.device
        at = slice(starts[0], starts[0] + count) if together else row.to(device)

        def keep(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            if layer not in self._kept:
                self._kept[layer] = tuple(x.new_zeros(*x.shape[:2], self.rows, x.shape[3]) for x in (k, v))  # type: ignore[assignment]
            for kept, new in zip(self._kept[layer], (k, v), strict=True):
                if isinstance(at, slice):
                    kept[:, :, at] = new
                else:
                    kept[torch.arange(len(starts), device=device)[:, None], :, at] = new.transpose(1, 2)
            return self._kept[layer]

        return LaidOut(Words(self.x), rows, (count,) * len(starts), {**laid.beside, "queries": queries}, keep)
