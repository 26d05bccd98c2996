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

`--dry-run` does all of it on a CPU, at tiny sizes, in Triton's interpreter, and fails if a contender does or is not right. FlexAttention has no backward
there: its forward is held to a dense stand-in, which reads the same BlockMask and has one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)
if "--dry-run" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from places import IS_DRY, PLACE, folder
from torch import Tensor

import srt_masks as srt
from srt_masks.compiler.boxes import PARTIAL
from srt_masks.compiler.plan import Plan
from srt_masks.compiler.runs import Consumer

TILE = 16 if IS_DRY else 128
STEP, HORIZON = 5, 4 if IS_DRY else 16
WINDOW = DOCUMENT = 24 if IS_DRY else 1024
WRONG = 0.03  # a difference from ours that rounding does not explain


@dataclass(frozen=True)
class Spec:
    text: str
    causal: bool = False  # whether SDPA has a name for it
    stops: bool = False  # whether it has a rule that Flex needs a trick for
    documents: int = 0


SPECS = {
    "causal": Spec("attend causal", causal=True),
    "window": Spec(f"attend causal and window({WINDOW})"),
    "documents": Spec("input doc: int per token\nattend causal and same(doc)", documents=DOCUMENT),
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
        return {"doc": torch.arange(self.tokens, device=PLACE.device) // count} if count else {}


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
    if IS_DRY:
        return flex_in_a_dry_run
    import torch._functorch.config
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.config.cache_size_limit = 64
    torch._functorch.config.donated_buffer = False  # a backward that is timed runs many times on one graph
    return torch.compile(flex_attention, dynamic=False)


def flex_in_a_dry_run(q: Tensor, k: Tensor, v: Tensor, *, block_mask: Any, return_lse: bool = False) -> Any:
    """Dense attention by the tiles and the mask of a BlockMask: what flex_attention, whose forward it is held to, has no backward of on a CPU."""
    from torch.nn.attention.flex_attention import create_mask, flex_attention

    queries, keys = q.shape[2], k.shape[2]

    def pairs(counts: Tensor, indices: Tensor) -> Tensor:
        tiles = torch.zeros(-(-queries // TILE), -(-keys // TILE), dtype=torch.bool)
        for row, count in enumerate(counts[0, 0].tolist()):
            tiles[row, indices[0, 0, row, :count].long()] = True
        return tiles.repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)[:queries, :keys]

    wanted = create_mask(block_mask.mask_mod, 1, 1, queries, keys, device="cpu")[0, 0]
    partial = pairs(block_mask.kv_num_blocks, block_mask.kv_indices)
    seen = pairs(block_mask.full_kv_num_blocks, block_mask.full_kv_indices) | partial & wanted
    assert torch.equal(seen, wanted), "the lists of a BlockMask and its mask differ"
    scores = (q.float() @ k.float().mT * q.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf)
    out, lse = scores.softmax(-1).nan_to_num().to(q.dtype) @ v, scores.logsumexp(-1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        theirs = flex_attention(*(x.detach() for x in (q, k, v)), block_mask=block_mask, return_lse=True)
    torch.testing.assert_close(out.detach(), theirs[0], rtol=WRONG, atol=WRONG)
    torch.testing.assert_close(lse.detach(), theirs[1].float(), rtol=WRONG, atol=WRONG)
    return (out, lse) if return_lse else out


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
        found = tiles.sum(1).int(), tiles.int().argsort(dim=1, descending=True, stable=True).int()
        return found[0][None, None].to(PLACE.device), found[1][None, None].to(PLACE.device)

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
    generator = torch.Generator(PLACE.device).manual_seed(0)
    shape, dtype = (1, case.heads, case.tokens, case.head_dim), getattr(torch, case.dtype)
    return [torch.randn(shape, dtype=dtype, device=PLACE.device, generator=generator) for _ in range(4)]


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


def attended(case: Case) -> int:
    """The same, counted."""
    return int(srt.compile(srt.parse(case.about.text)).plan(case.tokens, inputs=case.inputs).to_dense().sum())


def results(attend: Attend, case: Case) -> list[Tensor]:
    q, k, v, dout = tensors(case)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = attend(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, dout)]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x.float() - y.float()).norm() / y.float().norm()) for x, y in zip(a, b, strict=True))


def measure(name: str, make: Callable[[Case], Attend], case: Case, truth: list[Tensor] | None, rep: int) -> tuple[dict[str, Any], list[Tensor]]:
    attend = make(case)
    found = results(attend, case)
    row: dict[str, Any] = {"spec": case.spec, "head_dim": case.head_dim, "tokens": case.tokens, "heads": case.heads, "contender": name}
    truth = found if name == "triton" else truth
    row["difference"] = float("nan") if truth is None else difference(found, truth)  # nan: ours failed, and there is nothing to compare with
    q, k, v, dout = tensors(case)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    row["peak MB"] = PLACE.peak(lambda: torch.autograd.grad(attend(*leaves), leaves, dout, retain_graph=True)) / 2**20
    row["forward ms"] = PLACE.milliseconds(lambda: attend(*leaves), rep, rep // 4)
    out = attend(*leaves)
    row["backward ms"] = PLACE.milliseconds(lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True), rep, rep // 4)
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
        mine = [x for x in rows if x["contender"] == "triton" and all(x[n] == r[n] for n in ("spec", "head_dim", "tokens"))]
        ratio = (r["forward ms"] + r["backward ms"]) / (mine[0]["forward ms"] + mine[0]["backward ms"]) if mine else float("nan")
        cells = [r["spec"], r["head_dim"], f"{r['tokens']:,}", r["contender"], f"{r['forward ms']:.3f}", f"{r['forward TFLOP/s']:.0f}", f"{r['backward ms']:.3f}", f"{r['backward TFLOP/s']:.0f}", f"{ratio:.2f}", f"{r['peak MB']:.0f}", f"{r['difference']:.1e}"]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def page(about: str, rows: list[dict[str, Any]]) -> str:
    return "\n".join(
        [
            "# Attention on a card", "", f"`benchmarks/gpu_attention.py` on {about}.",
            f"Window {WINDOW}; documents of {DOCUMENT} tokens; self reasoning: one word and {STEP - 1} reasoning tokens a step, k and v stopped for {HORIZON} steps.",
            "`difference`: the largest of out, dq, dk, dv from ours, as norm of the difference over norm. `peak MB`: beyond what was held before the call.", "",
            table(rows), "",
        ]
    )  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder for gpu_attention.json and gpu_attention.md")
    parser.add_argument("--lengths", type=int, nargs="+", default=[80] if IS_DRY else [8_192, 32_768])
    parser.add_argument("--head-dims", type=int, nargs="+", default=[16] if IS_DRY else [64, 128])
    parser.add_argument("--specs", nargs="+", default=list(SPECS), choices=list(SPECS))
    parser.add_argument("--heads", type=int, default=1 if IS_DRY else 16)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--workers", type=int, default=1 if IS_DRY else 8)
    parser.add_argument("--compile-only", action="store_true", help="stop when everything is compiled, in the caches of Triton and Inductor")
    parser.add_argument("--rep", type=int, default=60, help="milliseconds that each median is taken over")
    parser.add_argument("--longest", type=int, default=96 if IS_DRY else 0, help="one more length, for causal and self reasoning at the last head_dim")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing after so many seconds")
    parser.add_argument("--dry-run", action="store_true", help="everything at tiny sizes, without a card")
    return parser.parse_args()


def cases_of(options: argparse.Namespace) -> list[Case]:
    cases = [Case(s, d, n, options.heads, options.dtype) for n in options.lengths for d in options.head_dims for s in options.specs]
    if options.longest:
        cases += [Case(s, options.head_dims[-1], options.longest, options.heads, options.dtype) for s in options.specs if s in ("causal", "self reasoning")]
    return cases


def compile_all(cases: list[Case], workers: int) -> None:
    jobs = [(case, name) for case in cases for name in contenders(case) if name not in ("sdpa", "tiled")]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for trouble in filter(None, pool.map(warm, jobs[:2] if IS_DRY else jobs)):
            print(trouble, flush=True)
            assert not IS_DRY, trouble


def measure_all(cases: list[Case], rep: int, until: float, write: Callable[[list[dict[str, Any]]], None]) -> None:
    """Writes a row for each contender of each case, and what there is after each case: a card may be lent for a time."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        assert not IS_DRY or pairs(case) == attended(case), case
        truth = None
        for name, make in contenders(case).items():
            if time.monotonic() > until:
                print("out of time: not measured:", case, name)
                continue
            try:
                row, found = measure(name, make, case, truth, rep)
            except Exception as error:
                print(f"{case} {name}: {type(error).__name__}: {error}"[:300], flush=True)
                if IS_DRY:
                    raise
                continue
            truth = found if name == "triton" else truth
            rows.append(row)
            print({n: round(x, 4) if isinstance(x, float) else x for n, x in row.items()}, flush=True)
            assert not IS_DRY or row["difference"] < WRONG, f"{name} is wrong: {row}"
        PLACE.tidy()
        write(rows)


def main() -> None:
    options = arguments()
    begin = time.monotonic()
    cases = cases_of(options)
    if options.workers:
        compile_all(cases, options.workers)
        print(f"compiled in {time.monotonic() - begin:.0f} s", flush=True)
    if options.compile_only:
        return
    import triton

    about = f"{PLACE.name}, torch {torch.__version__}, triton {triton.__version__}; {options.dtype}, batch 1, {options.heads} heads; tile of our plan by config"
    out = folder(options.out)

    def write(rows: list[dict[str, Any]]) -> None:
        if out is not None:
            (out / "gpu_attention.md").write_text(page(about, rows))
            (out / "gpu_attention.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1))

    measure_all(cases, options.rep, begin + options.seconds, write)
    if out is not None:
        print((out / "gpu_attention.md").read_text())
        print(f"written to {out}")


if __name__ == "__main__":
    main()
