"""A second opinion on a text: functions in Python, asked pair by pair and compared with the dense masks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import InputError, did_you_mean
from ..grammar import checked as c
from ..reference.masks import DenseMasks
from .case import Case
from .laws import Broken, Condition, Law

GATES = {"q": "gate_q", "k": "gate_k", "v": "gate_v", "hidden": "gate_hidden"}
MOST_ASKED = 1600  # pairs of a head; of more, some are picked

Opinion = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a pair, as an opinion in Python sees it: `q.pos`, `q.role == "reason"`, `k.doc`."""

    pos: int
    step: int
    slot: int
    section: int
    index: int
    role: str
    input: Mapping[str, Any]  # a word of the language, and so the name of none of them

    def __getattr__(self, name: str) -> Any:
        try:
            return self.input[name]
        except KeyError:
            raise AttributeError(f"a token has no {name!r} here; it has pos, step, slot, section, index, role, {', '.join(self.input)}") from None

    def __str__(self) -> str:
        inputs = "".join(f", {n} {v}" for n, v in self.input.items())
        return f"{self.role} at {self.pos} (step {self.step}, slot {self.slot}, section {self.section}, index {self.index}{inputs})"


def opinion(judge: Opinion | Mapping[str, Opinion]) -> Law:
    """The law that the text says what a function in Python says: `judge(q, k)` or `judge(q, k, world)`, true where q sees k.

    A mapping judges gates too: {"attend": f, "k": g}, where g gives the factor of that gradient (True and False are 1 and 0). `world` has head,
    heads, layer, layers, steps, length, the params, and the inputs that belong to no token. Raises InputError for what is no such function.
    """
    judges = dict(judge) if isinstance(judge, Mapping) else {"attend": judge}
    known = ("attend", *GATES)
    for name in judges:
        if name not in known:
            raise InputError(f"an opinion is about attend, q, k, v or hidden; got {name!r}: {did_you_mean(str(name), known)}".rstrip(": "))
    arity = {name: _arity(name, judge) for name, judge in judges.items()}

    def asked(*sides: Any, name: str) -> Any:
        return judges[name](*sides[: arity[name]])

    def try_on(case: Case, backend: str) -> dict[Condition, bool]:
        found, met = _differences(case, tuple(judges), asked)
        if found:
            raise Broken(found)
        return met

    return Law("opinion", "the text says what a function in Python says", try_on, batches=False, most_tokens=12, beyond=True)


def _arity(name: str, judge: Any) -> int:
    try:
        parameters = inspect.signature(judge).parameters.values()
    except (TypeError, ValueError):
        raise InputError(f"an opinion is a function of (q, k) or (q, k, world); that of {name} is {judge!r}") from None
    count = len([p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)])
    if count not in (2, 3):
        raise InputError(f"an opinion takes (q, k) or (q, k, world); that of {name} takes {count}")
    return count


def _differences(case: Case, names: tuple[str, ...], asked: Callable[..., Any]) -> tuple[str, dict[Condition, bool]]:
    """The first pair where text and function differ, in words, or nothing; and what was met. Gates are judged where the text attends."""
    masks, row = case.masks(), case.row()
    _, layers, heads, _, _ = masks.attend.shape
    met = _conditions(case, names, masks)
    declared = case.spec.inputs
    pairwise = [n for n, i in declared.items() if {"query", "key"} <= {*i.axes}]
    for layer in range(layers):
        for head in range(heads):
            places = {"head": head, "layer": layer}
            constants = {n: _element(case, n, places) for n, i in declared.items() if not {"token", "step", "query", "key"} & {*i.axes}}
            world = SimpleNamespace(**row.words(head, layer).scalars, **{**case.spec.params, **case.params}, **constants)
            queries, keys = ([_side(case, x, i, places, which) for i in range(len(x["pos"]))] for x, which in ((row.queries, "query"), (row.keys, "key")))
            attend = masks.attend[0, layer, head].tolist()
            gates = {n: getattr(masks, GATES[n])[0, layer, head].tolist() for n in names if n != "attend"}
            for i, j in _picked(len(queries), len(keys), case.seed):
                q, k, sees = queries[i], keys[j], attend[i][j]
                for name in pairwise:
                    setattr(world, name, _element(case, name, {**places, "query": q.pos, "key": k.pos}))
                for name in names if sees else [n for n in names if n == "attend"]:
                    said = asked(q, k, world, name=name)
                    mine = sees if name == "attend" else gates[name][i][j]
                    if bool(said) != mine if name == "attend" else abs(float(said) - mine) > 1e-12:
                        what = "sees" if name == "attend" else f"gate of {name}"
                        return f"{what}: the text says {mine}, the function {said!r}, for head {head}, layer {layer},\n  q = {q}\n  k = {k}", met
    return "", met


def _conditions(case: Case, names: tuple[str, ...], masks: DenseMasks) -> dict[Condition, bool]:
    """Without a pair on each side of the edge, nothing was asked about the edge. A mask or gate that is the same for all pairs has none."""
    checked, attend = case.spec.checked, masks.attend
    some, others = bool(attend.any()), bool((~attend).any())
    found: dict[Condition, bool] = {}
    if "attend" in names:
        edge = _tells_pairs_apart(checked, [checked.attend])
        found |= {Condition("sees: the text attended no pair"): some or not edge, Condition("sees: the text attended every pair"): others or not edge}
    for name in (n for n in names if n != "attend"):
        parts = [part for rule in checked.rules if name in rule.targets for part in (rule.factor, rule.where) if part is not None]
        factors = getattr(masks, GATES[name]).expand_as(attend)[attend]
        found[Condition(f"gate of {name}: the text attended no pair")] = some
        found[Condition(f"gate of {name}: the text gave every pair the same")] = len(factors.unique()) > 1 or not _tells_pairs_apart(checked, parts)
    return found


def _tells_pairs_apart(checked: c.Checked, parts: list[c.Expr]) -> bool:
    bodies, stack = {let.name: let.body for let in checked.lets}, [*parts]
    while stack:
        for node in c.walk(stack.pop()):
            if isinstance(node, c.Attribute):
                return True
            if isinstance(node, c.LetRef):
                stack.append(bodies[node.name])
    return False


def _picked(queries: int, keys: int, seed: int) -> list[tuple[int, int]]:
    """Every pair; of many, so many as the seed says."""
    count = queries * keys
    if count <= MOST_ASKED:
        return [(i, j) for i in range(queries) for j in range(keys)]
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:MOST_ASKED]
    return [divmod(n, keys) for n in chosen.sort().values.tolist()]


def _side(case: Case, side: Mapping[str, Tensor], i: int, places: Mapping[str, int], which: str) -> Side:
    own = {name: int(side[name][i]) for name in ("pos", "step", "slot", "section", "index")}
    inputs = {}
    for name, declared in case.spec.inputs.items():
        axes = {*declared.axes}
        if axes & {"token", "step", which} and not {"query", "key"} <= axes:
            inputs[name] = _element(case, name, {**places, "token": own["pos"], "step": own["step"], "query": own["pos"], "key": own["pos"]})
    return Side(role=case.spec.roles[int(side["role"][i])], input=inputs, **own)


def _element(case: Case, name: str, places: Mapping[str, int]) -> Any:
    """An input at a head, layer and token, as a number, or as nested lists of its own sizes."""
    value = case.inputs[name]
    for axis in case.spec.inputs[name].axes:
        value = value[places[axis]]
    return value.tolist() if isinstance(value, Tensor) else value
