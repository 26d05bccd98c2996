"""What an `assert` states, tried at one size: every pair, every path (`proofs/search.py`). A size that holds proves nothing of others."""

from __future__ import annotations

from dataclasses import dataclass

from ..diagnostics import Source
from ..grammar import checked as c
from ..grammar.syntax import Claim
from ..proofs.search import about, edges, refute
from ..proofs.verdict import Path
from ..reference.masks import Row
from .case import Case


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim at one size: `wrong` says why it does not hold, or nothing; `tried` is false where nothing here could have refuted it, and `remedy` is what
    else could, where more tokens do not."""

    claim: str
    wrong: str
    tried: bool
    remedy: str = ""


def judge(case: Case) -> list[Verdict]:
    """Every claim at this size, in words, with what refutes it."""
    spec, row = case.spec, case.row()
    source = Source(spec.text.removeprefix("\ufeff"), spec.filename)
    found = []
    for claim in spec.checked.claims:
        line, _ = source.place(claim.span.start)
        words = " ".join(source.text[claim.span.start : claim.span.end].split())
        path = refute(row, claim)
        told = spec.checked.globals_in(claim.where) if claim.where is not None else frozenset()
        remedy = "cases have few layers, srt_masks.prove(spec) any number" if told & {"layer", "layers"} else ""
        found.append(Verdict(f"line {line}: `{words}`", _words(claim.kind, path) if path else "", path is not None or _could_fail(row, claim), remedy))
    return found


def _could_fail(row: Row, claim: c.Claim) -> bool:
    """Whether anything at this size could have refuted the claim."""
    match claim.kind:
        case Claim.EVERY_QUERY:
            return bool(len(row.queries["pos"]))
        case Claim.CACHEABLE:
            # Keys of a layout of their own are there before any query: nothing is to be tried.
            return bool(about(row, claim).any()) or row.checked.keys is not None
        case Claim.PAIRS:
            # A pair that would refute it if it were attended, and one that is.
            return bool(about(row, claim).any()) and bool(edges(row).any())
        case _:
            return bool(about(row, claim).any())


def _words(kind: Claim, path: Path) -> str:
    """Why a claim does not hold."""
    query, key, hops = path.sink, path.source, len(path.hops)
    where = f"head {path.hops[0].head} of layer {path.hops[0].layer}" if hops else ""
    way = f"in {hops} hop{'s' if hops > 1 else ''}" if hops else "by its own residual stream"
    match kind:
        case Claim.PAIRS:
            return f"query {query} sees key {key}, in {where}"
        case Claim.EVERY_QUERY:
            return f"query {query} sees nothing, in some head and layer"
        case Claim.CACHEABLE:
            return f"query {query} sees key {key}, which is made in a later step (in {where})"
        case Claim.NO_LEAK:
            return f"token {query} is trained to predict token {key}, which reaches it {way}"
        case Claim.NO_FLOW:
            return f"token {key} reaches token {query} {way}, against the claim"
        case Claim.NO_GRAD:
            return f"token {key} reaches token {query} {way} with its gradient, against the claim"
        case Claim.FLOW | Claim.GRAD:
            return f"token {key} does not reach token {query}{' with its gradient' if kind is Claim.GRAD else ''}, through any layers"
