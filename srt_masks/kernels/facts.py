"""What a text states of its inputs (`given`), held to the tensors of a call: by the compiler's evaluator where a plan is made, and by the reference's
where the reference is what runs.

Non-goals: what a fact says (`compiler/facts.py`, `reference/facts.py`); facts about params, which are held to a call as it is bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..binding import Call, Sizes
from ..compiler.batch import BatchRow
from ..compiler.facts import Facts
from ..diagnostics import InputError
from ..grammar.checked import Checked
from ..reference import facts as reference_facts
from ..reference.masks import Row, lay_out_row


def hold_facts(facts: Facts, rows: Sequence[BatchRow], sizes: Sizes, scalars: Mapping[str, int | float]) -> None:
    """Raises InputError for the first token at which an input is not what the text says: of the call's own tokens, its padding apart, in the layer of
    `scalars`. The tensors of `rows` are on the CPU."""
    broken = facts.broken(rows, sizes.tokens, sizes.keys, scalars)
    if broken is not None:
        raise InputError(f"input {broken}: correct the tensor, or the text")


def hold_facts_by_reference(checked: Checked, call: Call, layer: int | None = None) -> None:
    """As `hold_facts`, in one layer or in all; a fact that reads an input which the call need not have, and has not, says nothing."""
    if checked.facts_of_inputs:
        reference_facts.hold_facts(checked, [lay_out_call(checked, call, number) for number in range(call.sizes.batch)], layer)


def lay_out_call(checked: Checked, call: Call, number: int) -> Row:
    """One row of the batch of a call, for the reference: all its tokens, whoever asks."""
    own, layout, params = call.row(number)
    sizes = call.sizes
    return lay_out_row(
        checked, tokens=call.lengths[number] if call.lengths else sizes.tokens, keys=sizes.keys, heads=sizes.heads, layers=sizes.layers or 1,
        inputs=own, layout=layout, params=params,
    )  # fmt: skip
