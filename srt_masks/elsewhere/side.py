"""The spec's side of a comparison: its masks and gates by the reference, some rows at a time, so that nothing is queries x keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..reference.masks import Row, pairs
from ..spec import Spec
from ..surface import lay_out_rows
from ..time_steps import Steps

Rows = Callable[[int, int, int, int], Tensor]  # batch, layer, begin, end -> bool (heads, end - begin, keys)


@dataclass(frozen=True, slots=True)
class Side:
    """A spec at one size, whose rows are made when they are asked for."""

    laid: tuple[Row, ...]
    tokens: int  # of the layout that queries stand in
    queries: int
    keys: int
    heads: int
    layers: int
    batch: int
    scope: str
    only: int | None = None  # the one layer that is compared

    @staticmethod
    def of(spec: Spec, steps: Steps | None, heads: int | None, layers: int | None, arguments: dict[str, Any]) -> Side:
        laid, sizes, queries = lay_out_rows(spec, steps=steps, heads=heads, layers=layers, **arguments)
        said = [f"steps={steps}" if steps is not None else "", f"{queries} x {sizes.keys} pairs", f"heads={sizes.heads}", f"layers={sizes.layers or 1}"]
        scope = ", ".join(x for x in said if x) + (f", {len(laid)} rows of the batch" if len(laid) > 1 else "")
        values = ", ".join(f"{n}={_alike([row.params[n] for row in laid])}" for n in (spec.params if laid else ()))
        scope += (f", {values}" if values else "") + (", these inputs" if spec.inputs else "") + "; exact there, and for no other size"
        return Side(tuple(laid), sizes.tokens, queries, sizes.keys, sizes.heads, sizes.layers or 1, max(1, len(laid)), scope)

    @staticmethod
    def of_row(row: Row, scope: str) -> Side:
        """A spec at the sizes of one row."""
        tokens, queries, keys = len(row.own["pos"]), len(row.queries["pos"]), len(row.keys["pos"])
        return Side((row,), tokens, queries, keys, row.heads, row.layers, 1, scope)

    @property
    def which(self) -> range:
        """The layers compared; of a spec that does not speak of them, one stands for all."""
        if self.only is not None:
            return range(self.only, self.only + 1)
        return range(self.layers)

    @property
    def pairs(self) -> int:
        return self.batch * len(self.which) * self.heads * self.queries * self.keys

    def asked(self, gate: int, batch: int, layer: int, begin: int, end: int) -> Tensor:
        """Who attends (0), or a gate, of some rows: (heads, end - begin, keys). What lies beyond the row's own tokens is false, or 1."""
        row = self.laid[batch if len(self.laid) > 1 else 0]
        own = min(end, len(row.queries["pos"]))
        some = replace(row, queries={n: x[begin:own] for n, x in row.queries.items()})
        nq, nk = max(0, own - begin), len(row.keys["pos"])
        found = []
        for head in range(self.heads if row.checked.speaks_of_heads else 1):
            values = pairs(row.checked, some.words(head, layer if row.checked.speaks_of_layers else 0), nq, nk)
            found.append(values[gate].expand(nq, nk))
        value = torch.stack(found).expand(self.heads, nq, nk)
        filler = 0 if gate == 0 else 1
        return torch.nn.functional.pad(value, (0, self.keys - nk, 0, end - begin - nq), value=filler)

    def asks_unlike(self, other: Side) -> str:
        """The first row of q that is another token in the other spec; empty if none is."""
        for batch in range(self.batch):
            mine, theirs = ((x.laid[batch if len(x.laid) > 1 else 0].queries["pos"]) for x in (self, other))
            if len(mine) != len(theirs):
                return f"{len(mine)} in the first and {len(theirs)} in the second (row {batch} of the batch)"
            if bool((mine != theirs).any()):
                row = int((mine != theirs).nonzero()[0])
                return f"row {row} of q is token {int(mine[row])} in the first and {int(theirs[row])} in the second (row {batch} of the batch)"
        return ""

    def attended(self, batch: int, layer: int, begin: int, end: int) -> Tensor:
        return self.asked(0, batch, layer, begin, end)

    def nothing(self, batch: int, layer: int, begin: int, end: int) -> Tensor:
        return torch.zeros(self.heads, end - begin, self.keys, dtype=torch.bool)

    def gate_differs(self, gate: int, other: Side) -> Rows:
        """Where both attend and a gate differs: a factor that is no number is like another that is none."""

        def rows(batch: int, layer: int, begin: int, end: int) -> Tensor:
            place = (batch, layer, begin, end)
            mine, theirs = self.asked(gate, *place), other.asked(gate, *place)
            return self.attended(*place) & (mine != theirs) & ~(mine.isnan() & theirs.isnan())

        return rows


def _alike(values: list[int | float]) -> Any:
    """One number if all are the same."""
    return values[0] if len(set(values)) == 1 else values
