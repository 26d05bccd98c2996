"""Compile the Triton kernels for cards that are not here, and say what they take: `make kernels-report`.

For each spec, card, head_dim and dtype: registers, spills, shared memory, matrix instructions, loads, compile time, and how many
kernels one spec needs. Fails on a spill, a config that does not fit, a product without matrix instructions, and rows < 16 * warps on sm_90 (where a warp would repeat
another's work). Nothing is timed: only a card can say how fast a kernel is. Results are kept in `.kernels-report/`, by the content
of everything they depend on, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)  # nothing is compiled in the interpreter; asked when triton is imported

from srt_masks.kernels.offline import SHARED_BYTES, offline, resources

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".kernels-report"
DOCUMENTS = "input doc: int per token\n{}attend causal and same(doc){}\nstop k where q.pos - k.pos >= 512\nscale v by 0.5 where (q.pos - k.pos) % 4 == 0"
SPECS = {
    "causal": "attend causal",
    "self reasoning": (ROOT / "examples" / "self_reasoning.mask").read_text(),
    # dK and dV part ways, one gate is a factor, a table is read at each pair.
    "documents, table": DOCUMENTS.format("input keep: bool per query, key\n", " and keep"),
}
# Only with --full: the other rows of the table of configs.
MORE_SPECS = {"documents": DOCUMENTS.format("", "")}
HEAD_DIMS, ALL_HEAD_DIMS = (64, 128), (32, 64, 128, 256)
DTYPES, ALL_DTYPES = ("bfloat16", "float16"), ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Task:
    spec: str
    capability: int
    head_dim: int
    dtype: str
    grouped: bool = False
    tile: int | None = None

    def key(self) -> str:
        """Of everything the result depends on: the text, the sources and the versions."""
        import torch
        import triton

        sources = [p.read_bytes() for folder in ("kernels", "compiler", "grammar") for p in sorted((ROOT / "srt_masks" / folder).glob("*.*"))]
        about = repr((self, (SPECS | MORE_SPECS)[self.spec], torch.__version__, triton.__version__)).encode()
        return hashlib.sha256(b"\0".join([*sources, about, Path(__file__).read_bytes()])).hexdigest()[:24]


def compile_all(task: Task) -> list[dict]:
    """Every kernel that a forward and a backward of the task launch, one row each."""
    import torch

    import srt_masks as srt

    rows: list[dict] = []
    begin = time.perf_counter()

    def record(name: str, config, compiled) -> None:
        nonlocal begin
        seconds = time.perf_counter() - begin  # from the kernel before; the first one's includes the plan
        taken = resources(compiled)
        problems = []
        # Configs shrunk to a tile of the user's have to compile and fit; nothing is promised of their speed.
        if taken.stack and task.tile is None:
            problems.append(f"spills {taken.stack} bytes")
        if taken.shared > SHARED_BYTES[task.capability]:
            problems.append(f"{taken.shared} bytes of shared memory")
        if name not in ("live_kernel", "prepare_kernel") and task.dtype != "float32" and not taken.matrix:
            problems.append("no matrix instruction")
        if task.tile is None and task.capability == 90 and taken.matrix and config.rows < 16 * config.warps:
            problems.append("rows < 16 x warps")
        rows.append({**asdict(task), "kernel": name, "config": str(config), **asdict(taken), "seconds": seconds, "problems": problems})
        begin = time.perf_counter()

    spec = srt.parse((SPECS | MORE_SPECS)[task.spec])
    tokens = 5 * 128
    dtype, key_heads = getattr(torch, task.dtype), 2 if task.grouped else 4
    q, k, v = (torch.randn(1, heads, tokens, task.head_dim, dtype=dtype, requires_grad=True) for heads in (4, key_heads, key_heads))
    known = {"doc": torch.zeros(tokens, dtype=torch.int64), "keep": torch.ones(tokens, tokens, dtype=torch.bool)}
    inputs = {name: known[name] for name in spec.inputs}
    try:
        with offline(task.capability, record):
            srt.compile(spec, backend="triton", tile=task.tile)(q, k, v, **inputs).sum().backward()
    except srt.BackendError as error:  # a row the table leaves open
        return [{**asdict(task), "refused": str(error)}]
    return rows


def _work(task: Task) -> list[dict]:
    path = CACHE / f"{task.key()}.json"
    if path.exists():
        return json.loads(path.read_text())
    # Triton's own caches would make compile times those of the second time: this one, and that of the process (one task each).
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        rows = compile_all(task)
    with tempfile.NamedTemporaryFile("w", dir=CACHE, delete=False) as file:
        json.dump(rows, file)
    os.replace(file.name, path)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one spec, one card: seconds")
    parser.add_argument("--full", action="store_true", help="every row of the table of configs: an hour")
    parser.add_argument("--out", type=Path, help="also write the report here, as Markdown")
    options = parser.parse_args()
    tasks = [Task(s, c, d, t) for c in SHARED_BYTES for s in SPECS for d in HEAD_DIMS for t in DTYPES]
    tasks += [Task("self reasoning", c, d, "bfloat16", grouped=True) for c in SHARED_BYTES for d in HEAD_DIMS]
    if options.short:
        tasks = [Task("self reasoning", 90, 64, "bfloat16"), Task("documents, table", 80, 64, "float16"), Task("causal", 90, 64, "bfloat16", tile=16)]
    if options.full:
        specs = SPECS | MORE_SPECS
        tasks = [Task(s, c, d, t, g) for c in SHARED_BYTES for s in specs for d in ALL_HEAD_DIMS for t in ALL_DTYPES for g in (False, True)]
    CACHE.mkdir(exist_ok=True)
    os.environ["SRT_MASKS_CACHE"] = str(CACHE / "predicates")
    from tqdm import tqdm

    rows: list[dict] = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = [pool.submit(_work, task) for task in tasks]
        for done in tqdm(as_completed(waiting), total=len(tasks), desc="compiling", unit="task", disable=None):
            rows += done.result()
    rows.sort(key=lambda r: (r["capability"], list(SPECS | MORE_SPECS).index(r["spec"]), r["head_dim"], r["dtype"], r["grouped"]))
    text = report(rows)
    print(text)
    if options.out:
        options.out.write_text(text)
    return int(any(r.get("problems") for r in rows))


def report(rows: list[dict]) -> str:
    import torch
    import triton

    refused = [r for r in rows if "refused" in r]
    rows = [r for r in rows if "refused" not in r]
    lines = [
        "# What the Triton kernels take", "",
        f"Compiled with triton {triton.__version__} (torch {torch.__version__}) on {platform.machine()} without a GPU. *Not timed* here; `tune_kernels.md` and `gpu_attention.md` are what a card showed.",
        "Tile: what a program owns x what it takes a step, warps, stages. Loads: of 16 bytes / all, and straight into shared memory.", "",
        "| card | spec | head_dim | dtype | kernel | tile | registers | spills B | shared KB | matrix instr. | loads | async | compile s | |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    needed: dict[tuple, int] = {}
    for r in rows:
        name = r["spec"] + (", 2 query heads a key head" if r["grouped"] else "")
        case = (name, r["capability"], r["head_dim"], r["dtype"])
        needed[case] = needed.get(case, 0) + 1
        lines.append(
            f"| sm_{r['capability']} | {name} | {r['head_dim']} | {r['dtype']} | {r['kernel'].removesuffix('_kernel')} | {r['config']} | {r['registers']} | {r['stack']} "
            f"| {r['shared'] / 1024:.1f} | {r['matrix']} | {r['vector_loads']}/{r['loads']} | {r['async_loads']} | {r['seconds']:.1f} | {'; '.join(r['problems'])} |"
        )
    broken = [r for r in rows if r["problems"]]
    lines += [
        "",
        f"{len(rows)} kernels, {len(broken)} with problems. Compiles that one spec needs, forward and backward with all gradients: {max(needed.values(), default=0)}.",
    ]
    if refused:
        lines += ["", "Refused, because no config that was tried is without spills:", ""]
        lines += [f"- sm_{r['capability']}, {r['spec']}, head_dim {r['head_dim']}, {r['dtype']}{', grouped heads' if r['grouped'] else ''}" for r in refused]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
