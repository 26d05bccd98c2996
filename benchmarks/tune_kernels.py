"""Time candidate configs of each Triton kernel on the card that is here: what the table in `kernels/configs.py` should say.

    python benchmarks/tune_kernels.py [--out DIR] [--length 16384] [--head-dims 64 128] [--workers 14] [--seconds 120]

First all candidates are compiled by several processes, without the card; then each kernel is timed by itself, on one plan, against the time of the
config that the table has now. A candidate that spills is timed, too: only a card can say whether that matters.

`--dry-run` does all of it without a card: it compiles some candidates for an sm_90, and launches others once in Triton's interpreter, at a tiny length.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)
if "--dry-run" in sys.argv and __name__ == "__main__":  # and not in the processes that compile
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from places import IS_DRY, PLACE, folder

import srt_masks as srt
from srt_masks.kernels import launch, packing
from srt_masks.kernels.backend import Operands
from srt_masks.kernels.call import Call
from srt_masks.kernels.cards import CARDS
from srt_masks.kernels.configs import Config, Configs, Kernel
from srt_masks.kernels.fit import from_table
from srt_masks.kernels.offline import offline
from srt_masks.kernels.target import target_of

TILE = 32 if IS_DRY else 128
SPECS = {
    "plain": "layout repeat { token, reason * 4 }\nlet soon = k is reason and 0 < q.step - k.step <= 16\nattend causal\nstop k, v where soon",
    "apart": "input doc: int per token\nattend causal and same(doc)\nstop k where q.pos - k.pos >= 512\nscale v by 0.5 where (q.pos - k.pos) % 4 == 0",
}
CHOSEN: dict[Kernel, Config] = {}


@dataclass(frozen=True)
class Case:
    spec: str
    kernel: Kernel
    head_dim: int
    config: Config
    card: int


def candidates(kernel: Kernel, head_dim: int, card: int) -> Iterator[Config]:
    for rows, wide, warps, stages in itertools.product((64, 128), (32, 64, 128), (4, 8), (2, 3)):
        if card == 90 and rows < 16 * warps:
            continue  # a warp would repeat another's products
        if rows * wide * (2 if kernel is Kernel.FORWARD else 3) > 128 * 128 * 3:
            continue
        if (rows + 2 * stages * wide) * head_dim * 2 * (2 if kernel is Kernel.DKV else 1) > 300 * 1024:
            continue
        yield Config(rows, wide, warps, stages)


def _choice(compiled: Any, operands: Operands) -> Callable[[Any, int], Configs]:
    """The configs of a run are those of CHOSEN, and the table's where there is none: nothing steps down, since what spills is timed, too."""
    found = from_table(target_of(compiled, operands), operands)
    for kernel, config in CHOSEN.items():
        found = found.but(kernel, config)
    return lambda source, tile: found.within(tile)


def _patched() -> None:
    launch.choice = _choice  # type: ignore[assignment]


def inputs_of(spec: str, tokens: int) -> dict[str, Any]:
    return {"doc": torch.arange(tokens) // max(1, tokens // 4)} if spec == "apart" else {}


def compile_case(case: Case) -> str:
    """Compiles every kernel of a call with one config, for the cache on disk."""
    _patched()
    CHOSEN.clear()
    CHOSEN[case.kernel] = case.config
    tokens = 5 * TILE
    q, k, v = (torch.randn(1, 2, tokens, case.head_dim, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    try:
        with offline(case.card, lambda *_: None):
            out = srt.compile(srt.parse(SPECS[case.spec]), backend="triton", tile=TILE)(q, k, v, **inputs_of(case.spec, tokens))
            if case.kernel is not Kernel.FORWARD:
                out.sum().backward()
    except Exception as error:  # what does not compile is no candidate
        return f"{type(error).__name__}: {error}"[:200]
    return ""


class Bench:
    """One spec on one plan: each kernel can be launched by itself."""

    def __init__(self, spec: str, head_dim: int, length: int, heads: int):
        self.compiled_spec = srt.compile(srt.parse(SPECS[spec]), backend="triton", tile=TILE)
        self.length = length // 5 * 5 if spec == "plain" else length
        self.compiled = self.compiled_spec.compiled
        self.q, self.k, self.v, self.dout = (torch.randn(1, heads, self.length, head_dim, dtype=torch.bfloat16, device=PLACE.device) for _ in range(4))
        self.plan = self.compiled_spec.plan(self.length, heads=heads, dtype=torch.bfloat16, head_dim=head_dim, inputs=inputs_of(spec, self.length))
        self.operands = Operands.of(self.q, self.k, self.v)
        self.table = from_table(target_of(self.compiled, self.operands), self.operands)

    def call(self) -> Call:
        choose = _choice(self.compiled, self.operands)
        packed = packing.pack(self.plan, self.compiled, choose, self.q.device)
        return Call(self.q, self.k, self.v, packed, self.compiled, self.q.shape[-1] ** -0.5, choose)

    def launcher(self, kernel: Kernel) -> Callable[[], Any]:
        call = self.call()
        attended = call.forward()
        if kernel is Kernel.FORWARD:
            return call.forward
        rows = call.prepare(attended, self.dout, None)
        if kernel is Kernel.DQ:
            return lambda: call.query_gradient(self.dout, rows)
        return lambda: call.key_gradients(self.dout, rows, True, True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder for tune_kernels.json and tune_kernels.md")
    parser.add_argument("--length", type=int, default=80 if IS_DRY else 16_384)
    parser.add_argument("--heads", type=int, default=1 if IS_DRY else 16)
    parser.add_argument("--head-dims", type=int, nargs="+", default=[32] if IS_DRY else [64, 128])
    parser.add_argument("--specs", nargs="+", default=list(SPECS), choices=list(SPECS))
    parser.add_argument("--card", type=int, choices=CARDS, default=90 if IS_DRY else None, help="compile for this one, and time nothing, where there is none")
    parser.add_argument("--workers", type=int, default=1 if IS_DRY else 14, help="processes that compile beforehand; 0: compile what is timed")
    parser.add_argument("--seconds", type=float, default=120, help="stop timing after so many seconds")
    parser.add_argument("--dry-run", action="store_true", help="everything at tiny sizes, without a card")
    return parser.parse_args()


def cases_of(options: argparse.Namespace, card: int) -> list[Case]:
    cases = []
    for spec, head_dim, kernel in itertools.product(options.specs, options.head_dims, Kernel):
        some = list(candidates(kernel, head_dim, card))
        cases += [Case(spec, kernel, head_dim, config, card) for config in (some[:2] if IS_DRY else some)]
    return cases


def compile_all(cases: list[Case], workers: int) -> dict[Case, str]:
    """What is wrong with each candidate, as far as compiling it shows."""
    jobs = [case for case in cases if case.spec == "plain"][::4] if IS_DRY else cases
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        broken = dict(zip(jobs, pool.map(compile_case, jobs, chunksize=2), strict=True))
    for why in sorted(filter(None, set(broken.values())))[:5]:
        print("  ", why)
        assert not IS_DRY, why
    return broken


def time_all(cases: list[Case], options: argparse.Namespace, until: float, write: Callable[[list[dict[str, Any]]], None]) -> None:
    """Writes a row for each candidate and for what the table has now, and what there is after each kernel: a card may be lent for a time."""
    _patched()
    rows: list[dict[str, Any]] = []
    for spec, head_dim in itertools.product(options.specs, options.head_dims):
        bench = Bench(spec, head_dim, options.length, options.heads)
        for kernel in Kernel:
            now = bench.table.of(kernel)
            mine = [c.config for c in cases if (c.spec, c.kernel, c.head_dim) == (spec, kernel, head_dim)]
            for config in dict.fromkeys([now, *mine]):
                if time.monotonic() > until:
                    print("out of time")
                    break
                CHOSEN.clear()
                CHOSEN[kernel] = config
                try:
                    ms = PLACE.milliseconds(bench.launcher(kernel), 20, 5)
                except Exception as error:
                    print(spec, head_dim, kernel.name, config, f"{type(error).__name__}: {error}"[:120], flush=True)
                    if IS_DRY:
                        raise
                    continue
                rows.append({"spec": spec, "head_dim": head_dim, "kernel": kernel.name, "config": str(config), "ms": ms, "now": config == now})
            write(rows)
            print("\n".join(lines(rows, spec, head_dim, kernel)), flush=True)


def lines(rows: list[dict[str, Any]], spec: str, head_dim: int, kernel: Kernel, most: int = 6) -> list[str]:
    """Of a table: the config that `kernels/configs.py` has now, and the fastest ones."""
    mine = sorted((r for r in rows if (r["spec"], r["head_dim"], r["kernel"]) == (spec, head_dim, kernel.name)), key=lambda r: r["ms"])
    shown = mine[:most] + [r for r in mine[most:] if r["now"]]
    return [f"| {spec} | {head_dim} | {kernel.name} | {r['config']}{' (now)' if r['now'] else ''} | {r['ms']:.3f} |" for r in shown]


def main() -> None:
    options = arguments()
    begin = time.monotonic()
    card = options.card or 10 * torch.cuda.get_device_capability()[0] + torch.cuda.get_device_capability()[1]
    cases = cases_of(options, card)
    print(len(cases), "candidates", flush=True)
    if options.workers:
        broken = compile_all(cases, options.workers)
        cases = [case for case in cases if not broken.get(case)]
        print(f"compiled in {time.monotonic() - begin:.0f} s; {sum(map(bool, broken.values()))} do not compile", flush=True)
    if not (torch.cuda.is_available() or IS_DRY):
        return
    import triton

    about = f"{PLACE.name}, torch {torch.__version__}, triton {triton.__version__}; bfloat16, {options.length} tokens, {options.heads} heads"
    out = folder(options.out)

    def write(rows: list[dict[str, Any]]) -> None:
        if out is not None:
            found = [line for s, d, kernel in itertools.product(options.specs, options.head_dims, Kernel) for line in lines(rows, s, d, kernel)]
            head = [f"`benchmarks/tune_kernels.py` on {about}.", "", "| spec | head_dim | kernel | config | ms |", "|---|--:|---|---|--:|"]
            (out / "tune_kernels.md").write_text("\n".join([*head, *found, ""]))
            (out / "tune_kernels.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1))

    time_all(cases, options, begin + options.seconds, write)
    if out is not None:
        print(f"written to {out}")


if __name__ == "__main__":
    main()
