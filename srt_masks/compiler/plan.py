"""The plan of a call: which tiles each consumer visits, for every group of rows of the batch and heads that share a mask.

What it is and what can be asked of it; `make_plan.py` makes one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..default_device import on_the_cpu
from ..diagnostics import InputError
from . import ir
from .boxes import Boxes, classify
from .choice import NOT_ASKED, Choice
from .flex import block_mask
from .intervals import Intervals, intervals
from .ir import Program
from .labels import PARTIAL
from .leaves import Leaves
from .order import NATURAL, Order
from .questions import questions
from .runs import Consumer, Runs, emit
from .shard import Shard, common_order, shard

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

DENSE_BYTES = 2**31


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a plan is for. `op.attend` refuses a plan whose geometry is not the call's."""

    batch: int
    heads: int
    queries: int  # rows of q: the tokens that ask
    keys: int
    tile: int
    lengths: tuple[int, ...] | None
    asking: tuple[range, ...] | None = None  # the positions that q holds, by row of the batch; None: all
    heads_per_key: int = 1  # query heads of a key head: those that share keys visit them in one order


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """The rows of the batch and the heads that share one mask, that mask's boxes, and the runs of every consumer."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    queries: int  # the group's own rows of q: those beyond them are padding
    keys: int
    tile: int
    boxes: Boxes
    leaves: Leaves  # in `order`, as boxes and runs are
    order: Order | None = None  # None: the caller's own, `natural`
    choice: Choice = NOT_ASKED
    emitted: dict[Consumer, Runs] = field(default_factory=dict)

    def runs(self, consumer: Consumer) -> Runs:
        """The runs of a consumer, emitted from the boxes when they are first asked for."""
        if consumer not in self.emitted:
            rows, cols = (-(-n // self.tile) for n in ((self.keys, self.queries) if consumer.key_major else (self.queries, self.keys)))
            self.emitted[consumer] = emit(self.boxes, consumer, rows, cols)
        return self.emitted[consumer]


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """Everything a kernel needs to know of a mask. Nothing in it is queries x keys but inputs that were given so. Prints as a
    table."""

    geometry: Geometry
    program: Program
    groups: tuple[GroupPlan, ...]
    seconds: float
    moved: frozenset[ir.Side] = frozenset()  # the sides whose rows the caller hands in as the plan has them, in no order of positions (`part.py`)

    @property
    def group_of(self) -> Tensor:
        """(batch, heads) int32: the number of the group of each."""
        table = torch.full((self.geometry.batch, self.geometry.heads), -1, dtype=torch.int32)
        for number, group in enumerate(self.groups):
            rows, heads = (torch.tensor(x, dtype=torch.int64) for x in (group.batch, group.heads))
            table[rows[:, None], heads] = number
        return table

    @property
    def orders(self) -> tuple[tuple[tuple[int, ...], tuple[int, ...], str], ...]:
        """Rows of the batch, heads and the name of their order, of every group: plans of one call that agree in these visit tokens alike."""
        return tuple((g.batch, g.heads, NATURAL if g.order is None else g.order.name) for g in self.groups)

    @property
    @on_the_cpu
    def visited(self) -> Tensor | None:
        """(tokens,) int64, the caller's to keep: the token at each place, in the order in which all rows of the batch and heads visit those of q and of k
        alike; None where that is the caller's, or there is no such one order. Rows that are laid out so, and a call that is told (`visited=`), leave
        nothing to be gathered."""
        own = self.own_visited
        return None if own is None else own.clone()

    @cached_property
    def own_visited(self) -> Tensor | None:
        """`visited` as the plan itself holds it, known again by `is`: calls to come are done by it, so nobody outside is handed it to write into."""
        order = common_order([self])
        return None if order is None or order.keys is not order.queries else order.queries

    @property
    def numbered(self) -> frozenset[ir.Side]:
        """The sides whose rows are, in order, the positions from 0 on."""
        if any(g.order is not None for g in self.groups):
            return frozenset()
        all_ask = self.program.asks is ir.TRUE and self.geometry.asking is None
        return (frozenset(ir.Side) if all_ask else frozenset({ir.Side.KEY})) - self.moved

    def tiles(self, consumer: Consumer) -> int:
        """Tiles a consumer visits, groups counted once."""
        return sum(g.runs(consumer).tiles for g in self.groups)

    @property
    def active_tiles(self) -> int:
        return self.tiles(Consumer.FORWARD)

    @property
    def inexact_tiles(self) -> int:
        """Tiles treated as PARTIAL that nobody evaluated: right, and perhaps slower than they need be."""
        return sum(g.boxes.inexact for g in self.groups)

    @property
    def nbytes(self) -> int:
        """Bytes of the runs of all consumers, as if all were asked for. The leaves come on top: 8 bytes or fewer a token, each."""
        return sum(g.runs(c).nbytes for g in self.groups for c in Consumer)

    def __repr__(self) -> str:
        g = self.geometry
        return (
            f"<Plan for batch {g.batch}, heads {g.heads}, {g.queries} x {g.keys} tokens, tile {g.tile}: {self.active_tiles} tiles visited; print() lists them>"
        )

    @on_the_cpu
    def to_dense(self) -> Tensor:
        """The attended pairs, bool (batch, heads, queries, keys), read off the plan's tiles and not off the text alone.

        Raises InputError beyond 2 GiB.
        """
        g = self.geometry
        if g.batch * g.heads * g.queries * g.keys > DENSE_BYTES:
            raise InputError(f"{g.batch} x {g.heads} x {g.queries} x {g.keys} pairs are too many for a dense mask")
        dense = torch.zeros(g.batch, g.heads, g.queries, g.keys, dtype=torch.bool)
        for group in self.groups:
            mask = torch.zeros(group.queries, group.keys, dtype=torch.bool)
            runs = group.runs(Consumer.FORWARD)
            ptr = runs.ptr.tolist()
            for row in range(len(ptr) - 1):
                q = slice(row * g.tile, min(group.queries, (row + 1) * g.tile))
                for i in range(ptr[row], ptr[row + 1]):
                    first, count = int(runs.first[i]), int(runs.count[i])
                    k = slice(first * g.tile, min(group.keys, (first + count) * g.tile))
                    mask[q, k] = group.leaves.pairs(q, k, self.program.attend)[0] if int(runs.kind[i]) & PARTIAL else True
            if group.order is not None:
                queries, keys = group.order.places
                mask = mask[queries][:, keys]
            rows, heads = torch.tensor(group.batch)[:, None], torch.tensor(group.heads)
            full = torch.zeros(g.queries, g.keys, dtype=torch.bool)
            full[: group.queries, : group.keys] = mask
            dense[rows, heads] = full
        return dense

    @cached_property
    def natural(self) -> Plan:
        """The same plan in the caller's order: itself, or with boxes of its own where another order was taken."""
        if all(group.order is None for group in self.groups):
            return self
        ask = questions(self.program)

        def unordered(group: GroupPlan) -> GroupPlan:
            if group.order is None:
                return group
            leaves = Order(NATURAL, *group.order.places).picked(group.leaves)
            boxes = classify(ask, Leaves(ask.split, leaves.values, leaves.tables), group.queries, group.keys, group.tile)
            return replace(group, boxes=boxes, leaves=leaves, order=None, choice=NOT_ASKED, emitted={})

        return replace(self, groups=tuple(unordered(group) for group in self.groups))

    @on_the_cpu
    def to_flex(self, *, device: Any = None, gradients: str = "refuse", compact: bool = False) -> BlockMask:
        """A FlexAttention `BlockMask` of the plan's tiles: for q, k and v of the plan's sizes in the caller's order, on `device` (the GPU, if there
        is one). Heads and rows of the batch that share a mask share its lists.

        A BlockMask has no gradient rules: a text with some is refused, unless `gradients="drop"` asks for its mask alone. `compact` makes lists
        only as wide as the fullest row: less memory at great lengths; not for the CPU, and not for the BlockMask's own `to_dense`.
        Raises InputError for that, for a tile that FlexAttention's GPU kernels do not take, for empty calls and beyond 8 GiB.
        """
        return block_mask(self.natural, device, gradients, compact)

    @on_the_cpu
    def intervals(self) -> tuple[Intervals, ...]:
        """The stretches of keys that each query attends, exact, int32, of every group, in the caller's order. Evaluates every PARTIAL tile: not
        for masks that are PARTIAL everywhere. Raises InputError beyond 67 million intervals."""
        return tuple(intervals(group, self.program) for group in self.natural.groups)

    @on_the_cpu
    def shard(self, rank: int, world: int) -> Shard:
        """The queries that one of `world` ranks owns, by whole tiles of the plan's order, and the keys it needs, so that ranks have equal work forward and backward.

        Ranks own equally many rows of tiles, give or take one, and the busiest and the idlest differ by at most the heaviest row.
        Raises InputError for a rank that is not there.
        """
        return shard(self, rank, world)

    @on_the_cpu
    def __str__(self) -> str:
        g = self.geometry
        lines = [
            f"plan for batch {g.batch}, heads {g.heads}, {g.queries} x {g.keys} tokens, tile {g.tile}: {len(self.groups)} group(s), {self.nbytes:,} bytes, {1000 * self.seconds:.1f} ms"
        ]
        for number, group in enumerate(self.groups):
            rows, cols = (-(-n // g.tile) for n in (group.queries, group.keys))
            lines.append(
                f"group {number}: batch rows {_span(group.batch)}, heads {_span(group.heads)}, {group.queries} x {group.keys} tokens, {rows} x {cols} tiles"
            )
            for consumer in (Consumer.FORWARD, Consumer.DQ, Consumer.DKV):
                runs = group.runs(consumer)
                partial = runs.partial_tiles
                text = f"  {consumer.value[0]:8} {runs.tiles - partial} FULL + {partial} PARTIAL of {rows * cols}"
                if consumer is Consumer.DKV:
                    text += f"; dK works on {runs.tiles_where('k')}, dV on {runs.tiles_where('v')}"
                lines.append(text)
            lines += [f"  {line}" for line in group.choice.lines((group.queries, group.keys))]
            if group.boxes.inexact:
                lines.append(f"  {group.boxes.inexact} tiles are called PARTIAL without having been evaluated")
        return "\n".join(lines)


def _span(numbers: tuple[int, ...]) -> str:
    if len(numbers) > 1 and numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(map(str, numbers))
