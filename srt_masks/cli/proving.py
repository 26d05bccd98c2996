"""The command `prove`: a line for each claim, and carets under what does not hold."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ..diagnostics import Source
from .arguments import spec_of, specs_sharing

if TYPE_CHECKING:
    from ..proofs.verdict import Verdict, World
    from ..spec import Spec


def prove(options: argparse.Namespace) -> int:
    if options.equals is not None:
        return _equals(options)
    from ..proofs.prove import prove as verdicts_of

    spec = spec_of(options)
    verdicts = verdicts_of(spec, seconds=options.seconds)
    if options.format == "json":
        print(json.dumps([_plain(v) for v in verdicts], indent=1))
    elif not verdicts:
        print(f"{spec.filename}: nothing is claimed. For example: assert no flow where k.pos > q.pos")
    else:
        _print(verdicts, spec)
    return int(not all(verdicts))


def _equals(options: argparse.Namespace) -> int:
    from ..elsewhere.comparing import equivalent

    spec, other = specs_sharing((options.spec, options.equals), options)
    found = equivalent(spec, other, seconds=options.seconds)
    if options.format == "json":
        pair = None if found.pair is None else {n: getattr(found.pair, n) for n in ("layer", "head", "query", "key")}
        print(json.dumps({"equal": found.equal, "outcome": found.outcome, "reason": found.reason, "scope": found.scope, "pair": pair}, indent=1))
    else:
        print(found)
    return int(not found)


def _print(verdicts: list[Verdict], spec: Spec) -> None:
    from ..proofs.guard import diagnostic

    claims = [f"{'' if v.line is None else f'line {v.line}: '}{v.claim}{' (there is a `predict`)' if v.line is None else ''}" for v in verdicts]
    width = max(len(c) for c in claims)
    for verdict, claim in zip(verdicts, claims, strict=True):
        extent = f"tried: {verdict.scope}" if verdict.outcome in ("checked", "unknown") and not verdict.replay else f"for {verdict.scope}"
        print(f"{verdict.outcome:8}  {claim:{width}}  {1000 * verdict.seconds:5.0f} ms  {extent}")
    source = Source(spec.text, spec.filename)
    for verdict in verdicts:
        if not verdict:
            print(f"\n{diagnostic(verdict).render(source)}")


def _plain(verdict: Verdict) -> dict[str, Any]:
    hops = None if verdict.path is None else [{"query": h.query, "key": h.key, "head": h.head, "layer": h.layer} for h in verdict.path.hops]
    path = None if verdict.path is None else {"source": verdict.path.source, "sink": verdict.path.sink, "hops": hops}
    return {
        "claim": verdict.claim, "line": verdict.line, "outcome": str(verdict.outcome), "reason": verdict.reason, "scope": verdict.scope,
        "milliseconds": round(1000 * verdict.seconds, 1), "path": path, "call": None if verdict.world is None else _call(verdict.world),
        "lines": list(verdict.lines), "replay": verdict.replay, "remedies": list(verdict.remedies), "holds_as_written": verdict.holds_as_written,
    }  # fmt: skip


def _call(world: World) -> dict[str, Any]:
    from ..explanation import plain_values

    sizes = {"tokens": world.tokens, "keys": world.keys, "heads": world.heads, "layers": world.layers}
    tensors = {"inputs": {n: plain_values(x.tolist()) for n, x in world.inputs.items()}, "layout": {n: x.tolist() for n, x in world.layout.items()}}
    return {**sizes, "params": dict(world.params), **tensors}
