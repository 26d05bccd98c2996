"""Who does what of a call: the rows of a layout dealt to ranks by whole tiles, so that all layers together take each about as long.

Every rank finds the same, from the same plans; nothing is sent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..compiler.order import Order
from ..compiler.part import part
from ..compiler.plan import Plan
from ..compiler.shard import deal, in_one_order, order_of, tokens_of, work_of
from ..diagnostics import InputError
from ..kernels.attention import Attention
from ..kernels.planned import Found, Planned

KEPT = 8  # calls, by their plans


@dataclass(frozen=True, slots=True, eq=False)
class Dealt:
    """What ranks have of the rows of a call. Ranks own rows in the order in which plans visit them, and send them padded to `width`."""

    rows: Tensor  # (own,) int64: the rows of the layout that this rank owns
    width: int  # most rows that a rank owns
    sent: Tensor  # (tokens,) int64: where each row lies in what all ranks send, rank by rank, in the order in which plans visit them
    layers: tuple[Found, ...]  # what each layer's attention is done by: the plans of this rank's rows
    work: tuple[float, ...]  # of every rank: products of tiles, forward and backward

    @property
    def imbalance(self) -> float:
        """The busiest rank's work over the mean: 1.0 is even."""
        return max(self.work) * len(self.work) / sum(self.work) if sum(self.work) else 1.0


class Dealer:
    """Deals calls of an attention with `depth` layers. Calls with the same plans are dealt once."""

    def __init__(self, attention: Attention, depth: int, rank: int, world: int):
        self.attention, self.depth, self.rank, self.world = attention, depth, rank, world
        self._kept: OrderedDict[tuple[int, ...], tuple[tuple[Found, ...], Dealt]] = OrderedDict()

    def deal(self, q: Tensor, k: Tensor, beside: dict[str, Any]) -> Dealt:
        """`q` and `k` stand for those of the whole call: their shapes, dtype and device are read, and no number. Raises InputError where there are
        fewer tiles than ranks."""
        layers = tuple(self.attention.found(q, k, k, layer=number, **beside) for number in range(self.depth))
        key = tuple(id(p.plan) for found in layers for p in (found.own, found.twins) if p is not None)
        if key not in self._kept:
            self._kept[key] = layers, self._dealt(layers)  # what is kept holds the plans, so that none has another's number
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key][1]

    def _dealt(self, layers: Sequence[Found]) -> Dealt:
        plans: dict[int, Plan] = {id(p.plan): p.plan for found in layers for p in (found.own, found.twins) if p is not None}
        ordered = dict(zip(plans, in_one_order(list(plans.values())), strict=True))
        geometry, order = layers[0].own.plan.geometry, order_of(ordered[id(layers[0].own.plan)])
        tiles = -(-geometry.queries // geometry.tile)
        if tiles < self.world:
            raise InputError(
                f"{geometry.queries} rows are {tiles} tiles of {geometry.tile}, and {self.world} ranks share them by whole tiles: "
                "give longer sequences, a smaller tile=, or fewer ranks"
            )
        work = torch.zeros(tiles, dtype=torch.float64)
        for found in layers:
            work += work_of(ordered[id(found.own.plan)])
            if found.twins is not None:
                work += work_of(ordered[id(found.twins.plan)], forward=False)
        dealt = deal(work, self.world)
        owned = [tokens_of(rows, geometry.tile, geometry.queries) for rows in dealt]
        width = max(map(len, owned))
        sent = torch.empty(geometry.keys, dtype=torch.int64)
        for rank, places in enumerate(owned):
            sent[places] = rank * width + torch.arange(len(places))
        parts = {number: part(plan, dealt[self.rank]) for number, plan in ordered.items()}
        mine = tuple(Found(f.backend, *(None if p is None else Planned(parts[id(p.plan)], p.compiled) for p in (f.own, f.twins))) for f in layers)  # type: ignore[arg-type]
        return Dealt(_in_the_layout(owned[self.rank], order), width, sent, mine, tuple(float(work[rows].sum()) for rows in dealt))


def _in_the_layout(places: Tensor, order: Order | None) -> Tensor:
    return places if order is None else order.queries[places]
