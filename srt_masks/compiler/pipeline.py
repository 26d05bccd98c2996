"""The whole compiler, as a list.

    text --parse--> tree --check--> checked tree --lower--> IR --simplify--> simplified IR --make_plan--> plan
         grammar.parser   grammar.check      compiler.lower     compiler.simplify         compiler.plan

`front` (in `front.py`, with the list of passes) is everything that depends on the text alone; `make_plan` makes a plan for the
shapes and inputs of a call: leaves, bounds, boxes, runs, each in a file of its name.
"""

from __future__ import annotations

from ..grammar.checked import Checked
from .front import front
from .plan import Compiled, Plan, make_plan

__all__ = ["Compiled", "Plan", "compile_checked", "make_plan"]


def compile_checked(checked: Checked) -> Compiled:
    return Compiled(front(checked))
