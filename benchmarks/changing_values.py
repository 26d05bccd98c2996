"""What another value of a param costs: a hundred horizons of one compiled attention, each planned anew, none compiled.

Writes benchmarks/results/changing_values.md with `--out`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from measuring import alone, fastest, machine, publish, table

import srt_masks as srt

TEXT = """\
param horizon = 0
attend causal
stop k, v where 0 < q.pos - k.pos <= horizon
"""
VALUES, HEADS, HEAD_DIM = 100, 2, 64
CALLS, PLANS = (24, 512, 2048), (24, 512, 2048, 8192, 131_072, 1_048_576)


def compiled() -> str:
    """What Triton compiles for the first value, and for all others, by the launcher's own keys for an H100, which need not be there."""
    from srt_masks.kernels.offline import offline

    attend, kernels = srt.compile(srt.parse(TEXT), backend="triton"), set()
    counts = []
    with offline(90, lambda name, config, made: kernels.add((name, made.hash))):
        for horizon in range(VALUES):
            q, k, v = (torch.randn(1, HEADS, 512, HEAD_DIM, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
            attend(q, k, v, horizon=horizon).sum().backward()
            counts.append(len(kernels))
    return f"{counts[0]} kernels for the first value, {counts[-1] - counts[0]} for the {VALUES - 1} others"


def plan_time(tokens: int) -> float:
    """Seconds a value."""
    attend = srt.compile(srt.parse(TEXT))
    values = iter(range(4 * VALUES))  # never one that was planned before
    return fastest(lambda: [attend.plan(tokens, heads=HEADS, horizon=next(values)) for _ in range(VALUES)], 3) / VALUES


def call_times(tokens: int) -> tuple[float, float]:
    """Seconds of a forward and backward pass: with a value that the call before had, and with one that no call had."""
    attend = srt.compile(srt.parse(TEXT), backend="tiled")
    q, k, v = (torch.randn(1, HEADS, tokens, HEAD_DIM, requires_grad=True) for _ in range(3))
    values = iter(range(4 * VALUES))

    def call(horizon: int) -> None:
        attend(q, k, v, horizon=horizon).sum().backward()

    call(0)
    repeat = VALUES if tokens < 1000 else VALUES // 5
    return fastest(lambda: [call(0) for _ in range(repeat)], 3) / repeat, fastest(lambda: [call(next(values)) for _ in range(repeat)], 3) / repeat


def report() -> list[str]:
    torch.set_num_threads(1)
    plans = [[f"{tokens:,}", f"{1000 * plan_time(tokens):.1f}"] for tokens in PLANS]
    calls = [[f"{tokens:,}", *(f"{1000 * seconds:.1f}" for seconds in call_times(tokens))] for tokens in CALLS]
    return [
        "# Another value of a param",
        f"`benchmarks/changing_values.py` on {machine()}. Processor time, the best of 3, of {VALUES} horizons of this text:",
        f"```mask\n{TEXT}```",
        f"Compiled by Triton, for sm_90, bfloat16, {HEADS} heads of {HEAD_DIM}, forward and backward: {alone(compiled, method='spawn')}. `tiled` compiles nothing at all.",
        "## A plan",
        table(["tokens", "ms a new value"], plans),
        f"## A forward and backward pass of `tiled`, float32, {HEADS} heads of {HEAD_DIM}",
        table(["tokens", "ms, a known value", "ms, a new value"], calls),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    publish(report(), parser.parse_args().out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
