"""What a comparison found: the runs, a mean and an interval for each spec, paired differences, as a table and for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from statistics import fmean
from typing import Any

from ..models.work import Work
from .initial import Initial
from .intervals import Interval
from .task import Measure


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run, to its end."""

    name: str
    seed: int
    held_out: float  # in the measure of the comparison
    parts: Mapping[str, float]  # held out, by role and slot: nats a row, of numbers squared errors
    steps: int
    seconds: float
    tokens_per_second: float  # data tokens, the median step
    parameters: int
    work: Work  # of one sequence
    spec: str
    params: Mapping[str, int | float]
    changes: Mapping[str, Any]  # of the recipe, that this spec alone has
    initial: Initial | None  # the model that it began with; None: fresh weights
    code: Mapping[str, Any]  # versions, commit and threads; a list of them where a run was gone on with by others

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "spec_sha256": sha256(self.spec.encode()).hexdigest()}


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """`names` in the caller's order; the first is what the others are compared with. Prints as a table; `plain()` is the same for JSON."""

    names: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    equal: str
    data: str
    measure: Measure

    def of(self, name: str) -> list[Outcome]:
        """The runs of a spec, by seed."""
        return sorted((o for o in self.outcomes if o.name == name), key=lambda o: o.seed)

    def held_out(self, name: str) -> Interval:
        """What was measured on held-out data."""
        return Interval.of([o.held_out for o in self.of(name)])

    def than_first(self, name: str) -> Interval:
        """What was measured of a spec less what was of the first, by runs of the same seed: below 0 is better."""
        first = {o.seed: o.held_out for o in self.of(self.names[0])}
        return Interval.of([o.held_out - first[o.seed] for o in self.of(name)])

    def plain(self) -> dict[str, Any]:
        def interval(found: Interval) -> dict[str, Any]:
            return {"mean": found.mean, "half_of_95%": found.half, "runs": found.count}

        specs = {}
        for name in self.names:
            own = self.of(name)
            specs[name] = {
                f"held_out_{self.measure.key}": interval(self.held_out(name)), "than_first": interval(self.than_first(name)) if name != self.names[0] else None,
                "tokens_per_second": fmean(o.tokens_per_second for o in own), "steps": own[0].steps, "parameters": own[0].parameters, "work": asdict(own[0].work),
            }  # fmt: skip
        return {"equal": self.equal, "data": self.data, "first": self.names[0], "specs": specs, "runs": [o.plain() for o in self.outcomes]}

    def __str__(self) -> str:
        heads = ("", self.measure.short, f"than {self.names[0]}", "steps", "tokens/s", "rows", "active tiles", "parameters")
        rows = [heads, *(self._cells(name) for name in self.names)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))) for row in rows]
        return "\n".join([*lines, "", *self._footnote()])

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(self.names)}: {len(self.outcomes)} runs; print() shows them>"

    def _cells(self, name: str) -> tuple[str, ...]:
        own = self.of(name)
        work, speed = own[0].work, fmean(o.tokens_per_second for o in own)
        than = "" if name == self.names[0] else f"{'+' if self.than_first(name).mean >= 0 else ''}{self.than_first(name)}"
        tiles = f"{work.tiles:,} of {work.tiles_of:,}"
        return name, str(self.held_out(name)), than, f"{own[0].steps:,}", f"{speed:,.0f}", f"{work.rows:,}", tiles, f"{own[0].parameters:,}"

    def _footnote(self) -> Sequence[str]:
        count, tile = len(self.of(self.names[0])), self.outcomes[0].work.tile
        spread = f"±: 95% by Student's t over {count} seeds, differences paired by seed." if count > 1 else "One seed each: nothing is known of the spread."
        return (
            f"Held-out {self.measure.name} of {self.measure.rows}; below 0 is better than {self.names[0]}.",
            spread,
            f"{'Steps as given' if any('steps' in o.changes for o in self.outcomes) else f'Equal {self.equal}'} for each; {self.data}.",
            f"Rows and tiles ({tile} x {tile}, all heads of all layers) are those of one sequence.",
        )
