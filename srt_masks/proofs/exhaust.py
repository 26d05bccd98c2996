"""A claim at every small call, one by one: what refutes it, or how much was covered.

checked tree -> worlds of each size (`worlds.py`) -> search.refute
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, product

from ..grammar import checked as c
from ..grammar.checked import Checked
from ..grammar.syntax import Claim
from .search import refute
from .verdict import Path, World
from .worlds import DRAWS, params, sizes, worlds

HEADS, LAYERS = (1, 2), (1, 2, 3)  # where they matter
SAMPLES = 3  # calls of a larger size
MORE_PAIRS = 8  # or more, in the next larger one
MOST_SIZES = 1000  # that are stepped through to the larger one


@dataclass(frozen=True, slots=True)
class Refutation:
    path: Path
    world: World


@dataclass(frozen=True, slots=True)
class Covered:
    """What was tried, and refuted nothing. `tokens`: every size up to so many (-1: none); `whole`: up to so many with all inputs there are, beyond
    them with draws. `worlds` counts the calls; `words` says all of it, for a verdict."""

    tokens: int
    whole: int
    worlds: int
    words: str

    @property
    def complete(self) -> bool:
        """Whether nothing was left out up to `tokens`."""
        return 0 <= self.tokens == self.whole


def exhaust(checked: Checked, claim: c.Claim, most_tokens: int, deadline: float) -> Refutation | Covered:
    """Try a claim at every number of tokens up to `most_tokens` that the layout can have, in order, with 1 and 2 heads and 1 to 3 layers where those
    matter, until `deadline` (of `time.monotonic()`); at each size with the values that the text gives its params, then with a few others.

    The refutation is of the smallest size, but for one without hops, by a row's own residual stream, which stands only where there is no other."""
    search, tried = _Search(checked, claim, most_tokens, deadline), params(checked)
    found = search.sizes(tried)
    if isinstance(found, Refutation):
        return found
    return search.residual or Covered(*found, search.worlds, search.words(*found, tried))


def sampled(checked: Checked, claim: c.Claim, targets: Sequence[int], deadline: float) -> Refutation | None:
    """Try a claim at a few calls of about so many tokens, with the text's values of the params, until `deadline`: where paths are long, a small call
    has none."""
    search = _Search(checked, claim, max(targets), deadline)
    own = params(checked)[0]
    for target in targets:
        begun = time.monotonic()
        largest = [*islice(sizes(checked, target), MOST_SIZES)][-1:]
        for size, heads, layers in product(largest, search.heads[-1:], search.layers[-1:]):
            found, _ = worlds(checked, replace(size, heads=heads, layers=layers, params=own))
            for world in islice(found, SAMPLES):
                if time.monotonic() > deadline:
                    return None
                path = refute(world.row(checked), claim)
                if path is not None and (path.hops or claim.kind not in (Claim.NO_FLOW, Claim.NO_GRAD, Claim.NO_LEAK)):
                    return Refutation(path, world)
        if time.monotonic() + MORE_PAIRS * (time.monotonic() - begun) > deadline:
            return None  # the next would not be done in time, and none is left half-way
    return None


class _Search:
    """`worlds` counts the calls tried; `residual` is what only a row's own residual stream refutes, at the sizes so far."""

    def __init__(self, checked: Checked, claim: c.Claim, most_tokens: int, deadline: float):
        told = {n.name for n in c.walk(claim.where) if isinstance(n, c.Global)} if claim.where is not None else set()
        self.heads = HEADS if checked.speaks_of_heads or told & {"head", "heads"} else HEADS[:1]
        self.layers = LAYERS if checked.speaks_of_layers or told & {"layer", "layers"} else LAYERS[:1]
        self.checked, self.claim, self.most_tokens, self.deadline = checked, claim, most_tokens, deadline
        self.worlds = 0
        self.residual: Refutation | None = None

    def sizes(self, values: Sequence[Mapping[str, int | float]]) -> Refutation | tuple[int, int]:
        """All sizes, each with all these values of the params: up to how many tokens there was time, and up to how many all inputs were tried."""
        tokens = whole = -1
        for most, same in groupby(sizes(self.checked, self.most_tokens), lambda world: max(world.tokens, world.keys)):
            complete = whole == tokens
            for size, own, heads, layers in product(same, values, self.heads, self.layers):
                found = self.one(replace(size, heads=heads, layers=layers, params=own))
                if isinstance(found, Refutation):
                    return found
                if found is None:
                    return tokens, whole
                complete &= found
            tokens = most
            whole = most if complete else whole
        return tokens, whole

    def one(self, size: World) -> Refutation | bool | None:
        """One size: whether all inputs were tried, None where time ran out."""
        found, complete = worlds(self.checked, size)
        if time.monotonic() > self.deadline:
            return None
        for world in found:
            if time.monotonic() > self.deadline:
                return None
            self.worlds += 1
            path = refute(world.row(self.checked), self.claim)
            if path is not None and (path.hops or self.claim.kind not in (Claim.NO_FLOW, Claim.NO_GRAD, Claim.NO_LEAK)):
                return Refutation(path, world)
            if path is not None and self.residual is None:
                self.residual = Refutation(path, world)  # a larger size may have a path between rows, which says more
        return complete

    def words(self, tokens: int, whole: int, tried: Sequence[Mapping[str, int | float]]) -> str:
        if tokens < 0:
            return f"no call was tried: the layout has none of {self.most_tokens} tokens or fewer, or there was no time"
        # A call of no tokens is not worth a word beside larger ones.
        parts = [f"every call up to {whole} token{'' if whole == 1 else 's'}"] if whole > 0 or whole == tokens else []
        parts += [f"{DRAWS} draws of the inputs at every size up to {tokens} token{'' if tokens == 1 else 's'}"] if whole < tokens else []
        said = " and ".join(parts)
        said += f", up to {self.heads[-1]} heads" if len(self.heads) > 1 else ""
        said += f", up to {self.layers[-1]} layers" if len(self.layers) > 1 else ""
        for param in self.checked.params:
            if not param.structural:
                values = dict.fromkeys(one[param.name] for one in tried)
                said += f", {param.name} = {', '.join(map(str, values))}"
        return f"{said} ({self.worlds:,} calls)"
