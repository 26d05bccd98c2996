"""What a plan costs: time, bytes, boxes looked at, runs; beside FlexAttention's create_block_mask where that can run.

    .venv/bin/python benchmarks/planner.py [--out benchmarks/results/planner.md] [--largest 1048576] [--flex 8192] [--repeat 5]

Times are the best of several runs of `attend.plan` in one process, warm, on a callable that has kept no plan. A plan holds the runs of the forward;
those of the backward are emitted from the same boxes when they are asked for, and timed apart.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import srt_masks as srt
from srt_masks.compiler.plan import Plan
from srt_masks.compiler.runs import Consumer

TILE = 128
LENGTHS = (131_072, 1_048_576, 16_777_216)

Inputs = Callable[[int], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Scheme:
    name: str
    text: str
    inputs: Inputs = field(default=lambda tokens: {})


def documents(tokens: int, count: int = 1000) -> dict[str, Any]:
    cuts = torch.randint(tokens, (count,), generator=torch.Generator().manual_seed(0)).sort().values
    return {"doc": torch.searchsorted(cuts, torch.arange(tokens), right=True)}


SCHEMES = (
    Scheme("causal", "attend causal"),
    Scheme("window 4096", "attend causal and window(4096)"),
    Scheme("sinks and window", "attend causal and (window(4096) or first(4))"),
    Scheme("prefix", "input prefix: int per sequence\nattend causal or k.pos < prefix", lambda tokens: {"prefix": 5000}),
    Scheme("block diffusion", srt.zoo("block diffusion").text),
    Scheme("self reasoning, stopped", srt.zoo("self reasoning, stopped").text),
    Scheme("self reasoning, hidden", srt.zoo("self reasoning, hidden").text),
    Scheme("1000 documents", "input doc: int per token\nattend causal and same(doc)", documents),
    Scheme("packed reasoning", "layout repeat { token, reason * 4 }\ninput doc: int per step\nattend causal and same(doc)", documents),
    Scheme("registers look ahead", srt.zoo("registers look ahead").text),
    Scheme("axial columns", "attend same(pos % 1024)"),
)


def plan_of(scheme: Scheme, length: int, repeat: int) -> tuple[Plan, float]:
    spec = srt.parse(scheme.text)
    layout = spec.checked.queries
    steps = length // layout.rows_per_step
    inputs = scheme.inputs(steps if any(i.axes == ("step",) for i in spec.checked.inputs) else layout.tokens(steps))
    best, plan = float("inf"), None
    for _ in range(repeat):
        attend = srt.compile(spec, tile=TILE)
        begin = time.perf_counter()
        plan = attend.plan(layout.tokens(steps), inputs=inputs)
        best = min(best, time.perf_counter() - begin)
    assert plan is not None
    return plan, best


def row_of(scheme: Scheme, length: int, repeat: int) -> list[str]:
    plan, seconds = plan_of(scheme, length, repeat)
    begin = time.perf_counter()
    for group in plan.groups:
        group.runs(Consumer.DQ), group.runs(Consumer.DKV)
    backward = time.perf_counter() - begin
    runs = sum(len(g.runs(Consumer.FORWARD).kind) for g in plan.groups)
    size = sum(g.runs(Consumer.FORWARD).nbytes for g in plan.groups)
    evaluated = sum(g.boxes.evaluated for g in plan.groups)
    return [scheme.name, f"{1000 * seconds:.1f}", f"{1000 * backward:.1f}", f"{evaluated:,}", f"{runs:,}", f"{size / 1e6:.2f}", f"{plan.inexact_tiles:,}"]


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
        eager = _best(lambda mask=mask: create_block_mask(mask, None, None, length, length, device="cpu"), 2)
        compiled = first = None
        try:
            made = torch.compile(create_block_mask)
            begin = time.perf_counter()
            made(mask, None, None, length, length, device="cpu")
            first = time.perf_counter() - begin
            compiled = _best(lambda made=made, mask=mask: made(mask, None, None, length, length, device="cpu"), repeat)
        except Exception as error:
            print(f"create_block_mask does not compile here: {type(error).__name__}")
        shown = [f"{1000 * x:.1f}" if x is not None else "-" for x in (ours, eager, compiled, first)]
        rows.append([scheme.name, *shown, f"{eager / ours:.0f}x", f"{compiled / ours:.0f}x" if compiled else "-"])
    return rows


def _best(call: Callable[[], object], repeat: int) -> float:
    best = float("inf")
    for _ in range(repeat):
        begin = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begin)
    return best


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--largest", type=int, default=LENGTHS[1])
    parser.add_argument("--flex", type=int, default=32_768, help="length for create_block_mask; 0: leave it out")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), one used; Python {platform.python_version()}, torch {torch.__version__}"
    page = ["# What a plan costs", f"`benchmarks/planner.py` on {machine}. Tile {TILE}; the best of {options.repeat}, warm; milliseconds, millions of bytes."]
    for length in (n for n in LENGTHS if n <= options.largest):
        rows = []
        for scheme in SCHEMES:
            rows.append(row_of(scheme, length, options.repeat))
            print(length, *rows[-1], sep="  ", flush=True)
        page += [f"## {length:,} tokens", table(["mask", "plan ms", "backward runs ms", "boxes", "runs", "MB", "inexact tiles"], rows)]
    if options.flex:
        rows = flex(options.flex, options.repeat)
        page += [
            f"## Beside create_block_mask, {options.flex:,} tokens",
            table(["mask", "ours ms", "eager ms", "compiled ms", "first compiled call ms", "eager / ours", "compiled / ours"], rows),
        ]
    text = "\n\n".join(page) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
