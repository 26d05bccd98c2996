"""What a picture shows: for every query and key, whether it sees, and whether it trains what it sees. No drawing here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..diagnostics import InputError, spans
from ..grammar.checked import Layout
from ..spec import Spec
from ..surface import dense, lay_out_rows, tokens
from ..time_steps import Steps, each_axis, tokens_of

if TYPE_CHECKING:
    from ..reference.masks import DenseMasks, TokenTable

MOST_CELLS = 200  # tokens of a side
MOST_PICTURES = 8
DEFAULT_STEPS = 4
NOTE = "rows ask, columns are seen; a pair trains if it moves the key or the value it reads"
NOTE_IN_PART = "in part: the gradient of the pair is scaled, or one of several is stopped"


class Mark(Enum):
    """Plain character, and the words of the legend."""

    TRAINS = ("#", "sees and trains")
    PART = ("+", "sees, trains in part")
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
    """Rows are queries, columns keys. `which` says what heads and layers it stands for, and is empty where that is all of them.

    `row_starts` and `column_starts` are where a time step, or a section of the layout, begins.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Mark, ...], ...]
    note: str
    which: str = ""
    row_starts: tuple[int, ...] = ()
    column_starts: tuple[int, ...] = ()

    @property
    def heading(self) -> str:
        return f"{self.title}: {self.which}" if self.which else self.title


def legend(pictures: Iterable[Picture]) -> tuple[Mark, ...]:
    """The marks to explain: that of a pair that trains in part only where there is one."""
    in_part = any(Mark.PART in row for p in pictures for row in p.cells)
    return tuple(m for m in Mark if in_part or m is not Mark.PART)


def picture(
    spec: Spec, *, steps: Steps | None = None, head: int = 0, layer: int = 0, heads: int | None = None, layers: int | None = None,
    inputs: dict | None = None, given: Any = None,
) -> Picture:  # fmt: skip
    """The marks of one head of one layer, from the reference.

    A seen pair TRAINS if each of its gates is 1, is only SEEN if those of key and value are 0, and trains in PART otherwise.
    Raises InputError if there is too much to draw, or the spec needs inputs that are not given.
    """
    return pictures(spec, steps=steps, head=head, layer=layer, heads=heads, layers=layers, inputs=inputs, given=given)[0]


def pictures(
    spec: Spec, *, steps: Steps | None = None, head: int | None = None, layer: int | None = None, heads: int | None = None, layers: int | None = None,
    inputs: dict | None = None, given: Any = None,
) -> tuple[Picture, ...]:  # fmt: skip
    """One picture for each distinct mask among the heads and layers (of the head and layer, where given), at most MOST_PICTURES.

    `steps` is 4 where the layout repeats, unless given. Each names the heads and layers it stands for; the last says how many more there would be.
    Raises InputError as `picture` does.
    """
    steps, table = _sized(spec, steps, heads, layers, inputs, given)
    masks = dense(spec, steps=steps, heads=heads, layers=layers, inputs=inputs, given=given)
    all_layers, all_heads = masks.attend.shape[-4:-2]
    which_layers = _chosen("layer", layer, all_layers)
    which_heads = _chosen("head", head, all_heads)
    places: dict[bytes, list[tuple[int, int]]] = {}
    drawn: dict[bytes, tuple[tuple[Mark, ...], ...]] = {}
    for place in ((x, y) for x in which_layers for y in which_heads):
        codes = _codes(masks, *place)
        key = codes.numpy().tobytes()
        places.setdefault(key, []).append(place)
        if key not in drawn and len(drawn) < MOST_PICTURES:
            drawn[key] = tuple(tuple(_BY_CODE[c] for c in row) for row in codes.tolist())
    (row, *_), _, _ = lay_out_rows(spec, steps=steps, heads=heads, layers=layers, inputs=inputs, given=given)
    values = ", ".join(f"{n} = {v}" for n, v in row.params.items())
    title = f"{spec.filename}{' with ' + values if values else ''}"
    rows, columns = _axes(spec, steps, table)
    made = [
        Picture(title, rows[0], columns[0], cells, NOTE, _stands_for(places[key], all_layers, all_heads), rows[1], columns[1]) for key, cells in drawn.items()
    ]
    notes = [NOTE, *([NOTE_IN_PART] if Mark.PART in legend(made) else [])]
    made = [replace(p, note="; ".join(notes)) for p in made]
    if len(places) > len(drawn):
        more = f"{len(places) - len(drawn)} more masks differ: choose one with head= and layer= (--head, --layer)"
        made[-1] = replace(made[-1], note=f"{made[-1].note}; {more}")
    return tuple(made)


def _sized(spec: Spec, steps: Steps | None, heads: int | None, layers: int | None, inputs: dict | None, given: Any) -> tuple[Steps | None, TokenTable]:
    """Steps, where the layout wants them, and the table of tokens. Refuses what is too large or empty before any mask is made."""
    if steps is None and spec.checked.repeats:
        steps = DEFAULT_STEPS
    most = max(tokens_of(spec.checked, steps, given))
    if most == 0:
        raise InputError("there is nothing to draw: this layout has no tokens at this size")
    if most > MOST_CELLS:
        raise InputError(f"{most:,} tokens are too many to draw; at most {MOST_CELLS}: give fewer steps=, or smaller params")
    return steps, tokens(spec, steps=steps, heads=heads, layers=layers, inputs=inputs, given=given)


def _chosen(name: str, chosen: int | None, count: int) -> range:
    if chosen is None:
        return range(count)
    if not 0 <= chosen < count:
        raise InputError(f"{name} is from 0 to {count - 1} here; got {chosen}: give {name}s= for more")
    return range(chosen, chosen + 1)


_BY_CODE = (Mark.NOTHING, Mark.SEES, Mark.PART, Mark.TRAINS)


def _codes(masks: DenseMasks, layer: int, head: int) -> Any:
    """The marks of one head as small numbers, [queries, keys]: the index in `_BY_CODE`. A batch shows its first row."""

    def one(x: Any) -> Any:
        return (x[0] if x.ndim > 4 else x)[layer, head]

    attend, q, k, v, hidden = (one(x) for x in (masks.attend, masks.gate_q, masks.gate_k, masks.gate_v, masks.gate_hidden))
    whole = (q == 1) & (k == 1) & (v == 1) & (hidden == 1)
    moves = (k != 0) | (v != 0)
    return (attend.byte() * (1 + moves.byte() + whole.byte())).contiguous()


# ------------------------------------------------------------------------------------------------ names of rows and columns

_Axis = tuple[tuple[str, ...], tuple[int, ...]]  # names, and where a step begins
_Place = tuple[int, int, int, str]  # section, step, slot, role


def _axes(spec: Spec, steps: Steps | None, table: TokenTable) -> tuple[_Axis, _Axis]:
    """Rows and columns. Tokens that do not ask are columns and no rows."""
    every = list(zip(table.section.tolist(), table.step.tolist(), table.slot.tolist(), table.role, strict=True))
    asking = [place for place, asks in zip(every, table.asks.tolist(), strict=True) if asks]
    keys = every if spec.checked.keys is None else list(_places(spec.checked.keys, each_axis(steps)[1] or 0, spec.roles))
    several = {role for _, _, slot, role in (*every, *keys) if slot > 0}
    return _axis(asking, several), _axis(keys, several)


def _axis(places: Sequence[_Place], several: set[str]) -> _Axis:
    names = tuple(f"{step} {role}{slot if role in several else ''}" for _, step, slot, role in places)
    return names, tuple(i for i, place in enumerate(places) if i == 0 or place[:2] != places[i - 1][:2])


def _places(layout: Layout, steps: int, roles: tuple[str, ...]) -> Iterator[_Place]:
    """The tokens of a layout in order; the slot counts within a role of a step."""
    for number, section in enumerate(layout.sections):
        for step in range(steps if section.count is None else section.count):
            slots: dict[int, int] = {}
            for role, count in section.rows:
                for _ in range(count):
                    slots[role] = slots.get(role, -1) + 1
                    yield number, step, slots[role], roles[role]


# ------------------------------------------------------------------------------------------------ names of heads and layers


def _stands_for(places: list[tuple[int, int]], layers: int, heads: int) -> str:
    """`layers 0-4`, `layer 5, heads 0, 2`; nothing where it is every head of every layer."""
    heads_of: dict[int, list[int]] = {}
    for layer, head in places:
        heads_of.setdefault(layer, []).append(head)
    alike: dict[tuple[int, ...], list[int]] = {}
    for layer, its_heads in heads_of.items():
        alike.setdefault(tuple(its_heads), []).append(layer)
    parts = (", ".join(x for x in (_some("layer", ls, layers), _some("head", hs, heads)) if x) for hs, ls in alike.items())
    return "; ".join(x for x in parts if x)


def _some(word: str, numbers: Sequence[int], count: int) -> str:
    if len(numbers) == count:
        return ""
    return f"{word}{'s' if len(numbers) > 1 else ''} {spans(numbers)}"
