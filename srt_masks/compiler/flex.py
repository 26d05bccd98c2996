"""Plan -> FlexAttention: a `BlockMask` with the plan's tiles as its lists and the text's own predicate as its `mask_mod`.

Lists and predicate are made from the same leaves but not from each other: eager FlexAttention reads the predicate alone, compiled
FlexAttention trusts the lists and asks the predicate on PARTIAL tiles only, so a disagreement would show nowhere but in results.
`srt_masks.equivalent(spec, block_mask)` looks for one.

Gradient rules have no place in a BlockMask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..diagnostics import InputError
from . import ir
from .evaluate import DTYPES, operate
from .ir import Apply, Const, Expr, Field, Gather, Load, Op
from .leaves import split
from .runs import Consumer, Runs, spread

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from .plan import GroupPlan, Plan

WHOLE = 128  # tiles of this many tokens, and multiples, suit every kernel that FlexAttention may choose on a GPU
MOST_BYTES = 8 * 2**30
GRADIENTS = ("refuse", "drop")

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (batch, head, query, key) -> whether the pair is attended


def block_mask(plan: Plan, device: Any = None, gradients: str = "refuse", compact: bool = False) -> BlockMask:
    """See `Plan.to_flex`."""
    from torch.nn.attention.flex_attention import BlockMask  # slow to import, and needed by nobody else

    if gradients not in GRADIENTS:
        raise InputError(f"gradients is one of {', '.join(map(repr, GRADIENTS))}; got {gradients!r}")
    ruled = [name for name, gate in zip("qkv", plan.program.gates, strict=True) if gate != ir.Gate()]
    if ruled and gradients == "refuse":
        raise InputError(
            f"this text has gradient rules for {', '.join(ruled)}, and a BlockMask knows none: FlexAttention would train every pair it sees. "
            "Keep srt_masks.compile(spec) for training, or export the mask alone: to_flex(gradients='drop')"
        )
    place = _device(device)
    tile, g = plan.geometry.tile, plan.geometry
    if place.type != "cpu" and tile % WHOLE:
        raise InputError(
            f"FlexAttention's kernels want tiles of {WHOLE} tokens, or a multiple; this plan has {tile}: plan anew with srt_masks.compile(spec, tile={WHOLE})"
        )
    if compact and place.type == "cpu":
        raise InputError("FlexAttention on the CPU wants lists of full width: leave compact out, or name another device=")
    if not (g.batch and g.heads and g.queries and g.keys):
        raise InputError(f"a BlockMask wants at least one row of the batch, head, query and key; this plan has {g.batch}, {g.heads}, {g.queries}, {g.keys}")
    table = _extents(plan.group_of)
    rows, cols = -(-g.queries // tile), -(-g.keys // tile)
    wanted = table.numel() * 4 * 4 * rows * cols
    if wanted > MOST_BYTES and not compact:
        raise InputError(
            f"the lists of {table.shape[0]} x {table.shape[1]} masks of {rows} x {cols} tiles take {wanted / 2**30:.1f} GiB at full width; at most "
            f"{MOST_BYTES // 2**30} GiB are made. compact=True makes them as wide as the fullest row, for GPUs; larger tiles make them fewer"
        )
    groups = [plan.groups[i] for i in range(len(plan.groups))]
    lists = (
        *_lists([x.runs(Consumer.FORWARD) for x in groups], table, rows, cols, compact),
        *_lists([x.runs(Consumer.SEEN) for x in groups], table, cols, rows, compact),
    )
    return BlockMask((g.queries, g.keys), *(x.to(place) for x in lists), BLOCK_SIZE=(tile, tile), mask_mod=predicate(plan, place))


def _device(device: Any) -> torch.device:
    """The device that a caller names, or where FlexAttention runs best. Raises InputError if it is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"device is a torch.device or its name; got {device!r}") from None
    try:
        torch.empty(0, device=place)
    except (AssertionError, RuntimeError) as error:  # the first where torch was built without it
        raise InputError(f"torch finds no {place} here: {str(error).splitlines()[0]}. Name another device=") from None
    return place


def _extents(group_of: Tensor) -> Tensor:
    """(batch, heads) with axes along which nothing differs cut to 1: a BlockMask of 1 row of the batch, or head, serves any number."""
    if bool((group_of == group_of[:1]).all()):
        group_of = group_of[:1]
    if bool((group_of == group_of[:, :1]).all()):
        group_of = group_of[:, :1]
    return group_of


# ------------------------------------------------------------------------------------------------ lists


def _lists(groups: Sequence[Runs], table: Tensor, rows: int, cols: int, compact: bool) -> list[Tensor]:
    """num_blocks (batch, heads, rows) and indices (batch, heads, rows, width) of PARTIAL tiles, then of FULL ones, all int32 and contiguous."""
    made = []
    for partial in (True, False):
        counts, flat = zip(*(_listed(runs, partial, rows) for runs in groups), strict=True)
        width = max(1, *(int(c.max()) for c in counts)) if compact else cols
        number, indices = torch.zeros(*table.shape, rows, dtype=torch.int32), torch.zeros(*table.shape, rows, width, dtype=torch.int32)
        for b, line in enumerate(table.tolist()):
            for h, group in enumerate(line):
                row, place, col = flat[group]
                number[b, h] = counts[group]
                indices[b, h, row, place] = col
        made += [number, indices]
    return made


def _listed(runs: Runs, partial: bool, rows: int) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """How many tiles of a kind each row has, and of every such tile its row, its place in the row's list, and its column."""
    mine = runs.is_partial == partial
    row, first, count = runs.row[mine], runs.first[mine].long(), runs.count[mine].long()
    run, across = (torch.from_numpy(x) for x in spread(count.numpy()))
    tiles = torch.zeros(rows, dtype=torch.int64).index_add_(0, row, count)
    before = tiles.cumsum(0) - tiles
    return tiles.int(), (row[run], torch.arange(len(run)) - before[row[run]], (first[run] + across).int())


# ------------------------------------------------------------------------------------------------ the predicate

_Make = Callable[[Tensor, Tensor, Tensor, list[Tensor]], Tensor]  # (group, query, key, values of the nodes before) -> value


def predicate(plan: Plan, device: torch.device) -> MaskMod:
    """The mask of a plan, padding included, in tensor operations of single pairs that vmap and Dynamo can follow.

    Leaves are read from captured vectors, by the positions of the caller's tokens; groups of heads and of rows of the batch that differ are
    stacked in front.
    """
    table = _extents(plan.group_of).long().to(device)
    captured = _Captured(plan, device)
    makers = captured.makers()
    by_batch, by_head = table.shape[0] > 1, table.shape[1] > 1
    queries, keys = captured.length("queries", plan.geometry.queries), captured.length("keys", plan.geometry.keys)

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        group = table[b if by_batch else b * 0, h if by_head else h * 0]
        q, k = q_idx.long(), kv_idx.long()
        values: list[Tensor] = []
        for make in makers:
            values.append(make(group, q, k, values))
        attended = values[-1] & (q >= 0)  # a text that reads neither side is as wide as the others
        if queries is not None:
            attended = attended & (q < queries[group])
        return attended if keys is None else attended & (k < keys[group])

    return mask_mod


class _Captured:
    """What the predicate of a plan reads: one tensor where all groups agree, else one with an axis of groups in front."""

    def __init__(self, plan: Plan, device: torch.device):
        self.groups, self.device = plan.groups, device
        self.attend = plan.program.attend
        self.split = split(plan.program.attend)
        self.extents = {**dict.fromkeys(self.split.query, plan.geometry.queries), **dict.fromkeys(self.split.key, plan.geometry.keys)}

    def makers(self) -> tuple[_Make, ...]:
        """One for each leaf and pair node, children before parents, the mask last."""
        inside = set(self.split.leaves)
        number: dict[Expr, int] = {}
        made: list[_Make] = []
        for node in (*self.split.leaves, *self.split.pairs):
            number[node] = len(made)
            made.append(self.leaf(node) if node in inside else self.pair(node, number))
        if number[self.attend] != len(made) - 1:  # a text of one leaf or constant
            at = number[self.attend]
            made.append(lambda group, q, k, values: values[at])
        return tuple(made)

    def leaf(self, node: Expr) -> _Make:
        if isinstance(node, Const):
            value, dtype = node.value, DTYPES[node.type]
            return lambda group, q, k, values: q.new_full((), value, dtype=dtype)
        values = [group.leaves.values[node] for group in self.groups]
        if node in self.split.constants:
            return self.constant(values)
        of_query = node in self.split.query
        if isinstance(node, Field) and node.name == "pos" and all(torch.equal(v, torch.arange(len(v))) for v in values):
            return (lambda group, q, k, values: q) if of_query else (lambda group, q, k, values: k)
        vector, stacked = self.stack(values, self.extents[node])
        if of_query:
            return (lambda group, q, k, values: vector[group, q]) if stacked else (lambda group, q, k, values: vector[q])
        return (lambda group, q, k, values: vector[group, k]) if stacked else (lambda group, q, k, values: vector[k])

    def constant(self, values: list[Tensor]) -> _Make:
        number, stacked = self.stack([v.reshape(1) for v in values], 1)
        return (lambda group, q, k, values: number[group, q * 0]) if stacked else (lambda group, q, k, values: number[q * 0])

    def pair(self, node: Expr, number: dict[Expr, int]) -> _Make:
        match node:
            case Load(table=name, indices=indices):
                at = [number[i] for i in indices]
                whole = [group.leaves.tables[name] for group in self.groups]
                table, stacked = self.stack(whole, whole[0].shape[0])
                sizes = whole[0].shape
                return lambda group, q, k, values: _read(table, group if stacked else None, [values[i] for i in at], sizes, 0)
            case Gather(value=value, index=index, filler=filler):
                at = [number[index]]
                vector, stacked = self.stack([group.leaves.values[value] for group in self.groups], self.extents[value])
                lengths = self.length("keys", -1)
                assert lengths is not None
                return lambda group, q, k, values: _read(vector, group if stacked else None, [values[i] for i in at], (lengths[group],), filler)
            case Apply(op=Op.POW, args=(base, exponent)):
                return self.power(base, exponent, number)
            case Apply(op=op, args=args, type=type):
                at, dtype = [number[x] for x in args], DTYPES[type]
                return lambda group, q, k, values: operate(op, [values[i] for i in at]).to(dtype)
            case _:
                raise AssertionError(f"not a pair node: {node}")

    def power(self, base: Expr, exponent: Expr, number: dict[Expr, int]) -> _Make:
        """Square and multiply needs 63 rounds for an exponent that is not known, and FlexAttention's compiler doubles its work with each."""
        a, b = number[base], number[exponent]
        if (known := self.known(exponent)) is not None:
            return lambda group, q, k, values: _raised(values[a], known) if known >= 0 else values[a] * 0
        if self.known(base) == 2:
            return lambda group, q, k, values: _power_of_two(values[b])
        raise InputError(
            "FlexAttention's compiler cannot follow a power of a pair, but for 2 ** n and n ** (a number): "
            "give its values as an input, `input power: int[n, m]`, and write power[...]"
        )

    def known(self, node: Expr) -> int | None:
        """The value of a constant that is one number in all groups."""
        if node not in self.split.constants:
            return None
        values = {int(group.leaves.values[node]) for group in self.groups}
        return values.pop() if len(values) == 1 else None

    def length(self, side: str, extent: int) -> Tensor | None:
        """(groups,) tokens of a side, or None where every group has as many as the call."""
        lengths = [len_of(group, side) for group in self.groups]
        return None if all(n == extent for n in lengths) else torch.tensor(lengths, device=self.device)

    def stack(self, values: list[Tensor], extent: int) -> tuple[Tensor, bool]:
        """The values of all groups, padded along their first axis to `extent`; and whether they differ, and have an axis of groups in front."""
        padded = [_padded(v, max(1, extent)) for v in values]
        if all(p is padded[0] or torch.equal(p, padded[0]) for p in padded[1:]):
            return padded[0].to(self.device), False
        return torch.stack(padded).to(self.device), True


def len_of(group: GroupPlan, side: str) -> int:
    return group.queries if side == "queries" else group.keys


def _padded(value: Tensor, extent: int) -> Tensor:
    """Zeros behind a vector or table, up to an extent of its first axis; an axis of 0 becomes 1, so that there is something to read."""
    shape = (max(extent, value.shape[0]), *(max(1, n) for n in value.shape[1:]))
    if shape == tuple(value.shape):
        return value
    wide = value.new_zeros(shape)
    wide[tuple(slice(n) for n in value.shape)] = value
    return wide


def _read(table: Tensor, group: Tensor | None, indices: list[Tensor], sizes: Sequence[int | Tensor], filler: int) -> Tensor:
    """`table[i, j, ...]`, of a group where it has an axis of them; where a subscript is out of range, `filler`."""
    inside, at = None, []
    for index, size in zip(indices, sizes, strict=True):
        here = (index >= 0) & (index < size)
        inside = here if inside is None else inside & here
        at.append(torch.where(here, index, 0))
    assert inside is not None
    found = table[tuple(at)] if group is None else table[(group, *at)]
    return torch.where(inside, found, found.new_full((), filler))


def _raised(base: Tensor, exponent: int) -> Tensor:
    """Square and multiply, modulo 2**64."""
    result = base.new_ones(())
    while exponent > 0:
        result, base, exponent = result * base if exponent & 1 else result, base * base, exponent >> 1
    return result


def _power_of_two(exponent: Tensor) -> Tensor:
    inside = (exponent >= 0) & (exponent < 64)
    return torch.where(inside, torch.ones_like(exponent) << torch.where(inside, exponent, 0), 0)
