"""A row of the batch -> how many pairs do what, by who reads, who is read, and the distance between them.

Input: a `Row`. Output: `Counts`. Non-goals: words. Masks and gates are the reference's, paths those of `proofs.search`; both are dense.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diagnostics import InputError
from ..grammar.checked import Attribute, Checked, walk
from ..proofs.search import edges, fewest_hops
from ..reference.masks import Row, pairs
from .distances import Unit

MOST_PAIRS = 2048 * 2048
GATES = ("q", "k", "v", "hidden")


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one role in one section. `name` says the section where the role alone does not tell."""

    role: str
    section: int
    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class Block:
    """Two groups, and the distances that there are between their rows, ascending; pairs of one distance are a cell, of this number in `Counts`."""

    reader: Group
    read: Group
    unit: Unit
    distances: tuple[int, ...]
    cells: tuple[int, ...]


@dataclass(frozen=True)
class Counts:
    """Numbers of pairs, int64, by cell: (cells,) or (layers, heads, cells); of layers and heads one, where the text does not speak of them.

    A row and itself are a pair like another in those down to `whole`. In those below they are none: a row reaches itself in any case.
    """

    blocks: tuple[Block, ...]
    is_one_axis: bool  # those who ask are among those who are read, and a path may have several hops
    pairs: Tensor  # all
    itself: Tensor  # of a row and itself
    attended: Tensor  # (layers, heads, cells)
    attended_itself: Tensor  # (layers, heads, cells)
    open: dict[str, Tensor]  # by gate, (layers, heads, cells): attended, and the gate is not 0
    whole: dict[str, Tensor]  # the gate is 1
    read: Tensor  # the state of the key reaches the query, on whatever way
    read_later: Tensor  # of `read`: the key stands behind the query
    indirectly: Tensor  # of `read`: in no head of any layer directly
    hops: tuple[Tensor, Tensor]  # fewest and most of the fewest hops of those
    untaught: Tensor  # of `read`: no gradient passes directly
    taught_indirectly: Tensor  # of `untaught`: one returns through other rows
    gradient_hops: tuple[Tensor, Tensor]  # fewest and most of the fewest hops of those


def count(row: Row) -> Counts:
    """Raises InputError for more pairs than MOST_PAIRS, and for more, with all heads and layers, than paths are searched among."""
    checked = row.checked
    if len(row.queries["pos"]) * len(row.keys["pos"]) > MOST_PAIRS:
        raise InputError(
            f"a flow report is made of at most {MOST_PAIRS:,} pairs; {len(row.queries['pos']):,} rows that ask and {len(row.keys['pos']):,} that are read "
            f"have {len(row.queries['pos']) * len(row.keys['pos']):,}: give fewer steps={', or smaller params' if any(p.structural for p in checked.params) else ''}"
        )
    attended, passes = edges(row), edges(row, True)
    readers, of_reader = _groups(checked, row.queries, "reader")
    seen, of_read = _groups(checked, row.keys, "read")
    distance, unit = _distances(row, of_reader, of_read, len(readers), len(seen))
    block = of_reader[:, None] * len(seen) + of_read[None, :]
    values, of_value = distance.unique(return_inverse=True)
    keys, cells = (block * len(values) + of_value).flatten().unique(return_inverse=True)
    names = torch.stack([keys // len(values), values[keys % len(values)]], -1)
    number = len(names)

    def tally(mask: Tensor) -> Tensor:
        return torch.bincount(cells[mask.flatten()], minlength=number)

    def tallies(masks: Tensor) -> Tensor:
        return torch.stack([tally(m) for m in masks.flatten(0, 1)]).unflatten(0, masks.shape[:2])

    def spread(hops: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        of, at = hops[mask], cells[mask.flatten()]
        zeros = torch.zeros(number, dtype=torch.int64)
        return zeros.scatter_reduce(0, at, of, "amin", include_self=False), zeros.scatter_reduce(0, at, of, "amax", include_self=False)

    shape = attended.shape[:2]
    opened: dict[str, list[Tensor]] = {g: [] for g in GATES}
    whole: dict[str, list[Tensor]] = {g: [] for g in GATES}
    for layer in range(shape[0]):
        for head in range(shape[1]):
            attend, *gates = pairs(checked, row.words(head, layer), *attended.shape[2:])
            for name, gate in zip(GATES, gates, strict=True):
                opened[name].append(tally(attend & (gate != 0)))
                whole[name].append(tally(attend & (gate == 1)))

    is_itself = torch.zeros_like(attended[0, 0]) if checked.keys is not None else row.queries["pos"][:, None] == row.keys["pos"][None, :]
    hops, back = (_of_queries(row, fewest_hops(row, gradients)) for gradients in (False, True))
    read = (hops >= 0) & ~is_itself
    indirectly = read & ~attended.any(0).any(0)
    untaught = read & ~passes.any(0).any(0)
    taught = untaught & (back >= 0)
    later = row.queries["pos"][:, None] < row.keys["pos"][None, :] if checked.keys is None else torch.zeros_like(read)
    return Counts(
        _blocks(names, readers, seen, unit), checked.keys is None, tally(torch.ones_like(read)), tally(is_itself), tallies(attended), tallies(attended & is_itself),
        {g: torch.stack(x).unflatten(0, shape) for g, x in opened.items()}, {g: torch.stack(x).unflatten(0, shape) for g, x in whole.items()},
        tally(read), tally(read & later), tally(indirectly), spread(hops, indirectly), tally(untaught), tally(taught), spread(back, taught),
    )  # fmt: skip


def _groups(checked: Checked, axis: dict[str, Tensor], kind: str) -> tuple[list[Group], Tensor]:
    """The groups of an axis, in the order they first stand, and the group of each row."""
    keyed = list(zip(axis["section"].tolist(), axis["role"].tolist(), strict=True))
    order = list(dict.fromkeys(keyed))
    sections = [role for _, role in order]
    groups = []
    for section, role in order:
        name = checked.roles[role] if sections.count(role) == 1 else f"{checked.roles[role]} of section {section}"
        groups.append(Group(checked.roles[role], section, name, keyed.count((section, role))))
    return groups, torch.tensor([order.index(k) for k in keyed], dtype=torch.int64)


def _distances(row: Row, of_reader: Tensor, of_read: Tensor, readers: int, seen: int) -> tuple[Tensor, list[list[Unit]]]:
    """The distance of every pair, and the unit of each two groups."""
    step = row.queries["step"][:, None] - row.keys["step"][None, :]
    pos = row.queries["pos"][:, None] - row.keys["pos"][None, :]
    distance = torch.zeros_like(step)
    units: list[list[Unit]] = []
    # A section is timed if its rows stand in more steps than one. Two layouts share a clock only if the text compares their places.
    timed_queries, timed_keys = _timed(row.queries), _timed(row.keys)
    if row.checked.keys is not None and not _compares_places(row.checked):
        timed_keys = set()
    for a in range(readers):
        units.append([])
        mine = of_reader == a
        for b in range(seen):
            theirs = of_read == b
            both = mine[:, None] & theirs[None, :]
            sections = int(row.queries["section"][mine][0]), int(row.keys["section"][theirs][0])
            if sections[0] in timed_queries and sections[1] in timed_keys:
                units[a].append(Unit.STEPS)
                distance = torch.where(both, step, distance)
            elif row.checked.keys is None and sections[0] == sections[1]:
                units[a].append(Unit.TOKENS)
                distance = torch.where(both, pos, distance)
            else:
                units[a].append(Unit.NONE)
    return distance, units


def _timed(axis: dict[str, Tensor]) -> set[int]:
    """The sections with rows in more steps than one."""
    return {s for s in axis["section"].unique().tolist() if len(axis["step"][axis["section"] == s].unique()) > 1}


def _compares_places(checked: Checked) -> bool:
    roots = [checked.attend, *(let.body for let in checked.lets), *(rule.where for rule in checked.rules)]
    return any(isinstance(e, Attribute) and e.name in ("pos", "step") for root in roots for e in walk(root))


def _blocks(names: Tensor, readers: list[Group], seen: list[Group], unit: list[list[Unit]]) -> tuple[Block, ...]:
    """`names` are the cells' (reader x read, distance), ascending."""
    found: dict[int, list[tuple[int, int]]] = {}
    for cell, (block, distance) in enumerate(names.tolist()):
        found.setdefault(block, []).append((distance, cell))
    blocks = []
    for block, members in found.items():
        a, b = divmod(block, len(seen))
        blocks.append(Block(readers[a], seen[b], unit[a][b], tuple(d for d, _ in members), tuple(c for _, c in members)))
    return tuple(blocks)


def _of_queries(row: Row, found: Tensor) -> Tensor:
    """Of all tokens' rows, those of the tokens that ask."""
    return found if row.checked.keys is not None else found[row.queries["pos"]]
