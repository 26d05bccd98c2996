"""Between two rows, beyond the pair itself: the shortest path by which one reads the other, and the shortest that takes a gradient back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ..diagnostics import InputError
from ..proofs.search import shortest_path
from ..proofs.verdict import Path
from ..reference.masks import Row


@dataclass(frozen=True, slots=True)
class Step:
    """A hop of a path: in a head of a layer, the row at position `query` reads the one at `key`. `words` says it; head and layer where they matter."""

    query: int
    key: int
    head: int
    layer: int
    words: str


@dataclass(frozen=True, slots=True)
class Ways:
    """The shortest paths from the state of a key to the output of a query, the last hop first; None: there is none, no hops: they are one row.

    `learns` is the shortest whose gates let a gradient back. `scope` says among which layers and rows; `refused` why nobody looked, if so.
    """

    reads: tuple[Step, ...] | None
    learns: tuple[Step, ...] | None
    scope: str
    is_one_pair: bool  # with two layouts no path has more hops than one
    refused: str = ""

    def lines(self, sees: bool, teaches: bool) -> Iterator[str]:
        """In words, below what is said of the pair in one head of one layer: whether it is seen there, and lets a gradient back."""
        begins = "Indirectly:"
        match self.reads, self.learns:
            case _ if self.refused:
                yield f"{begins} {self.refused}"
            case None, _:
                yield f"{begins} nothing of the key reaches the query, {self.scope}."
            case (), _:
                yield f"{begins} a row reaches itself, and learns from itself, along its residual stream."
            case (_,), (_,) if sees and teaches:
                yield f"{begins} no shorter way than the pair itself, for what is read and for its gradient."
            case (_,), back if sees:
                words, *lines = self._back(back)
                yield f"{begins} {words[0].lower()}{words[1:]}"
                yield from lines
            case (one,), back:
                yield f"{begins} {one.words}."
                yield from self._back(back)
            case several, back:
                yield f"{begins} the query reads the key in {len(several)} hops, one a layer:"
                yield from (f"  {step.words}" for step in several)
                yield from self._back(back)

    def _back(self, back: tuple[Step, ...] | None) -> Iterator[str]:
        match back:
            case None:
                yield f"No gradient returns to the key{'' if self.is_one_pair else ' through other rows either'}, {self.scope}."
            case (one,):
                yield f"A gradient returns where {one.words}."
            case _ if back == self.reads:
                yield "A gradient returns the same way."
            case several:
                yield f"A gradient returns in {len(several)} hops, one a layer:"
                yield from (f"  {step.words}" for step in several)


def ways(row: Row, query: int, key: int) -> Ways:
    """Of the tokens at two positions; with two layouts `key` is one of the second."""
    checked = row.checked
    layers = f"in {row.layers} layer{'s' if row.layers > 1 else ''}" if checked.speaks_of_layers else "in any number of layers"
    scope = "in any head or layer" if checked.keys is not None else f"{layers}, among these {len(row.keys['pos']):,} rows"
    try:
        reads, learns = (shortest_path(row, key, query, gradients) for gradients in (False, True))
    except InputError as error:
        return Ways(None, None, scope, checked.keys is not None, str(error))
    return Ways(_steps(row, reads), _steps(row, learns), scope, checked.keys is not None)


def _steps(row: Row, path: Path | None) -> tuple[Step, ...] | None:
    if path is None:
        return None
    checked = row.checked
    found = []
    for hop in reversed(path.hops):
        place = [f"head {hop.head}"] if checked.speaks_of_heads else []
        place += [f"layer {hop.layer}"] if checked.speaks_of_layers else []
        words = f"{_named(row, row.own, hop.query)} reads {_named(row, row.keys, hop.key)}" + (f" in {', '.join(place)}" if place else "")
        found.append(Step(hop.query, hop.key, hop.head, hop.layer, words))
    return tuple(found)


def _named(row: Row, axis: dict[str, Tensor], pos: int) -> str:
    step, slot = int(axis["step"][pos]), int(axis["slot"][pos])
    return f"{pos}: {row.checked.roles[int(axis['role'][pos])]} (step {step}, slot {slot})"
