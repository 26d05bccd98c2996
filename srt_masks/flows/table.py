"""Counts -> the rows of both tables: distances at which the same holds, together.

Input: `Counts`. Output: `Reading`s and `Learning`s. Non-goals: sentences, text.

Heads and layers in which the same holds of two groups make one row; where there are more than MOST_KINDS sorts, they are counted together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from ..diagnostics import spans
from .counting import GATES, Block, Counts
from .distances import Distances, among
from .report import Hops, Learning, Reading, Return, State

MOST_KINDS = 4
MOST_PIECES = 3  # ranges of distances beyond which "all" and "some" are not told apart

Key = TypeVar("Key", bound=Hashable)
Members = tuple[tuple[int, int], ...]  # (layer, head)
Gates = tuple[State, ...] | None  # of GATES; None where no pair attends


@dataclass(frozen=True, slots=True)
class Place:
    """Heads of layers that are alike for two groups, and where that is, in words; empty: everywhere."""

    members: Members
    where: str


def readings(counts: Counts) -> Iterator[Reading]:
    for block in counts.blocks:
        of = _of(counts.pairs, block)

        def share(members: Members, block: Block = block, of: list[int] = of) -> tuple[bool | None, ...]:
            """By cell: None where no pair attends, else whether all do."""
            found = _summed(counts.attended, members, block)
            return tuple(None if n == 0 else n == len(members) * all_ for n, all_ in zip(found, of, strict=True))

        for place in _places(counts, share):
            found = _summed(counts.attended, place.members, block)
            for chosen in _shares(share(place.members), block):
                distances = _distances(block, chosen, _itself(counts, place, block, chosen))
                whole = _of(counts.itself, block) if distances.is_itself else of
                pairs, total = sum(found[i] for i in chosen), len(place.members) * sum(whole[i] for i in chosen)
                yield Reading(block.reader.name, block.read.name, distances, place.where, pairs, total, None)
        through = _of(counts.indirectly, block)
        if chosen := [i for i, n in enumerate(through) if n]:
            pairs, total = sum(through), sum(of[i] for i in chosen)
            yield Reading(block.reader.name, block.read.name, _distances(block, chosen), "", pairs, total, _hops(counts.hops, block, chosen))


def learnings(counts: Counts, has_hidden: bool) -> Iterator[Learning]:
    for block in counts.blocks:
        returns = _returns(counts, block)

        def gates(members: Members, block: Block = block) -> tuple[Gates, ...]:
            return _gates(counts, members, block)

        anywhere = _summed(counts.attended, _all(counts), block)
        for place in _places(counts, gates):
            # What holds here, and what comes back on whatever way; a cell that nobody reads here has a line only if nobody reads it anywhere.
            found = {i: (state, returns[i]) for i, state in enumerate(gates(place.members)) if state is not None}
            for (state, back), chosen in _alike(found, block):
                distances = _distances(block, chosen, _itself(counts, place, block, chosen))
                assert state is not None
                kept = {g: s for g, s in zip(GATES, state, strict=True) if g != "hidden" or has_hidden}
                yield Learning(block.reader.name, block.read.name, distances, place.where, kept, back, _back(counts, block, chosen, back))
        read = _of(counts.read, block)
        found = {i: returns[i] for i, n in enumerate(read) if n and not anywhere[i]}
        for back, chosen in _alike(found, block):
            distances = _distances(block, chosen)
            yield Learning(block.reader.name, block.read.name, distances, "", None, back, _back(counts, block, chosen, back))


def _returns(counts: Counts, block: Block) -> list[Return]:
    """By cell: how a gradient gets back over pairs that let none pass directly, if there are any."""

    def one(read: int, untaught: int, taught: int) -> Return:
        if not untaught:
            return Return.DIRECTLY
        if not taught:
            return Return.NEVER if untaught == read else Return.OR_NEVER
        return Return.INDIRECTLY if taught == untaught else Return.PARTLY

    return [one(*x) for x in zip(*(_of(n, block) for n in (counts.read, counts.untaught, counts.taught_indirectly)), strict=True)]


def _gates(counts: Counts, members: Members, block: Block) -> tuple[Gates, ...]:
    attended = _summed(counts.attended, members, block)
    columns = [(_summed(counts.open[g], members, block), _summed(counts.whole[g], members, block)) for g in GATES]
    return tuple(None if not n else tuple(_state(n, open_[i], whole[i]) for open_, whole in columns) for i, n in enumerate(attended))


def _state(attended: int, open_: int, whole: int) -> State:
    if open_ == 0:
        return State.STOPPED
    if open_ < attended:
        return State.MIXED
    return State.WHOLE if whole == attended else State.SCALED


# ------------------------------------------------------------------------------------------------ heads and layers


def _all(counts: Counts) -> Members:
    layers, heads = counts.attended.shape[:2]
    return tuple((layer, head) for layer in range(layers) for head in range(heads))


def _places(counts: Counts, facts: Callable[[Members], Hashable]) -> list[Place]:
    """The heads and layers by what holds in them."""
    every = _all(counts)
    kinds: dict[Hashable, list[tuple[int, int]]] = {}
    for member in every:
        kinds.setdefault(facts((member,)), []).append(member)
    if len(kinds) == 1:
        return [Place(every, "")]
    layers, heads = counts.attended.shape[:2]
    if len(kinds) > MOST_KINDS:
        who = "heads and layers" if layers > 1 and heads > 1 else "heads" if heads > 1 else "layers"
        return [Place(every, f"{who} differ")]
    return [Place(tuple(members), _where(members, layers, heads)) for members in kinds.values()]


def _where(members: list[tuple[int, int]], layers: int, heads: int) -> str:
    by_layer: dict[int, tuple[int, ...]] = {}
    for layer, head in members:
        by_layer[layer] = (*by_layer.get(layer, ()), head)
    parts = []
    for chosen in dict.fromkeys(by_layer.values()):
        among = [layer for layer, own in by_layer.items() if own == chosen]
        words = [_numbered("layer", among)] if len(among) < layers else []
        words += [_numbered("head", chosen)] if len(chosen) < heads else []
        parts.append(", ".join(words))
    return "; ".join(parts)


def _numbered(noun: str, numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    return f"{noun}{'s' if len(numbers) > 1 else ''} {spans(numbers)}"


# ------------------------------------------------------------------------------------------------ cells


def _of(counts: Tensor, block: Block) -> list[int]:
    return counts[list(block.cells)].tolist()


def _summed(counts: Tensor, members: Members, block: Block) -> list[int]:
    """Over some heads of some layers, by cell."""
    chosen = counts[[layer for layer, _ in members], [head for _, head in members]]
    return chosen[:, list(block.cells)].sum(0).tolist()


def _shares(shares: tuple[bool | None, ...], block: Block) -> list[list[int]]:
    """The cells where all pairs attend, and those where some do; together where that would be many ranges."""
    kinds = [cells for _, cells in _alike({i: x for i, x in enumerate(shares) if x is not None}, block)]
    if any(len(among(block.unit, {block.distances[i] for i in cells}, block.distances).ranges) > MOST_PIECES for cells in kinds):
        return [sorted(i for cells in kinds for i in cells)]
    return kinds


def _alike(found: dict[int, Key], block: Block) -> list[tuple[Key, list[int]]]:
    """Cells by what holds of them, the nearest first."""
    kinds: dict[Key, list[int]] = {}
    for cell in sorted(found, key=lambda i: (block.distances[i] < 0, abs(block.distances[i]))):
        kinds.setdefault(found[cell], []).append(cell)
    return [(key, sorted(cells)) for key, cells in kinds.items()]


def _distances(block: Block, chosen: list[int], is_itself: bool = False) -> Distances:
    return among(block.unit, {block.distances[i] for i in chosen}, block.distances, is_itself)


def _itself(counts: Counts, place: Place, block: Block, chosen: list[int]) -> bool:
    """Whether of these cells no row attends to another than itself."""
    attended, own = (_summed(x, place.members, block) for x in (counts.attended, counts.attended_itself))
    return all(attended[i] == own[i] for i in chosen)


def _hops(hops: tuple[Tensor, Tensor], block: Block, chosen: list[int]) -> Hops:
    fewest, most = (_of(h, block) for h in hops)
    return Hops(min(fewest[i] for i in chosen), max(most[i] for i in chosen))


def _back(counts: Counts, block: Block, chosen: list[int], back: Return) -> Hops | None:
    return _hops(counts.gradient_hops, block, chosen) if back in (Return.INDIRECTLY, Return.PARTLY) else None
