"""What the tables come to, in words: what nobody reads, what is read by some roles alone, what never learns from its readers.

Input: `Counts` and the `Learning`s. Output: sentences. Each is true of the call it speaks of, or it is not said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .counting import Counts
from .report import Learning, Return

MOST = 4  # sentences of one sort


def of_reading(counts: Counts) -> Iterator[str]:
    """That nothing comes from behind or through other rows, and whom nobody reads, or some roles alone."""
    if not int(counts.read.sum()):
        yield "No row reads another."
        return
    if counts.is_one_axis:
        if not int(counts.read_later.sum()):
            yield f"No row reads a later one{_ways(counts)}."
        if not int(counts.indirectly.sum()):
            yield "Other rows bring nothing more: what a row does not read directly never reaches it."
    yield from list(_by_whom(counts))[:MOST]


def _by_whom(counts: Counts) -> Iterator[str]:
    readers = list(dict.fromkeys(b.reader.name for b in counts.blocks))
    for read in dict.fromkeys(b.read.name for b in counts.blocks):
        by = [b.reader.name for b in counts.blocks if b.read.name == read and int(counts.read[list(b.cells)].sum())]
        if not by:
            yield f"{_a(read)} row is read by no other row."
        elif len(by) < len(readers):
            yield f"{_a(read)} row is read by {_listed(by)} rows alone{_ways(counts)}."


def of_learning(counts: Counts, learnings: Sequence[Learning], has_rules: bool) -> Iterator[str]:
    """What learns nothing from those that read it, on whatever way; or that all do."""
    if not int(counts.read.sum()):
        return
    if not has_rules:
        yield "Every row learns from each of its readers: no rule stops or scales a gradient."
        return
    never: dict[tuple[str, str], list[str]] = {}
    for row in learnings:
        if row.returns is Return.NEVER:
            readers = never.setdefault((row.read, row.distances.after()), [])
            if row.reader not in readers:
                readers.append(row.reader)
    for (read, after), readers in list(never.items())[:MOST]:
        yield f"{_a(read)} row learns nothing from {_listed(readers)} rows {after or 'that read it'}{_ways(counts)}."
    if not never and all(row.returns in (Return.DIRECTLY, Return.INDIRECTLY) for row in learnings):
        yield f"Every row that is read learns from each of its readers{_ways(counts)}."


def _ways(counts: Counts) -> str:
    return ", directly or through other rows" if counts.is_one_axis else ""


def _a(noun: str) -> str:
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
