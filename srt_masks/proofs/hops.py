"""A refutation hop by hop, for people: which rows, and which lines of the text let something through or stop it.

    row 3 (reason of step 1) reads row 1 (reason of step 0): line 9 `attend causal`; k is stopped by line 10, the gradient goes through v

Values come from the reference's evaluator, so that no mistake of the compiler can explain itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diagnostics import Source
from ..grammar import checked as c
from ..grammar import syntax as t
from ..grammar.parser import parse
from ..grammar.syntax import Claim
from ..reference.masks import Row, pairs
from ..spec import Spec
from .search import edges
from .verdict import Hop, Path, World

GATES = ("q", "k", "v", "hidden")  # as `pairs` gives them
MOST_LETTERS = 60  # of a statement that is quoted
MOST_NUMBERS = 24  # of an input that is shown


def describe(spec: Spec, world: World, path: Path, kind: Claim) -> list[str]:
    """The call that refutes a claim, then its path: a line each. `world` and `path` are a verdict's, `kind` is the claim's."""
    told = _Told(spec, world.row(spec.checked))
    gradients = kind in (Claim.GRAD, Claim.NO_GRAD)
    lines = [_call(spec.checked, world)]
    match kind:
        case Claim.EVERY_QUERY:
            return [*lines, told.nothing(path.sink)]
        case Claim.FLOW | Claim.GRAD:
            return [*lines, *told.missing(path, gradients)]
        case _ if not path.hops:
            return [*lines, f"{told.token(path.sink)} reaches itself by its own residual stream, whatever it attends to"]
        case _:
            return [*lines, *(told.hop(hop, gradients) for hop in path.hops)]


def _call(checked: c.Checked, world: World) -> str:
    """The sizes, params and inputs of a call, as far as they are short and matter."""
    parts = (
        [_count(world.tokens, "token")] if checked.keys is None else [f"{world.tokens} quer{'y' if world.tokens == 1 else 'ies'}", _count(world.keys, "key")]
    )
    parts += [_count(world.heads, "head")] if checked.speaks_of_heads else []
    parts += [_count(world.layers, "layer")] if checked.speaks_of_layers else []
    parts += [f"{p.name} = {world.params[p.name]}" for p in checked.params]
    if checked.queries.given is not None:
        roles = " ".join(checked.roles[r] for r in world.layout["role"][: world.tokens].tolist())
        parts += [f"roles {roles}, steps {_numbers(world.layout['step'][: world.tokens])}"]
    parts += [f"{i.name} = {_numbers(world.inputs[i.name])}" for i in checked.inputs if i.name in world.inputs]
    return f"in a call with {', '.join(parts)}:"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _numbers(x: Tensor) -> str:
    if x.numel() > MOST_NUMBERS:
        return f"{tuple(x.shape)} numbers"
    return str(x.tolist()).replace("True", "true").replace("False", "false")


@dataclass(frozen=True, slots=True)
class _Said:
    """A statement of the text: the line it begins at, and its words."""

    line: int
    words: str


class _Told:
    """What the text says of the pairs of one row."""

    def __init__(self, spec: Spec, row: Row):
        self.checked, self.row = spec.checked, row
        source = Source(spec.text, spec.filename)
        tree, _ = parse(source)

        def said(statement: t.Statement) -> _Said:
            words = " ".join(source.text[statement.span.start : statement.span.end].split())
            return _Said(source.place(statement.span.start)[0], words if len(words) <= MOST_LETTERS else words[: MOST_LETTERS - 1] + "…")

        self.attend = next(said(s) for s in tree.statements if isinstance(s, t.Attend))
        self.rules = [(rule, said(s)) for rule, s in zip(self.checked.rules, (s for s in tree.statements if isinstance(s, t.Rule)), strict=True)]

    # ------------------------------------------------------------------------------------------ rows

    def token(self, pos: int) -> str:
        return self._named(self.row.own, pos)

    def key(self, pos: int) -> str:
        return self._named(self.row.keys, pos)

    def _named(self, axis: dict[str, Tensor], pos: int) -> str:
        """`row 7 (reason 2 of step 1)`: slots count from 0, and are said where a step has several."""
        role, section, step, slot = (int(axis[n][pos]) for n in ("role", "section", "step", "slot"))
        same = axis["role"] == role
        number = f" {slot}" if int(axis["slot"][same].max()) else ""
        part = f" of section {section}" if len(axis["section"][same].unique()) > 1 else ""
        return f"row {pos} ({self.checked.roles[role]}{number} of step {step}{part})"

    # ------------------------------------------------------------------------------------------ pairs

    def hop(self, hop: Hop, gradients: bool) -> str:
        where = (f", layer {hop.layer}" if self.checked.speaks_of_layers else "") + (f", head {hop.head}" if self.checked.speaks_of_heads else "")
        said = f"{self.token(hop.query)} reads {self.key(hop.key)}{where}: line {self.attend.line} `{self.attend.words}`"
        return said + (f"; {self.gradient(hop)}" if gradients else "")

    def gradient(self, hop: Hop) -> str:
        """Which of k and v pass a gradient at a pair that is attended, and what stops the others."""
        place = int((self.row.queries["pos"] == hop.query).nonzero()[0])
        words = self.row.words(hop.head, hop.layer, place, hop.key)
        gates: dict[str, float] = dict(zip(GATES, (float(g.flatten()[0]) for g in pairs(self.checked, words, 1, 1)[1:]), strict=True))
        lone = int(self._attended(hop, place).sum()) == 1

        def stopped(gate: str) -> str:
            """By the rules that make it 0: `k is stopped by line 10`."""
            name = "the hidden state" if gate == "hidden" else gate
            lines = []
            for rule, said in self.rules:
                if gate in rule.targets and bool(words.value(rule.where).flatten()[0]):
                    factor = 0.0 if rule.factor is None else float(words.value(rule.factor).flatten()[0])
                    lines += [str(said.line)] if factor == 0 else []
            return f"{name} is stopped by line{'s' if len(lines) > 1 else ''} {' and '.join(lines)}"

        parts = [stopped(g) for g in ("k", "v", "hidden") if gates[g] == 0]
        if gates["k"] != 0 and lone:
            parts.append("k passes nothing, as the only key of its row")
        passes = [g for g in ("k", "v") if gates[g] != 0 and gates["hidden"] != 0 and not (g == "k" and lone)]
        scaled = [f"{g} times {gates[g] * gates['hidden']:g}" if gates[g] * gates["hidden"] != 1 else g for g in passes]
        parts.append(f"the gradient goes through {' and '.join(scaled)}" if passes else "no gradient goes through")
        return ", ".join(parts)

    def _attended(self, hop: Hop, place: int) -> Tensor:
        words = self.row.words(hop.head, hop.layer, place)
        return pairs(self.checked, words, 1, len(self.row.keys["pos"]))[0]

    # ------------------------------------------------------------------------------------------ what is not there

    def nothing(self, query: int) -> str:
        """A row that sees nothing in some head of some layer."""
        place = int((self.row.queries["pos"] == query).nonzero()[0])
        layer, head = (~edges(self.row)[:, :, place].any(-1)).nonzero()[0].tolist()
        where = (f" in layer {layer}" if self.checked.speaks_of_layers else "") + (f" in head {head}" if self.checked.speaks_of_heads else "")
        return f"{self.token(query)} attends to nothing{where}: line {self.attend.line} `{self.attend.words}`"

    def missing(self, path: Path, gradients: bool) -> list[str]:
        """A pair without a path; where it is attended all the same, what stops the gradient there."""
        through = "in any layer" if self.checked.keys is not None else "through any number of layers"
        if self.checked.speaks_of_layers and self.checked.keys is None:
            through = f"through {self.row.layers} layers, each taken once" if self.row.layers > 1 else "in the one layer"
        if not gradients:
            return [f"nothing of {self.key(path.source)} reaches {self.token(path.sink)}, {through}: line {self.attend.line} `{self.attend.words}`"]
        lines = [f"no gradient returns from {self.token(path.sink)} to {self.key(path.source)}, {through}"]
        places = (self.row.queries["pos"] == path.sink).nonzero()
        direct: Tensor = edges(self.row)[:, :, int(places[0]), path.source].nonzero() if len(places) else torch.zeros(0, 2)
        return lines + [self.hop(Hop(path.sink, path.source, int(head), int(layer)), gradients) for layer, head in direct[:1].tolist()]
