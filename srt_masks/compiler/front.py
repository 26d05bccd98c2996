"""The part of the compiler that depends on the text alone, as a list of passes. No torch.

checked tree --lower--> IR --simplify--> simplified IR
"""

from __future__ import annotations

from collections.abc import Callable

from ..grammar.checked import Checked
from .ir import Program
from .lower import lower
from .simplify import simplify

PASSES: tuple[Callable[[Program], Program], ...] = (simplify,)


def front(checked: Checked) -> Program:
    program = lower(checked)
    for run in PASSES:
        program = run(program)
    return program
