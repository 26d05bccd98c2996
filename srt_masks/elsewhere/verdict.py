"""What a comparison found: equal at these sizes, or the first pair that differs, drawn."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

AROUND_ROWS = 4  # queries drawn on either side of the pair
AROUND_COLUMNS = 8


class Mark(Enum):
    """How a pair is drawn: what each side says of it."""

    BOTH = "#"
    NEITHER = "."
    ONE = "1"  # only the first attends it
    OTHER = "2"


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a key, as places along the axes of q and k, in a head of a layer of a row of the batch."""

    batch: int
    layer: int
    head: int
    query: int
    key: int

    def __str__(self) -> str:
        return f"query {self.query} and key {self.key} (row {self.batch} of the batch, layer {self.layer}, head {self.head})"


@dataclass(frozen=True, slots=True, repr=False)
class Verdict:
    """Whether two masks are one. True in an `if` only where they are.

    `outcome` is "proved" (for every length), "checked" (at the sizes of `scope`, and for no others), "refuted", or "unknown" with a reason, which is
    no yes. `scope` says for what. `pair` is the first that differs, in the order of batch, layer, head, query,
    key; `differing` counts all of them out of `pairs`. Prints as all of this.
    """

    equal: bool
    scope: str
    reason: str
    pairs: int
    differing: int = 0
    pair: Pair | None = None
    picture: str = ""
    outcome: str = ""

    def __post_init__(self) -> None:
        if not self.outcome:
            object.__setattr__(self, "outcome", "checked" if self.equal else "refuted")

    def __bool__(self) -> bool:
        return self.equal

    def __repr__(self) -> str:
        return f"<Verdict {self._word}: {self.reason}>"

    @property
    def _word(self) -> str:
        return "equal" if self.equal else "unknown" if self.outcome == "unknown" else "different"

    def __str__(self) -> str:
        head = f"{self._word}: {self.reason}"
        share = [] if not self.differing else [f"{self.differing:,} of {self.pairs:,} pairs differ"]
        return "\n".join(x for x in (head, *share, f"scope: {self.scope}", self.picture) if x)


def draw(first: Tensor, second: Tensor, query: int, key: int, row0: int, names: tuple[str, str]) -> str:
    """The pairs around one that differs. `first` and `second` are the rows from `row0` on, bool (rows, keys); `query` counts from row 0."""
    begin = max(0, key - AROUND_COLUMNS)
    end = min(first.shape[1], key + AROUND_COLUMNS + 1)
    width = max(len(str(row0 + len(first))), 5)
    lines = [f"{'':{width + 2}}keys {begin} to {end - 1}"]
    marks = {(True, True): Mark.BOTH, (False, False): Mark.NEITHER, (True, False): Mark.ONE, (False, True): Mark.OTHER}
    for number, (a, b) in enumerate(zip(first[:, begin:end].tolist(), second[:, begin:end].tolist(), strict=True), row0):
        cells = " ".join(marks[x, y].value for x, y in zip(a, b, strict=True))
        lines.append(f"{'>' if number == query else ' '} {number:{width}} {cells}")
        if number == query:
            lines.append(f"{'':{width + 3 + 2 * (key - begin)}}^")
    lines.append(f"# both attend   . neither   1 only {names[0]}   2 only {names[1]}")
    return "\n".join(lines)
