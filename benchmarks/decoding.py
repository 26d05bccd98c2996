"""What planning costs a decoding step: a call on one new token after another, each over everything before it.

    .venv/bin/python benchmarks/decoding.py [--out benchmarks/results/decoding.md] [--context 8192] [--steps 1000]

Processor time of `attend.plan(..., queries=)`, one thread, averaged over the steps; and how many plans were made for all of them. The first step,
which makes the plan that the others cut their rows out of, is timed apart.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import srt_masks as srt

HEADS = 8
REASONING = "layout repeat { token, reason * 4 }\nattend causal\nstop k, v where k is reason and 0 < q.step - k.step <= 16"
DOCUMENTS = "input doc: int per token\nattend causal and same(doc)"

Arguments = Callable[[int], dict[str, Any]]


def last(tokens: int) -> dict[str, Any]:
    return {"queries": range(tokens - 1, tokens)}


def cases(context: int, steps: int) -> list[tuple[str, str, Arguments]]:
    """Name, text, and the arguments of a call over so many tokens."""
    most = context + steps
    doc = torch.arange(most) // 500

    def rows(tokens: int) -> dict[str, Any]:
        ends = [tokens - 37 * row for row in range(32)]
        return {"queries": [n - 1 for n in ends], "lengths": ends}

    return [
        ("causal", "attend causal", last),
        ("window 1024", "attend causal and window(1024)", last),
        ("self reasoning, stopped", REASONING, last),
        ("heads of two kinds", "attend causal and (head % 2 == 0 or window(1024))", last),
        ("causal, 32 rows of the batch at places of their own", "attend causal", rows),
        ("documents, all known", DOCUMENTS, lambda n: {"tokens": most, "doc": doc, "lengths": [n], **last(n)}),
        ("documents that grow: planned every step", DOCUMENTS, lambda n: {"doc": doc[:n], **last(n)}),
        ("a text that reads `length`: planned every step", "attend causal and q.pos < length", last),
    ]


def measure(text: str, arguments: Arguments, context: int, steps: int) -> tuple[float, float, int]:
    """Milliseconds of the first step, of each of the others, and plans made."""
    attend = srt.compile(srt.parse(text))

    def step(tokens: int) -> None:
        options = arguments(tokens)
        attend.plan(options.pop("tokens", tokens), heads=HEADS, **options)

    times = []
    for tokens in (context, *range(context + 1, context + 1 + steps)):
        begin = time.process_time()
        step(tokens)
        times.append(1000 * (time.process_time() - begin))
    return times[0], sum(times[1:]) / steps, attend.plans.made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure("attend causal", last, 256, 10)  # warm
    lines = [
        "# What planning costs a decoding step",
        "",
        f"`benchmarks/decoding.py` on one core ({platform.machine()}); Python {platform.python_version()}, torch {torch.__version__}. Tile 128, {HEADS} heads,",
        f"{options.steps:,} steps from {options.context:,} tokens; processor time in milliseconds.",
        "",
        "| text | first step | each of the others | plans made |",
        "| --- | --: | --: | --: |",
    ]
    for name, text, arguments in cases(options.context, options.steps + 1):
        first, others, made = measure(text, arguments, options.context, options.steps)
        lines.append(f"| {name} | {first:.1f} | {others:.2f} | {made:,} |")
        print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
