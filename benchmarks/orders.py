"""Orders of tokens: what the choice predicts, and what forward and backward take, in the caller's order, in the one chosen and in the best.

    .venv/bin/python benchmarks/orders.py [--out benchmarks/results/orders.md] [--repeat 3] [--others 3] [--only WORD]

Times are CPU time of one thread (neighbours do not count), the best of several, of forward and backward on `tiled`, gathering and scattering
included. Measured are the natural order, the chosen one and the next by prediction; `best` is the best of those.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measuring import fastest, machine, table

import srt_masks as srt
from srt_masks.compiler import choice
from srt_masks.compiler.choice import Choice
from srt_masks.compiler.order import NATURAL

TILE, HEAD_DIM = 128, 64


@dataclass(frozen=True, slots=True)
class Scheme:
    name: str
    text: str
    tokens: int
    heads: int = 2
    inputs: dict[str, Any] = field(default_factory=dict)


def _random(*shape: int, most: int) -> torch.Tensor:
    return torch.randint(most, shape, generator=torch.Generator().manual_seed(0))


GRID = "let row = pos // 64\nlet col = pos % 64\n"
SCHEMES = (
    Scheme("reason seen by 16 steps", "layout repeat { token, reason * 4 }\nattend causal and (k is token or q.step - k.step <= 16)", 5120),
    Scheme("reason stopped, 16 steps", srt.zoo("self reasoning, stopped").text, 5120),
    Scheme("quiet-star", srt.zoo("quiet-star").text, 4092),
    Scheme("registers look ahead", srt.zoo("registers look ahead").text, 4096),
    Scheme("summaries", srt.zoo("summaries").text, 8320),
    Scheme("XLNet", srt.zoo("xlnet").text, 4096, inputs={"rank": torch.randperm(2048, generator=torch.Generator().manual_seed(0))}),
    Scheme("strided", "attend causal and (q.pos - k.pos) % 64 == 0", 4096),
    Scheme("dilated", "attend causal and dilated(256, 4)", 4096),
    Scheme("16 clusters", srt.zoo("clusters").text, 4096, 1, {"cluster": _random(4096, 1, most=16)}),
    Scheme("16 clusters, two heads", srt.zoo("clusters").text, 4096, 2, {"cluster": _random(4096, 2, most=16)}),
    Scheme("axial columns", "attend same(pos % 64)", 4096),
    Scheme("shifted windows", f"{GRID}attend same((row + 4) // 8) and same((col + 4) // 8)", 4096),
    Scheme("neighbourhood, 13 x 13", f"{GRID}attend abs(q.row - k.row) <= 6 and abs(q.col - k.col) <= 6", 4096),
    Scheme("thoughts are dropped", "input thought: bool per token\nattend causal and (not k.thought or q.pos - k.pos < 512)", 4096, inputs={"thought": _random(4096, most=2).bool()}),
    Scheme("documents", "input doc: int per token\nattend causal and same(doc)", 4096, inputs={"doc": torch.arange(4096) // 300}),
)  # fmt: skip


def plan_choice(scheme: Scheme) -> tuple[Choice, float]:
    """The choice, and how long it takes when nothing of it is known."""
    best, found = float("inf"), None
    for _ in range(3):
        choice.forget()
        plan = srt.compile(srt.parse(scheme.text), tile=TILE).plan(scheme.tokens, heads=scheme.heads, inputs=scheme.inputs)
        found = plan.groups[0].choice
        best = min(best, found.seconds)
    assert found is not None
    return found, best


def measured(scheme: Scheme, order: str, repeat: int) -> float:
    attend = srt.compile(srt.parse(scheme.text), tile=TILE, order=order)
    generator = torch.Generator().manual_seed(0)
    q, k, v, dout = (torch.randn(1, scheme.heads, scheme.tokens, HEAD_DIM, generator=generator) for _ in range(4))
    leaves = [x.requires_grad_() for x in (q, k, v)]

    def call() -> None:
        torch.autograd.grad(attend(*leaves, inputs=scheme.inputs), leaves, dout)

    call()  # plans
    return fastest(call, repeat)


def row_of(scheme: Scheme, repeat: int, others: int) -> tuple[list[str], float]:
    """A line of the table, and the time of the chosen order over the best."""
    found, seconds = plan_choice(scheme)
    by_work = sorted(found.trials, key=lambda t: t.work)
    names = list(dict.fromkeys([NATURAL, found.name, *(t.name for t in by_work[:others])]))
    times = {name: measured(scheme, name, repeat) for name in names}
    best = min(times, key=lambda n: times[n])
    natural, chosen = next((t for t in found.trials if t.name == NATURAL), None), found.trial

    def tiles(trial: Any) -> str:
        return "-" if trial is None else f"{trial.full}+{trial.partial}"

    print(*(f"{n}: {1000 * t:.0f} ms" for n, t in times.items()), sep="; ", flush=True)
    excess = times[found.name] / times[best]
    line = [
        scheme.name, f"{scheme.tokens}", f"{scheme.heads}", tiles(natural), found.name, tiles(chosen), f"{chosen.work if chosen else 1:.2f}",
        f"{times[found.name] / times[NATURAL]:.2f}", f"{1000 * times[NATURAL]:.0f}", f"{1000 * times[found.name]:.0f}", best, f"{excess:.2f}",
        f"{len(found.trials)}", f"{1000 * seconds:.0f}",
    ]  # fmt: skip
    return line, excess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--others", type=int, default=3)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, excesses = [], []
    for scheme in SCHEMES:
        if options.only in scheme.name:
            line, excess = row_of(scheme, options.repeat, options.others)
            rows.append(line)
            excesses.append(excess)
            print(*line, sep="  ", flush=True)
    head = [
        "mask", "tokens", "heads", "natural, FULL+PARTIAL", "chosen", "FULL+PARTIAL", "work predicted", "time measured", "natural ms", "chosen ms",
        "best measured", "chosen / best", "orders tried", "choice ms",
    ]  # fmt: skip
    text = "\n\n".join(
        [
            "# What an order of tokens saves",
            f"`benchmarks/orders.py` on {machine()}. Tile {TILE}, head_dim {HEAD_DIM}, float32, `tiled`: forward and backward with the gathers and "
            f"scatters of q, k, v, out and their gradients, CPU time, the best of {options.repeat}. Work and time are shares of the natural order's; `best "
            f"measured` is the best of the natural order, the chosen one and the {options.others} of least predicted work. The choice is timed with "
            "nothing known; one that depends on the text alone is made once.",
            table(head, rows),
            f"The chosen order takes at most {max(excesses, default=1):.2f} times the best measured.",
        ]
    )
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
