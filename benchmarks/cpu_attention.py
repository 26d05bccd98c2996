"""Attention on the CPU: `tiled` beside torch's own, forward and backward, in one run.

    .venv/bin/python benchmarks/cpu_attention.py [--out benchmarks/results/cpu_attention.md] [--repeat 5] [--only WORD] [--flex] [--note TEXT]

Contenders, where they can do a thing at all:
  tiled     this library
  masked    scaled_dot_product_attention with a dense additive mask, made beforehand
  causal    scaled_dot_product_attention(is_causal=True)
  flex      FlexAttention, compiled, its forward alone (it has no backward on the CPU), with a BlockMask of our plan's tiles; needs --flex and a C++ compiler

Times are processor time of one thread (neighbours do not count, but for the caches they share), the best of several, of more where a call is short;
contenders take turns, so that a slow minute slows all of them. No contender but `tiled` knows gradient rules: they are timed without. Peaks of memory
are measured in processes of their own, beyond inputs, output and gradients.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measuring import alone, machine, peak, publish, table
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import srt_masks as srt

HEADS, HEAD_DIM = 8, 64
STOPS = "layout repeat { token, reason * 4 }\nlet soon = k is reason and 0 < q.step - k.step <= 16\nattend causal\nstop k, v where soon"
MYOPIC = "attend causal\nstop k, v where k.step < q.step"
DOCUMENTS = "input doc: int per token\nattend causal and same(doc)"


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two contenders' times that is wanted: at most, or at least. `part`: forward, backward or both."""

    over: str
    under: str
    bound: float
    at_most: bool
    part: str = "both"

    def line(self, times: dict[str, tuple[float, float]]) -> str:
        ratio = _part(times[self.over], self.part) / _part(times[self.under], self.part)
        is_met = ratio <= self.bound if self.at_most else ratio >= self.bound
        what = "" if self.part == "both" else f"{self.part}, "
        return (
            f"{what}{self.over} / {self.under} = {ratio:.2f}, wanted {'at most' if self.at_most else 'at least'} {self.bound}: {'met' if is_met else 'missed'}"
        )


def _part(times: tuple[float, float], part: str) -> float:
    return {"forward": times[0], "backward": times[1], "both": sum(times)}[part]


def faster(factor: float) -> Goal:
    return Goal("masked", "tiled", factor, at_most=False)


def within(bound: float, of: str = "causal") -> Goal:
    return Goal("tiled", of, bound, at_most=True)


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    text: str
    tokens: int
    goals: tuple[Goal, ...]
    inputs: dict[str, Any] = field(default_factory=dict)
    without: str = ""  # the text without its rule, timed too

    @property
    def is_causal(self) -> bool:
        """Whether every causal pair is attended, and no other."""
        return "attend causal\n" in self.text + "\n"


def documents(tokens: int) -> dict[str, Any]:
    """Documents of 512 to 1024 tokens, packed."""
    lengths = torch.randint(512, 1025, (tokens // 512,), generator=torch.Generator().manual_seed(0))
    return {"doc": torch.arange(len(lengths)).repeat_interleave(lengths)[:tokens]}


CASES = (
    Case("window 256", "attend causal and window(256)", 2048, (faster(4),)),
    Case("window 256", "attend causal and window(256)", 8192, (faster(14),)),
    Case("causal", "attend causal", 2048, (within(1.1),)),
    Case("causal", "attend causal", 8192, (within(1.1),)),
    Case("stop rules, R=4", STOPS, 8190, (within(1.2), faster(1.6))),
    Case("documents", DOCUMENTS, 8192, (faster(8),), documents(8192)),
    Case("k, v stopped on earlier steps", MYOPIC, 2048, (Goal("no rule", "tiled", 1.3, False, "backward"),), without="attend causal"),
    Case("k, v stopped on earlier steps", MYOPIC, 8192, (Goal("no rule", "tiled", 1.3, False, "backward"),), without="attend causal"),
    Case("causal", "attend causal", 512, (within(1.5, "masked"),)),
    Case("window 128", "attend causal and window(128)", 512, (within(1.5, "masked"),)),
    Case("stop rules, R=4", STOPS, 510, (within(1.5, "masked"),)),
)  # fmt: skip
SHORT, OFTEN = 2048, 4  # calls on at most so many tokens are timed so many times as often
PEAK_MB = 256  # wanted at 8k tokens
CONTENDERS = ("tiled", "no rule", "masked", "causal", "flex")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(text: str, inputs: dict[str, Any]) -> Attend:
    attend = srt.compile(srt.parse(text), backend="tiled")
    return lambda q, k, v: attend(q, k, v, inputs=inputs)


def masked(case: Case) -> Attend:
    dense = srt.compile(srt.parse(case.text)).plan(case.tokens, inputs=case.inputs).to_dense()[0, 0]
    mask = torch.zeros(dense.shape).masked_fill_(~dense, float("-inf"))
    return lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def flex(case: Case) -> Attend:
    from torch.nn.attention.flex_attention import flex_attention

    blocks = srt.compile(srt.parse(case.text)).plan(case.tokens, inputs=case.inputs).to_flex(gradients="drop", device="cpu")
    compiled: Any = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q.detach(), k.detach(), v.detach(), block_mask=blocks)


def contenders(case: Case, with_flex: bool) -> dict[str, Attend]:
    found = {"tiled": ours(case.text, case.inputs), "masked": masked(case)}
    if case.without:
        found["no rule"] = ours(case.without, case.inputs)
    if case.is_causal:
        found["causal"] = causal
    if with_flex:
        found["flex"] = flex(case)
    return found


def tensors(case: Case) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v, dout = (torch.randn(1, HEADS, case.tokens, HEAD_DIM, generator=generator) for _ in range(4))
    return [x.requires_grad_() for x in (q, k, v)], dout


def timed(case: Case, repeat: int, with_flex: bool) -> dict[str, tuple[float, float]]:
    """Seconds of forward and backward of every contender; no backward where it has none. Their outputs agree, or it raises."""
    leaves, dout = tensors(case)
    every = contenders(case, with_flex)
    outs = {name: attend(*leaves).detach() for name, attend in every.items()}  # plans and compiles
    for name, out in outs.items():
        torch.testing.assert_close(out, outs["tiled"], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name} on {case.name}: {text}")
    times = {name: (float("inf"), float("inf")) for name in every}
    for _ in range(repeat * (OFTEN if case.tokens <= SHORT else 1)):
        for name, attend in every.items():
            begin = time.process_time()
            out = attend(*leaves)
            middle = time.process_time()
            if out.requires_grad:
                torch.autograd.grad(out, leaves, dout)
            end = time.process_time()
            times[name] = min(times[name][0], middle - begin), min(times[name][1], end - middle) if out.requires_grad else float("nan")
    return times


def grown(case: Case) -> float:
    """Millions of bytes that forward and backward of `tiled` take, beyond inputs, output and gradients."""
    torch.set_num_threads(1)
    attend = ours(case.text, case.inputs)
    leaves, dout = tensors(case)
    short = [x[:, :, :510].detach().requires_grad_() for x in leaves]  # whatever a first call loads; whole steps of every layout
    if not case.inputs:
        attend(*short).sum().backward()
    before = peak()
    out = attend(*leaves)
    torch.autograd.grad(out, leaves, dout)
    return (peak() - before - 4 * out.nbytes) / 1e6


def row_of(case: Case, times: dict[str, tuple[float, float]]) -> list[str]:
    cells = []
    for name in CONTENDERS:
        cells.append(" + ".join("-" if x != x else f"{1000 * x:.0f}" for x in times[name]) if name in times else "")
    return [case.name, f"{case.tokens:,}", *cells, "; ".join(goal.line(times) for goal in case.goals)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--shortest", type=int, default=0)
    parser.add_argument("--longest", type=int, default=8192)
    parser.add_argument("--flex", action="store_true")
    parser.add_argument("--note", default="", help="a sentence for the page: what else the machine was doing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [c for c in CASES if options.only in c.name and options.shortest <= c.tokens <= options.longest]
    peaks = []
    for case in (c for c in cases if c.tokens > 8000):
        peaks.append([case.name, f"{case.tokens:,}", f"{alone(grown, case, method='spawn'):.0f}"])
        print(*peaks[-1], sep="  ", flush=True)
    rows = []
    for case in cases:
        rows.append(row_of(case, timed(case, options.repeat, options.flex)))
        print(*rows[-1], sep="  ", flush=True)
    how = f"float32, batch 1, {HEADS} heads of {HEAD_DIM}, tile 128; processor time, the best of {options.repeat} (of {OFTEN * options.repeat} up to {SHORT:,} tokens), contenders in turns; milliseconds, forward + backward."
    page = ["# Attention on the CPU", f"`benchmarks/cpu_attention.py` on {machine()}. {how}"]
    if options.note:
        page.append(options.note)
    page.append(table(["mask", "tokens", "`tiled`", "without its rule", "SDPA, dense mask", "SDPA, causal", "flex, forward", "ratios"], rows))
    if peaks:
        page += [
            "## Memory",
            f"Forward and backward of `tiled`, beyond inputs, output and gradients; wanted: under {PEAK_MB} MB, where one head's dense float32 mask is 268 MB.",
            table(["mask", "tokens", "MB"], peaks),
        ]
    publish(page, options.out)


if __name__ == "__main__":
    main()
