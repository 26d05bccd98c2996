"""What `flow` found: two small tables, a sentence or two below each. Prints as text; `plain` is the same for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .distances import Distances, Unit

BACK = "back"
MOST_ROWS = 40  # of a table, in text
FOOTNOTE = (
    "Exact for this call, by the dense reference; `and more` is as far as these rows reach. Every row also reaches itself along its residual",
    "stream. Gradients are those of hidden states: W_q, W_o and the feed-forward of the row that reads learn all the same.",
)


class State(StrEnum):
    """A gate on the pairs of some distances."""

    WHOLE = "whole"  # 1 on all
    SCALED = "scaled"  # 0 on none, and not 1 on all
    MIXED = "on some pairs"
    STOPPED = "stopped"  # 0 on all


class Return(StrEnum):
    """Whether a gradient gets from a row that reads back to the state of the row it reads."""

    DIRECTLY = "directly"
    INDIRECTLY = "through other rows"
    PARTLY = "through other rows, of some pairs"
    OR_NEVER = "directly, or never"  # of some pairs, and of the others never
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Hops:
    """Of the shortest paths of some pairs the shortest and the longest."""

    fewest: int
    most: int

    def __str__(self) -> str:
        return f"{self.fewest} hops" if self.fewest == self.most else f"{self.fewest} to {self.most} hops"


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows of a role read rows of a role, directly (`hops` is None) or through other rows alone. `where`: in which heads and layers, if not in all.
    Of `of` pairs at these distances `pairs` do."""

    reader: str
    read: str
    distances: Distances
    where: str
    pairs: int
    of: int
    hops: Hops | None

    @property
    def share(self) -> str:
        percent = 100 * self.pairs / self.of
        return "all" if self.pairs == self.of else f"{percent:.0f}%" if percent >= 1 else "<1%"

    def cells(self) -> tuple[str, ...]:
        how = "directly" + (f", {self.where}" if self.where else "") if self.hops is None else f"through other rows, {self.hops}"
        return self.reader, self.read, str(self.distances), self.share, how

    def plain(self) -> dict[str, Any]:
        return {
            "reader": self.reader, "read": self.read, **_plain_distances(self.distances), "pairs": self.pairs, "of": self.of,
            "how": "directly" if self.hops is None else "through other rows", "where": self.where, "hops": _plain_hops(self.hops),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Learning:
    """What is read may learn from its reader: by the gates of these pairs (None: they read each other through others alone), and, where nothing
    passes directly, through other rows (`hops`) or never."""

    reader: str
    read: str
    distances: Distances
    where: str
    gates: Mapping[str, State] | None
    returns: Return
    hops: Hops | None

    @property
    def directly(self) -> str:
        """What passes the gates of k, v and the hidden state, in words."""
        if self.gates is None:
            return "not read directly"
        gates = {g: s for g, s in self.gates.items() if g in ("k", "v") or (g == "hidden" and s is not State.WHOLE)}
        if gates.get("hidden") is State.STOPPED:
            return "none: hidden stopped"
        said = [f"{', '.join(names)}{_beside(state)}" for state in State if (names := [g for g, s in gates.items() if s is state])]
        return ("none: " if all(s is State.STOPPED for s in gates.values()) else "") + "; ".join(said)

    @property
    def own(self) -> str:
        """What passes the gate of q, to the row that reads."""
        return "" if self.gates is None else f"q{_beside(self.gates['q'])}"

    @property
    def otherwise(self) -> str:
        match self.returns:
            case Return.DIRECTLY:
                return "directly, elsewhere" if self.where and self.directly.startswith("none") else ""
            case Return.INDIRECTLY:
                return str(self.hops)
            case Return.PARTLY:
                return f"some pairs, {self.hops}"
            case Return.OR_NEVER | Return.NEVER:
                return "never"

    def cells(self) -> tuple[str, ...]:
        where = f" ({self.where})" if self.where else ""
        return self.reader, self.read, str(self.distances), self.directly + where, self.own, self.otherwise

    def plain(self) -> dict[str, Any]:
        gates = None if self.gates is None else {g: str(s) for g, s in self.gates.items()}
        return {
            "reader": self.reader, "read": self.read, **_plain_distances(self.distances), "where": self.where, "gates": gates,
            "returns": str(self.returns), "hops": _plain_hops(self.hops),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class FlowReport:
    """Who reads whom and who learns from whom, in one call on a spec. `str` is a table, `plain()` the same for JSON.

    `rows` are tokens of the queries' axis, `keys` those of the other where there are two; `steps` is None for layouts of one length. `layers` is
    None where the text does not speak of them: a path has as many as it takes. `chosen` says why there are so many steps, if nobody said how many;
    `gates` are those that a rule of the text closes or scales.
    """

    spec: str
    params: Mapping[str, int | float]
    rows: int
    keys: int
    steps: int | None
    heads: int
    layers: int | None
    has_two_layouts: bool
    chosen: str
    reads: tuple[Reading, ...]
    learns: tuple[Learning, ...]
    reads_in_words: tuple[str, ...]
    learns_in_words: tuple[str, ...]
    gates: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<FlowReport of {self.spec}: {self.rows} rows, {len(self.reads)} ways to read, {len(self.learns)} to learn>"

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines())

    def plain(self) -> dict[str, Any]:
        """As nested dicts and lists, for JSON."""
        return {
            "spec": self.spec, "params": dict(self.params), "rows": self.rows, "keys": self.keys, "steps": self.steps, "heads": self.heads,
            "layers": self.layers, "chosen": self.chosen, "reads": [r.plain() for r in self.reads], "learns": [r.plain() for r in self.learns],
            "reads_in_words": list(self.reads_in_words), "learns_in_words": list(self.learns_in_words),
        }  # fmt: skip

    def _lines(self) -> Iterator[str]:
        yield self.spec + (f" with {', '.join(f'{n} = {v}' for n, v in self.params.items())}" if self.params else "")
        yield self._sizes()
        yield from ("", "Who reads whom")
        yield from _table(("reader", "reads", BACK, "pairs", ""), self.reads)
        yield from self.reads_in_words
        yield from ("", "What is read learns from its reader")
        if self.gates:
            shown = [True] * 4 + ["q" in self.gates, any(r.otherwise for r in self.learns)]
            yield from _table(("reader", "read", BACK, "by k and v", "reader, by q", "through other rows"), self.learns, shown)
        yield from self.learns_in_words
        yield from ("", *FOOTNOTE)

    def _sizes(self) -> str:
        rows = f"{self.rows:,} rows" if not self.has_two_layouts else f"{self.rows:,} rows ask, {self.keys:,} are read"
        steps = [] if self.steps is None else [f"{self.steps} step{'s' if self.steps != 1 else ''}"]
        heads = [f"{self.heads} heads"] if self.heads > 1 else []
        if self.has_two_layouts:
            layers = "one hop: what is read has an axis of its own"
        elif self.layers is None:
            layers = "any number of layers"
        else:
            layers = f"{self.layers} layer{'s, in order' if self.layers > 1 else ''}"
        return ", ".join([*steps, rows, *heads, layers]) + (f" ({self.chosen})" if self.chosen else "")


def _table(head: Sequence[str], ways: Sequence[Reading | Learning], shown: Sequence[bool] | None = None) -> Iterator[str]:
    """The columns that are shown, under their heads. A reader, and with it what it reads, is said once."""
    if not ways:
        yield "  nobody"
        return
    units = {w.distances.unit for w in ways}
    one_unit = Unit.STEPS if Unit.STEPS in units else Unit.TOKENS  # which the head names; the other is named beside its numbers
    lines, before = [[h.replace(BACK, f"{one_unit} back") for h in head]], ("", "")
    for way in ways[:MOST_ROWS]:
        reader, read, distances, *rest = way.cells()
        if way.distances.unit is Unit.TOKENS is not one_unit and distances[0].isdigit():
            distances += " tokens"
        lines.append(["" if reader == before[0] else reader, "" if (reader, read) == before else read, distances, *rest])
        before = reader, read
    columns = [i for i in range(len(head)) if shown is None or shown[i]]
    widths = {i: max(len(line[i]) for line in lines) for i in columns}
    for line in lines:
        yield "  " + "  ".join(f"{line[i]:{widths[i]}}" for i in columns)
    if len(ways) > MOST_ROWS:
        yield f"  (and {len(ways) - MOST_ROWS} more: the report as JSON has them all)"


def _beside(state: State) -> str:
    return "" if state is State.WHOLE else f" {state}"


def _plain_distances(distances: Distances) -> dict[str, Any]:
    return {"distances": [list(r) for r in distances.ranges], "unit": str(distances.unit), "in_words": str(distances)}


def _plain_hops(hops: Hops | None) -> list[int] | None:
    return None if hops is None else [hops.fewest, hops.most]
