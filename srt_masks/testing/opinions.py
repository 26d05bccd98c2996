"""A second opinion on a text: functions in Python, asked pair by pair and compared with the dense masks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from ..diagnostics import InputError
from .case import Case
from .laws import Pair

GATES = {"q": "gate_q", "k": "gate_k", "v": "gate_v", "hidden": "gate_hidden"}
MOST_PAIRS = 500_000


def differences(case: Case, judges: Mapping[str, Callable[..., Any]]) -> str:
    """The first pair where text and function differ, in words, or nothing. Gates are judged where the text attends."""
    masks, row = case.masks(), case.row()
    _, layers, heads, queries, keys = masks.attend.shape
    if layers * heads * queries * keys > MOST_PAIRS:
        raise InputError(f"an opinion is asked pair by pair: {layers * heads * queries * keys:,} pairs are too many, at most {MOST_PAIRS:,}")
    wanted = {name: _arity(name, judge) for name, judge in judges.items()}
    for layer in range(layers):
        for head in range(heads):
            words = row.words(head, layer)
            places = {"head": head, "layer": layer}
            constants = {n: _element(case, n, places) for n, i in case.spec.inputs.items() if not {"token", "step", "query", "key"} & {*i.axes}}
            pairwise = [n for n, i in case.spec.inputs.items() if {"query", "key"} <= {*i.axes}]
            world = SimpleNamespace(**words.scalars, **case.spec.params, **constants)
            sides = [[_pair(case, side, i, places, which) for i in range(n)] for side, n, which in ((row.queries, queries, "query"), (row.keys, keys, "key"))]
            for i, q in enumerate(sides[0]):
                for j, k in enumerate(sides[1]):
                    for name in pairwise:
                        setattr(world, name, _element(case, name, {**places, "query": q.pos, "key": k.pos}))
                    for name, judge in judges.items():
                        sees = bool(masks.attend[0, layer, head, i, j])
                        if name != "attend" and not sees:
                            continue
                        said = judge(*(q, k, world)[: wanted[name]])
                        mine = sees if name == "attend" else float(getattr(masks, GATES[name])[0, layer, head, i, j])
                        if bool(said) != mine if name == "attend" else abs(float(said) - mine) > 1e-12:
                            what = "sees" if name == "attend" else f"gate of {name}"
                            return f"{what}: the text says {mine}, the function {said!r}, for head {head}, layer {layer},\n  q = {_shown(q)}\n  k = {_shown(k)}"
    return ""


def _arity(name: str, judge: Callable[..., Any]) -> int:
    count = len([p for p in inspect.signature(judge).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)])
    if count not in (2, 3):
        raise InputError(f"an opinion takes (q, k) or (q, k, world); that of {name} takes {count}")
    return count


def _pair(case: Case, side: Mapping[str, Tensor], i: int, places: Mapping[str, int], which: str) -> Pair:
    own = {name: int(side[name][i]) for name in ("pos", "step", "slot", "section", "index")}
    inputs = {}
    for name, declared in case.spec.inputs.items():
        axes = {*declared.axes}
        if axes & {"token", "step", which} and not {"query", "key"} <= axes:
            inputs[name] = _element(case, name, {**places, "token": own["pos"], "step": own["step"], "query": own["pos"], "key": own["pos"]})
    return Pair(role=case.spec.roles[int(side["role"][i])], inputs=inputs, **own)


def _element(case: Case, name: str, places: Mapping[str, int]) -> Any:
    """An input at a head, layer and token, as a number, or as nested lists of its own sizes."""
    value = case.inputs[name]
    for axis in case.spec.inputs[name].axes:
        value = value[places[axis]]
    return value.tolist() if isinstance(value, Tensor) else value


def _shown(side: Pair) -> str:
    inputs = "".join(f", {n} {v}" for n, v in side.inputs.items())
    return f"{side.role} at {side.pos} (step {side.step}, slot {side.slot}, section {side.section}, index {side.index}{inputs})"
