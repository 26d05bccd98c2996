"""The whole compiler, as a list.

    text --parse--> tree --check--> checked tree --lower--> IR --simplify--> simplified IR --split_hidden--> 1 or 2 of it --make_plan--> plan
         grammar.parser   grammar.check      compiler.lower     compiler.simplify         compiler.hidden              compiler.plan

`front` (in `front.py`, with the list of passes) and `split_hidden` are everything that depends on the text alone; `make_plan` makes a plan
for the shapes and inputs of a call: leaves, bounds, boxes, runs, each in a file of its name.
"""

from __future__ import annotations

from ..grammar.checked import Checked
from .front import front
from .hidden import split_hidden
from .plan import Compiled, Plan, make_plan

__all__ = ["Compiled", "Plan", "compile_checked", "make_plan"]


def compile_checked(checked: Checked) -> tuple[Compiled, Compiled | None]:
    """The spec for k and v, and for their twins from the detached hidden state, if the text has `stop hidden`."""
    through, twins = split_hidden(front(checked))
    return Compiled(through), None if twins is None else Compiled(twins)
