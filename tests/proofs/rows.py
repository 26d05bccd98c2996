"""Random rows of random texts with claims, and rows of a text by hand."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

import srt_masks as srt
from srt_masks.grammar import checked as c
from srt_masks.proofs.verdict import World
from srt_masks.reference.masks import Row
from srt_masks.testing.case import Case
from srt_masks.testing.drawing import cases_of
from srt_masks.testing.strategies import specs

WHERES = ["k.pos > q.pos", "k.pos < q.pos", "q.pos != k.pos", "q.step - k.step == 1", "k.pos == 0 and q.pos > 2", "head == 0 and k.pos < q.pos", "layer == 1 and k.pos == 0", "full"]  # fmt: skip
CLAIMS = [*(f"assert {kind} where {w}" for kind in ("no flow", "no grad", "flow", "grad") for w in WHERES), "assert k.pos <= q.pos", "assert head == 0 or k.pos > 1", "assert every query attends", "assert cacheable"]  # fmt: skip


@st.composite
def claiming_cases(draw: st.DrawFn) -> Case:
    """A random text with claims at a small size, half the time one with other pairs in odd layers."""
    lines = draw(specs()).text.splitlines()
    if draw(st.booleans()):
        at = next(i for i, line in enumerate(lines) if line.startswith("attend"))
        other = draw(st.sampled_from(["k.pos == q.pos - 1", "k.pos == q.pos + 1", "full", "not full"]))
        lines[at] = f"attend ({lines[at].removeprefix('attend')}) if layer % 2 == 0 else {other}"
    lines += draw(st.lists(st.sampled_from(CLAIMS), min_size=1, max_size=4, unique=True))
    if any(line.startswith("predict") for line in lines):
        lines.append("assert no leak")
    return draw(cases_of(srt.parse("\n".join(lines)), batches=False, most_tokens=10))


def world_of(case: Case) -> World:
    """The one row of a case, as a world."""
    row = case.row()
    layout = {n: row.own[n] for n in ("role", "step", "slot")} if case.spec.checked.queries.given is not None else {}
    return World(len(row.own["pos"]), len(row.keys["pos"]), row.heads, row.layers, row.params, row.inputs, layout)


def world_by_hand(text: str, tokens: int, **named: Any) -> tuple[c.Checked, World]:
    checked = srt.parse(text).checked
    return checked, World(tokens, named.pop("keys", tokens), params={p.name: p.value for p in checked.params}, **named)


def row_of(text: str, tokens: int, **named: Any) -> tuple[Row, tuple[c.Claim, ...]]:
    checked, world = world_by_hand(text, tokens, **named)
    return world.row(checked), checked.claims
