"""Forward and backward on a card: ours, FlexAttention, and SDPA, on the same masks and gradient rules.

    python benchmarks/gpu_attention.py [--out DIR] [--lengths 8192 32768] [--longest 131072] [--head-dims 64 128] [--specs causal ...] [--workers 8]

Contenders, where they can do a thing at all:
  triton      this library's kernels
  tiled       this library's torch backend on the same card, at the shortest length
  flex        FlexAttention, compiled, with a BlockMask of our plan's tiles (so that nobody waits for create_block_mask)
  flex twice  a rule that stops k and v, by two FlexAttention calls merged by lse: pairs that teach, and pairs that do not, on detached k and v
  flex keys   the same rule with twice the keys: k and v followed by their detached selves, and a mask that picks one of the two
  sdpa        torch's scaled_dot_product_attention, causal, where the mask is causal and there is no rule

Every contender's output and gradients are compared with ours before anything is timed. Times are medians of CUDA events. TFLOP/s count attended pairs only:
4 * head_dim operations a pair forward, 10 * head_dim backward. `--workers` compile FlexAttention's kernels beforehand, in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import torch
from torch import Tensor

import srt_masks as srt
from srt_masks.compiler.boxes import PARTIAL
from srt_masks.compiler.plan import Plan
from srt_masks.compiler.runs import Consumer

TILE = 128
STEP, HORIZON, WINDOW = 5, 16, 1024


@dataclass(frozen=True)
class Spec:
    text: str
    causal: bool = False  # whether SDPA has a name for it
    stops: bool = False  # whether it has a rule that Flex needs a trick for
    documents: int = 0


SPECS = {
    "causal": Spec("attend causal", causal=True),
    "window": Spec(f"attend causal and window({WINDOW})"),
    "documents": Spec("input doc: int per token\nattend causal and same(doc)", documents=1024),
    "self reasoning": Spec(
        f"layout repeat {{ token, reason * {STEP - 1} }}\nlet soon = k is reason and 0 < q.step - k.step <= {HORIZON}\nattend causal\nstop k, v where soon",
        stops=True,
    ),
}


@dataclass(frozen=True)
class Case:
    spec: str
    head_dim: int
    length: int
    heads: int
    dtype: str = "bfloat16"

    @property
    def about(self) -> Spec:
        return SPECS[self.spec]

    @property
    def tokens(self) -> int:
        # Whole steps and whole tiles: `flex keys` needs both.
        return self.length // (STEP * TILE) * STEP * TILE if self.about.stops else self.length

    @property
    def inputs(self) -> dict[str, Tensor]:
        count = self.about.documents
        return {"doc": torch.arange(self.tokens, device="cuda") // count} if count else {}


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


# ------------------------------------------------------------------------------------------------ contenders


def ours(case: Case) -> Attend:
    attend = srt.compile(srt.parse(case.about.text), backend="triton")
    inputs = case.inputs
    return lambda q, k, v: attend(q, k, v, inputs=inputs)


def tiled(case: Case) -> Attend:
    attend = srt.compile(srt.parse(case.about.text), backend="tiled")
    inputs = case.inputs
    return lambda q, k, v: attend(q, k, v, inputs=inputs)


def sdpa(case: Case) -> Attend:
    from torch.nn.functional import scaled_dot_product_attention

    return lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)


@cache
def _flex() -> Any:
    import torch._functorch.config
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.config.cache_size_limit = 64
    torch._functorch.config.donated_buffer = False  # a backward that is timed runs many times on one graph
    return torch.compile(flex_attention, dynamic=False)


def tile_map(plan: Plan) -> tuple[Tensor, Tensor]:
    """Which tiles are PARTIAL and which FULL, bool (rows, cols), of a plan with one group."""
    (group,) = plan.groups
    runs = group.runs(Consumer.FORWARD)
    rows, cols = (-(-n // plan.geometry.tile) for n in (group.queries, group.keys))
    partial, full = torch.zeros(rows, cols, dtype=torch.bool), torch.zeros(rows, cols, dtype=torch.bool)
    ptr = runs.ptr.tolist()
    for row in range(rows):
        for i in range(ptr[row], ptr[row + 1]):
            where = slice(int(runs.first[i]), int(runs.first[i] + runs.count[i]))
            (partial if int(runs.kind[i]) & PARTIAL else full)[row, where] = True
    return partial, full


def block_mask(text: str, case: Case, mask_mod: Any, repeat: bool = False) -> Any:
    """A BlockMask with the tiles of our plan of `text`; `repeat`: the keys come twice, and so do the tiles."""
    from torch.nn.attention.flex_attention import BlockMask

    plan = srt.compile(srt.parse(text), tile=TILE, backend="tiled").plan(case.tokens, inputs={n: x.cpu() for n, x in case.inputs.items()})
    partial, full = tile_map(plan)
    if repeat:  # each copy of a tile holds some of its pairs
        partial, full = torch.cat([partial | full] * 2, 1), torch.zeros(full.shape[0], 2 * full.shape[1], dtype=torch.bool)

    def lists(tiles: Tensor) -> tuple[Tensor, Tensor]:
        return tiles.sum(1).int()[None, None].cuda(), tiles.int().argsort(dim=1, descending=True, stable=True).int()[None, None].cuda()

    keys = case.tokens * (1 + repeat)
    return BlockMask.from_kv_blocks(*lists(partial), *lists(full), BLOCK_SIZE=TILE, mask_mod=mask_mod, seq_lengths=(case.tokens, keys))


def mask_of(case: Case) -> Any:
    doc = case.inputs.get("doc")
    match case.spec:
        case "window":
            return lambda b, h, q, k: (q >= k) & (q - k < WINDOW)
        case "documents":
            return lambda b, h, q, k: (q >= k) & (doc[q] == doc[k])
        case _:
            return lambda b, h, q, k: q >= k


def flex(case: Case) -> Attend:
    mask = block_mask(case.about.text, case, mask_of(case))
    return lambda q, k, v: _flex()(q, k, v, block_mask=mask)


def _soon(q: Any, k: Any) -> Any:
    away = q // STEP - k // STEP
    return (k % STEP != 0) & (away > 0) & (away <= HORIZON)


def flex_twice(case: Case) -> Attend:
    text = case.about.text.split("attend")[0]
    teach = block_mask(text + "attend causal and not soon", case, lambda b, h, q, k: (q >= k) & ~_soon(q, k))
    stopped = block_mask(text + "attend causal and soon", case, lambda b, h, q, k: (q >= k) & _soon(q, k))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (a, lse_a), (b, lse_b) = (_flex()(q, *kv, block_mask=mask, return_lse=True) for kv, mask in (((k, v), teach), ((k.detach(), v.detach()), stopped)))
        # Rows of the second may be empty: their lse is -inf.
        share = torch.sigmoid(lse_a - lse_b)[..., None].to(a.dtype)
        return a * share + b * (1 - share)

    return attend


def flex_keys(case: Case) -> Attend:
    n = case.tokens

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        own = torch.where(k < n, k, k - n)
        return (q >= own) & (_soon(q, own) == (k >= n))

    tiles = block_mask(case.about.text, case, mask, repeat=True)
    return lambda q, k, v: _flex()(q, torch.cat([k, k.detach()], 2), torch.cat([v, v.detach()], 2), block_mask=tiles)


def contenders(case: Case) -> dict[str, Callable[[Case], Attend]]:
    found: dict[str, Callable[[Case], Attend]] = {"triton": ours}
    if case.about.stops:
        found |= {"flex twice": flex_twice, "flex keys": flex_keys}
    else:
        found |= {"flex": flex}
    if case.about.causal:
        found |= {"sdpa": sdpa}
    return found | ({"tiled": tiled} if case.length <= 8192 else {})


# ------------------------------------------------------------------------------------------------ measuring


def tensors(case: Case) -> list[Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)
    return [torch.randn(1, case.heads, case.tokens, case.head_dim, dtype=getattr(torch, case.dtype), device="cuda", generator=generator) for _ in range(4)]


def pairs(case: Case) -> int:
    """Attended pairs of one head."""
    n = case.tokens
    match case.spec:
        case "window":
            w = min(WINDOW, n)
            return w * (w + 1) // 2 + (n - w) * w
        case "documents":
            d = case.about.documents
            return n // d * (d * (d + 1) // 2) + (n % d) * (n % d + 1) // 2
        case _:
            return n * (n + 1) // 2


def results(attend: Attend, case: Case) -> list[Tensor]:
    q, k, v, dout = tensors(case)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = attend(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, dout)]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x.float() - y.float()).norm() / y.float().norm()) for x, y in zip(a, b, strict=True))


def measure(name: str, make: Callable[[Case], Attend], case: Case, truth: list[Tensor] | None, rep: int) -> tuple[dict[str, Any], list[Tensor]]:
    from triton.testing import do_bench

    attend = make(case)
    found = results(attend, case)
    row: dict[str, Any] = {"spec": case.spec, "head_dim": case.head_dim, "tokens": case.tokens, "heads": case.heads, "contender": name}
    row["difference"] = difference(found, truth) if truth is not None else 0.0
    q, k, v, dout = tensors(case)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    out = attend(*leaves)
    torch.autograd.grad(out, leaves, dout, retain_graph=True)
    torch.cuda.synchronize()
    row["peak MB"] = (torch.cuda.max_memory_allocated() - held) / 2**20
    row["forward ms"] = do_bench(lambda: attend(*leaves), warmup=rep // 4, rep=rep, return_mode="median")
    row["backward ms"] = do_bench(lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True), warmup=rep // 4, rep=rep, return_mode="median")
    work = pairs(case) * case.heads * case.head_dim
    row["forward TFLOP/s"] = 4 * work / row["forward ms"] / 1e9
    row["backward TFLOP/s"] = 10 * work / row["backward ms"] / 1e9
    return row, found


def warm(case_and_name: tuple[Case, str]) -> str:
    """Compile what a contender needs, for the caches on disk."""
    case, name = case_and_name
    try:
        results(contenders(case)[name](case), case)
    except Exception as error:
        return f"{case.spec} {name}: {type(error).__name__}: {error}"[:300]
    return ""


def table(rows: list[dict[str, Any]]) -> str:
    head = ["spec", "head_dim", "tokens", "contender", "forward ms", "TFLOP/s", "backward ms", "TFLOP/s", "both, ours = 1", "peak MB", "difference"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * 2 + "---|" + "--:|" * 7]
    for r in rows:
        mine = next(x for x in rows if x["contender"] == "triton" and all(x[n] == r[n] for n in ("spec", "head_dim", "tokens")))
        ratio = (r["forward ms"] + r["backward ms"]) / (mine["forward ms"] + mine["backward ms"])
        cells = [r["spec"], r["head_dim"], f"{r['tokens']:,}", r["contender"], f"{r['forward ms']:.3f}", f"{r['forward TFLOP/s']:.0f}", f"{r['backward ms']:.3f}", f"{r['backward TFLOP/s']:.0f}", f"{ratio:.2f}", f"{r['peak MB']:.0f}", f"{r['difference']:.1e}"]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder for gpu_attention.json and gpu_attention.md")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8_192, 32_768])
    parser.add_argument("--head-dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--specs", nargs="+", default=list(SPECS), choices=list(SPECS))
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--compile-only", action="store_true", help="stop when everything is compiled, in the caches of Triton and Inductor")
    parser.add_argument("--rep", type=int, default=60, help="milliseconds that each median is taken over")
    parser.add_argument("--longest", type=int, default=0, help="one more length, for causal and self reasoning at the last head_dim")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing after so many seconds")
    options = parser.parse_args()
    begin = time.monotonic()
    cases = [Case(s, d, n, options.heads, options.dtype) for n in options.lengths for d in options.head_dims for s in options.specs]
    if options.longest:
        cases += [Case(s, options.head_dims[-1], options.longest, options.heads, options.dtype) for s in options.specs if s in ("causal", "self reasoning")]
    if options.workers:
        jobs = [(case, name) for case in cases for name in contenders(case) if name not in ("sdpa", "tiled")]
        with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for trouble in pool.map(warm, jobs):
                if trouble:
                    print(trouble, flush=True)
        print(f"compiled in {time.monotonic() - begin:.0f} s", flush=True)
    if options.compile_only:
        return
    import triton

    rows: list[dict[str, Any]] = []
    for case in cases:
        truth = None
        for name, make in contenders(case).items():
            if time.monotonic() - begin > options.seconds:
                print("out of time: not measured:", case, name)
                continue
            try:
                row, found = measure(name, make, case, truth, options.rep)
            except Exception as error:
                print(f"{case} {name}: {type(error).__name__}: {error}"[:300], flush=True)
                continue
            truth = truth if truth is not None else found
            rows.append(row)
            print({n: round(x, 4) if isinstance(x, float) else x for n, x in row.items()}, flush=True)
        torch.cuda.empty_cache()
    about = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}; {options.dtype}, batch 1, {options.heads} heads; tile of our plan by config"
    text = "\n".join(
        [
            "# Attention on a card", "", f"`benchmarks/gpu_attention.py` on {about}.",
            f"Window {WINDOW}; documents of {SPECS['documents'].documents} tokens; self reasoning: one word and {STEP - 1} reasoning tokens a step, k and v stopped for {HORIZON} steps.",
            "`difference`: the largest of out, dq, dk, dv from ours, as norm of the difference over norm. `peak MB`: beyond what was held before the call.", "",
            table(rows), "",
        ]
    )  # fmt: skip
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "gpu_attention.md").write_text(text)
        (options.out / "gpu_attention.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
