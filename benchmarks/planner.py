"""What a plan costs: time, bytes, boxes looked at, runs; beside FlexAttention's create_block_mask where that can run.

    .venv/bin/python benchmarks/planner.py [--out benchmarks/results/planner.md] [--largest 16777216] [--flex 32768] [--repeat 5]

Times are processor time, the best of several runs of `attend.plan` in the order of the tokens, warm: on a callable that has planned a short call. A plan
holds the runs of the forward; those of the backward are emitted from the same boxes when they are asked for, and timed apart. Every row is measured
in a process of its own, which tells how far its peak of memory grew, inputs included. Last, over the zoo at about 8,000 tokens, how many tiles called
PARTIAL are EMPTY or FULL.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import alone, fastest, machine, peak, publish, table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from zoo_case import AT_8K, missed
from zoo_case import SCHEMES as ZOO

import srt_masks as srt
from srt_masks.compiler.plan import Plan
from srt_masks.compiler.runs import Consumer

TILE = 128
LENGTHS = (131_072, 1_048_576, 16_777_216)

Inputs = Callable[[int], dict[str, Any]]


def nothing(tokens: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Scheme:
    name: str
    text: str
    inputs: Inputs = nothing
    params: Inputs = nothing


def documents(tokens: int, count: int = 1000) -> dict[str, Any]:
    cuts = torch.randint(tokens, (count,), generator=torch.Generator().manual_seed(0)).sort().values
    return {"doc": torch.searchsorted(cuts, torch.arange(tokens), right=True)}


def prefix_of(tokens: int) -> dict[str, Any]:
    return {"prefix": 5000}


def square(tokens: int) -> dict[str, Any]:
    return {"height": int(tokens**0.5), "width": int(tokens**0.5), "side": 13}


SCHEMES = (
    Scheme("causal", "attend causal"),
    Scheme("window 4096", "attend causal and window(4096)"),
    Scheme("sinks and window", "attend causal and (window(4096) or first(4))"),
    Scheme("prefix", "input prefix: int per sequence\nattend causal or k.pos < prefix", prefix_of),
    Scheme("block diffusion", srt.zoo("block diffusion").text),
    Scheme("self reasoning, stopped", srt.zoo("self reasoning, stopped").text),
    Scheme("self reasoning, hidden", srt.zoo("self reasoning, hidden").text),
    Scheme("1000 documents", "input doc: int per token\nattend causal and same(doc)", documents),
    Scheme("packed reasoning", "layout repeat { token, reason * 4 }\ninput doc: int per step\nattend causal and same(doc)", documents),
    Scheme("registers look ahead", srt.zoo("registers look ahead").text),
    Scheme("axial columns", "attend same(pos % 1024)"),
    Scheme("neighbourhood, side 13", srt.zoo("neighbourhood attention").text, params=square),
)
# Two dimensions in the order of rows tear every box: measured to a million.
LARGEST = {"neighbourhood, side 13": LENGTHS[1]}


def sized(scheme: Scheme, length: int) -> tuple[srt.Spec, int, dict[str, Any]]:
    """The spec, its tokens, and the inputs of about so many."""
    spec = srt.parse(scheme.text, params=scheme.params(length))
    layout = spec.checked.queries
    steps = length // layout.rows_per_step if layout.rows_per_step else 0
    return spec, layout.tokens(steps), scheme.inputs(steps if any(i.axes == ("step",) for i in spec.checked.inputs) else layout.tokens(steps))


def plan_of(scheme: Scheme, length: int, repeat: int) -> tuple[Plan, float]:
    spec, tokens, inputs = sized(scheme, length)
    best, plan = float("inf"), None
    for _ in range(repeat):
        attend = srt.compile(spec, tile=TILE, order="natural", plan_memory=2**40)
        if spec.checked.queries.rows_per_step:  # not a layout of one length
            _, few, short = sized(scheme, 4096)
            attend.plan(few, inputs=short)  # what the text alone decides is found
        plan = None
        begin = time.process_time()
        plan = attend.plan(tokens, inputs=inputs)
        best = min(best, time.process_time() - begin)
    assert plan is not None
    return plan, best


def row_of(scheme: Scheme, length: int, repeat: int) -> list[str]:
    torch.set_num_threads(1)
    plan_of(scheme, 4096, 2)
    before = peak()
    plan, seconds = plan_of(scheme, length, repeat if length <= LENGTHS[1] else 2)
    grown = peak() - before
    begin = time.process_time()
    for group in plan.groups:
        group.runs(Consumer.DQ), group.runs(Consumer.DKV)
    backward = time.process_time() - begin
    runs = sum(len(g.runs(Consumer.FORWARD).kind) for g in plan.groups)
    size = sum(g.runs(Consumer.FORWARD).nbytes for g in plan.groups)
    evaluated = sum(g.boxes.evaluated for g in plan.groups)
    times = f"{1000 * seconds:.1f}", f"{1000 * backward:.1f}"
    return [scheme.name, *times, f"{evaluated:,}", f"{runs:,}", f"{size / 1e6:.2f}", f"{grown / 1e6:.0f}", f"{plan.inexact_tiles:,}"]


def precision() -> list[list[str]]:
    """Of the zoo at about 8,000 tokens: tiles called PARTIAL, by what they are."""
    rows, sums = [], [0, 0, 0]
    for scheme in (s for s in ZOO if s.name in AT_8K):
        found = missed(scheme)
        counts = [found.partial, found.empty, found.full]
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
        rows.append([scheme.name, *(f"{n:,}" for n in counts)])
    return [*rows, ["all", *(f"{n:,}" for n in sums)]]


def beside_attention(repeat: int) -> list[list[str]]:
    """Planning 4,000 documents in 32,768 tokens, beside one forward on `tiled`: 8 heads of 64, float32."""
    tokens = 32_768
    spec = srt.parse("input doc: int per token\nattend causal and same(doc)")
    inputs = documents(tokens, 4000)
    q, k, v = (torch.randn(1, 8, tokens, 64) for _ in range(3))
    plans, forwards = [], []
    for _ in range(repeat):
        attend = srt.compile(spec, backend="tiled", tile=TILE)
        begin = time.process_time()
        attend.plan(tokens, heads=8, inputs=inputs)
        middle = time.process_time()
        attend(q, k, v, inputs=inputs)  # finds the plan
        attend(q, k, v, inputs=inputs)
        plans.append(middle - begin)
        begin = time.process_time()
        attend(q, k, v, inputs=inputs)
        forwards.append(time.process_time() - begin)
    plan, forward = min(plans), min(forwards)
    return [["4000 documents", f"{1000 * plan:.1f}", f"{1000 * forward:.0f}", f"{100 * plan / forward:.1f} %"]]


def flex(length: int, repeat: int) -> list[list[str]]:
    """create_block_mask, eager, on the same two masks; compiling it takes a C++ compiler and seconds, and is left out where that fails."""
    from torch.nn.attention.flex_attention import create_block_mask

    def causal(b: Any, h: Any, q: Any, k: Any) -> Any:
        return q >= k

    def window(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) & (q - k < 4096)

    rows = []
    for scheme, mask in ((SCHEMES[0], causal), (SCHEMES[1], window)):
        _, ours = plan_of(scheme, length, repeat)
        eager = fastest(lambda mask=mask: create_block_mask(mask, None, None, length, length, device="cpu"), 2)
        compiled = first = None
        try:
            made = torch.compile(create_block_mask)
            begin = time.perf_counter()
            made(mask, None, None, length, length, device="cpu")
            first = time.perf_counter() - begin  # a C++ compiler runs beside this process
            compiled = fastest(lambda made=made, mask=mask: made(mask, None, None, length, length, device="cpu"), repeat)
        except Exception as error:
            print(f"create_block_mask does not compile here: {type(error).__name__}")
        shown = [f"{1000 * x:.1f}" if x is not None else "-" for x in (ours, eager, compiled, first)]
        rows.append([scheme.name, *shown, f"{eager / ours:.0f}x", f"{compiled / ours:.0f}x" if compiled else "-"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--largest", type=int, default=LENGTHS[-1])
    parser.add_argument("--flex", type=int, default=32_768, help="length for create_block_mask; 0: leave it out")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--note", default="", help="a sentence for the page: what else the machine was doing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    how = f"Tile {TILE}, tokens in their order; processor time, the best of {options.repeat} (of 2 beyond a million tokens), warm; milliseconds, millions of bytes."
    page = ["# What a plan costs", f"`benchmarks/planner.py` on {machine()}. {how}"]
    if options.note:
        page.append(options.note)
    for length in (n for n in LENGTHS if n <= options.largest):
        rows = []
        for scheme in SCHEMES:
            if length <= LARGEST.get(scheme.name, length):
                rows.append(alone(row_of, scheme, length, options.repeat))
                print(length, *rows[-1], sep="  ", flush=True)
        head = ["mask", "plan ms", "backward runs ms", "boxes", "runs", "MB", "peak MB", "inexact tiles"]
        page += [f"## {length:,} tokens", table(head, rows)]
    page += ["## Beside attention", table(["mask", "plan ms", "`tiled` forward ms", "share"], beside_attention(options.repeat))]
    if options.flex:
        rows = flex(options.flex, options.repeat)
        page += [
            f"## Beside create_block_mask, {options.flex:,} tokens",
            table(["mask", "ours ms", "eager ms", "compiled ms", "first compiled call ms", "eager / ours", "compiled / ours"], rows),
        ]
    page += ["## Tiles called PARTIAL, the zoo at about 8,000 tokens", table(["scheme", "PARTIAL", "really EMPTY", "really FULL"], precision())]
    publish(page, options.out)


if __name__ == "__main__":
    main()
