"""The whole compiler, as a list.

    text --parse--> tree --check--> checked tree --lower--> IR --simplify--> simplified IR --make_plan--> plan
         grammar.parser   grammar.check      compiler.lower     compiler.simplify         compiler.plan

`front` is everything that depends on the text alone; a plan is made for the shapes and inputs of a call.
"""

from __future__ import annotations

from collections.abc import Callable

from ..grammar.checked import Checked
from .ir import Program
from .lower import lower
from .plan import Compiled, Plan, make_plan
from .simplify import simplify

PASSES: tuple[Callable[[Program], Program], ...] = (simplify,)

__all__ = ["Compiled", "Plan", "front", "make_plan"]


def front(checked: Checked) -> Compiled:
    program = lower(checked)
    for run in PASSES:
        program = run(program)
    return Compiled(program)
