"""The whole compiler, as a list. Each step stands in the file it is named after.

    text --parse--> tree --check--> checked tree --lower--> IR --simplify--> simplified IR --split_hidden--> 1 or 2 of it --make_plan--> plan
         grammar.parser   grammar.check      compiler.lower     compiler.simplify         compiler.hidden              compiler.make_plan

What the text alone decides is found once:

    front        the passes up to the simplified IR (`ir`), in order: `lower`, `simplify`
    hidden       a text with `stop hidden` is two: one for k and v, one for their twins
    compiled     a program, and what is asked of it whatever the call: `questions` about a box, bounded by `terms`; the `candidates` for an order

A plan is made for the shapes and inputs of a call:

    batch        rows of the batch, laid out by `layout`: what names mean in an environment (`evaluate`)
    leaves       the parts that speak of one token, evaluated when they are asked for
    choice       which `order` of the tokens saves work: each candidate is tried on a few tiles (`curves`: through grids)
    boxes        a quadtree of tiles, each box judged by `bounds` over `summaries` of the leaves (`trends`: from few tokens; `counts`: of a table),
                 what is left undecided by `exact` looks at pairs; its verdict is one of the `labels`
    runs         the stretches of tiles that a consumer visits
    plan         all of that, printed; as others want it: `flex`, `intervals`, `shard`, and a `part` for each rank; how many pairs it attends: `density`;
                 whether a query looks at what comes later: `lookahead`

Around it, `memory` says what a plan will take before it is made, `numbers` when two calls have the same one, `slices` how a call finds its rows in a
longer one, and `facts` holds what a text states of its inputs to their tensors. A model reads its `rows` off the IR: positions, targets, weights.
`wording` says an expression in words.
"""

from __future__ import annotations

from ..grammar.checked import Checked
from .compiled import Compiled
from .front import front
from .hidden import split_hidden
from .make_plan import make_plan
from .plan import Plan

__all__ = ["Compiled", "Plan", "compile_checked", "make_plan"]


def compile_checked(checked: Checked) -> tuple[Compiled, Compiled | None]:
    """The spec for k and v, and for their twins from the detached hidden state, if the text has `stop hidden`."""
    through, twins = split_hidden(front(checked))
    return Compiled(through), None if twins is None else Compiled(twins)
