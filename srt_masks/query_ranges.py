"""Which positions q holds, from what a caller says of them: `queries=range(a, b)`, or where each row of the batch starts.

Every mistake raises InputError saying what was wanted and what came.
"""

from __future__ import annotations

from typing import Any

from .diagnostics import InputError
from .values import came, vector, whole_number


def bind_queries(queries: Any, rows: int | None, batch: int, tokens: int | None, what: str) -> tuple[range, ...] | None:
    """The positions that q holds, by row of the batch: from a range, or from where each row starts. `rows` of q are as many (None: it may have
    fewer, as not all of them ask); `tokens` (None: any) are those there are, `what` says of what. Raises InputError."""
    if queries is None:
        return None
    if isinstance(queries, range):
        if queries.step != 1:
            raise InputError(f"queries is a range of positions without gaps; got {queries}")
        if queries.start < 0 or queries.stop < queries.start:
            raise InputError(f"queries is a range of positions, counted from 0 and upwards; got {queries}")
        count = queries.stop - queries.start  # its len() is refused beyond 64 bits
        if rows is not None and count != rows:
            raise InputError(f"queries={queries} are {count} positions, and q has {rows} rows: q holds just those")
        found = (queries,) * batch
    else:
        starts = _starts(queries)
        if rows is None:
            raise InputError(
                f"queries= gives where each row of the batch starts, and under `queries where` q holds only those that ask: give a range; got {queries!r}"
            )
        if len(starts) != batch:
            raise InputError(f"queries= gives where each row of the batch starts: wanted {batch}, got {len(starts)}{_as_range(starts, rows)}")
        if min(starts, default=0) < 0:
            raise InputError(f"queries= gives positions, counted from 0; got {min(starts)}")
        found = tuple(range(s, s + rows) for s in starts)
    last = max([r.stop for r in found], default=0)  # no generator: it is a call of Python for every row of the batch
    if tokens is not None and last > tokens:
        raise InputError(f"queries= reaches position {last - 1}, and there are {tokens} {what}: k and v hold every token up to the last that asks")
    return found


def _as_range(numbers: list[int], rows: int) -> str:
    """A hint, where what came reads as both ends of a range, or as each of its positions."""
    if len(numbers) == 2 and numbers[1] - numbers[0] == rows:
        return f"; for the positions from {numbers[0]} up to {numbers[1]}, range({numbers[0]}, {numbers[1]})"
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"; for these positions, range({numbers[0]}, {numbers[-1] + 1})"
    return ""


def _starts(queries: Any) -> list[int]:
    entries = vector(queries)
    numbers = None if entries is None else [whole_number(n) for n in entries]
    if numbers is not None and None not in numbers:
        return [n for n in numbers if n is not None]
    hint = ""
    if (one := whole_number(queries)) is not None:
        hint = f"; for one position, range({one}, {one + 1})"
    elif isinstance(queries, slice):
        ends = (queries.start or 0, queries.stop)
        whole = all(isinstance(n, int) and n >= 0 for n in ends) and queries.step in (None, 1)
        hint = f"; write range({ends[0]}, {ends[1]})" if whole else "; write range(a, b), of positions counted from 0"
    raise InputError(f"queries is a range, or a vector of whole numbers: where each row of the batch starts; got {came(queries)}{hint}")
