"""`equivalent`: is this spec that mask? Two specs are proved the same for every length; with anything else, and at sizes that are given, the
reference judges, a few rows at a time, for those sizes and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..binding import check_tokens, layer_number, resolve_heads, resolve_layers
from ..default_device import on_the_cpu
from ..diagnostics import InputError
from ..grammar.checked import Checked, Layout
from ..proofs.equal import Calls, compare
from ..proofs.verdict import Outcome
from ..spec import Spec
from ..time_steps import Steps, joined
from .configs import is_config, layers_of, spec_of
from .others import CONVENTION, Blocks, Dense, Other, as_tensor, blocks, dense, function
from .side import Rows, Side
from .verdict import AROUND_ROWS, Pair, Verdict, draw

MOST_PAIRS = 2**32
PAIRS_AT_ONCE = 2**21
GATES = ("attend", "gate q", "gate k", "gate v", "gate hidden")


@on_the_cpu
def equivalent(
    spec: Spec, other: Any, *, steps: Steps | None = None, heads: int | None = None, layers: int | None = None, layer: int | None = None,
    lengths: Sequence[int] | Tensor | None = None, inputs: Mapping[str, Any] | None = None, given: Any = None, device: Any = "cpu",
    seconds: float = 30.0,
) -> Verdict:  # fmt: skip
    """Whether a spec attends exactly the pairs that a mask from elsewhere does, at these sizes; else the first pair that differs, drawn.

    `other` is one of
      a Flex `mask_mod`, (batch, head, query, key) -> bool, called on `device`;
      a dense mask, (queries, keys), (heads, queries, keys) or (batch, heads, queries, keys): bool, True = attend, or float, 0 = attend, -inf = not;
      a `BlockMask`: its lists are also held to its own mask_mod, and to each other;
      a Hugging Face config: what `from_config` makes of it, in every layer;
      another Spec: its masks, and its gradient rules on the pairs attended. Without steps, lengths, inputs, given and layer it is proved, for every length,
      and whatever the inputs, and the heads and layers unless they are given; a pair that differs is found in the smallest call that has one. A param that
      both have is one argument of both: they are equal if they are so for all its values, and as they are written. Against a config, a text is what is
      written. `seconds` is the most that a proof may take: then it is unknown.
    Only another Spec has gradient rules; of the others, the mask alone is compared, and `scope` says so.
    `steps` is read off a dense mask or a BlockMask unless given; `inputs` go to both specs, by the names each declares. `layer` picks the one that is
    compared, where a spec speaks of layers.
    Raises InputError for what is none of these, for sizes that do not fit, and beyond 4 billion pairs.
    """
    if not isinstance(spec, Spec):
        hint = "The spec comes first, the other mask second" if isinstance(other, Spec) else "For a text: srt_masks.parse(text)"
        raise InputError(f"equivalent takes a Spec; got {type(spec).__name__}. {hint}")
    arguments = {"lengths": lengths, "inputs": inputs, "given": given}
    names, as_written = ("the first", "the second"), is_config(other)
    if as_written:  # one mask, in so many layers, whose numbers are no arguments of anything
        names, other, layers = ("the spec", "the config"), spec_of(other), layers_of(other) if layers is None else layers
    if isinstance(other, Spec):
        if all(x is None for x in (steps, lengths, inputs, given)) and layer is None:
            heads = None if heads is None else resolve_heads(spec.checked, heads)
            layers = None if layers is None else resolve_layers(spec.checked, layers)
            return _for_every_length(spec, other, names, Calls(heads, layers, as_written), seconds)
        return _two_specs(spec, other, steps, heads, layers, layer, arguments, names)
    found, faults = _other(other, device)
    if steps is None and found.sizes is not None and given is None and spec.checked.repeats:
        steps = _steps_for(spec.checked, found.sizes, ("queries of the other mask", "keys of the other mask"))
    if heads is None and found.heads > 1:
        heads = found.heads
    if layers is not None and layer is None and spec.checked.speaks_of_layers:
        raise InputError(f"this spec speaks of layers, and {found.words} is of one: give layer=, from 0 to {layers - 1}")
    side = Side.of(spec, steps, heads, layers, arguments)
    if found.sizes not in (None, (side.queries, side.keys)):
        raise InputError(_wrong_sizes(found, side))
    for axis, theirs, ours in (("heads", found.heads, side.heads), ("rows of the batch", found.batch, side.batch)):
        # As many heads as were asked for are compared: one of theirs does not stand for all.
        if theirs > 1 and theirs != ours and (ours > 1 or axis == "heads"):
            hint = "; (rows, queries, keys) is read as heads: give mask.unsqueeze(1) if they are rows of the batch" if axis == "heads" else ""
            raise InputError(f"{found.words} has {theirs} {axis}, this call has {ours}{hint}")
    side = _one_layer(replace(side, batch=max(side.batch, found.batch)), layer_number(spec.checked, layer, layers), layer is not None)
    scope = f"{side.scope}; the mask alone" + ("; the spec's gradient rules have no counterpart" if spec.checked.rules else "")
    if faults:
        return Verdict(False, scope, f"the lists of the BlockMask contradict themselves: {faults}", side.pairs)
    if isinstance(found, Blocks):
        inside = _compare(_rows_of(found, side), _rows_of(found.predicate, side), side, ("its lists", "its mask_mod"), scope)
        if not inside:
            assert inside.pair is not None
            kept = found.predicate.rows(inside.pair.batch, side.heads, inside.pair.query, inside.pair.query + 1, side.keys)[
                inside.pair.head, 0, inside.pair.key
            ]
            why = "its lists drop a pair that its mask_mod keeps" if bool(kept) else "a FULL tile holds a pair that its mask_mod refuses"
            return replace(inside, reason=f"the BlockMask contradicts itself at {inside.pair}: {why}")
    return _compare(side.attended, _rows_of(found, side), side, ("the spec", found.words), scope, isinstance(found, Dense))


def _for_every_length(spec: Spec, other: Spec, names: tuple[str, str], calls: Calls, seconds: float) -> Verdict:
    found = compare(spec.checked, other.checked, calls=calls, seconds=seconds)
    if found.outcome is not Outcome.REFUTED:
        return Verdict(bool(found), found.scope, found.reason, 0, outcome=str(found.outcome))
    assert found.pair is not None and found.worlds is not None
    a, b = (
        Side.of_row(w.row(s.checked), f"the smallest call with a difference that was found, of {w.tokens} token{'s' * (w.tokens != 1)}")
        for w, s in zip(found.worlds, (spec, other), strict=True)
    )
    return replace(_compare_specs(a, b, names), reason=found.reason)


def _two_specs(
    spec: Spec, other: Spec, steps: Steps | None, heads: int | None, layers: int | None, layer: int | None, arguments: dict[str, Any], names: tuple[str, str]
) -> Verdict:  # fmt: skip
    def own(s: Spec, steps: Steps | None) -> Side:
        given = {n: v for n, v in (arguments["inputs"] or {}).items() if n in s.inputs or n in s.params}
        return Side.of(s, steps, heads, layers, {**arguments, "inputs": given})

    for name in arguments["inputs"] or {}:
        if all(name not in s.inputs and name not in s.params for s in (spec, other)):
            raise InputError(f"neither spec has an input or param `{name}`")
    a = own(spec, steps)
    repeats = other.checked.repeats and other.checked.queries.given is None
    b = own(other, _steps_for(other.checked, (a.tokens, a.keys), ("tokens of the first spec", "keys of the first spec")) if repeats else None)
    if (a.queries, a.keys) != (b.queries, b.keys):
        raise InputError(f"the specs differ in size at steps={steps}: {a.queries} x {a.keys} and {b.queries} x {b.keys} pairs")
    if 1 < a.batch != b.batch > 1:
        raise InputError(f"the specs differ in rows of the batch: {a.batch} and {b.batch}")
    batch, deep = max(a.batch, b.batch), max(a.layers, b.layers)
    a, b = (replace(x, batch=batch, layers=deep) for x in (a, b))
    if layer is not None:
        a, b = (_one_layer(x, layer_number(spec.checked, layer, deep), True) for x in (a, b))
    return _compare_specs(a, b, names)


def _compare_specs(a: Side, b: Side, names: tuple[str, str]) -> Verdict:
    if unlike := a.asks_unlike(b):
        return Verdict(False, a.scope, f"other tokens ask: {unlike}", a.pairs)
    verdict = _compare(a.attended, b.attended, a, names, a.scope)
    if not verdict:
        return verdict
    for gate in range(1, len(GATES)):
        different = _compare(a.gate_differs(gate, b), a.nothing, a, ("where they differ", "nothing"), a.scope)
        if not different:
            return replace(different, reason=f"both attend {different.pair}, and {GATES[gate]} differs there", picture="")
    return verdict


def _one_layer(side: Side, layer: int, is_said: bool) -> Side:
    return replace(side, only=layer, scope=f"layer={layer} of {side.scope}" if is_said and side.layers > 1 else side.scope)


def _other(other: Any, device: Any) -> tuple[Other, str]:
    if isinstance(other, Tensor):
        return dense(other), ""
    if type(other).__name__ == "BlockMask" or hasattr(other, "kv_num_blocks"):
        return blocks(other)
    if callable(other):
        return function(other, device), ""
    raise InputError(
        f"a spec is compared with a Flex mask_mod, a dense mask (a torch.Tensor), a BlockMask, a Hugging Face config or another Spec; got {type(other).__name__}{as_tensor(other)}"
    )


def _steps_for(checked: Checked, sizes: tuple[int, int], what: tuple[str, str]) -> Steps | None:
    """The time steps that make axes as long as the other's. Of one layout the axis of keys has every token; who asks may be only some."""

    def steps(layout: Layout, axis: int) -> int | None:
        if not layout.rows_per_step:
            return None
        check_tokens(layout, sizes[axis], checked.roles, what[axis])
        return layout.steps(sizes[axis])

    return steps(checked.queries, 1) if checked.keys is None else joined(steps(checked.queries, 0), steps(checked.keys, 1))


def _wrong_sizes(found: Other, side: Side) -> str:
    assert found.sizes is not None
    said = f"{found.words} is {found.sizes[0]} x {found.sizes[1]} (queries x keys); the spec is {side.queries} x {side.keys} here"
    if (
        isinstance(found, Dense)
        and found.sizes[1] == side.keys
        and found.batch == found.heads == 1
        and (found.sizes[0] == side.batch or found.sizes[0] < side.queries)
    ):
        return f"{said}. A padding mask (batch, keys) is no mask of pairs: give mask[:, None, None, :], or lengths=. {CONVENTION}"
    return said


def _rows_of(other: Other, side: Side) -> Rows:
    return lambda batch, layer, begin, end: other.rows(batch, side.heads, begin, end, side.keys)


def _compare(one: Rows, two: Rows, side: Side, names: tuple[str, str], scope: str, is_dense: bool = False) -> Verdict:
    """All pairs, some rows at a time. The first that differs is that of the least batch, layer, head, query and key."""
    if side.pairs > MOST_PAIRS:
        raise InputError(f"{side.pairs:,} pairs are too many to look at one by one; at most {MOST_PAIRS:,}: give fewer steps, heads or layers")
    height = max(1, PAIRS_AT_ONCE // max(1, side.heads * side.keys))
    differing, first = 0, None
    for batch in range(side.batch):
        for layer in side.which:
            found = None
            for begin in range(0, side.queries, height):
                end = min(side.queries, begin + height)
                unlike = one(batch, layer, begin, end) != two(batch, layer, begin, end)
                number = int(unlike.sum())
                differing += number
                if number and first is None:
                    head, query, key = unlike.nonzero()[0].tolist()
                    found = min(found or (head, begin + query, key), (head, begin + query, key))
            if found is not None:
                first = Pair(batch, layer, *found)
    if first is None:
        return Verdict(True, scope, f"{names[0]} and {names[1]} attend the same pairs", side.pairs)
    begin, end = max(0, first.query - AROUND_ROWS), min(side.queries, first.query + AROUND_ROWS + 1)
    a, b = (rows(first.batch, first.layer, begin, end)[first.head] for rows in (one, two))
    attends, does_not = names if bool(a[first.query - begin, first.key]) else names[::-1]
    reason = f"{attends} attends {first}, {does_not} does not"
    if differing == side.pairs and is_dense:
        reason += f". The two are opposites. {CONVENTION}"
    return Verdict(False, scope, reason, side.pairs, differing, first, draw(a, b, first.query, first.key, begin, names))
