"""What a picture shows: for every query and key, whether it sees, and whether it trains what it sees. No drawing here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..diagnostics import InputError
from ..spec import Spec
from ..surface import dense, tokens

MOST_CELLS = 200


class Mark(Enum):
    """Plain character, and the words of the legend."""

    TRAINS = ("#", "sees and trains")
    SEES = ("o", "sees only")
    NOTHING = (".", "nothing")

    @property
    def character(self) -> str:
        return self.value[0]

    @property
    def words(self) -> str:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Picture:
    """Rows are queries, columns keys."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Mark, ...], ...]
    note: str


def picture(
    spec: Spec, *, steps: int | None = 4, head: int = 0, layer: int = 0, heads: int | None = None, layers: int | None = None, inputs: dict | None = None
) -> Picture:
    """The marks of one head of one layer, from the reference. A pair trains if its gradient into the key or the value is not 0.

    Raises InputError if there is too much to draw, or the spec needs inputs that are not given.
    """
    checked = spec.checked
    if not checked.queries.rows_per_step and (checked.keys is None or not checked.keys.rows_per_step):
        steps = None
    size = max(x.tokens(steps or 0) for x in (checked.queries, checked.keys or checked.queries))
    if size > MOST_CELLS:
        raise InputError(f"{size:,} tokens are too many to draw; at most {MOST_CELLS}: give fewer --steps, or smaller --param values")
    if size == 0:
        raise InputError("there is nothing to draw: this layout has no tokens at this size")
    masks = dense(spec, steps=steps, heads=heads, layers=layers, inputs=inputs)
    for name, chosen, count in (("head", head, masks.attend.shape[-3]), ("layer", layer, masks.attend.shape[-4])):
        if not 0 <= chosen < count:
            raise InputError(f"{name} is from 0 to {count - 1} here; got {chosen}: give {name}s= for more")
    attend = masks.attend[..., layer, head, :, :].flatten(0, -3)[0] if masks.attend.ndim > 4 else masks.attend[layer, head]
    gates = [(g[0] if g.ndim > 4 else g)[layer, head] for g in (masks.gate_k, masks.gate_v)]
    trains = attend & ((gates[0] != 0) | (gates[1] != 0))
    cells = tuple(
        tuple(Mark.TRAINS if t else Mark.SEES if a else Mark.NOTHING for a, t in zip(*pair, strict=True))
        for pair in zip(attend.tolist(), trains.tolist(), strict=True)
    )
    labels = _labels(spec, steps, heads, layers, inputs) if checked.keys is None else None
    rows = labels or tuple(f"query {i}" for i in range(attend.shape[0]))
    columns = labels or tuple(f"key {i}" for i in range(attend.shape[1]))
    values = ", ".join(f"{n} = {v}" for n, v in spec.params.items())
    return Picture(
        f"{spec.filename}{' with ' + values if values else ''}",
        rows,
        columns,
        cells,
        "rows ask, columns are seen; a pair trains if it moves the key or the value it reads",
    )


def _labels(spec: Spec, steps: int | None, heads: int | None, layers: int | None, inputs: dict | None) -> tuple[str, ...]:
    table = tokens(spec, steps=steps, heads=heads, layers=layers, inputs=inputs)
    several = {r for r, s in zip(table.role, table.slot.tolist(), strict=True) if s > 0}
    names = []
    for role, step, slot in zip(table.role, table.step.tolist(), table.slot.tolist(), strict=True):
        names.append(f"{step} {role}{slot if role in several else ''}")
    return tuple(names)
