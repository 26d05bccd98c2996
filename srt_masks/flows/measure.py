"""`flow`: who reads whom and who learns from whom in one call on a spec, as a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..default_device import on_the_cpu
from ..diagnostics import InputError
from ..spec import Spec
from ..surface import lay_out_one
from ..time_steps import Steps, steps_in
from .counting import GATES, count
from .report import FlowReport
from .sentences import of_learning, of_reading
from .sizes import choose_steps
from .table import learnings, readings


@on_the_cpu
def flow(
    spec: Spec, *, steps: Steps | None = None, heads: int | None = None, layers: int | None = None, inputs: Mapping[str, Any] | None = None, given: Any = None,
) -> FlowReport:  # fmt: skip
    """Which rows read which, at what distance in steps, directly or through how many other rows, and which learn from their readers.

    Exact for the call that the arguments describe (as for `dense`), which has one row in its batch; `str` of the report is a table. `steps`: as
    many as the inputs have, or enough for the numbers of the text to show, unless given; the report says so. Where the text does not speak of
    layers, a path has as many as it takes. Raises InputError for what `dense` refuses, and for more rows than paths are searched among.
    """
    if not isinstance(spec, Spec):
        raise InputError(f"flow takes a Spec; got {type(spec).__name__}. For a text: srt_masks.parse(text)")
    checked, why = spec.checked, ""
    if steps is None:
        steps = steps_in(checked, inputs or {})
        if steps is None:
            steps, why = choose_steps(checked, {**spec.params, **(inputs or {})})
    row = lay_out_one(spec, steps=steps, heads=heads, layers=layers, inputs=inputs, given=given)
    counts = count(row)
    learns = tuple(learnings(counts, checked.has_hidden_rules))
    has_steps = checked.repeats or checked.queries.given is not None
    return FlowReport(
        spec=spec.filename, params=dict(row.params), rows=len(row.queries["pos"]), keys=len(row.keys["pos"]),
        steps=row.words().scalars["steps"] if has_steps else None, heads=row.heads, layers=row.layers if checked.speaks_of_layers else None,
        has_two_layouts=checked.keys is not None, chosen=why, reads=tuple(readings(counts)), learns=learns,
        reads_in_words=tuple(of_reading(counts)), learns_in_words=tuple(of_learning(counts, learns, bool(checked.rules))),
        gates=tuple(g for g in GATES if any(g in rule.targets for rule in checked.rules)),
    )  # fmt: skip
