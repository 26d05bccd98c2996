"""Many machines on paper: what sharing one long sequence costs, from counted work.

    .venv/bin/python benchmarks/scaling.py [--out benchmarks/results/scaling.md] [--tokens 1048576] [--ranks 64] [--repeat 3]

For each mask: the time to plan it, to deal its rows of tiles to ranks and to make one rank's plan; how even the work then is, beside other ways to divide the
rows; which keys a rank needs. Then what a layer computes and what it sends, for the sizes of a model, in the time of a card and a network whose speeds are
assumptions, named on the page. Nothing here runs on a card.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import fastest, machine, publish, table
from torch import Tensor

import srt_masks as srt
from srt_masks.compiler.part import part
from srt_masks.compiler.plan import Plan
from srt_masks.compiler.shard import deal, work_of

TILE = 128
# Of one layer, and of what it runs on.
HEADS, KEY_HEADS, HEAD_DIM, BYTES = 32, 8, 128, 2
FLOPS, NETWORK = 400e12, 50e9  # a card's products in bfloat16 a second; bytes a second that a card sends, and receives


@dataclass(frozen=True, slots=True)
class Scheme:
    name: str
    text: str
    rows: int = 1  # rows of a step
    documents: int = 0

    def inputs(self, tokens: int) -> dict[str, Any]:
        if not self.documents:
            return {}
        cuts = torch.randint(tokens, (self.documents,), generator=torch.Generator().manual_seed(0)).sort().values
        return {"doc": torch.searchsorted(cuts, torch.arange(tokens), right=True)}


SCHEMES = (
    Scheme("causal", "attend causal"),
    Scheme("window 4096", "attend causal and window(4096)"),
    Scheme("1000 documents", "input doc: int per token\nattend causal and same(doc)", documents=1000),
    Scheme("reasons, k and v stopped", "layout repeat { token, reason * 4 }\nattend causal\nstop k, v where k is reason and 0 < q.step - k.step", 5),
    Scheme("far keys stopped", "attend causal\nstop q, k, v where q.pos - k.pos >= 65536"),
)


def imbalance(work: Tensor, dealt: Sequence[Tensor]) -> float:
    """The busiest rank's work over the mean."""
    own = torch.stack([work[rows].sum() for rows in dealt])
    return float(own.max() / own.mean())


def divided(plan: Plan, ranks: int) -> list[float]:
    """How even the work is: dealt by all of it, by that of the forward, as both ends to the middle, and in stretches."""
    whole, backward = work_of(plan), work_of(plan, forward=False)
    places = torch.arange(len(whole)).tensor_split(2 * ranks)
    ends = [torch.cat([places[r], places[-1 - r]]) for r in range(ranks)]
    ways = (deal(whole, ranks), deal(whole - backward, ranks), ends, torch.arange(len(whole)).tensor_split(ranks))
    return [imbalance(whole, dealt) for dealt in ways]


def measured(scheme: Scheme, tokens: int, ranks: int, repeat: int) -> tuple[list[str], list[str], list[str]]:
    tokens -= tokens % scheme.rows
    inputs = scheme.inputs(tokens)

    def planned() -> Plan:
        return srt.compile(srt.parse(scheme.text), tile=TILE, order="natural").plan(tokens, inputs=inputs)

    plan = planned()
    dealt = deal(work_of(plan), ranks)
    shard = plan.shard(0, ranks)

    def dealing() -> None:
        for group in plan.groups:
            group.emitted.clear()
        deal(work_of(plan), ranks)

    costs = [fastest(call, repeat) * 1000 for call in (planned, dealing, lambda: part(plan, dealt[0]))]
    even = divided(plan, ranks)
    # A product of a tile with head_dim is 2 * TILE * TILE * HEAD_DIM operations, of each head.
    busiest = max(shard.every_work) * HEADS * 2 * TILE * TILE * HEAD_DIM
    seconds = busiest / FLOPS
    return (
        [scheme.name, *(f"{ms:.1f}" for ms in costs), f"{part(plan, dealt[0]).nbytes / 1e6:.2f}"],
        [scheme.name, *(f"{x:.3f}" for x in even), f"{100 * len(shard.keys) / tokens:.0f} %"],
        [scheme.name, f"{busiest / 1e12:,.2f}", f"{1000 * seconds:,.1f}", f"{1000 * sum(sent(tokens, ranks)) / NETWORK:,.1f}"],
    )


def sent(tokens: int, ranks: int) -> tuple[float, float, float]:
    """Bytes that a rank receives, and sends, for one layer of one sequence: keys and values in the forward, again in the backward, their gradients."""
    numbers = 2 * tokens * KEY_HEADS * HEAD_DIM * (ranks - 1) / ranks
    return numbers * BYTES, numbers * BYTES, numbers * 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tokens", type=int, default=1_048_576)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens, ranks = options.tokens, options.ranks
    plans, evens, times = zip(*(measured(s, tokens, ranks, options.repeat) for s in SCHEMES), strict=True)
    forward, again, back = (x / 2**30 for x in sent(tokens, ranks))
    texts = "\n".join(f"- {s.name}: `{s.text}`".replace("\n", "; ", s.text.count("\n")) for s in SCHEMES)
    page = [
        f"# Sharing a sequence of {tokens:,} tokens among {ranks} ranks",
        f"`benchmarks/scaling.py` on {machine()}. Tile {TILE}, tokens in their order, one head, batch 1.",
        texts,
        "## Plans\n\nProcessor time in milliseconds, the best of several, a text compiled anew each time. Every rank does all three; lists of its own plan in MB.",
        table(["mask", "plan ms", "deal ms", "own plan ms", "MB"], list(plans)),
        "## Balance\n\nThe busiest rank's work over the mean, forward and backward, as rows of tiles are divided; and the keys that rank 0 needs.",
        table(["mask", "dealt", "dealt by the forward alone", "both ends to the middle", "stretches", "keys needed"], list(evens)),
        f"## A layer, on paper\n\n{HEADS} heads of {HEAD_DIM}, {KEY_HEADS} key heads, bfloat16. A rank receives {forward:.2f} GiB of keys and values in the forward, "
        f"{again:.2f} GiB again in the backward, and {back:.2f} GiB of their gradients, which are added up in float32. Assumed: {FLOPS / 1e12:.0f} TFLOP/s of a "
        f"card, {NETWORK / 1e9:.0f} GB/s each way; nothing overlaps. Counted: the busiest rank's products of tiles, a PARTIAL one as 1.13.",
        table(["mask", "TFLOP", "computing ms", "sending ms"], list(times)),
    ]  # fmt: skip
    publish(page, options.out)


if __name__ == "__main__":
    main()
