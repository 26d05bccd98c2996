"""The command `plan`: what is known of the plan of a call, gathered once, then printed as text or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..diagnostics import spans
from .arguments import inputs_of, spec_of, steps_of

if TYPE_CHECKING:
    from ..compiler.choice import Choice
    from ..compiler.density import Pairs
    from ..compiler.plan import GroupPlan, Plan
    from ..kernels.attention import Attention
    from ..spec import Spec
    from ..view.tiles import TileMap

STEPS = 512  # where the layout repeats and nobody says
MOST_DRAWN = 4  # groups drawn in text; JSON has all


def plan(options: argparse.Namespace) -> None:
    report = gather(options)
    if options.format == "json":
        print(json.dumps(report.plain(), indent=1))
    else:
        from ..view.terminal import takes_colour

        print(report.text(colour=takes_colour(sys.stdout)))


# ------------------------------------------------------------------------------------------------ what is known


@dataclass(frozen=True, slots=True)
class Tiles:
    """Of all tiles, those that a consumer works through, by kind; those it skips because every gate of its own is 0 there; and those that hold no pair."""

    consumer: str
    full: int
    partial: int
    skipped: int
    empty: int

    @property
    def of(self) -> int:
        return self.full + self.partial + self.skipped + self.empty

    def plain(self) -> dict[str, int]:
        return {"full": self.full, "partial": self.partial, "skipped": self.skipped, "empty": self.empty, "of": self.of}


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of the batch and heads that share one mask."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    queries: int
    keys: int
    consumers: tuple[Tiles, ...]
    inexact: int
    pairs: Pairs
    choice: Choice
    drawn: TileMap

    def plain(self) -> dict[str, Any]:
        tried = [{"name": t.name, "full": t.full, "partial": t.partial, "work": t.work} for t in self.choice.trials]
        order = {"name": self.choice.name, "reason": self.choice.reason, "tokens": list(self.choice.tokens), "seconds": self.choice.seconds, "tried": tried}
        return {
            "batch": list(self.batch), "heads": list(self.heads), "queries": self.queries, "keys": self.keys,
            "tiles": {t.consumer: t.plain() for t in self.consumers}, "inexact_tiles": self.inexact, "pairs": _pairs(self.pairs),
            "order": order, "map": {"tiles_per_cell": self.drawn.side, "rows": list(self.drawn.plain)},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of some layers that have one mask."""

    layers: tuple[int, ...]
    seconds: float
    nbytes: int
    pairs: Pairs
    groups: tuple[Group, ...]

    def plain(self) -> dict[str, Any]:
        return {
            "layers": list(self.layers), "seconds": self.seconds, "bytes": self.nbytes, "pairs": _pairs(self.pairs),
            "groups": [g.plain() for g in self.groups],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    spec: str
    params: dict[str, int | float]
    batch: int
    heads: int
    layers: int | None
    queries: int
    keys: int
    tile: int
    backend: str
    hidden: bool  # a call makes a second plan, for hidden_k and hidden_v
    plans: tuple[Planned, ...]

    def plain(self) -> dict[str, Any]:
        call = {"spec": self.spec, "params": self.params, "batch": self.batch, "heads": self.heads, "layers": self.layers}
        sizes = {"queries": self.queries, "keys": self.keys, "tile": self.tile, "backend": self.backend, "hidden": self.hidden}
        return {**call, **sizes, "plans": [p.plain() for p in self.plans]}

    def text(self, colour: bool) -> str:
        return "\n".join(_lines(self, colour))


def gather(options: argparse.Namespace) -> Report:
    """The report on `--steps`, or STEPS where the layout repeats, of every layer or of `--layer`."""
    spec = spec_of(options)
    attend, tokens, arguments, layers = planning_of(spec, options, STEPS)
    # The first plan of a process pays for what later ones find ready; the time shown is that of a plan, not of a beginning.
    attend.plan(tokens, layer=layers[0], **arguments)
    attend = compiled(spec, options)
    plans = [(layer, attend.plan(tokens, layer=layer, **arguments)) for layer in layers]
    alike: list[tuple[list[int], Plan]] = []
    for layer, found in plans:
        for members, known in alike:
            if known is found:  # layers whose rules come to the same are given one plan
                members.append(layer)
                break
        else:
            alike.append(([layer], found))
    geometry = plans[0][1].geometry
    return Report(
        spec.filename, dict(spec.params), geometry.batch, geometry.heads, options.layers, geometry.queries, geometry.keys, geometry.tile,
        options.backend, spec.checked.has_hidden_rules, tuple(_planned(_named(members, spec, options), found, len(alike)) for members, found in alike),
    )  # fmt: skip


def _named(planned: list[int], spec: Spec, options: argparse.Namespace) -> tuple[int, ...]:
    """The layers that a plan stands for: all there are, where the text has no word for them; none, where nobody said how many."""
    if options.layers is None:
        return ()
    return tuple(planned if spec.checked.speaks_of_layers or options.layer is not None else range(options.layers))


def planning_of(spec: Spec, options: argparse.Namespace, steps: int) -> tuple[Attention, int | tuple[int, int], dict[str, Any], list[int]]:
    """What to plan, as the flags say: the attention, its tokens, the arguments of `attend.plan`, and the layers: one where the text has no word for them."""
    from ..binding import resolve_heads, resolve_layers
    from ..time_steps import tokens_of

    resolve_layers(spec.checked, options.layers)
    inputs = inputs_of(spec, options)
    wanted = steps_of(spec, options, inputs)
    if wanted is None and spec.checked.repeats:
        wanted = steps
    tokens = tokens_of(spec.checked, wanted, options.given)
    arguments = {"heads": resolve_heads(spec.checked, options.heads), "inputs": inputs, "given": options.given}
    if getattr(options, "head_dim", None) is not None:
        arguments["head_dim"] = options.head_dim
    if getattr(options, "dtype", None) is not None:
        import torch

        arguments["dtype"] = getattr(torch, options.dtype)
    every = range(options.layers or 1) if spec.checked.speaks_of_layers else range(1)
    size = tokens[0] if spec.checked.keys is None else tokens
    return compiled(spec, options), size, arguments, list(every) if options.layer is None else [options.layer]


def compiled(spec: Spec, options: argparse.Namespace) -> Attention:
    """A new attention, which has kept no plan."""
    from ..surface import compile

    return compile(
        spec, layers=options.layers, tile=getattr(options, "tile", None), backend=getattr(options, "backend", "auto"), order=getattr(options, "order", "auto")
    )


def _planned(layers: tuple[int, ...], plan: Plan, sharing: int) -> Planned:
    from ..compiler.density import BUDGET, attended_by, total
    from ..view.tiles import tile_map

    budget = BUDGET // max(1, sharing * len(plan.groups))
    pairs = [attended_by(g, plan.program.attend, budget) for g in plan.groups]
    groups = [
        Group(g.batch, g.heads, g.queries, g.keys, tuple(_tiles(g)), g.boxes.inexact, p, g.choice, tile_map(g)) for g, p in zip(plan.groups, pairs, strict=True)
    ]
    return Planned(layers, plan.seconds, plan.nbytes, total(plan, pairs), tuple(groups))


def _tiles(group: GroupPlan) -> Iterator[Tiles]:
    from ..compiler.runs import Consumer

    of = -(-group.queries // group.tile) * -(-group.keys // group.tile)
    active = group.runs(Consumer.FORWARD).tiles
    for consumer in (Consumer.FORWARD, Consumer.DQ, Consumer.DKV):
        runs = group.runs(consumer)
        partial = runs.partial_tiles
        yield Tiles(consumer.value[0], runs.tiles - partial, partial, active - runs.tiles, of - active)
    runs = group.runs(Consumer.DKV)
    for name, gate in (("dK", "k"), ("dV", "v")):
        partial = runs.partial_tiles_where(gate)
        tiles = runs.tiles_where(gate)
        yield Tiles(name, tiles - partial, partial, active - tiles, of - active)


def _pairs(pairs: Pairs) -> dict[str, Any]:
    return {"attended": pairs.attended, "of": pairs.of, "density": pairs.density, "exact": pairs.exact}


# ------------------------------------------------------------------------------------------------ as text


def _lines(report: Report, colour: bool) -> Iterator[str]:
    values = ", ".join(f"{n} = {v}" for n, v in report.params.items())
    yield f"{report.spec}{' with ' + values if values else ''}"
    layers = [f"layers {report.layers}"] if report.layers else []
    sizes = [f"batch {report.batch}", *layers, f"heads {report.heads}", f"{report.queries:,} x {report.keys:,} tokens"]
    yield f"{', '.join(sizes)}, tile {report.tile} (backend {report.backend})"
    if len(report.plans) > 1:
        yield f"{len(report.plans)} masks among the layers, each planned once"
    if report.hidden:
        yield "`stop hidden`: this is the plan of k and v; a call makes a second one, for hidden_k and hidden_v"
    for planned in report.plans:
        yield ""
        layers = f"layer{'s' if len(planned.layers) > 1 else ''} {spans(planned.layers)}: " if planned.layers else ""
        yield f"{layers}{1000 * planned.seconds:.1f} ms, {planned.nbytes:,} bytes, {_density(planned.pairs)}"
        for number, group in enumerate(planned.groups):
            yield ""
            if report.batch > 1 or report.heads > 1:
                yield f"batch {spans(group.batch)}, heads {spans(group.heads)}: {group.queries:,} x {group.keys:,} tokens, {_density(group.pairs)}"
            yield from _table(group)
            yield from (f"  {line}" for line in group.choice.lines((group.queries, group.keys)))
            if number < MOST_DRAWN:
                yield from ("", *(f"  {line}" for line in group.drawn.lines(colour)))
            elif number == MOST_DRAWN:
                yield "  (no more maps: --format json has them all)"
    from ..view.tiles import legend

    yield from ("", legend(colour))


def _table(group: Group) -> Iterator[str]:
    head = ("tiles of", "FULL", "PARTIAL", "skipped", "EMPTY", "of")
    rows = [(t.consumer, *(f"{n:,}" for n in (t.full, t.partial, t.skipped, t.empty, t.of))) for t in group.consumers]
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    for first, *rest in (head, *rows):
        yield "  " + "  ".join([f"{first:{widths[0]}}", *(f"{x:>{w}}" for x, w in zip(rest, widths[1:], strict=True))])
    if group.inexact:
        yield f"  {group.inexact:,} tiles are called PARTIAL without having been evaluated: right, and perhaps slower than they need be"


def _density(pairs: Pairs) -> str:
    about = "" if pairs.exact else "about "
    return f"{about}{pairs.attended:,} of {pairs.of:,} pairs attended ({about}{100 * pairs.density:.4g}%)"
