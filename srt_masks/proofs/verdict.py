"""What a proof attempt ends with: the verdict, and for what is refuted the call and the path that do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from torch import Tensor

from ..diagnostics import Span
from ..grammar.checked import Checked, values_of
from ..reference.masks import Row, lay_out_row


class Outcome(StrEnum):
    PROVED = "proved"  # for all sizes and inputs of the scope
    REFUTED = "refuted"  # by a path, replayed
    CHECKED = "checked"  # every call up to a size, no further
    UNKNOWN = "unknown"  # with a reason; never a pass


@dataclass(frozen=True, slots=True)
class World:
    """One call on a spec: its extents and what it is given. `inputs` are without batch axis, and may be longer than the row along `token` (a row
    shorter than its batch); `layout` holds role, step and slot of a `layout given`."""

    tokens: int
    keys: int
    heads: int = 1
    layers: int = 1
    params: Mapping[str, int | float] = field(default_factory=dict)
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    layout: Mapping[str, Tensor] = field(default_factory=dict)

    def changed(self, checked: Checked) -> dict[str, int | float]:
        """The params that are not as the text has them."""
        return {n: self.params[n] for n, v in values_of(checked.params).items() if self.params[n] != v}

    def row(self, checked: Checked) -> Row:
        return lay_out_row(
            checked, tokens=self.tokens, keys=self.keys, heads=self.heads, layers=self.layers,
            inputs=self.inputs, layout=self.layout, params=self.params,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hop:
    """A pair that lets something through: the query, at this position, reads the key at that one, in a head of a layer."""

    query: int
    key: int
    head: int = 0
    layer: int = 0


@dataclass(frozen=True, slots=True)
class Path:
    """From the token whose state is read (`source`) to the one whose output shows it (`sink`): hops in the order they happen, so each query is the
    next hop's key. No hops: the row's own residual stream, or a pair or row that stands alone."""

    source: int
    sink: int
    hops: tuple[Hop, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one claim. True in an `if` only where it is proved.

    `claim` is its text; an automatic one is `assert no leak`, has no line, and the span of the `predict` it guards. `scope` says for which sizes and
    inputs it was judged, `seconds` the wall time. Of what is refuted, `path` and `world` are the call that does it, `lines` the path in words, `replay`
    what running it showed, `remedies` what may be done; of
    what is not decided, `scope` says what was tried. Prints as two lines, and in a list as one.
    """

    claim: str
    outcome: Outcome
    reason: str
    scope: str
    seconds: float = 0.0
    line: int | None = None
    span: Span = field(default=Span(0, 0), compare=False)
    path: Path | None = None
    world: World | None = None
    lines: tuple[str, ...] = ()
    replay: str = ""
    remedies: tuple[str, ...] = ()
    holds_as_written: bool = False  # refuted, but only by values of params that are not the text's

    def __bool__(self) -> bool:
        return self.outcome is Outcome.PROVED

    def __repr__(self) -> str:
        return f"<{self.outcome.value}{'' if self.line is None else f', line {self.line}'}: {self.claim}>"

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}: "
        return f"{self.outcome.value:8}  {place}{self.claim}  ({self.scope}; {1000 * self.seconds:.0f} ms)\n          {self.reason}"
