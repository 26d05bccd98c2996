"""A program, and what is asked of it once whatever the call: the part of planning that the text alone decides.

Input: a simplified `Program`. Output: `Compiled`, whose parts are made when they are first asked for. Non-goals: anything about a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from . import ir
from .candidates import Candidate, candidates
from .choice import reads_data
from .ir import Program
from .leaves import Split, split
from .order import must_stay
from .questions import Questions, questions


@dataclass(frozen=True, eq=False)
class Compiled:
    """A simplified program and what the planner and the kernels ask of it; made once a spec, and known by itself."""

    program: Program

    @cached_property
    def questions(self) -> Questions:
        return questions(self.program)

    @cached_property
    def split(self) -> Split:
        """The leaves that a kernel needs: those of the mask and the gates."""
        return split(*self.program.pair_roots)

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The orders of tokens worth trying."""
        return () if self.must_stay else candidates(self.program, self.split)

    @cached_property
    def must_stay(self) -> str:
        """Why tokens can be visited in the caller's order alone; empty where they can in any."""
        return must_stay(self.program, self.questions.split)

    @cached_property
    def reads_data(self) -> bool:
        """Whether anything but the text and its numbers decides what an order is worth."""
        return reads_data(self.program, self.candidates)

    @cached_property
    def speaks_of_head(self) -> bool:
        return any(isinstance(n, ir.Scalar) and n.name == "head" for n in ir.postorder(*self.program.pair_roots))

    @cached_property
    def reads_length(self) -> bool:
        """Whether what is said of two tokens may change as others are added behind them: by `length`, `steps`, or a look at a position, which
        may lie beyond the end."""
        nodes = list(ir.postorder(*self.program.pair_roots, self.program.asks))
        return any(isinstance(n, ir.Gather) or (isinstance(n, ir.Scalar) and n.name in ("length", "steps")) for n in nodes)

    @cached_property
    def key(self) -> str:
        return ir.digest(*self.program.pair_roots, self.program.asks)
