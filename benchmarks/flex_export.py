"""What a FlexAttention user saves: a plan exported as a BlockMask, beside create_block_mask, eager and compiled.

    .venv/bin/python benchmarks/flex_export.py [--out benchmarks/results/flex_export.md] [--lengths 8192 32768 131072] [--eager 8192] [--repeat 3]

One thread; processor time of this process, the best of several runs, warm; but the first compiled call, which compiles in other processes, by the clock.
Each BlockMask is held to that of create_block_mask: the same tiles. A new mask is a new text, or a new closure, on both sides.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

import srt_masks as srt

TILE = 128
NEAR, REASONS, HORIZON = 4096, 4, 16


@dataclass(frozen=True, slots=True)
class Scheme:
    """A mask twice: as a text with its inputs, and as somebody writes it for FlexAttention."""

    name: str
    text: str
    inputs: Callable[[int], dict[str, Any]]
    mask_mod: Callable[[dict[str, Any]], Callable[..., Any]]


def documents(tokens: int) -> dict[str, Any]:
    cuts = torch.randint(tokens, (99,), generator=torch.Generator().manual_seed(0)).sort().values
    return {"doc": torch.searchsorted(cuts, torch.arange(tokens), right=True)}


def of_documents(inputs: dict[str, Any]) -> Callable[..., Any]:
    doc = inputs["doc"]
    return lambda b, h, q, k: (q >= k) & (doc[q] == doc[k])


def of_reasoning(inputs: dict[str, Any]) -> Callable[..., Any]:
    width = REASONS + 1

    def mask_mod(b: Any, h: Any, q: Any, k: Any) -> Any:
        ahead = q // width - k // width
        return (q >= k) & ((k % width == 0) | (ahead <= HORIZON))

    return mask_mod


def nothing(tokens: int) -> dict[str, Any]:
    return {}


SCHEMES = (
    Scheme("causal", "attend causal", nothing, lambda inputs: lambda b, h, q, k: q >= k),
    Scheme(f"window {NEAR}", f"attend causal and window({NEAR})", nothing, lambda inputs: lambda b, h, q, k: (q >= k) & (q - k < NEAR)),
    Scheme("100 documents", "input doc: int per token\nattend causal and same(doc)", documents, of_documents),
    Scheme(
        "reasons, near only",
        f"layout repeat {{ token, reason * {REASONS} }}\nattend causal and (k is token or q.step - k.step <= {HORIZON})",
        nothing,
        of_reasoning,
    ),
)


def ours(scheme: Scheme, tokens: int, inputs: dict[str, Any]) -> BlockMask:
    attend = srt.compile(srt.parse(scheme.text), tile=TILE, order="natural")
    return attend.plan(tokens, inputs=inputs).to_flex(device="cpu")


def best(call: Callable[[], BlockMask], repeat: int) -> tuple[float, BlockMask]:
    least, made = float("inf"), None
    for _ in range(repeat):
        begin = time.process_time()
        made = call()
        least = min(least, time.process_time() - begin)
    assert made is not None
    return least, made


def row_of(scheme: Scheme, tokens: int, eager: int, repeat: int) -> list[str]:
    tokens -= tokens % 5 if "layout" in scheme.text else 0
    inputs = scheme.inputs(tokens)
    seconds, mask = best(lambda: ours(scheme, tokens, inputs), 5)
    mod = scheme.mask_mod(inputs)

    def theirs(make: Any) -> BlockMask:
        return make(mod, None, None, tokens, tokens, device="cpu", BLOCK_SIZE=TILE)

    plain = best(lambda: theirs(create_block_mask), 1)[0] if tokens <= eager else None
    torch.compiler.reset()
    compiled = torch.compile(create_block_mask)
    begin = time.perf_counter()
    theirs(compiled)
    first = time.perf_counter() - begin
    again, other = best(lambda: theirs(compiled), repeat)
    assert torch.equal(mask.to_dense(), other.to_dense()), "the two masks differ"
    shown = [f"{1000 * x:,.1f}" if x is not None else "-" for x in (seconds, plain, again)]
    ratios = [f"{plain / seconds:,.0f}x" if plain is not None else "-", f"{again / seconds:,.0f}x"]
    return [scheme.name, f"{tokens:,}", *shown, f"{first:.1f}", *ratios]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8_192, 32_768, 131_072])
    parser.add_argument("--eager", type=int, default=8_192, help="longest length for eager create_block_mask, which takes 10 GB at 32,768")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    head = ["mask", "tokens", "plan + to_flex, ms", "eager, ms", "compiled, ms", "first compiled call, s", "eager / ours", "compiled / ours"]
    machine = f"{os.cpu_count()} cores ({platform.machine()}), one used; Python {platform.python_version()}, torch {torch.__version__}"
    said = (
        f"`benchmarks/flex_export.py` on {machine}. Tile {TILE}, one head, full-width lists; compiling the text is part of ours. Processor time, the best of "
        f"5 (ours) and {options.repeat}, warm; the first compiled call by the clock, on a machine that others used too. Each pair of masks was found equal, tile by tile."
    )
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    for tokens in options.lengths:
        for scheme in SCHEMES:
            lines.append(row_of(scheme, tokens, options.eager, options.repeat))
            print(*lines[-1], sep="  ", flush=True)
            table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
            page = ["# A BlockMask, from a plan and from create_block_mask", said, table, "`-`: not run, for want of memory."]
            if options.out:  # after each row: what has been measured is kept if a later one takes too long
                options.out.write_text("\n\n".join(page) + "\n")


if __name__ == "__main__":
    main()
