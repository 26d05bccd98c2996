"""Gates of the hidden state -> gates of two pairs of keys and values, of equal value, one made from the detached state.

Input: a `Program`. Output: the program for k and v, and the one for their twins (None if the text has no `stop hidden`). Non-goals: making the
twins, which is the model's part. Together the two gates of a pair are that of its key (or value): weights learn as if nothing were stopped, and
the state learns through the first alone.
"""

from __future__ import annotations

from dataclasses import replace

from . import ir
from .ir import Gate, Op, Program
from .simplify import simplify


def split_hidden(program: Program) -> tuple[Program, Program | None]:
    hidden = program.gate_hidden
    if hidden == Gate():
        return program, None
    through = replace(program, gate_k=_both(program.gate_k, hidden), gate_v=_both(program.gate_v, hidden), gate_hidden=Gate())
    rest = _complement(hidden)
    twins = replace(program, gate_q=Gate(ir.FALSE), gate_k=_both(program.gate_k, rest), gate_v=_both(program.gate_v, rest), gate_hidden=Gate())
    return simplify(through), simplify(twins)


def _both(a: Gate, b: Gate) -> Gate:
    return Gate(ir.apply(Op.AND, a.open, b.open), ir.apply(Op.MUL, a.weight, b.weight))


def _complement(gate: Gate) -> Gate:
    """1 - gate. Where a gate has no weight, this has none either, and its tiles are NONE where the gate's are ALL."""
    if gate.weight is ir.ONE:
        return Gate(ir.apply(Op.NOT, gate.open))
    value = ir.apply(Op.SELECT, gate.open, gate.weight, ir.const(0.0))
    return Gate(ir.apply(Op.NE, value, ir.ONE), ir.apply(Op.SUB, ir.ONE, value))
